"""The backfill queue: claim, renew, settle and release rows, and read them for the planner and the operator.

`backfill_queue.sql` has the statements and defines when a row is due.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from functools import lru_cache
from typing import Any
from uuid import UUID

from measurement_pipeline.domain.backfill_queue import (
    Claim,
    QueueRow,
    QueueRules,
    SettledRow,
    Status,
)
from measurement_pipeline.domain.outcome import Outcome
from measurement_pipeline.postgres.database import AsyncConnection, Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("backfill_queue")

PLAY_COUNT = "platform_displayed_play_count"
POPULARITY = "popularity"

# Cached, because the histories of a run consist of the same days.
_iso_date = lru_cache(maxsize=16_384)(date.isoformat)


def rows(connection: Connection, songs: Sequence[str], rules: QueueRules) -> dict[str, QueueRow]:
    """The rows there are for `songs`; a song without one is absent."""
    found = connection.execute(_SQL["rows"], {"songs": list(songs), "claim_timeout": rules.claim_timeout_seconds})
    return {
        row["song"]: QueueRow(
            **{
                **row,
                "status": Status(row["status"]),
                "outcome": None if row["outcome"] is None else Outcome(row["outcome"]),
            }
        )
        for row in found
    }


def claim(
    connection: Connection,
    songs: Sequence[str],
    *,
    run: str,
    limit: int,
    rules: QueueRules,
    ignore_not_before: bool = False,
) -> list[Claim]:
    """Claim up to `limit` of the due rows among `songs`, best rank first. Skips rows that another run is claiming."""
    found = connection.execute(
        _SQL["claim"],
        {
            **_parameters(rules),
            "songs": list(songs),
            "run": run,
            "limit": limit,
            "ignore_not_before": ignore_not_before,
        },
    )
    return [Claim(**row) for row in found]


def release(connection: Connection, *, run: str) -> int:
    """Release the rows that `run` still holds; returns their number."""
    return len(connection.execute(_SQL["release"], {"run": run}).fetchall())


def launch(connection: Connection, songs: Sequence[str]) -> None:
    """Mark `songs` as launched by an operator. Inserts absent rows, not absent songs."""
    connection.execute(_SQL["launch"], {"songs": list(songs)})


def choose(
    connection: Connection,
    *,
    outcome: Outcome | None = None,
    suspect: bool = False,
    catalog: UUID | None = None,
    isrcs: Sequence[str] | None = None,
    older_than_seconds: float | None = None,
) -> dict[str, Outcome]:
    """The settled rows, except stored ones, that match all given conditions; song → outcome."""
    found = connection.execute(
        _SQL["choose"],
        {
            "outcome": None if outcome is None else outcome.value,
            "suspect": suspect,
            "catalog": catalog,
            "isrcs": None if isrcs is None else list(isrcs),
            "older_than_seconds": older_than_seconds,
        },
    )
    return {row["song"]: Outcome(row["outcome"]) for row in found}


def requeue(connection: Connection, songs: Sequence[str], *, rebuy: bool) -> list[str]:
    """Return settled rows, except stored ones, to pending with all their attempts, for an operator; returns their songs.

    A malformed response is parsed again from the stored one, unless `rebuy` requests a new call. If no request pays any more, the
    operators' account does.
    """
    return [row["song"] for row in connection.execute(_SQL["requeue"], {"songs": list(songs), "rebuy": rebuy})]


def exhaust(connection: Connection, rules: QueueRules, *, spared_run: str | None = None) -> int:
    """Fail the open rows that used all attempts, except those that `spared_run` will retry; returns their number."""
    return len(connection.execute(_SQL["exhaust"], {**_parameters(rules), "spared_run": spared_run}).fetchall())


def failed_by(connection: Connection, songs: Sequence[str], *, run: str) -> dict[str, Outcome]:
    """Of `songs`, those that `run` claimed last and that are failed now; song → outcome."""
    found = connection.execute(_SQL["failed_by"], {"songs": list(songs), "run": run})
    return {row["song"]: Outcome(row["outcome"]) for row in found}


def reclaim(connection: Connection, rules: QueueRules, *, parser_version: int) -> tuple[int, int]:
    """Return transient failures, and malformed rows that a newer parser may read, to pending; returns both numbers."""
    transient = connection.execute(_SQL["reclaim_transient"], _parameters(rules)).fetchall()
    malformed = connection.execute(_SQL["reclaim_malformed"], {"parser_version": parser_version}).fetchall()
    return len(transient), len(malformed)


def done(connection: Connection) -> dict[str, Outcome]:
    """Every row that is done; song → outcome."""
    return {row["song"]: Outcome(row["outcome"]) for row in connection.execute(_SQL["done"])}


def counts(connection: Connection) -> dict[str, Any]:
    """Number of rows by status and outcome, and the times that an operator needs."""
    return dict(connection.execute(_SQL["counts"]).fetchone() or {})


def upcoming(connection: Connection, *, limit: int) -> list[dict[str, Any]]:
    """The open rows that are still wanted or have an unparsed response, in rank order, with their details."""
    return connection.execute(_SQL["upcoming"], {"limit": limit}).fetchall()


def unwanted(connection: Connection) -> int:
    """Number of open rows that are no longer wanted. They stay and are not bought."""
    return int((connection.execute(_SQL["unwanted"]).fetchone() or {})["unwanted"])


def payers(connection: Connection, songs: Sequence[str]) -> list[UUID]:
    """The accounts with accepted requests for any unsettled row among `songs`."""
    return [row["account"] for row in connection.execute(_SQL["payers"], {"songs": list(songs)})]


def requests(connection: Connection, songs: Sequence[str]) -> list[UUID]:
    """The accepted requests that want any of `songs`."""
    return [row["id"] for row in connection.execute(_SQL["requests"], {"songs": list(songs)})]


async def heartbeat(connection: AsyncConnection, claims: Iterable[Claim], *, run: str) -> set[str]:
    """Renew `claims`; returns the songs that this run still owns."""
    held = list(claims)
    found = await connection.execute(
        _SQL["heartbeat"], {"run": run, "songs": [c.song for c in held], "leases": [c.lease for c in held]}
    )
    return {row["song"] async for row in found}


async def settle(
    connection: AsyncConnection, settlings: Sequence[SettledRow], *, run: str, parser_version: int
) -> set[str]:
    """Settle rows and store their measurements in one transaction; returns the songs that this run still owned.

    A song that is missing from the result has another owner by now, and nothing was written for it.
    """
    series = [
        (s.claim.song, metric, f"songstats_responses/{s.response_id}", points)
        for s in settlings
        for metric, points in ((PLAY_COUNT, s.play_counts), (POPULARITY, s.popularity))
        if points
    ]
    found = await connection.execute(
        _SQL["settle"],
        {
            "run": run,
            "parser_version": parser_version,
            "songs": [s.claim.song for s in settlings],
            "leases": [s.claim.lease for s in settlings],
            "statuses": [s.settlement.status.value for s in settlings],
            "outcomes": [None if s.settlement.outcome is None else s.settlement.outcome.value for s in settlings],
            "waits": [s.settlement.not_before_seconds for s in settlings],
            "attempts_back": [s.settlement.attempt_back for s in settlings],
            "status_codes": [s.status_code for s in settlings],
            "errors": [s.error for s in settlings],
            "responses": [s.response_id for s in settlings],
            "causes": [None if s.cause is None else s.cause.value for s in settlings],
            "series_songs": [song for song, _, _, _ in series],
            "metrics": [metric for _, metric, _, _ in series],
            "raw_refs": [raw_ref for _, _, raw_ref, _ in series],
            # A series travels as one array literal: adapting a thousand values one by one costs more than storing them.
            "days": ["{" + ",".join([_iso_date(day) for day, _ in points]) + "}" for _, _, _, points in series],
            "values": ["{" + ",".join([str(value) for _, value in points]) + "}" for _, _, _, points in series],
        },
    )
    return {row["song"] async for row in found}


def _parameters(rules: QueueRules) -> dict[str, object]:
    return {
        "claim_timeout": rules.claim_timeout_seconds,
        "max_attempts": rules.max_attempts,
        "operators_account": rules.operators_account,
    }
