"""Hits and the deployment's state for Songstats: reserve before a call, store its response, breaker, pause and pace.

The statements are in `songstats_ledger.sql`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from measurement_pipeline.domain.backfill_queue import (
    CAUSES_READ,
    MAX_WAIT_IN_RUN_SECONDS,
    Claim,
    max_call_lead_seconds,
    pause_seconds,
    seconds_before_probe,
)
from measurement_pipeline.domain.drift import EARLIER_ANSWERS, Drift
from measurement_pipeline.domain.outcome import Cause
from measurement_pipeline.domain.payment import ALLOWED_VALID_FOR
from measurement_pipeline.domain.reconciliation import MAX_OFFSET_EAST, MAX_OFFSET_WEST, LedgerState, MonthlyHits
from measurement_pipeline.domain.vendor_state import Budget, VendorState
from measurement_pipeline.postgres import purchase_pauses
from measurement_pipeline.postgres.database import AsyncConnection, Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("songstats_ledger")


class ReservationVerdict(StrEnum):
    """Result of a request to reserve a hit."""

    RESERVED = "reserved"
    NO_LONGER_CLAIMED = "lost"  # another run claimed the row, or a response arrived after all
    BREAKER_OPEN_OR_PAUSED = "closed"  # the breaker opened or a pause began
    ACCOUNT_PAUSED = "paused"  # only accounts that an operator paused want it
    UNPAID = "unpaid"  # no account that wants it has an allowed decision
    STALE = "stale"  # the payer's decision is too old to spend on
    CAPPED = "capped"  # the payer's own monthly limit is used
    BUDGET = "budget"  # no hits left


@dataclass(frozen=True, slots=True)
class Reservation:
    """Result for one claim. `ledger`: the open ledger row if the verdict is RESERVED."""

    verdict: ReservationVerdict
    account: UUID | None
    job: UUID | None
    ledger: int | None
    attempts: int | None


@dataclass(frozen=True, slots=True)
class ReceivedResponse:
    """A response to store. `body` None: nothing was paid, only the ledger row is settled.

    `cause` None: a 200 that was not parsed yet.
    """

    ledger: int
    status_code: int | None
    billable: bool | None
    cause: Cause | None
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A response as it was received."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes


async def reserve(
    connection: AsyncConnection, claims: Sequence[Claim], *, run: str, hits_allowed: int, operators_account: UUID | None
) -> list[Reservation]:
    """Reserve a hit for each claim, in order, as far as lease, payer, cap, breaker and budget allow. Commits."""
    # One round trip. The lock is a statement of its own, so the counting one has a newer snapshot.
    async with connection.pipeline(), connection.transaction():
        await connection.execute(_SQL["set_reserve_lock_timeout"])
        await connection.execute(_SQL["reserve_lock"])
        found = await connection.execute(
            _SQL["reserve"],
            {
                "songs": [c.song for c in claims],
                "leases": [c.lease for c in claims],
                "run": run,
                "allowed_serves": ALLOWED_VALID_FOR.total_seconds(),
                "operators_account": operators_account,
                "hits_allowed": hits_allowed,
            },
        )
    return [
        Reservation(ReservationVerdict(row["verdict"]), row["account"], row["job"], row["ledger"], row["attempts"])
        async for row in found
    ]


async def keep(connection: AsyncConnection, received: Sequence[ReceivedResponse]) -> dict[int, int]:
    """Settle ledger rows and store paid bodies in one transaction; ledger id → response id.

    Idempotent.
    """
    found = await connection.execute(
        _SQL["keep"],
        {
            "ledgers": [r.ledger for r in received],
            "status_codes": [r.status_code for r in received],
            "billables": [r.billable for r in received],
            "reasons": [None if r.cause is None else r.cause.value for r in received],
            "headers": [Jsonb(dict(r.headers)) for r in received],
            "digests": [None if r.body is None else sha256(r.body).hexdigest() for r in received],
            # Sent in binary: as text, escaping a body costs more than all the rest of a recording.
            "bodies": [r.body for r in received],
        },
    )
    return {row["ledger"]: row["id"] async for row in found}


async def response(connection: AsyncConnection, response_id: int) -> KeptResponse:
    """A stored response. Raises `LookupError` if the id does not exist."""
    found = await connection.execute(_SQL["response"], {"response": response_id})
    row = await found.fetchone()
    if row is None:
        raise LookupError(f"there is no songstats_responses row {response_id}")
    return KeptResponse(row["status_code"], row["headers"], row["body"])


def vendor_state(connection: Connection) -> VendorState:
    """Breaker and pause, by the database's clock."""
    row = _one(connection.execute(_SQL["vendor_state"]).fetchone())
    return VendorState(**row, operator_pause=purchase_pauses.of_songstats(connection))


