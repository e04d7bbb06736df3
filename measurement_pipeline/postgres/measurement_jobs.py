"""Requests for measurements: submit, process, resolve into queue rows, answer, settle and read.

The statements are in `measurement_jobs.sql`. `domain/measurement_job` defines valid requests; `intake/` the order of the steps.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.errors import CheckViolation
from psycopg.types.json import Jsonb

from measurement_pipeline.domain.capture import Schedule
from measurement_pipeline.domain.coverage import EVERYTHING, Aim, RankedRecording, select_recordings
from measurement_pipeline.domain.measurement_job import (
    MAX_REQUEST_BYTES,
    TOO_LARGE,
    UNPAID_PATIENCE,
    Scope,
    ScopeByAlbum,
    ScopeByCatalog,
    ScopeByIsrc,
    State,
)
from measurement_pipeline.postgres import captures
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("measurement_jobs")

# The trigger that rejects requests above the size limit reports itself as this constraint.
_SIZE = "measurement_jobs_request_size"
# Lists leave out longer scopes: a hundred of the largest would be 100 MB. A single request includes its scope.
_LISTED_BYTES = 16 * 1024
# A request of this size takes well under a second.
_SMALL_BYTES = 64 * 1024
_SMALL_CATALOG = 4_000
# Characters of a source or schedule that are shown. Valid ones are shorter.
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """A request that waits for intake. `attempts`: earlier attempts, none of which ended in an answer."""

    id: UUID
    account: UUID
    state: State
    attempts: int
    is_historical: bool


@dataclass(frozen=True, slots=True)
class RequestDocument:
    """The client's input, unchecked. Not `fits`: it is above the size limit and was not read."""

    fits: bool
    source: object
    scope: object
    platforms: object
    schedule: object
    limit: int | None
    coverage: Decimal | None
    callback_url: str | None
    is_expired: bool


class RequestTooLargeError(ValueError):
    """The request is larger than the table accepts."""


@dataclass(frozen=True, slots=True)
class JobReceipt:
    """Result for the recordings of a request. Those neither enqueued nor skipped were queued already."""

    asked: int
    enqueued: int
    skipped: int


def submit(
    connection: Connection,
    *,
    account: UUID,
    source: str,
    scope: dict[str, Any],
    schedule: str = Schedule.ONCE,
    aim: Aim = EVERYTHING,
    callback_url: str | None = None,
) -> UUID:
    """Insert a request as a client would; returns its id. Raises `RequestTooLargeError`."""
    parameters = {
        "account": account,
        "source": source,
        "scope": Jsonb(scope),
        "schedule": schedule,
        "limit": aim.limit,
        "coverage": aim.coverage,
        "callback_url": callback_url,
    }
    with _report_too_large():
        found = connection.execute(_SQL["submit"], parameters).fetchone()
    if found is None:
        raise LookupError("the insert of a request returned no id")
    return UUID(str(found["id"]))


def submit_once(
    connection: Connection,
    *,
    account: UUID,
    source: str,
    scope: dict[str, Any],
    schedule: str,
    aim: Aim,
    callback_url: str | None,
    key: str | None,
    digest: bytes | None,
) -> UUID | None:
    """Insert a request of an account; None if one of its requests already has that idempotency `key`.

    Raises `RequestTooLargeError`.
    """
    parameters = {
        "account": account,
        "source": source,
        "scope": Jsonb(scope),
        "schedule": schedule,
        "limit": aim.limit,
        "coverage": aim.coverage,
        "callback_url": callback_url,
        "key": key,
        "digest": digest,
    }
    with _report_too_large():
        found = connection.execute(_SQL["submit_once"], parameters).fetchone()
    return None if found is None else UUID(str(found["id"]))


@contextmanager
def _report_too_large() -> Iterator[None]:
    try:
        yield
    except CheckViolation as error:
        if error.diag.constraint_name == _SIZE:
            raise RequestTooLargeError(TOO_LARGE) from error
        raise


def release_key(connection: Connection, *, account: UUID, key: str, digest: bytes) -> None:
    """Free an idempotency key whose request was rejected for a reason that may no longer hold."""
    connection.execute(_SQL["release_key"], {"account": account, "key": key, "digest": digest})


def of_key(connection: Connection, *, account: UUID, key: str) -> tuple[UUID, bytes] | None:
    """The account's request with that idempotency key, and the digest of its content."""
    found = connection.execute(_SQL["of_key"], {"account": account, "key": key}).fetchone()
    return None if found is None else (found["id"], found["idempotency_digest"])


