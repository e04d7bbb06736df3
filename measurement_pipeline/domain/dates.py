"""Calendar dates as other systems write them."""

from datetime import date

_LENGTH = len("YYYY-MM-DD")


def parse_date(value: object) -> date | None:
    """The date of a `YYYY-MM-DD` text; None for anything else.

    `date.fromisoformat` alone also accepts 20250510 and 2025-W19-6.
    """
    if type(value) is not str or len(value) != _LENGTH or value[4] != "-" or value[7] != "-":
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None
