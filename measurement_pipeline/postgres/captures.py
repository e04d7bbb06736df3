"""Captures asked for: resolved to albums, held against the month's cap, handed back where they are young; and monthly series.

The statements are in `captures.sql`. What a run does with a capture is `apify_runs` and `capture/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from measurement_pipeline.domain.capture import (
    REUSE_FOR,
    CaptureSpec,
    CaptureTicket,
    OverCap,
    Schedule,
    SnapshotState,
    cost_usd,
)
from measurement_pipeline.domain.measurement_job import Scope, ScopeByAlbum, ScopeByCatalog, ScopeByIsrc
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("captures")

# What the requests that a failed capture answers are told.
NOT_FOUND = 404
FAILED = 500


@dataclass(frozen=True, slots=True)
class ClaimedCapture:
    """A capture that this run owns now. `attempts` counts it."""

    album_ids: tuple[str, ...]
    attempts: int


def resolve_albums(connection: Connection, scope: Scope) -> tuple[str, ...]:
    """The Spotify albums that `scope` means, sorted. Whose a catalogue is has been asked before."""
    match scope:
        case ScopeByAlbum(album_ids):
            return tuple(sorted(set(album_ids)))
        case ScopeByIsrc(isrcs):
            found = connection.execute(_SQL["albums_of_isrcs"], {"isrcs": list(isrcs)})
        case ScopeByCatalog(catalog_id):
            found = connection.execute(_SQL["albums_of_catalog"], {"catalog": catalog_id})
    # Sorted here: the database's collation may sort otherwise, and the set's digest goes by the order.
    return tuple(sorted(row["album_id"] for row in found))


def count_without_album(connection: Connection, songs: Sequence[str]) -> int:
    """How many of the recordings, each named once, no Spotify album is known of."""
    found = connection.execute(_SQL["count_without_album"], {"songs": list(songs)}).fetchone()
    if found is None:
        raise LookupError("the recordings without an album could not be counted")
    return int(found["without_album"])


def open_capture(connection: Connection, spec: CaptureSpec, *, cap_usd: Decimal) -> CaptureTicket | OverCap:
    """The capture that `wanted` is answered with: a young one of the same albums, or a new one that the month allows.

    A monthly one makes a series of it. To be called in a transaction: the account is locked until its end, so that two who ask at
    once pay once.
    """
    answer = open_locked(connection, spec, cap_usd=cap_usd)
    if isinstance(answer, CaptureTicket) and spec.schedule is Schedule.MONTHLY:
        connection.execute(_SQL["start_series"], _parameters(spec))
    return answer


def open_locked(connection: Connection, spec: CaptureSpec, *, cap_usd: Decimal) -> CaptureTicket | OverCap:
    """Like `open_capture`, without starting a series."""
    parameters = _parameters(spec)
    lock_account(connection, spec.account)
    connection.execute(_SQL["ensure_account"], parameters)
    cost = cost_usd(len(spec.album_ids))
    albums = len(spec.album_ids)
    reusable = connection.execute(_SQL["reusable"], parameters | {"reuse_for": REUSE_FOR.total_seconds()}).fetchone()
    if reusable is not None:
        return CaptureTicket(reusable["id"], albums, Decimal(0), reused=True)
    opened = connection.execute(_SQL["open"], parameters | {"cost": cost, "cap": cap_usd}).fetchone()
    if opened is None:
        raise LookupError("the month's captures could not be added up")
    if opened["id"] is None:
        return OverCap(cap_usd, opened["spent"], cost)
    return CaptureTicket(opened["id"], albums, cost, reused=False)


def estimate(connection: Connection, spec: CaptureSpec) -> tuple[Decimal, Decimal, bool]:
    """What `wanted` would cost, what the account's month has cost so far, and whether a young capture would answer it."""
    parameters = _parameters(spec)
    reusable = connection.execute(_SQL["reusable"], parameters | {"reuse_for": REUSE_FOR.total_seconds()}).fetchone()
    spent = spent_this_month(connection, spec.account)
    return Decimal(0) if reusable else cost_usd(len(spec.album_ids)), spent, reusable is not None


def lock_account(connection: Connection, account: UUID) -> None:
    """Let nobody else change what the account's captures cost until this transaction is over."""
    connection.execute(_SQL["lock_account"], {"account": str(account)})


def spent_this_month(connection: Connection, account: UUID) -> Decimal:
    """What the account's captures cost in this calendar month (UTC), those under way included, in US dollars."""
    found = connection.execute(_SQL["spent_this_month"], {"account": account}).fetchone()
    if found is None:
        raise LookupError("the month's captures could not be added up")
    return Decimal(found["spent"])


def seconds_left_this_month(connection: Connection) -> float:
    """How long the month that captures are capped by (UTC) goes on."""
    row = connection.execute(_SQL["seconds_left_this_month"]).fetchone()
    if row is None:
        raise LookupError("the end of the month is not known")
    return float(row["seconds"])