def waiting(connection: Connection, *, state: State, limit: int) -> list[WaitingRequest]:
    """Requests in `state` that are due, one of each account in turn, the oldest of an account first."""
    return [_waiting(row) for row in connection.execute(_SQL["waiting"], {"state": state.value, "limit": limit})]


def queued_one(connection: Connection, job: UUID) -> WaitingRequest | None:
    """That request, while it is queued, due or not."""
    found = connection.execute(_SQL["queued_one"], {"job": job}).fetchone()
    return None if found is None else _waiting(found)


def documents(connection: Connection, requests: Sequence[WaitingRequest]) -> Iterator[tuple[UUID, RequestDocument]]:
    """The input of `requests`, streamed so that only one is in memory."""
    with connection.cursor() as cursor:
        for row in cursor.stream(_SQL["documents"], _documents_of(requests)):
            yield row["id"], _document(row)


def document(connection: Connection, request: WaitingRequest) -> RequestDocument:
    """The input of `request`. Raises `LookupError` if its row is missing."""
    found = connection.execute(_SQL["documents"], _documents_of([request])).fetchone()
    if found is None:
        raise LookupError(f"measurement_jobs has no row {request.id}")
    return _document(found)


def _documents_of(requests: Sequence[WaitingRequest]) -> dict[str, Any]:
    return {
        "jobs": [request.id for request in requests],
        "max_bytes": MAX_REQUEST_BYTES,
        "patience": UNPAID_PATIENCE.total_seconds(),
    }


def _document(row: dict[str, Any]) -> RequestDocument:
    return RequestDocument(
        fits=row["fits"],
        source=row["source"],
        scope=_read_json(row["scope"]),
        platforms=row["platforms"],
        schedule=row["schedule"],
        limit=row["recording_limit"],
        coverage=row["coverage"],
        callback_url=row["callback_url"],
        is_expired=row["is_expired"],
    )


def _waiting(row: dict[str, Any]) -> WaitingRequest:
    return WaitingRequest(row["id"], row["account"], State(row["state"]), row["attempts"], row["is_historical"])


def waiting_count(connection: Connection, *, limit: int) -> int:
    """How many queued requests wait for intake now, counted up to `limit`."""
    found = connection.execute(_SQL["waiting_count"], {"limit": limit}).fetchone()
    return 0 if found is None else int(found["waiting"])


def is_work_waiting(connection: Connection) -> bool:
    """Whether a queued request waits for intake, or recordings of an accepted one are not yet Dagster partitions."""
    return connection.execute(_SQL["work_waiting"]).fetchone() is not None


def select_small(connection: Connection, requests: Sequence[WaitingRequest]) -> set[UUID]:
    """The ids of those of `requests` whose text is short and whose catalogue, if they name one, is small."""
    parameters = {"jobs": [one.id for one in requests], "max_bytes": _SMALL_BYTES, "max_recordings": _SMALL_CATALOG}
    return {row["id"] for row in connection.execute(_SQL["small"], parameters)}


def begin_attempts(
    connection: Connection, requests: Sequence[WaitingRequest], *, run: str | None = None
) -> dict[UUID, int]:
    """Count an attempt at each of `requests`, which are of one state: id → attempts. Requests in another state are missing."""
    if not requests:
        return {}
    parameters = {"jobs": [request.id for request in requests], "state": requests[0].state.value, "run": run}
    return {row["id"]: int(row["attempts"]) for row in connection.execute(_SQL["begin_attempts"], parameters)}


def end_attempts(connection: Connection, requests: Sequence[WaitingRequest]) -> None:
    """Return the attempts that `begin_attempts` counted, once the requests were read."""
    if requests:
        parameters = {"jobs": [request.id for request in requests], "state": requests[0].state.value}
        connection.execute(_SQL["end_attempts"], parameters)


def lock(connection: Connection, request: WaitingRequest) -> bool:
    """Lock the row for the rest of the transaction; False if another process has answered it."""
    return connection.execute(_SQL["lock"], {"job": request.id, "state": request.state.value}).fetchone() is not None


def answer(
    connection: Connection,
    request: WaitingRequest,
    *,
    state: State,
    status_code: int,
    error: str | None,
    checkout_url: str | None = None,
    cost_usd: Decimal | None = None,
) -> None:
    """Write an answer other than an acceptance, unless another process has answered. `cost_usd`: the estimated cost."""
    connection.execute(
        _SQL["answer"],
        {
            "job": request.id,
            "was": request.state.value,
            "state": state.value,
            "status_code": status_code,
            "error": error,
            "checkout_url": checkout_url,
            "cost": cost_usd,
        },
    )


