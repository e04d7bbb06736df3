"""A count from outside as a whole number, or why it is none: numbers and their text, as JSON has them.

Whether a 0 is a figure, and what becomes of a point without one, is the vendor's package's.
"""

import re
from decimal import Decimal, InvalidOperation

# What a bigint column holds.
MAX_COUNT = 2**63 - 1

_NUMBER = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*", re.ASCII)
_NON_FINITE = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)
# No count needs more characters, and Decimal is not to be fed a megabyte of digits.
_LONGEST_NUMBER = 64
_MOST_DIGITS = 19


class UnusableCountError(Exception):
    """A value that is no count; the message is the reason in a word or two, under which it can be tallied."""


def read_count(value: object) -> int:
    """A count from a JSON value whose non-integers were left as text. Raises UnusableCountError with why not."""
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
    # The size is looked at before digits are written out: 1e999999999 has a gigabyte of them.
    if number and number.adjusted() > _MOST_DIGITS:
        raise UnusableCountError("negative" if number < 0 else "over range")
    if number != number.to_integral_value():
        raise UnusableCountError("fractional")
    return int(number) if number else 0
