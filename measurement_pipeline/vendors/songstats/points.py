"""The points of a history, read one by one: which are figures, which are left out, and why.

Pure. Falls and plateaus are kept as they came; only what is no count at all is left out, and
tallied.
"""

from collections import Counter
from datetime import date
from typing import Any

from measurement_pipeline.domain.outcome import DailyCount, History
from measurement_pipeline.domain.play_count import MAX_COUNT, UnusableCountError, read_count

# Spotify was founded then; a day of long before would make a series of a million missing days.
_EARLIEST = date(2006, 1, 1)

_DATE_LENGTH = len("YYYY-MM-DD")

_MISSING = object()


class _DroppedError(Exception):
    """A point that is no figure; the message is the reason under which it is tallied."""


def read_points(points: list[Any]) -> History:
    """Read the points of one platform, as JSON values with non-integers left as text.

    A point needs a date and a play count; of two on the same date the last wins. Popularity is read
    by the same rules, and left out without a word where it is no figure.
    """
    counts: dict[date, int] = {}
    levels: dict[date, int] = {}
    dropped: Counter[str] = Counter()
    for point in points:
        try:
            day = _day(point)
        except _DroppedError as reason:
            dropped[str(reason)] += 1
            continue
        value = point.get("streams_total", _MISSING)
        # The common case, without a call: 1,000 of these are read for every payload.
        if type(value) is not int or not 0 <= value <= MAX_COUNT:
            try:
                value = _count(value)
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
    return History(_ascending(counts), _ascending(levels), dict(dropped))


def _ascending(series: dict[date, int]) -> tuple[DailyCount, ...]:
    return tuple([DailyCount(day, series[day]) for day in sorted(series)])


def _day(point: object) -> date:
    """A point's date, YYYY-MM-DD and in no other form: a moment in an unknown zone names no day."""
    if type(point) is not dict:
        raise _DroppedError("not an object")
    text = point.get("date")
    # fromisoformat alone would also read 20250510 and 2025-W19-6.
    if type(text) is str and len(text) == _DATE_LENGTH and text[4] == text[7] == "-":
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise _DroppedError("without a readable date") from None
        if day < _EARLIEST:
            raise _DroppedError("before there was streaming")
        return day
    raise _DroppedError("without a readable date")


def _count(value: object) -> int:
    if value is _MISSING:
        raise UnusableCountError("missing")
    return read_count(value)