def postpone(
    connection: Connection, request: WaitingRequest, *, seconds: float | None, error: str, attempt_back: bool
) -> None:
    """Postpone the request and record why. `seconds` None: a quarter of its age, from a minute to an hour."""
    connection.execute(
        _SQL["postpone"],
        {
            "job": request.id,
            "states": [request.state.value],
            "wait": seconds,
            "error": error,
            "attempts_back": int(attempt_back),
        },
    )


def resolve(connection: Connection, job: UUID, scope: Scope) -> int:
    """Store the recordings of `scope`; returns their number. The caller has checked the owner of a catalogue (`is_theirs`)."""
    match scope:
        case ScopeByIsrc(isrcs):
            return connection.execute(_SQL["ask_for_isrcs"], {"job": job, "isrcs": list(isrcs)}).rowcount
        case ScopeByAlbum(album_ids):
            return connection.execute(_SQL["ask_for_albums"], {"job": job, "album_ids": list(album_ids)}).rowcount
        case ScopeByCatalog(catalog_id):
            return connection.execute(_SQL["ask_for_catalog"], {"job": job, "catalog": catalog_id}).rowcount


def rank(connection: Connection, songs: Sequence[str]) -> list[RankedRecording]:
    """`songs` (no duplicates) with their known plays, most played first. Read-only."""
    return [RankedRecording(**row) for row in connection.execute(_SQL["rank"], {"songs": list(songs)})]


def list_recordings(connection: Connection, job: UUID) -> list[str]:
    """The recordings that the request wants, once it is accepted."""
    return [row["song"] for row in connection.execute(_SQL["recordings"], {"job": job})]


def resolve_part(connection: Connection, job: UUID, scope: Scope, *, account: UUID, aim: Aim) -> int:
    """Like `resolve`, for the part of `scope` that reaches `aim`; what it leaves out is recorded."""
    selection = select_recordings(rank(connection, songs_of(connection, scope, account=account) or []), aim)
    if selection.songs:
        parameters = {"job": job, "left_out": selection.left_out, "covered": selection.covered}
        connection.execute(_SQL["record_left_out"], parameters)
        resolve(connection, job, ScopeByIsrc(selection.songs))
    return len(selection.songs)


def enqueue(connection: Connection, job: UUID) -> JobReceipt:
    """Turn the request's recordings into queue rows and accept it."""
    found = connection.execute(_SQL["enqueue"], {"job": job}).fetchone()
    if found is None:
        raise LookupError(f"measurement_jobs has no row {job}")
    return JobReceipt(**found)


def accept_capture(
    connection: Connection,
    request: WaitingRequest,
    *,
    snapshot: UUID,
    cost_usd: Decimal,
    reused: bool,
    asked: int | None = None,
    skipped: int | None = None,
    error: str | None = None,
) -> None:
    """Accept a current request that the given capture answers.

    `asked`: number of its recordings, None if it names albums. `skipped`: those on no known album, which `error` describes.
    """
    connection.execute(
        _SQL["accept_capture"],
        {
            "job": request.id,
            "was": request.state.value,
            "snapshot": snapshot,
            "cost": cost_usd,
            "reused": reused,
            "asked": asked,
            "skipped": skipped,
            "error": error,
        },
    )


def correct_error(connection: Connection, snapshot: UUID, *, before: str | None, error: str | None) -> None:
    """Replace a capture's error in the requests that it answered. Their state does not change."""
    connection.execute(_SQL["correct_error"], {"snapshot": snapshot, "before": before, "error": error})


def settle(connection: Connection, *, only: Sequence[UUID] | None = None) -> list[UUID]:
    """Settle accepted requests whose recordings are all settled or whose capture has ended; returns their ids.

    `only`: restrict to these requests.
    """
    parameters = {"jobs": None if only is None else list(only)}
    settled = [
        *connection.execute(_SQL["settle"], parameters),
        *connection.execute(_SQL["settle_captures"], parameters),
    ]
    return [row["id"] for row in settled]


def withdraw(connection: Connection, job: UUID, *, account: UUID) -> State | None:
    """Withdraw a request of the account, while it or its series is open; returns its state, or None if there is none.

    Cancels a capture that has not started and that nothing else wants, and stops a series that only this request wanted.
    """
    with connection.transaction():
        parameters = {"job": job, "account": account}
        if connection.execute(_SQL["withdraw"], parameters).fetchone() is not None:
            # Locked after the request's row, as intake does. A concurrent acceptance of that capture or series waits or is waited
            # for; of two concurrent withdrawals the second sees that no request is left.
            captures.lock_account(connection, account)
            connection.execute(_SQL["end_series"], parameters)
            connection.execute(_SQL["drop_capture"], parameters)
        found = connection.execute(_SQL["state_of"], parameters).fetchone()
    return None if found is None else State(found["state"])


