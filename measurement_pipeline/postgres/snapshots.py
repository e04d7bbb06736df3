"""Captures asked for: resolved to albums, held against the month's cap, handed back where they are young; and monthly series.

The statements are in `snapshots.sql`. What a run does with a capture is `apify_runs` and `capture/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from measurement_pipeline.domain.capture import REUSE_FOR, SERIES_EVERY, Schedule, SnapshotState, cost_usd
from measurement_pipeline.domain.measurement_job import Scope, ScopeByAlbum, ScopeByCatalog, ScopeByIsrc
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("snapshots")

# What the requests that a failed capture answers are told.
NOT_FOUND = 404
FAILED = 500


@dataclass(frozen=True, slots=True)
class CaptureSpec:
    """What is to be captured, and for whom. `album_ids` are sorted, each once."""

    account: UUID
    album_ids: tuple[str, ...]
    catalog: UUID | None = None
    isrcs: tuple[str, ...] | None = None
    platforms: tuple[str, ...] = ("spotify",)
    schedule: Schedule = Schedule.ONCE


@dataclass(frozen=True, slots=True)
class CaptureTicket:
    """The capture that answers a request; `reused`: it was there, and costs nothing more."""

    snapshot: UUID
    albums: int
    cost_usd: Decimal
    reused: bool


@dataclass(frozen=True, slots=True)
class OverCap:
    """The month does not allow it. In US dollars."""

    cap: Decimal
    spent: Decimal
    asked: Decimal


@dataclass(frozen=True, slots=True)
class ClaimedCapture:
    """A capture that this run owns now. `attempts` counts it."""

    album_ids: tuple[str, ...]
    attempts: int


@dataclass(frozen=True, slots=True)
class Pause:
    """A vendor that is left alone for a while."""

    until: datetime
    reason: str


def albums_of(connection: Connection, scope: Scope) -> tuple[str, ...]:
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


def without_album(connection: Connection, songs: Sequence[str]) -> int:
    """How many of the recordings, each named once, no Spotify album is known of."""
    found = connection.execute(_SQL["without_album"], {"songs": list(songs)}).fetchone()
    if found is None:
        raise LookupError("the recordings without an album could not be counted")
    return int(found["without_album"])


def open_capture(connection: Connection, wanted: CaptureSpec, *, cap_usd: Decimal) -> CaptureTicket | OverCap:
    """The capture that `wanted` is answered with: a young one of the same albums, or a new one that the month allows.

    A monthly one makes a series of it. To be called in a transaction: the account is locked until its end, so that two who ask at
    once pay once.
    """
    answer = _open(connection, wanted, cap_usd=cap_usd)
    if isinstance(answer, CaptureTicket) and wanted.schedule is Schedule.MONTHLY:
        connection.execute(_SQL["start_series"], _parameters(wanted))
    return answer


def _open(connection: Connection, wanted: CaptureSpec, *, cap_usd: Decimal) -> CaptureTicket | OverCap:
    parameters = _parameters(wanted)
    lock_account(connection, wanted.account)
    connection.execute(_SQL["ensure_account"], parameters)
    cost = cost_usd(len(wanted.album_ids))
    albums = len(wanted.album_ids)
    young = connection.execute(_SQL["recent"], parameters | {"reuse_for": REUSE_FOR.total_seconds()}).fetchone()
    if young is not None:
        return CaptureTicket(young["id"], albums, Decimal(0), reused=True)
    made = connection.execute(_SQL["open"], parameters | {"cost": cost, "cap": cap_usd}).fetchone()
    if made is None:
        raise LookupError("the month's captures could not be added up")
    if made["id"] is None:
        return OverCap(cap_usd, made["spent"], cost)
    return CaptureTicket(made["id"], albums, cost, reused=False)


def estimate(connection: Connection, wanted: CaptureSpec) -> tuple[Decimal, Decimal, bool]:
    """What `wanted` would cost, what the account's month has cost so far, and whether a young capture would answer it."""
    parameters = _parameters(wanted)
    young = connection.execute(_SQL["recent"], parameters | {"reuse_for": REUSE_FOR.total_seconds()}).fetchone()
    spent = spent_this_month(connection, wanted.account)
    return Decimal(0) if young else cost_usd(len(wanted.album_ids)), spent, young is not None


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
    row = connection.execute(_SQL["left_this_month"]).fetchone()
    if row is None:
        raise LookupError("the end of the month is not known")
    return float(row["seconds"])


def due_series(connection: Connection, series: UUID | None = None) -> list[tuple[UUID, CaptureSpec]]:
    """The series to be captured now; `series`: whether that one is."""
    parameters = {"every": SERIES_EVERY.days, "series": series}
    return [
        (
            row["id"],
            CaptureSpec(
                account=row["account"],
                album_ids=tuple(row["album_ids"]),
                catalog=row["catalog"],
                isrcs=None if row["isrcs"] is None else tuple(row["isrcs"]),
                platforms=tuple(row["platforms"]),
                schedule=Schedule.MONTHLY,
            ),
        )
        for row in connection.execute(_SQL["due_series"], parameters)
    ]