def budget(connection: Connection, *, hits_allowed: int) -> Budget:
    """What may still be spent, and when the next hit frees up."""
    row = _one(connection.execute(_SQL["budget"], {"hits_allowed": hits_allowed}).fetchone())
    return Budget(allowed=hits_allowed, **row)


def frees_in(connection: Connection, place: int) -> float | None:
    """Seconds until `place` (from 1) of the hits that count now no longer do; None where fewer are counted."""
    found = connection.execute(_SQL["frees_in"], {"before": place - 1}).fetchone()
    return None if found is None else float(found["seconds"])


async def recent_causes(connection: AsyncConnection) -> list[tuple[str, str]]:
    """(cause, song) of the answers since an operator last closed the breaker, the latest first.

    The cause is `domain.backfill_queue.FOREIGN` if something other than Songstats answered.
    """
    found = await connection.execute(_SQL["recent_causes"], {"limit": CAUSES_READ})
    return [(row["reason"], row["song"]) async for row in found]


async def load_bodies_before_today(connection: AsyncConnection) -> list[bytes]:
    """The latest stored answers, to compare the first of the day with. Empty if an answer of today was stored before."""
    found = await connection.execute(_SQL["bodies_before_today"], {"limit": EARLIER_ANSWERS})
    return [bytes(row["body"]) async for row in found]


async def record_drift(connection: AsyncConnection, drift: Drift) -> None:
    """Record how the first answer of the day differs from earlier ones."""
    parameters = {"new": list(drift.new), "missing": list(drift.missing), "changed": list(drift.changed)}
    await connection.execute(_SQL["record_drift"], parameters)


def get_latest_drift(connection: Connection) -> tuple[datetime, Drift] | None:
    """The latest difference that was found in the last seven days, and when."""
    row = connection.execute(_SQL["drifts"]).fetchone()
    if row is None:
        return None
    drift = Drift(tuple(row["new_fields"]), tuple(row["missing_fields"]), tuple(row["changed_types"]))
    return row["found_at"], drift


async def open_breaker(connection: AsyncConnection, *, kind: str, reason: str, suspects: Sequence[str] = ()) -> None:
    """Stop the deployment's calls for the given reason, and mark rows settled on doubtful evidence as suspect."""
    async with connection.transaction():
        await connection.execute(_SQL["open_breaker"], {"kind": kind, "reason": reason})
        await connection.execute(_SQL["mark_suspect"], {"songs": list(suspects)})


def close_breaker(connection: Connection, *, kind: str | None = None) -> bool:
    """Let calls go out again; with `kind`, only a breaker of that kind. Returns whether one was open."""
    return connection.execute(_SQL["close_breaker"], {"kind": kind}).fetchone() is not None


async def pause(connection: AsyncConnection, *, retry_after: float | None, why: str, is_unusable: bool) -> float:
    """Keep the whole deployment away for as long as the vendor says, or longer each time; seconds left of the pause.

    `is_unusable`: after responses without a result. Their pauses grow, and on the first day a good `GET /status` does
    not end them. After a 429 it may end what goes beyond `retry_after`.
    """
    async with connection.transaction():
        before = _one(
            await (await connection.execute(_SQL["throttled_before"], {"is_unusable": is_unusable})).fetchone()
        )
        # The pause that lasts may be of the other kind, and then none of this kind was before it.
        seconds = pause_seconds(retry_after, pauses_before=max(before["pauses"] - before["is_paused"], 0))
        found = await connection.execute(
            _SQL["pause"],
            {
                "count_it": not before["is_paused"],
                "is_unusable": is_unusable,
                "seconds": seconds,
                "no_probe_for": seconds_before_probe(seconds, retry_after=retry_after, is_guess=not is_unusable),
                "why": why,
            },
        )
        return float(_one(await found.fetchone())["pause_left"])