def reopen(connection: Connection, songs: Sequence[str]) -> list[UUID]:
    """Reopen done requests with any of `songs`, which an operator requeued."""
    return [row["id"] for row in connection.execute(_SQL["reopen"], {"songs": list(songs)})]


def unpaid_accounts(connection: Connection) -> list[UUID]:
    """Accounts with accepted requests whose last payment decision is denied."""
    return [row["account"] for row in connection.execute(_SQL["unpaid_accounts"])]


def recent(connection: Connection, *, account: UUID | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """The latest requests, newest first."""
    return connection.execute(_SQL["list"], {"account": account, "limit": limit, "shown": _SHOWN}).fetchall()


def page(
    connection: Connection, *, account: UUID, before: tuple[datetime, UUID] | None, limit: int
) -> list[dict[str, Any]]:
    """The account's requests, newest first; `before`: those older than that one. A long scope is None."""
    at, job = before or (None, None)
    parameters = {"account": account, "at": at, "job": job, "limit": limit, "max_bytes": _LISTED_BYTES, "shown": _SHOWN}
    found = connection.execute(_SQL["page"], parameters).fetchall()
    return [{**row, "scope": _read_json(row["scope"])} for row in found]


def answer_to(connection: Connection, job: UUID, *, account: UUID) -> dict[str, Any] | None:
    """The answer to a request of the account so far; None if the account has no such request."""
    return connection.execute(_SQL["answer_to"], {"job": job, "account": account}).fetchone()


def show(connection: Connection, job: UUID, *, account: UUID | None = None) -> dict[str, Any] | None:
    """One request with its progress, outcomes and hits; None if there is none, or it is another account's."""
    parameters = {"job": job, "account": account, "max_bytes": MAX_REQUEST_BYTES, "shown": _SHOWN}
    found = connection.execute(_SQL["show"], parameters).fetchone()
    return None if found is None else {**found, "scope": _read_json(found["scope"])}


def songs_of(connection: Connection, scope: Scope, *, account: UUID) -> list[str] | None:
    """The recordings of `scope`. Read-only. None if the catalogue is not the account's."""
    match scope:
        case ScopeByIsrc(isrcs):
            return list(isrcs)
        case ScopeByAlbum(album_ids):
            found = connection.execute(_SQL["songs_of_albums"], {"album_ids": list(album_ids)})
        case ScopeByCatalog(catalog_id):
            if not is_theirs(connection, catalog_id, account=account):
                return None
            found = connection.execute(_SQL["songs_of_catalog"], {"catalog": catalog_id})
    return [row["song"] for row in found]


def is_theirs(connection: Connection, catalog_id: UUID, *, account: UUID) -> bool:
    """Whether the catalogue exists and belongs to the account."""
    parameters = {"catalog": catalog_id, "account": account}
    return connection.execute(_SQL["catalog_is_theirs"], parameters).fetchone() is not None


def estimate(connection: Connection, songs: Sequence[str]) -> dict[str, int]:
    """Number of `songs`: all, already owned or settled, and already queued."""
    return dict(connection.execute(_SQL["estimate"], {"songs": list(songs)}).fetchone() or {})


def _read_json(text: str | None) -> object:
    """Parse a client's JSON. Text that Python cannot parse (nested too deep, a number of 5,000 digits) is returned unchanged."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text


def without_partitions(connection: Connection, *, recordings: int, requests: int) -> list[UUID]:
    """The oldest accepted requests whose recordings are not yet Dagster partitions, up to about `recordings` recordings."""
    parameters = {"recordings": recordings, "requests": requests}
    return [row["id"] for row in connection.execute(_SQL["without_partitions"], parameters)]


def songs_by_rank(connection: Connection, jobs: Sequence[UUID]) -> list[str]:
    """The recordings of the requests, the most played first."""
    return [row["song"] for row in connection.execute(_SQL["songs_by_rank"], {"jobs": list(jobs)})]


def mark_partitions(connection: Connection, jobs: Sequence[UUID]) -> None:
    """Record that the requests' recordings are Dagster partitions."""
    connection.execute(_SQL["with_partitions"], {"jobs": list(jobs)})
