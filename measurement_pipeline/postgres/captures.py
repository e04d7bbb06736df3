"""Captures: the albums of a request, the monthly cap, reuse of a recent capture, and the state of a capture.

The statements are in `captures.sql`. `apify_runs` has the actor runs that buy its parts, `capture_series` the series.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from measurement_pipeline.domain.capture import (
    REUSE_PERIOD,
    CaptureLimits,
    CaptureSpec,
    CaptureTicket,
    OverCap,
    Schedule,
    SnapshotState,
)
from measurement_pipeline.domain.measurement_job import Scope, ScopeByAlbum, ScopeByCatalog, ScopeByIsrc
from measurement_pipeline.postgres.database import Connection, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("captures")

# Status codes of the requests that a failed capture answers.
NOT_FOUND = 404
FAILED = 500


@dataclass(frozen=True, slots=True)
class ClaimedCapture:
    """A capture that this run has just claimed. `attempts` includes this claim.

    `album_ids`: the albums to capture, without the `reused_albums` that a recent capture has.
    """

    album_ids: tuple[str, ...]
    reused_albums: int
    attempts: int


def resolve_albums(connection: Connection, scope: Scope) -> tuple[str, ...]:
    """The Spotify albums of `scope`, sorted. The caller has checked who owns the catalogue."""
    match scope:
        case ScopeByAlbum(album_ids):
            return tuple(sorted(set(album_ids)))
        case ScopeByIsrc(isrcs):
            found = connection.execute(_SQL["albums_of_isrcs"], {"isrcs": list(isrcs)})
        case ScopeByCatalog(catalog_id):
            found = connection.execute(_SQL["albums_of_catalog"], {"catalog": catalog_id})
    # Sorted in Python, because the digest of the albums depends on the order and the database's collation may differ.
    return tuple(sorted(row["album_id"] for row in found))


def count_without_album(connection: Connection, songs: Sequence[str]) -> int:
    """How many of `songs` (no duplicates) have no known Spotify album."""
    return int(fetch_row(connection, _SQL["count_without_album"], songs=list(songs))["without_album"])


def open_capture(connection: Connection, spec: CaptureSpec, *, limits: CaptureLimits) -> CaptureTicket | OverCap:
    """Return the capture that answers `spec`: a recent one of the same albums, or a new one within the monthly caps.

    A new one pays only for albums that no capture of the account has captured within the hour.

    A monthly schedule also starts a series. Call it in a transaction: it locks the account until the end, so that two equal
    requests at the same moment pay once.
    """
    answer = open_locked(connection, spec, limits=limits)
    if isinstance(answer, CaptureTicket) and spec.schedule is Schedule.MONTHLY:
        connection.execute(_SQL["start_series"], _parameters(spec))
    return answer


def open_locked(connection: Connection, spec: CaptureSpec, *, limits: CaptureLimits) -> CaptureTicket | OverCap:
    """Like `open_capture`, without starting a series."""
    parameters = _parameters(spec)
    lock_account(connection, spec.account)
    connection.execute(_SQL["ensure_account"], parameters)
    albums = len(spec.album_ids)
    reusable = connection.execute(_SQL["reusable"], parameters | {"reuse_for": REUSE_PERIOD.total_seconds()}).fetchone()
    if reusable is not None:
        return CaptureTicket(reusable["id"], albums, Decimal(0), reused=True)
    recent = _recently_captured(connection, parameters)
    cost = limits.cost_usd(albums - len(recent))
    # After the account's lock, always in this order, which prevents deadlocks.
    lock_deployment(connection)
    over = find_exceeded_cap(connection, spec.account, limits, cost_usd=cost)
    if over is not None:
        return over
    opened = fetch_row(connection, _SQL["open"], **parameters, cost=cost, reused=recent)
    return CaptureTicket(opened["id"], albums, cost, reused=False)


def find_exceeded_cap(
    connection: Connection, account: UUID, limits: CaptureLimits, *, cost_usd: Decimal
) -> OverCap | None:
    """The cap that `cost_usd` more would exceed, or None. The caller holds the locks of the account and of the deployment."""
    spent = fetch_row(connection, _SQL["spent_this_month"], account=account)
    if spent["spent"] + cost_usd > limits.cap_usd:
        return OverCap(limits.cap_usd, spent["spent"], cost_usd)
    if spent["spent_by_all"] + cost_usd > limits.deployment_cap_usd:
        return OverCap(limits.deployment_cap_usd, spent["spent_by_all"], cost_usd, is_of_deployment=True)
    return None


def estimate(
    connection: Connection, spec: CaptureSpec, limits: CaptureLimits
) -> tuple[Decimal, Decimal, OverCap | None, bool]:
    """What `spec` would cost, what the account has spent this month, the cap that it would exceed, and whether it is reused."""
    parameters = _parameters(spec)
    reusable = connection.execute(_SQL["reusable"], parameters | {"reuse_for": REUSE_PERIOD.total_seconds()}).fetchone()
    spent = spent_this_month(connection, spec.account)
    recent = [] if reusable else _recently_captured(connection, parameters)
    cost = Decimal(0) if reusable else limits.cost_usd(len(spec.album_ids) - len(recent))
    over = None if reusable else find_exceeded_cap(connection, spec.account, limits, cost_usd=cost)
    return cost, spent, over, reusable is not None


def _recently_captured(connection: Connection, parameters: dict[str, Any]) -> list[str]:
    found = connection.execute(_SQL["recently_captured"], parameters | {"reuse_for": REUSE_PERIOD.total_seconds()})
    return [row["album_id"] for row in found]


def lock_account(connection: Connection, account: UUID) -> None:
    """Serialise changes to the account's capture costs until this transaction ends."""
    connection.execute(_SQL["lock_account"], {"account": str(account)})


