"""A request for measurements: what a client may ask, and the words in which it is refused.

Pure: the shape alone. Whether a catalogue exists, or an account has a card, is asked elsewhere.
"""

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from measurement_pipeline.domain import isrc
from measurement_pipeline.domain.capture import Schedule
from measurement_pipeline.domain.text import counted


class Source(StrEnum):
    """What is asked for: the past, bought once, or what is displayed today."""

    HISTORICAL = "historical"
    CURRENT = "current"


class State(StrEnum):
    """Where a request stands."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    DONE = "done"
    REJECTED = "rejected"
    PAYMENT_REQUIRED = "payment_required"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


PLATFORMS = frozenset({"spotify"})

# What one request may hold, on the table path and over HTTP alike: so many values in a list, and so many bytes of text in all.
# The migration `0008_fair_intake` holds the table to the same number of bytes; a test compares the two.
MAX_LISTED = 10_000
MAX_REQUEST_BYTES = 1024 * 1024

# How long an unpaid request is looked at again before it is rejected.
UNPAID_PATIENCE = timedelta(days=7)

# These three are what clients compare with: the words are fixed.
BAD_SOURCE = "source must be current or historical"
BAD_SCOPE = "Provide exactly one of scope.catalog_id / album_ids / isrcs"
NOTHING_RESOLVED = "No recordings resolvable from the given scope"
UNKNOWN_CATALOG = "No such catalog_id: it must be a catalogue of the requesting account"
NO_ALBUM_KNOWN = f"{NOTHING_RESOLVED}: no Spotify album is known for any of them"
TOO_LARGE = (
    f"The request is larger than {MAX_REQUEST_BYTES:,} bytes: ask for a catalogue (catalog_id), or in several requests"
)
UNPAID_TOO_LONG = "No card was put on file within 7 days of the request. Save a card and ask again."

_ALBUM_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_ALBUM_ADDRESS = re.compile(
    r"(?:https?://open\.spotify\.com/(?:intl-[a-z-]+/)?album/|spotify:album:)([0-9A-Za-z]{1,64})(?:[/?#].*)?"
)

_SCOPES = ("catalog_id", "album_ids", "isrcs")
_VALUES_SHOWN = 20
_CHARACTERS_SHOWN = 40


@dataclass(frozen=True, slots=True)
class ScopeByIsrc:
    """The recordings themselves, normalised, each once, in the order given."""

    isrcs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScopeByAlbum:
    """Every recording on these Spotify albums."""

    album_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScopeByCatalog:
    """Every recording of one of the account's catalogues."""

    catalog_id: UUID


Scope = ScopeByIsrc | ScopeByAlbum | ScopeByCatalog