def end_pause(connection: Connection) -> bool:
    """Let calls go out although the vendor asked for a longer wait. Whether a pause lasted."""
    return connection.execute(_SQL["end_pause"]).fetchone() is not None


def end_guessed_pause(connection: Connection) -> bool:
    """End a pause that may be probed: a guess, or one that the vendor asked for more than a day ago. Whether there was one."""
    return connection.execute(_SQL["end_guessed_pause"]).fetchone() is not None


def postpone_probe(connection: Connection) -> None:
    """Probe a pause that lasts for more than an hour again in an hour. Shorter ones are probed at every tick."""
    connection.execute(_SQL["postpone_probe"])


async def throttled(connection: AsyncConnection) -> int:
    """Pauses in a row without an answer between."""
    return int(_one(await (await connection.execute(_SQL["throttled"])).fetchone())["throttled"])


async def unthrottle(connection: AsyncConnection) -> None:
    """An answer came: the next pause starts short again."""
    await connection.execute(_SQL["unthrottle"])


async def take_call_slots(connection: AsyncConnection, calls: int, *, requests_per_second: float) -> float:
    """Book `calls` places in the deployment's pace; seconds until the first, 30 at most. The others follow at the pace."""
    found = await connection.execute(
        _SQL["take_call_slots"],
        {"calls": calls, "interval": 1 / requests_per_second, "longest": MAX_WAIT_IN_RUN_SECONDS},
    )
    return float(_one(await found.fetchone())["wait"])


async def seconds_to_the_next_slot(connection: AsyncConnection, *, requests_per_second: float) -> float:
    """Seconds until the next call may go out at this pace. Books nothing."""
    furthest = max_call_lead_seconds(requests_per_second)
    found = await connection.execute(_SQL["seconds_to_the_next_slot"], {"furthest": furthest})
    return float(_one(await found.fetchone())["wait"])


def settle_open(connection: Connection, *, claim_timeout_seconds: float) -> int:
    """Settle reservations whose claim has ended as unknown; returns their number."""
    return len(connection.execute(_SQL["settle_open"], {"claim_timeout": claim_timeout_seconds}).fetchall())


def read_ledger_state(connection: Connection, *, now: datetime | None = None) -> LedgerState:
    """The ledger's figures to compare with the vendor's monthly counts. `now` overrides the clock."""
    parameters = {"now": now, "east": MAX_OFFSET_EAST.total_seconds(), "west": MAX_OFFSET_WEST.total_seconds()}
    row = _one(connection.execute(_SQL["read_ledger_state"], parameters).fetchone())
    return LedgerState(
        current=MonthlyHits(row.pop("billed"), row.pop("unknown"), row.pop("returned")),
        previous=MonthlyHits(row.pop("previous_billed"), row.pop("previous_unknown"), row.pop("previous_returned")),
        **row,
    )


def lock_reservations(connection: Connection, *, seconds: float) -> None:
    """Block reservations until the end of this transaction. Raises `LockTimeout` after `seconds` without the lock."""
    connection.execute(_SQL["set_lock_timeout"], {"milliseconds": str(round(seconds * 1000))})
    connection.execute(_SQL["reserve_lock"])


def settle_unbilled(connection: Connection, *, since: datetime, until: datetime, calls: int) -> list[int]:
    """Settle the oldest `calls` of unknown outcome, reserved in that period, as not billed; returns their ledger ids."""
    parameters = {"since": since, "until": until, "calls": calls}
    return [row["id"] for row in connection.execute(_SQL["settle_unbilled"], parameters)]


def revert_unbilled(connection: Connection, *, since: datetime, until: datetime, calls: int) -> list[int]:
    """Make the newest `calls` settled as not billed, reserved in that period, unknown again; returns their ledger ids."""
    parameters = {"since": since, "until": until, "calls": calls}
    return [row["id"] for row in connection.execute(_SQL["revert_unbilled"], parameters)]


def _one(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise LookupError("vendor_state has no row for songstats: the migration makes it, and nothing may delete it")
    return row
