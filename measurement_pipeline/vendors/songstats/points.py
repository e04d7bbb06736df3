"""Parses the points of a history: which are counts, which are dropped, and why. Pure.

Falls and plateaus are kept as received. Only values that are not counts are dropped, and tallied by reason.
"""

from collections import Counter
from datetime import date
from typing import Any

from measurement_pipeline.domain.dates import parse_date
from measurement_pipeline.domain.outcome import DailyCount, History
from measurement_pipeline.domain.play_count import MAX_COUNT, UnusableCountError, read_count

# The year of Spotify's foundation. A date long before it would make a series of a million missing days.
_EARLIEST = date(2006, 1, 1)

_MISSING = object()


class _DroppedPointError(Exception):
    """A point without a usable date. The message is the reason under which it is tallied."""


def read_points(points: list[Any]) -> History:
    """Parse the points of one platform: JSON values whose non-integers were kept as text.

    A point needs a date and a play count. Of two points with the same date the last one wins. Popularity follows the same rules,
    but is dropped without a tally.
    """
    counts: dict[date, int] = {}
    levels: dict[date, int] = {}
    dropped: Counter[str] = Counter()
    for point in points:
        try:
            day = _read_day(point)
        except _DroppedPointError as reason:
            dropped[str(reason)] += 1
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
    return tuple([DailyCount(day, series[day]) for day in sorted(series)])


def _read_day(point: object) -> date:
    """A point's date, as YYYY-MM-DD and in no other form: a moment in an unknown time zone does not name a day."""
    if type(point) is not dict:
        raise _DroppedPointError("not an object")
    day = parse_date(point.get("date"))
    if day is None:
        raise _DroppedPointError("without a readable date")
    if day < _EARLIEST:
        raise _DroppedPointError("before there was streaming")
    return day


def _read_play_count(value: object) -> int:
    if value is _MISSING:
        raise UnusableCountError("missing")
    return read_count(value)