@dataclass(frozen=True, slots=True)
class MeasurementRequest:
    """A request whose shape is right."""

    source: Source
    scope: Scope
    schedule: Schedule = Schedule.ONCE

    @property
    def needs_card(self) -> bool:
        """Whether payment is asked about first. A capture needs no card: the month's cap holds it."""
        return self.source is Source.HISTORICAL


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that goes no further."""

    status_code: int
    error: str


def read_request(
    source: object, scope: object, platforms: object, schedule: object = "once"
) -> MeasurementRequest | Refusal:
    """The request in a row of `measurement_jobs`, whatever its columns hold, or why it is refused."""
    if not (isinstance(source, str) and source in set(Source)):
        return Refusal(400, BAD_SOURCE)
    asked = platforms if platforms is not None else ["spotify"]
    # Not every value of an array column can be looked up in a set: an array may hold arrays.
    others = [p for p in asked if not (isinstance(p, str) and p in PLATFORMS)] if isinstance(asked, list) else [asked]
    if others or not asked:
        return Refusal(400, f"platforms may only be spotify{_received_value(others)}")
    read = _read_scope(scope)
    if isinstance(read, Refusal):
        return read
    if source == Source.CURRENT and isinstance(read, ScopeByAlbum):
        # Each is paid for, whatever it is. Not held to Spotify's present 22 characters.
        odd = [_quoted(album_id) for album_id in read.album_ids if not _ALBUM_ID.fullmatch(album_id)]
        if odd:
            return Refusal(
                400, f"Malformed in scope.album_ids: {_joined(odd)} (expected Spotify's ids, addresses or URIs)"
            )
    often = "once" if schedule is None else schedule
    if not (isinstance(often, str) and often in set(Schedule)):
        return Refusal(400, f"schedule must be once or monthly{_received_value(often)}")
    if source == Source.HISTORICAL and often != Schedule.ONCE:
        return Refusal(400, "schedule monthly is for source current: a history is bought once")
    return MeasurementRequest(Source(source), read, Schedule(often))


def left_out_message(left_out: int, *, of: int) -> str:
    """What a request is told that is accepted although a capture, which is made by album, leaves some of it out."""
    return f"{left_out:,} of {counted(of, 'recording')} {'has' if left_out == 1 else 'have'} no known album"


def _read_scope(scope: object) -> Scope | Refusal:
    given = [k for k in _SCOPES if scope.get(k) is not None] if isinstance(scope, dict) else []
    if not isinstance(scope, dict) or len(given) != 1:
        return Refusal(400, BAD_SCOPE)
    unknown = sorted(_quoted(key) for key in scope if key not in _SCOPES)
    if unknown:
        return Refusal(400, f"Unknown in scope: {_joined(unknown)}. {BAD_SCOPE}")
    (key,) = given
    value = scope[key]
    if key == "catalog_id":
        return _read_catalog(value)
    if not isinstance(value, list) or not value:
        return Refusal(400, f"scope.{key} must be a list of at least one{_received_value(value)}")
    if len(value) > MAX_LISTED:
        # Before any of them is read.
        return Refusal(
            400, f"At most {MAX_LISTED:,} in a request, got {len(value):,}: ask for a catalogue, or in several requests"
        )
    return _read_isrcs(value) if key == "isrcs" else _read_albums(value)


def _read_catalog(value: object) -> Scope | Refusal:
    try:
        return ScopeByCatalog(UUID(value if isinstance(value, str) else ""))
    except ValueError:
        return Refusal(400, f"scope.catalog_id must be a UUID{_received_value(value)}")


def _read_isrcs(values: Sequence[object]) -> Scope | Refusal:
    found: dict[str, None] = {}
    malformed: list[str] = []
    for value in values:
        read = isrc.normalise_isrc(value) if isinstance(value, str) else None
        if read is None:
            malformed.append(_quoted(value))
        else:
            found[read] = None
    if malformed:
        return Refusal(400, f"Malformed in scope.isrcs: {_joined(malformed)} (an ISRC looks like GBUM72501895)")
    return ScopeByIsrc(tuple(found))


def _read_albums(values: Sequence[object]) -> Scope | Refusal:
    # Printable, too: what is not (a zero byte, half a surrogate) is no text to PostgreSQL, and no id to Spotify.
    malformed = [
        _quoted(value)
        for value in values
        if not (isinstance(value, str) and value.strip() and value.strip().isprintable())
    ]
    if malformed:
        return Refusal(400, f"Malformed in scope.album_ids: {_joined(malformed)} (a Spotify album id is a string)")
    # An id that maps to nothing is answered as such.
    return ScopeByAlbum(tuple(dict.fromkeys(_album_id(str(value).strip()) for value in values)))


def _album_id(text: str) -> str:
    """The id in what people copy out of Spotify: an address or a URI; anything else is taken for an id."""
    found = _ALBUM_ADDRESS.fullmatch(text)
    return found[1] if found else text


def _quoted(value: object) -> str:
    # reprlib: what a client nests a thousand deep would exhaust the stack of repr.
    text = value if isinstance(value, str) else reprlib.repr(value)
    return repr(text if len(text) <= _CHARACTERS_SHOWN else text[:_CHARACTERS_SHOWN] + "…")


def _received_value(value: object) -> str:
    return "" if value is None or value == [] else f" (got {_quoted(value)})"


def _joined(shown: Sequence[str]) -> str:
    rest = len(shown) - _VALUES_SHOWN
    return ", ".join(shown[:_VALUES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