def start_if_due(
    connection: Connection, series: UUID, wanted: CaptureSpec, *, cap_usd: Decimal
) -> CaptureTicket | OverCap | None:
    """The next capture of a series; None where somebody has started it meanwhile. In one transaction with its own check."""
    with connection.transaction():
        lock_account(connection, wanted.account)
        if not due_series(connection, series):
            return None
        # Not as a series asked for anew: one that was stopped at this moment stays so.
        return _open(connection, wanted, cap_usd=cap_usd)


def list_series(connection: Connection, *, account: UUID | None = None) -> list[dict[str, Any]]:
    """All series with their last captures, the oldest series first."""
    return connection.execute(_SQL["list_series"], {"account": account}).fetchall()


def stop_series(connection: Connection, series: UUID) -> bool:
    """Capture nothing more for a series; whether there was one that went on."""
    return connection.execute(_SQL["stop_series"], {"series": series}).fetchone() is not None


def due(connection: Connection, *, claim_timeout_seconds: float, limit: int) -> list[UUID]:
    """Captures that a run may take up now, the oldest first."""
    found = connection.execute(_SQL["due"], {"claim_timeout": claim_timeout_seconds, "limit": limit})
    return [row["id"] for row in found]


def open_count(connection: Connection) -> dict[str, Any]:
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
class HeldCapture:
    """A capture that is done, and what its row said until now."""

    error: str | None


def hold_done(connection: Connection, snapshot: UUID, *, run: str, claim_timeout_seconds: float) -> HeldCapture | None:
    """Hold a capture that is done, without opening it. None: it is not, or somebody who lives works on it."""
    parameters = {"snapshot": snapshot, "run": run, "claim_timeout": claim_timeout_seconds}
    row = connection.execute(_SQL["hold_done"], parameters).fetchone()
    return None if row is None else HeldCapture(row["error"])


def let_go(connection: Connection, snapshot: UUID, *, run: str) -> None:
    """Let go of a capture that was held while it was done; where the run holds it no more, nothing changes."""
    connection.execute(_SQL["let_go"], {"snapshot": snapshot, "run": run})


def date_anew(connection: Connection, snapshot: UUID) -> None:
    """Let a capture of which nothing was measured be of the moment at which it is bought anew."""
    connection.execute(_SQL["date_anew"], {"snapshot": snapshot})


def reopen_requests(connection: Connection, snapshot: UUID) -> None:
    """Let the requests that a capture answered wait for it again."""
    connection.execute(_SQL["reopen"], {"snapshot": snapshot})


def stop(connection: Connection, snapshot: UUID, *, error: str) -> bool:
    """End a capture that is open; whether there was one. What was started of it is paid for."""
    return connection.execute(_SQL["stop"], {"snapshot": snapshot, "error": error}).fetchone() is not None


def done(connection: Connection, *, days: int) -> list[UUID]:
    """The captures that came to their end in the last so many days."""
    return [row["id"] for row in connection.execute(_SQL["done"], {"days": days})]


def deferred(connection: Connection, *, days: int, limit: int) -> list[UUID]:
    """Captures of the last so many days with tracks that Spotify could not be asked about."""
    return [row["id"] for row in connection.execute(_SQL["deferred"], {"days": days, "limit": limit})]


def release(
    connection: Connection, snapshot: UUID, *, run: str, seconds: float | None, error: str, attempt_back: bool
) -> None:
    """Let go of a capture for so long, saying why it waits. None: the longer the older it is, from a minute to an hour."""
    parameters = {"snapshot": snapshot, "run": run, "wait": seconds, "error": error, "attempts_back": int(attempt_back)}
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


def show(connection: Connection, snapshot: UUID) -> dict[str, Any] | None:
    """A capture with its figures; None where there is none."""
    return connection.execute(_SQL["show"], {"snapshot": snapshot}).fetchone()


def recent(connection: Connection, *, account: UUID | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """The latest captures, newest first."""
    return connection.execute(_SQL["recent_captures"], {"account": account, "limit": limit}).fetchall()


def pause(connection: Connection, vendor: str, *, seconds: float, reason: str) -> None:
    """Leave a vendor alone for so long: the whole deployment does."""
    connection.execute(_SQL["pause"], {"vendor": vendor, "seconds": seconds, "reason": reason})


def resume(connection: Connection, vendors: Sequence[str]) -> list[str]:
    """End the pauses of vendors; of which ones there was one."""
    return [row["vendor"] for row in connection.execute(_SQL["resume"], {"vendors": list(vendors)})]


def paused(connection: Connection, vendor: str) -> Pause | None:
    """Whether a vendor is left alone now, until when and why."""
    row = connection.execute(_SQL["paused"], {"vendor": vendor}).fetchone()
    return None if row is None else Pause(row["paused_until"], row["pause_reason"])


def _parameters(wanted: CaptureSpec) -> dict[str, Any]:
    return {
        "account": wanted.account,
        "album_ids": list(wanted.album_ids),
        "catalog": wanted.catalog,
        "isrcs": None if wanted.isrcs is None else list(wanted.isrcs),
        "platforms": list(wanted.platforms),
        "schedule": wanted.schedule.value,
    }