def list_due(connection: Connection, *, claim_timeout_seconds: float, limit: int) -> list[UUID]:
    """Captures that a run may take up now, the oldest first."""
    found = connection.execute(_SQL["due"], {"claim_timeout": claim_timeout_seconds, "limit": limit})
    return [row["id"] for row in found]


def count_open(connection: Connection) -> dict[str, Any]:
    """How many captures are open, how many of these wait for their time, and when the first one's comes."""
    return connection.execute(_SQL["open_count"]).fetchone() or {"open": 0, "waiting": 0, "next_at": None}


def claim(
    connection: Connection, snapshot: UUID, *, run: str, operator: bool, claim_timeout_seconds: float
) -> ClaimedCapture | None:
    """Make `run` the owner of a capture. None where it is done, waits, or somebody who lives works on it."""
    row = connection.execute(
        _SQL["claim"],
        {"snapshot": snapshot, "run": run, "operator": operator, "claim_timeout": claim_timeout_seconds},
    ).fetchone()
    return None if row is None else ClaimedCapture(tuple(row["album_ids"]), row["attempts"])


@dataclass(frozen=True, slots=True)
class DoneCapture:
    """A capture that is done, and what its row said until now."""

    error: str | None


def claim_done(connection: Connection, snapshot: UUID, *, run: str, claim_timeout_seconds: float) -> DoneCapture | None:
    """Hold a capture that is done, without opening it. None: it is not, or somebody who lives works on it."""
    parameters = {"snapshot": snapshot, "run": run, "claim_timeout": claim_timeout_seconds}
    row = connection.execute(_SQL["claim_done"], parameters).fetchone()
    return None if row is None else DoneCapture(row["error"])


def release_done(connection: Connection, snapshot: UUID, *, run: str) -> None:
    """Let go of a capture that was held while it was done; where the run holds it no more, nothing changes."""
    connection.execute(_SQL["release_done"], {"snapshot": snapshot, "run": run})


def reset_captured_at(connection: Connection, snapshot: UUID) -> None:
    """Let a capture of which nothing was measured be of the moment at which it is bought anew."""
    connection.execute(_SQL["reset_captured_at"], {"snapshot": snapshot})


def reopen_requests(connection: Connection, snapshot: UUID) -> None:
    """Let the requests that a capture answered wait for it again."""
    connection.execute(_SQL["reopen"], {"snapshot": snapshot})


def stop(connection: Connection, snapshot: UUID, *, error: str) -> bool:
    """End a capture that is open; whether there was one. What was started of it is paid for."""
    return connection.execute(_SQL["stop"], {"snapshot": snapshot, "error": error}).fetchone() is not None


def list_recently_done(connection: Connection, *, days: int) -> list[UUID]:
    """The captures that came to their end in the last so many days."""
    return [row["id"] for row in connection.execute(_SQL["recently_done"], {"days": days})]


def list_with_deferred_tracks(connection: Connection, *, days: int, limit: int) -> list[UUID]:
    """Captures of the last so many days with tracks that Spotify could not be asked about."""
    return [row["id"] for row in connection.execute(_SQL["with_deferred_tracks"], {"days": days, "limit": limit})]


def release(
    connection: Connection, snapshot: UUID, *, run: str, seconds: float | None, error: str, refund_attempt: bool
) -> None:
    """Let go of a capture for so long, saying why it waits. None: the longer the older it is, from a minute to an hour."""
    parameters = {
        "snapshot": snapshot,
        "run": run,
        "wait": seconds,
        "error": error,
        "attempts_back": int(refund_attempt),
    }
    connection.execute(_SQL["release"], parameters)


def known_albums(connection: Connection, album_ids: Sequence[str]) -> frozenset[str]:
    """Those of the albums that a recording is known of."""
    rows = connection.execute(_SQL["known_albums"], {"album_ids": list(album_ids)})
    return frozenset(row["album_id"] for row in rows)


def finish(
    connection: Connection, snapshot: UUID, *, run: str, state: SnapshotState, status_code: int, error: str | None
) -> bool:
    """Say what became of a capture; False where it is another's by now. `status_code`: of its requests, where it failed."""
    parameters = {
        "snapshot": snapshot,
        "run": run,
        "state": state.value,
        "status_code": status_code,
        "error": error,
    }
    return connection.execute(_SQL["finish"], parameters).fetchone() is not None


def get(connection: Connection, snapshot: UUID) -> dict[str, Any] | None:
    """A capture with its figures; None where there is none."""
    return connection.execute(_SQL["get"], {"snapshot": snapshot}).fetchone()


def list_recent(connection: Connection, *, account: UUID | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """The latest captures, newest first."""
    return connection.execute(_SQL["recent_captures"], {"account": account, "limit": limit}).fetchall()


def _parameters(spec: CaptureSpec) -> dict[str, Any]:
    return {
        "account": spec.account,
        "album_ids": list(spec.album_ids),
        "catalog": spec.catalog,
        "isrcs": None if spec.isrcs is None else list(spec.isrcs),
        "platforms": list(spec.platforms),
        "schedule": spec.schedule.value,
    }
