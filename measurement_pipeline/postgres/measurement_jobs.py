"""Requests for measurements: submit, take up, resolve into queue rows, answer, settle, and read.

The statements are in `measurement_jobs.sql`. What a request may ask is `domain/measurement_job`; the order of the steps is
`intake/`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from measurement_pipeline.domain.measurement_job import (
    UNPAID_PATIENCE,
    Scope,
    ScopeByAlbum,
    ScopeByCatalog,
    ScopeByIsrc,
    State,
)
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("measurement_jobs")


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """A row that intake has to answer, its columns as they are: nothing has vouched for them yet."""

    id: UUID
    account: UUID
    source: object
    scope: object
    platforms: object
    state: State
    out_of_patience: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of the recordings that a request asked for; what is missing to `asked` was queued already."""

    asked: int
    enqueued: int
    skipped: int


def submit(connection: Connection, *, account: UUID, source: str, scope: dict[str, Any]) -> UUID:
    """Insert a request as a client would; its id."""
    found = connection.execute(_SQL["submit"], {"account": account, "source": source, "scope": Jsonb(scope)}).fetchone()
    if found is None:
        raise LookupError("the insert of a request returned no id")
    return UUID(str(found["id"]))


def waiting(connection: Connection, *, states: Sequence[State], limit: int) -> list[WaitingRequest]:
    """Requests in one of `states` whose time has come, oldest first."""
    found = connection.execute(
        _SQL["waiting"],
        {"states": [s.value for s in states], "limit": limit, "patience": UNPAID_PATIENCE.total_seconds()},
    )
    return [
        WaitingRequest(
            row["id"],
            row["account"],
            row["source"],
            _read_json(row["scope"]),
            row["platforms"],
            State(row["state"]),
            row["out_of_patience"],
        )
        for row in found
    ]


def waiting_count(connection: Connection, *, limit: int) -> int:
    """How many queued requests wait for intake now, counted up to `limit`."""
    found = connection.execute(_SQL["waiting_count"], {"limit": limit}).fetchone()
    return 0 if found is None else int(found["waiting"])


def begin_attempt(connection: Connection, request: WaitingRequest, *, run: str) -> int | None:
    """Count an attempt; how many there were with it, or None where the request is no longer in its state."""
    found = connection.execute(
        _SQL["begin_attempt"], {"job": request.id, "states": [request.state.value], "run": run}
    ).fetchone()
    return None if found is None else int(found["attempts"])


def lock(connection: Connection, request: WaitingRequest) -> bool:
    """Lock the row for the rest of the transaction; False where somebody else has answered it meanwhile."""
    return connection.execute(_SQL["lock"], {"job": request.id, "state": request.state.value}).fetchone() is not None


def answer(
    connection: Connection,
    request: WaitingRequest,
    *,
    state: State,
    status_code: int,
    error: str | None,
    checkout_url: str | None = None,
) -> None:
    """Write an answer other than an acceptance, unless somebody else has answered meanwhile."""
    connection.execute(
        _SQL["answer"],
        {
            "job": request.id,
            "was": request.state.value,
            "state": state.value,
            "status_code": status_code,
            "error": error,
            "checkout_url": checkout_url,
        },
    )


def postpone(
    connection: Connection, request: WaitingRequest, *, seconds: float, error: str, attempt_back: bool
) -> None:
    """Leave the request as it is for so long, saying why."""
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


def resolve(connection: Connection, job: UUID, scope: Scope, *, account: UUID) -> int | None:
    """Write down which recordings `scope` means; how many, or None where the catalogue is not the account's."""
    match scope:
        case ScopeByIsrc(isrcs):
            return connection.execute(_SQL["ask_for_isrcs"], {"job": job, "isrcs": list(isrcs)}).rowcount
        case ScopeByAlbum(album_ids):
            return connection.execute(_SQL["ask_for_albums"], {"job": job, "album_ids": list(album_ids)}).rowcount
        case ScopeByCatalog(catalog_id):
            parameters = {"job": job, "catalog": catalog_id, "account": account}
            if connection.execute(_SQL["catalog_is_theirs"], parameters).fetchone() is None:
                return None
            return connection.execute(_SQL["ask_for_catalog"], parameters).rowcount


def enqueue(connection: Connection, job: UUID) -> Receipt:
    """Turn what the request asked for into queue rows and accept it."""
    found = connection.execute(_SQL["enqueue"], {"job": job}).fetchone()
    if found is None:
        raise LookupError(f"measurement_jobs has no row {job}")
    return Receipt(**found)


def settle(connection: Connection) -> list[UUID]:
    """Call the accepted requests done of which every recording is settled; which ones."""
    return [row["id"] for row in connection.execute(_SQL["settle"])]


def reopen(connection: Connection, songs: Sequence[str]) -> list[UUID]:
    """Open the done requests again that asked for any of `songs`, which a person put back on the queue."""
    return [row["id"] for row in connection.execute(_SQL["reopen"], {"songs": list(songs)})]


def unpaid_accounts(connection: Connection) -> list[UUID]:
    """Accounts with accepted requests that Stripe last said no to."""
    return [row["account"] for row in connection.execute(_SQL["unpaid_accounts"])]


def recent(connection: Connection, *, account: UUID | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """The latest requests, newest first."""
    return connection.execute(_SQL["list"], {"account": account, "limit": limit}).fetchall()


def show(connection: Connection, job: UUID) -> dict[str, Any] | None:
    """One request with its progress, outcomes and hits; None where there is none."""
    found = connection.execute(_SQL["show"], {"job": job}).fetchone()
    return None if found is None else {**found, "scope": _read_json(found["scope"])}


def songs_of(connection: Connection, scope: Scope, *, account: UUID) -> list[str] | None:
    """The recordings that `scope` means, without writing anything; None where the catalogue is not the account's."""
    match scope:
        case ScopeByIsrc(isrcs):
            return list(isrcs)
        case ScopeByAlbum(album_ids):
            found = connection.execute(_SQL["songs_of_albums"], {"album_ids": list(album_ids)})
        case ScopeByCatalog(catalog_id):
            parameters = {"catalog": catalog_id, "account": account}
            if connection.execute(_SQL["catalog_is_theirs"], parameters).fetchone() is None:
                return None
            found = connection.execute(_SQL["songs_of_catalog"], parameters)
    return [row["song"] for row in found]


def estimate(connection: Connection, songs: Sequence[str]) -> dict[str, int]:
    """Of `songs`: how many are asked, owned or settled already, and queued already."""
    return dict(connection.execute(_SQL["estimate"], {"songs": list(songs)}).fetchone() or {})


def _read_json(text: str | None) -> object:
    """What a client wrote. One that Python cannot read (nested too deep, a number of 5,000 digits) stays the text it is."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text
