"""The points of a history, read one by one: which are figures, which are left out, and why.

Pure. Falls and plateaus are kept as they came; only what is no count at all is left out, and
tallied.
"""

import re
from collections import Counter
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from measurement_pipeline.domain.outcome import History, Point

# What a bigint column holds.
MAX_COUNT = 2**63 - 1

_NUMBER = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*", re.ASCII)
_NON_FINITE = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)
# No count needs more characters, and Decimal is not to be fed a megabyte of digits.
_LONGEST_NUMBER = 64
_MOST_DIGITS = 19
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
            except _DroppedError as reason:
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
                    level = _count(level)
                except _DroppedError:
                    continue
            levels[day] = level
    return History(_ascending(counts), _ascending(levels), dict(dropped))


def _ascending(series: dict[date, int]) -> tuple[Point, ...]:
    return tuple([Point(day, series[day]) for day in sorted(series)])


def _day(point: object) -> date:
    """A point's date, YYYY-MM-DD and in no other form: a moment in an unknown zone names no day."""
    if type(point) is not dict:
        raise _DroppedError("not an object")
    text = point.get("date")
    # fromisoformat alone would also read 20250510 and 2025-W19-6.
    if type(text) is str and len(text) == _DATE_LENGTH and text[4] == text[7] == "-":
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise _DroppedError("without a readable date")


def _count(value: object) -> int:
    """A count as a whole number, from a number or its text. Raises _DroppedError with why not."""
    if value is _MISSING:
        raise _DroppedError("missing")
    if value is None:
        raise _DroppedError("null")
    if type(value) is float:  # only NaN and Infinity are: other numbers with a point come as text
        raise _DroppedError("not finite")
    if type(value) is str:
        value = _whole(value)
    elif type(value) is not int:  # a bool too
        raise _DroppedError("not a number")
    if value < 0:
        raise _DroppedError("negative")
    if value > MAX_COUNT:
        raise _DroppedError("over range")
    return value


def _whole(text: str) -> int:
    """A whole number from its decimal text: 12, 12.0, 1.2e1. Raises _DroppedError with why not."""
    if _NON_FINITE.fullmatch(text):
        raise _DroppedError("not finite")
    if not _NUMBER.fullmatch(text):
        raise _DroppedError("not a number")
    if len(text) > _LONGEST_NUMBER:
        raise _DroppedError("over range")
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal itself can hold
        raise _DroppedError("over range") from None
    # The size is looked at before digits are written out: 1e999999999 has a gigabyte of them.
    if number and number.adjusted() > _MOST_DIGITS:
        raise _DroppedError("negative" if number < 0 else "over range")
    if number != number.to_integral_value():
        raise _DroppedError("fractional")
    return int(number) if number else 0
