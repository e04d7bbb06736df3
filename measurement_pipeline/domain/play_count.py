"""Reads play counts from JSON values: numbers, and numbers given as text. Pure.

The vendor's package decides whether a 0 is a count, and what becomes of a point without one.
"""

import re
from decimal import Decimal, InvalidOperation

# The maximum of a bigint column.
MAX_COUNT = 2**63 - 1

_NUMBER = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*", re.ASCII)
_NON_FINITE = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)
# No count needs more characters; Decimal must not parse a megabyte of digits.
_LONGEST_NUMBER = 64
_MOST_DIGITS = 19


class UnusableCountError(Exception):
    """The value is no count; the message is a short reason, by which dropped points are counted."""


def read_count(value: object) -> int:
    """Read a count from a JSON value whose non-integers were kept as text. Raises `UnusableCountError` with the reason."""
    if value is None:
        raise UnusableCountError("null")
    if type(value) is float:  # only NaN and Infinity are: other numbers with a point come as text
        raise UnusableCountError("not finite")
    if type(value) is str:
        value = _whole(value)
    elif type(value) is not int:  # a bool too
        raise UnusableCountError("not a number")
    if value < 0:
        raise UnusableCountError("negative")
    if value > MAX_COUNT:
        raise UnusableCountError("over range")
    return value


def _whole(text: str) -> int:
    """A whole number from its decimal text: 12, 12.0, 1.2e1."""
    if _NON_FINITE.fullmatch(text):
        raise UnusableCountError("not finite")
    if not _NUMBER.fullmatch(text):
        raise UnusableCountError("not a number")
    if len(text) > _LONGEST_NUMBER:
        raise UnusableCountError("over range")
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal itself can hold
        raise UnusableCountError("over range") from None
    # The size is checked before the digits are written out: 1e999999999 has a gigabyte of them.
    if number and number.adjusted() > _MOST_DIGITS:
        raise UnusableCountError("negative" if number < 0 else "over range")
    if number != number.to_integral_value():
        raise UnusableCountError("fractional")
    return int(number) if number else 0
