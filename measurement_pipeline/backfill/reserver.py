"""Reserves hits for claims just before they are called: budget, payer, breaker and the deployment's pace.

The statements decide under a lock. This module turns their verdicts into deferred rows, fresh payment decisions, or the end of
the run's calls.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.settler import Settler
from measurement_pipeline.domain.backfill_queue import Claim
from measurement_pipeline.domain.blockers import (
    ACCOUNT_PAUSED,
    CAP_USED,
    CLOSED_BY_ANOTHER_RUN,
    NO_PAYER,
    QUOTA_USED,
)
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.postgres import songstats_ledger
from measurement_pipeline.postgres.database import DatabaseError, ReconnectingConnection
from measurement_pipeline.postgres.errors import is_transient
from measurement_pipeline.postgres.songstats_ledger import Reservation, ReservationVerdict

# A payer whose decision is stale again this soon after a check is not checked again; its rows wait.
_PAYMENT_RETRY_SECONDS = 60.0

Reserved = list[tuple[Claim, Reservation]]
ClaimsByPayer = dict[UUID, list[Claim]]


class Reserver:
    """Reserves the hits of one run. `check_payment` blocks and is called in a thread; `stop` ends the run's calls."""

    def __init__(
        self,
        config: BackfillConfig,
        connection: ReconnectingConnection,
        *,
        run: str,
        settler: Settler,
        check_payment: Callable[[UUID], PaymentVerdict],
        stop: Callable[[str], None],
    ) -> None:
        self._config = config
        self._connection = connection
        self._run = run
        self._settler = settler
        self._check_payment = check_payment
        self._stop = stop
        self._payment_checked_at: dict[UUID, float] = {}

    async def reserve(self, batch: Sequence[Claim]) -> tuple[Reserved, ClaimsByPayer]:
        """The claims that may be called, and, by payer, those that need a fresh payment decision."""
        reserve = partial(
            songstats_ledger.reserve,
            claims=batch,
            run=self._run,
            hits_allowed=self._config.hits_allowed,
            operators_account=self._config.rules.operators_account,
        )
        # A retry after a lost connection may reserve twice: the first hit then has no call and counts as unknown.
        reservations = await self._connection.execute_with_retry(reserve)
        reserved: Reserved = []
        stale: ClaimsByPayer = {}
        for claim, reservation in zip(batch, reservations, strict=True):
            match reservation.verdict:
                case ReservationVerdict.RESERVED:
                    reserved.append((claim, reservation))
                case ReservationVerdict.NO_LONGER_CLAIMED:
                    self._settler.lose(claim)
                case ReservationVerdict.BREAKER_OPEN_OR_PAUSED:
                    self._stop(CLOSED_BY_ANOTHER_RUN)
                case ReservationVerdict.BUDGET:
                    self._stop(QUOTA_USED)
                case ReservationVerdict.ACCOUNT_PAUSED:
                    await self._settler.defer(claim, ACCOUNT_PAUSED, wait=None)
                case ReservationVerdict.UNPAID:
                    await self._settler.defer(claim, NO_PAYER, wait=None)
                case ReservationVerdict.CAPPED:
                    await self._settler.defer(claim, CAP_USED, wait=None)
                case ReservationVerdict.STALE if reservation.account is not None:
                    stale.setdefault(reservation.account, []).append(claim)
        return reserved, stale

    async def recheck_payment(self, stale: ClaimsByPayer) -> list[Claim]:
        """Ask Stripe about each payer; the claims to reserve again. Those of an unknown payer wait."""
        again: list[Claim] = []
        for account, claims in stale.items():
            if await self._payment_verdict(account) is PaymentVerdict.UNKNOWN:
                for claim in claims:
                    await self._settler.defer(claim, "payment could not be checked", wait=_PAYMENT_RETRY_SECONDS)
            else:
                # Allowed: reserve again. Denied: another request may pay; otherwise the reservation's verdict is unpaid.
                again += claims
        return again

    async def take_call_slots(self, calls: int) -> float:
        """Book places in the deployment's pace; seconds until the first."""
        per_second = self._config.requests_per_second
        if not per_second or not calls:
            return 0.0
        return await self._connection.execute_with_retry(
            partial(songstats_ledger.take_call_slots, calls=calls, requests_per_second=per_second)
        )

    async def seconds_to_the_next_slot(self) -> float:
        """Seconds until the pace allows the next call."""
        per_second = self._config.requests_per_second
        read = partial(songstats_ledger.seconds_to_the_next_slot, requests_per_second=per_second)
        return await self._connection.execute_with_retry(read)

    async def _payment_verdict(self, account: UUID) -> PaymentVerdict:
        now = asyncio.get_running_loop().time()
        if now - self._payment_checked_at.get(account, -_PAYMENT_RETRY_SECONDS) < _PAYMENT_RETRY_SECONDS:
            return PaymentVerdict.UNKNOWN
        self._payment_checked_at[account] = now
        try:
            return await asyncio.to_thread(self._check_payment, account)
        except DatabaseError as error:
            if not is_transient(error):
                raise
            return PaymentVerdict.UNKNOWN
