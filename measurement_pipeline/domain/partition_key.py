"""Partition keys of Dagster: the name that a person knows, and enough of the id to be unique. Pure."""

import unicodedata
from uuid import UUID

# Punctuation that a key may contain. Dagster's UI gives commas, brackets and quotes a meaning in partition selections.
_KEPT = frozenset(" -_.&'()+#")
_LONGEST_NAME = 60
_LONGEST_PART = 20
_NAMED_ALBUMS = 1


def catalog_partition_key(catalog: UUID, *, name: str, account: UUID, account_name: str | None) -> str:
    """The key of a catalogue: its name and its account's."""
    return _key(_plain(name, _LONGEST_NAME), _plain(account_name or _short(account), _LONGEST_PART), _short(catalog))


def capture_partition_key(capture: UUID, *, what: str, albums: int, monthly: bool, day: str) -> str:
    """The key of a capture: its catalogue or first album, and its day."""
    more = f"and {albums - _NAMED_ALBUMS} more" if albums > _NAMED_ALBUMS else ""
    return _key(_plain(what, _LONGEST_NAME), more, "monthly" if monthly else "", day, _short(capture))


def _key(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _short(whole: UUID) -> str:
    return str(whole).partition("-")[0]


def _plain(text: str, longest: int) -> str:
    letters = (sign if sign.isalnum() or sign in _KEPT else " " for sign in unicodedata.normalize("NFC", text))
    # Dagster reads three dots as a range.
    return " ".join("".join(letters).replace("...", " ").split())[:longest].strip()
