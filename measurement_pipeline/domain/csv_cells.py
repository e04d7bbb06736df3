"""Formats values as CSV cells that are safe to open in a spreadsheet. Pure."""

import re
from datetime import UTC, datetime

# A spreadsheet runs a text that begins with one of these as a formula, also in its full-width form (OWASP, "CSV Injection").
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)


def csv_cell(value: object) -> object:
    """The value as a CSV cell: a moment in UTC with `Z`, and a text that no spreadsheet runs as a formula.

    An apostrophe before a formula turns it into text. Numbers stay unchanged, also those given as text.
    """
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