def lock_deployment(connection: Connection) -> None:
    """Serialise changes to all accounts' capture costs. Taken after an account's lock."""
    connection.execute(_SQL["lock_deployment"])


def spent_this_month(connection: Connection, account: UUID) -> Decimal:
    """Cost of the account's captures in this calendar month (UTC), open ones included, in US dollars."""
    return Decimal(fetch_row(connection, _SQL["spent_this_month"], account=account)["spent"])


def seconds_left_this_month(connection: Connection) -> float:
    """Seconds until the end of this calendar month (UTC), when the cap starts anew."""
    return float(fetch_row(connection, _SQL["seconds_left_this_month"])["seconds"])


def list_due(connection: Connection, *, claim_timeout_seconds: float, limit: int) -> list[UUID]:
    """Captures that a run may claim now, oldest first."""
    found = connection.execute(_SQL["due"], {"claim_timeout": claim_timeout_seconds, "limit": limit})
    return [row["id"] for row in found]


def count_open(connection: Connection) -> dict[str, Any]:
    """Number of open captures, how many of them wait for `not_before`, and the earliest `not_before`."""
    return fetch_row(connection, _SQL["open_count"])


def claim(
    connection: Connection, snapshot: UUID, *, run: str, operator: bool, claim_timeout_seconds: float
) -> ClaimedCapture | None:
    """Make `run` the owner of a capture. None if it has ended, waits, or belongs to a live run."""
    row = connection.execute(
        _SQL["claim"],
        {"snapshot": snapshot, "run": run, "operator": operator, "claim_timeout": claim_timeout_seconds},
    ).fetchone()
    return None if row is None else ClaimedCapture(tuple(row["album_ids"]), row["reused_albums"], row["attempts"])


@dataclass(frozen=True, slots=True)
class DoneCapture:
    """A done capture that is claimed for mapping again, with the error text of its row."""

    error: str | None


def claim_done(connection: Connection, snapshot: UUID, *, run: str, claim_timeout_seconds: float) -> DoneCapture | None:
    """Claim a done capture without reopening it. None if it is not done, or belongs to a live run."""
    parameters = {"snapshot": snapshot, "run": run, "claim_timeout": claim_timeout_seconds}
    row = connection.execute(_SQL["claim_done"], parameters).fetchone()
    return None if row is None else DoneCapture(row["error"])


def release_done(connection: Connection, snapshot: UUID, *, run: str) -> None:
    """Release a done capture that `run` claimed; no change if `run` does not own it any more."""
    connection.execute(_SQL["release_done"], {"snapshot": snapshot, "run": run})


def reset_captured_at(connection: Connection, snapshot: UUID) -> None:
    """Clear `captured_at` of a capture without measurements, so that it becomes the time of the new purchase."""
    connection.execute(_SQL["reset_captured_at"], {"snapshot": snapshot})


def reopen_requests(connection: Connection, snapshot: UUID) -> None:
    """Set the requests that a capture answered back to `accepted`."""
    connection.execute(_SQL["reopen"], {"snapshot": snapshot})


def stop(connection: Connection, snapshot: UUID, *, error: str) -> bool:
    """Fail an open capture; return whether there was one. Actor runs that were started stay billed."""
    return connection.execute(_SQL["stop"], {"snapshot": snapshot, "error": error}).fetchone() is not None


def list_recently_done(connection: Connection, *, days: int) -> list[UUID]:
    """Captures that became done in the last `days` days."""
    return [row["id"] for row in connection.execute(_SQL["recently_done"], {"days": days})]


def list_with_deferred_tracks(connection: Connection, *, days: int, limit: int) -> list[UUID]:
    """Captures of the last `days` days with tracks whose lookup at Spotify was deferred."""
    return [row["id"] for row in connection.execute(_SQL["with_deferred_tracks"], {"days": days, "limit": limit})]


def release(
    connection: Connection, snapshot: UUID, *, run: str, seconds: float | None, error: str, refund_attempt: bool
) -> None:
    """Release a capture until `seconds` from now, with the reason. None: a quarter of its age, from a minute to an hour."""
    parameters = {
        "snapshot": snapshot,
        "run": run,
        "wait": seconds,
        "error": error,
        "attempts_back": int(refund_attempt),
    }
    connection.execute(_SQL["release"], parameters)


def known_albums(connection: Connection, album_ids: Sequence[str]) -> frozenset[str]:
    """The albums that at least one recording is linked to."""
    rows = connection.execute(_SQL["known_albums"], {"album_ids": list(album_ids)})
    return frozenset(row["album_id"] for row in rows)


def finish(
    connection: Connection, snapshot: UUID, *, run: str, state: SnapshotState, status_code: int, error: str | None
) -> bool:
    """Store the result of a capture; False if `run` lost it. `status_code`: for its requests, if it failed."""
    parameters = {
        "snapshot": snapshot,
        "run": run,
        "state": state.value,
        "status_code": status_code,
        "error": error,
    }
    return connection.execute(_SQL["finish"], parameters).fetchone() is not None


def get(connection: Connection, snapshot: UUID) -> dict[str, Any] | None:
    """A capture with its figures, or None."""
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
