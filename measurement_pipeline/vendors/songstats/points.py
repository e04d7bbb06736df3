"""Parses the points of a history: which are counts, which are dropped, and why. Pure.

Falls and plateaus are kept as received. Only values that are not counts are dropped, and tallied by reason.
"""

from collections import Counter
from datetime import date
from functools import lru_cache
from typing import Any

from measurement_pipeline.domain.dates import parse_date
from measurement_pipeline.domain.outcome import DailyCount, History
from measurement_pipeline.domain.play_count import MAX_COUNT, UnusableCountError, read_count

# The year of Spotify's foundation. A date long before it would make a series of a million missing days.
_EARLIEST = date(2006, 1, 1)

_DATE_LENGTH = len("YYYY-MM-DD")
_MISSING = object()


def read_points(points: list[Any]) -> History:
    """Parse the points of one platform: JSON values whose non-integers were kept as text.

    A point needs a date and a play count. Of two points with the same date the last one wins. Popularity follows the same rules,
    but is dropped without a tally.
    """
    counts: dict[date, int] = {}
    levels: dict[date, int] = {}
    dropped: Counter[str] = Counter()
    for point in points:
        text = point.get("date") if type(point) is dict else None
        # Other lengths are not looked up: the cache would keep a megabyte of text.
        day = _usable_day(text) if type(text) is str and len(text) == _DATE_LENGTH else None
        if day is None:
            dropped[_why_without_day(point)] += 1
            continue
        value = point.get("streams_total", _MISSING)
        # The common case without a function call: a payload has 1,000 points.
        if type(value) is not int or not 0 <= value <= MAX_COUNT:
            try:
                value = _read_play_count(value)
            except UnusableCountError as reason:
                dropped[str(reason)] += 1
                value = None
        if value is not None:
            if day in counts:
                dropped["same date twice"] += 1
            counts[day] = value
        level = point.get("popularity_current")
        if level is not None:
            if type(level) is not int or not 0 <= level <= MAX_COUNT:
                try:
                    level = read_count(level)
                except UnusableCountError:
                    continue
            levels[day] = level
    return History(_sort_by_day(counts), _sort_by_day(levels), dict(dropped))


def _sort_by_day(series: dict[date, int]) -> tuple[DailyCount, ...]:
    return tuple(map(DailyCount._make, sorted(series.items())))


# Cached, because the histories of a run consist of the same days.
@lru_cache(maxsize=16_384)
def _usable_day(text: str) -> date | None:
    """A point's date, as YYYY-MM-DD and in no other form: a moment in an unknown time zone does not name a day."""
    day = parse_date(text)
    return day if day is not None and day >= _EARLIEST else None


def _why_without_day(point: object) -> str:
    """The reason under which a point without a usable date is tallied."""
    if type(point) is not dict:
        return "not an object"
    return "without a readable date" if parse_date(point.get("date")) is None else "before there was streaming"


def _read_play_count(value: object) -> int:
    if value is _MISSING:
        raise UnusableCountError("missing")
    return read_count(value)
