"""A request for measurements: its valid shapes, and the errors for invalid ones. Pure.

Intake checks whether a catalogue exists and whether an account has a card.
"""

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from measurement_pipeline.domain.callback import BAD_URL, is_callback_url
from measurement_pipeline.domain.capture import Schedule
from measurement_pipeline.domain.coverage import EVERYTHING, Aim
from measurement_pipeline.domain.isrc import normalise_isrc
from measurement_pipeline.domain.text import counted


class Source(StrEnum):
    """The kind of measurement: the history, bought once, or today's displayed counts."""

    HISTORICAL = "historical"
    CURRENT = "current"


class State(StrEnum):
    """The state of a request."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    DONE = "done"
    REJECTED = "rejected"
    PAYMENT_REQUIRED = "payment_required"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


PLATFORMS = frozenset({"spotify"})

# Limits of one request, through the table and over HTTP: values in a list, and bytes of text in total.
# The migration `0008_fair_intake` limits the table to the same number of bytes; a test compares the two.
MAX_LISTED = 10_000
MAX_REQUEST_BYTES = 1024 * 1024

# How long an unpaid request is checked again before it is rejected.
UNPAID_PATIENCE = timedelta(days=7)

# Clients compare with these three: the texts are fixed.
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
_MAX_LIMIT = 1_000_000
_CHARACTERS_SHOWN = 40


@dataclass(frozen=True, slots=True)
class ScopeByIsrc:
    """Recordings by normalised ISRC, without duplicates, in the given order."""

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
    """A request of valid shape."""

    source: Source
    scope: Scope
    schedule: Schedule = Schedule.ONCE
    aim: Aim = EVERYTHING

    @property
    def needs_card(self) -> bool:
        """Whether it needs a payment decision. A capture needs none: a monthly cap limits its cost."""
        return self.source is Source.HISTORICAL


@dataclass(frozen=True, slots=True)
class Refusal:
    """The error of a refused request."""

    status_code: int
    error: str


def read_request(
    source: object,
    scope: object,
    platforms: object,
    schedule: object = "once",
    *,
    limit: object = None,
    coverage: object = None,
    callback_url: object = None,
) -> MeasurementRequest | Refusal:
    """Parse a row of `measurement_jobs`, whatever its columns hold, into a request or a refusal."""
    if not (isinstance(source, str) and source in set(Source)):
        return Refusal(400, BAD_SOURCE)
    requested = platforms if platforms is not None else ["spotify"]
    # Not every value is hashable: an array column may hold arrays.
    others = (
        [p for p in requested if not (isinstance(p, str) and p in PLATFORMS)]
        if isinstance(requested, list)
        else [requested]
    )
    if others or not requested:
        return Refusal(400, f"platforms may only be spotify{_received_value(others)}")
    read = _read_scope(scope)
    if isinstance(read, Refusal):
        return read
    if source == Source.CURRENT and isinstance(read, ScopeByAlbum):
        # Each album is paid for, so its id must be plausible; Spotify's present 22 characters are not required.
        malformed = [_quoted(album_id) for album_id in read.album_ids if not _ALBUM_ID.fullmatch(album_id)]
        if malformed:
            return Refusal(
                400, f"Malformed in scope.album_ids: {_joined(malformed)} (expected Spotify's ids, addresses or URIs)"
            )
    interval = "once" if schedule is None else schedule
    if not (isinstance(interval, str) and interval in set(Schedule)):
        return Refusal(400, f"schedule must be once or monthly{_received_value(interval)}")
    if source == Source.HISTORICAL and interval != Schedule.ONCE:
        return Refusal(400, "schedule monthly is for source current: a history is bought once")
    aim = _read_aim(limit, coverage)
    if isinstance(aim, Refusal):
        return aim
    if source == Source.CURRENT and not aim.is_everything:
        return Refusal(
            400, "limit and coverage are for source historical: a capture costs the same for all of an album"
        )
    if callback_url is not None and not is_callback_url(callback_url):
        # The value is not quoted: it may contain a secret.
        return Refusal(400, BAD_URL)
    return MeasurementRequest(Source(source), read, Schedule(interval), aim)


def left_out_message(left_out: int, *, of: int) -> str:
    """Note for an accepted request: captures work by album, and these recordings are on no known album."""
    return f"{left_out:,} of {counted(of, 'recording')} {'has' if left_out == 1 else 'have'} no known album"


def _read_aim(limit: object, coverage: object) -> Aim | Refusal:
    if limit is not None and coverage is not None:
        return Refusal(400, "Provide at most one of limit / coverage")
    if limit is not None and not (type(limit) is int and 1 <= limit <= _MAX_LIMIT):
        return Refusal(400, f"limit must be a whole number from 1 to {_MAX_LIMIT:,}{_received_value(limit)}")
    if coverage is None:
        return Aim(limit=limit)
    is_number = isinstance(coverage, int | float | Decimal) and not isinstance(coverage, bool)
    share = Decimal(str(coverage)) if is_number else None
    if share is None or not share.is_finite() or not 0 < share <= 1:
        return Refusal(400, f"coverage must be a number above 0 and at most 1, such as 0.9{_received_value(coverage)}")
    return Aim(coverage=share)


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
        # Before any value is parsed.
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
    isrcs: dict[str, None] = {}
    malformed: list[str] = []
    for value in values:
        read = normalise_isrc(value) if isinstance(value, str) else None
        if read is None:
            malformed.append(_quoted(value))
        else:
            isrcs[read] = None
    if malformed:
        return Refusal(400, f"Malformed in scope.isrcs: {_joined(malformed)} (an ISRC looks like GBUM72501895)")
    return ScopeByIsrc(tuple(isrcs))


def _read_albums(values: Sequence[object]) -> Scope | Refusal:
    # Only printable text: PostgreSQL and Spotify reject zero bytes and lone surrogates.
    malformed = [
        _quoted(value)
        for value in values
        if not (isinstance(value, str) and value.strip() and value.strip().isprintable())
    ]
    if malformed:
        return Refusal(400, f"Malformed in scope.album_ids: {_joined(malformed)} (a Spotify album id is a string)")
    # Resolution reports an unknown id.
    return ScopeByAlbum(tuple(dict.fromkeys(_album_id(str(value).strip()) for value in values)))


def _album_id(text: str) -> str:
    """Extract the album id from a Spotify address or URI; any other text is taken as an id."""
    match = _ALBUM_ADDRESS.fullmatch(text)
    return match[1] if match else text


def _quoted(value: object) -> str:
    # reprlib: a value nested a thousand levels deep would exhaust the stack of repr.
    text = value if isinstance(value, str) else reprlib.repr(value)
    return repr(text if len(text) <= _CHARACTERS_SHOWN else text[:_CHARACTERS_SHOWN] + "…")


def _received_value(value: object) -> str:
    return "" if value is None or value == [] else f" (got {_quoted(value)})"


def _joined(shown: Sequence[str]) -> str:
    rest = len(shown) - _VALUES_SHOWN
    return ", ".join(shown[:_VALUES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
