"""Figures and times as a person reads them. Nothing else belongs here."""

from datetime import UTC, datetime


def counted(number: float, one: str, several: str | None = None) -> str:
    """`1 recording`, `2,000 recordings`; `several` where an s is not all that changes."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def utc(moment: datetime) -> str:
    """`2026-11-30 18:29:36 UTC`, whatever zone `moment` is in."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def utc_minute(moment: datetime) -> str:
    """`2026-11-30 18:29 UTC`, whatever zone `moment` is in."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def number(value: int | None) -> str:
    """12,345; what is not known is a dash, and no 0."""
    return "–" if value is None else f"{value:,}"
