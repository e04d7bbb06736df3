"""Calendar dates as other systems write them."""

from datetime import UTC, date, datetime

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


def parse_moment(text: str) -> datetime | None:
    """The moment of `2026-12-24`, `2026-12-24T03:19` or `2026-12-24T04:19+01:00`; UTC without a zone. None for anything else."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
