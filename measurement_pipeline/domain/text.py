"""Text rules used across packages: how figures and times are written, and which text other systems accept."""

import re
from datetime import UTC, datetime

_VISIBLE_ASCII = re.compile(r"[!-~]+")


def counted(number: float, one: str, several: str | None = None) -> str:
    """`1 recording`, `2,000 recordings`. Pass `several` for a plural that is not formed with an s."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def utc(moment: datetime) -> str:
    """`2026-11-30 18:29:36 UTC`, in UTC whatever the time zone of `moment`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def utc_minute(moment: datetime) -> str:
    """`2026-11-30 18:29 UTC`, whatever zone `moment` is in."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def number(value: int | None) -> str:
    """`12,345`, or a dash for an unknown value, which must not look like 0."""
    return "–" if value is None else f"{value:,}"


def is_visible_ascii(text: str) -> bool:
    """Whether `text` is printable ASCII without spaces, and not empty: a credential that an HTTP header can carry."""
    return _VISIBLE_ASCII.fullmatch(text) is not None


def one_line(text: str, *, max_length: int) -> str:
    """`text` as one printable line: what a text column and a terminal both accept."""
    # Twice the length: collapsed white space shortens the text again.
    printable = "".join(letter if letter.isprintable() else " " for letter in text[: 2 * max_length])
    return " ".join(printable.split())[:max_length]


def storable_text(value: object) -> str | None:
    """`value` if PostgreSQL can store it as text and it is not blank, else None."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return None
    # JSON can hold one half of a surrogate pair, which is not a character.
    return None if any("\ud800" <= letter <= "\udfff" for letter in value) else value
