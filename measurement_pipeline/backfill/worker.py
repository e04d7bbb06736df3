"""The money path for the rows that a run has claimed: reserve → call → keep → parse → settle, with heartbeats beside it.

The stages run in one event loop. Each stage processes everything that waits for it as one batch, so that a slow database makes
batches larger, not queues longer. At most `concurrency` recordings are between reservation and settlement. `domain` and
`vendors/songstats/historic_stats` decide what a response means, `circuit_breaker` what it says of the vendor. This module acts.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from measurement_pipeline.backfill.circuit_breaker import CircuitBreaker
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.results import RecordingResult, ResultKind, RunSummary
from measurement_pipeline.domain.backfill_queue import (
    MAX_WAIT_IN_RUN_SECONDS,
    Claim,
    SettledRow,
    Settlement,
    Status,
    settle,
)
from measurement_pipeline.domain.blockers import (
    ACCOUNT_PAUSED,
    CAP_USED,
    CLOSED_BY_ANOTHER_RUN,
    NO_PAYER,
    QUOTA_USED,
)
from measurement_pipeline.domain.outcome import Judgement, Outcome
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.postgres import backfill_queue, run_heartbeats, songstats_ledger
from measurement_pipeline.postgres.database import DatabaseError, ReconnectingConnection
from measurement_pipeline.postgres.errors import ErrorKind, classify, first_line, is_transient
from measurement_pipeline.postgres.songstats_ledger import ReceivedResponse, Reservation, ReservationVerdict
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline.vendors.songstats.historic_stats import (
    PARSER_VERSION,
    digest,
    judge,
    needs_key_check,
    read_key_validity,
)
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

_BATCH = 64
# A hit is reserved just before it is spent, so that no reserved hit is spent after a pause has begun. A batch holds at most what
# the pace allows in _BATCH_SECONDS. It is reserved at most _AHEAD_SECONDS before its first call.
_BATCH_SECONDS = 0.2
_AHEAD_SECONDS = 0.02
_NO_RESERVATION = Reservation(ReservationVerdict.RESERVED, None, None, None, None)

# A payer whose decision is stale again this soon after a check is not checked again; its rows wait.
_PAYMENT_RETRY_SECONDS = 60.0
_KIND_OF_STATUS = {Status.DONE: ResultKind.SETTLED, Status.FAILED: ResultKind.FAILED}


@dataclass(frozen=True, slots=True)
class _FetchedItem:
    """A recording between its call and its settlement.

    `judgement`: None for a complete 200, which is parsed only once it is stored. `key_works`: what `/status` says of the key,
    where that was needed.
    """

    claim: Claim
    reservation: Reservation
    response: SongstatsResponse
    key_works: bool | None = None
    judgement: Judgement | None = None
    response_id: int | None = None


class BackfillWorker:
    """Buys the claims of one run. Create it in the event loop that runs it."""

    def __init__(
        self,
        config: BackfillConfig,
        *,
        run: str,
        client: SongstatsClient,
        check_payment: Callable[[UUID], PaymentVerdict],
        report: Callable[[RecordingResult], None],
        retry_soon_seconds: float | None,
    ) -> None:
        """`check_payment` blocks and is called in a thread; `report` is called in the loop for each recording."""
        self.summary = RunSummary()
        self._config = config
        self._run = run
        self._client = client
        self._check_payment = check_payment
        self._report = report
        self._retry_soon_seconds = retry_soon_seconds
        # One connection for each stage, so that no stage waits for another's statement.
        new_connection = partial(
            ReconnectingConnection, config.database_url, patience_seconds=config.patience_with_database_seconds
        )
        self._reserve_connection, self._keep_connection = new_connection(), new_connection()
        self._settle_connection, self._heartbeat_connection = new_connection(), new_connection()
        self._breaker = CircuitBreaker(self._settle_connection, concurrency=config.concurrency)
        self._waiting: deque[Claim] = deque()
        self._held: dict[str, Claim] = {}
        self._in_flight = 0
        self._payment_checked_at: dict[UUID, float] = {}
        self._to_keep: asyncio.Queue[_FetchedItem] = asyncio.Queue()
        self._to_settle: asyncio.Queue[_FetchedItem] = asyncio.Queue()
        self._progress = asyncio.Event()
        self._error: Exception | None = None

    async def run(self, claims: Sequence[Claim]) -> RunSummary:
        """Buy the claimed rows, as far as budget, payment, pace and vendor allow. Rows without a call stay claimed."""
        self._held = {claim.song: claim for claim in claims}
        self.summary.claimed = len(claims)
        try:
            await self._breaker.load_history()
            self._stop_if_breaker_opened()
            async with asyncio.TaskGroup() as group:
                stages = [
                    group.create_task(stage())
                    for stage in (self._heartbeat_stage, self._keep_stage, self._settle_stage)
                ]
                with self._finish_calls_on_error():
                    await self._sort_claims(claims)
                    await self._call_stage(group)
                while self._in_flight:
                    await self._wait_for_progress()
                for stage in stages:
                    stage.cancel()
            if self._error is not None:
                raise self._error
        finally:
            for connection in (
                self._reserve_connection,
                self._keep_connection,
                self._settle_connection,
                self._heartbeat_connection,
            ):
                await connection.close()
        return self.summary

    def stop(self, reason: str) -> None:
        """Reserve no more hits; the calls in flight finish. Call it from the event loop."""
        self.summary.stop_reason = self.summary.stop_reason or reason
        self._progress.set()

    @contextmanager
    def _finish_calls_on_error(self) -> Iterator[None]:
        """On error, start no more calls but finish those in flight and store their responses, because they have been billed."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - `run` raises it once no call is in flight
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Start no more calls; `run` raises the first error once the responses of the calls in flight are stored."""
        self._error = self._error or error
        self.stop(f"an error: {first_line(error)}")

    # --- stages --------------------------------------------------------------------------------------------------------

    async def _sort_claims(self, claims: Sequence[Claim]) -> None:
        """Settle the claims that need no call; queue the others for a hit."""
        for claim in claims:
            if claim.unread_response is not None:
                stored = await self._reserve_connection.execute_with_retry(
                    partial(songstats_ledger.response, response_id=claim.unread_response)
                )
                response = SongstatsResponse(stored.status_code, stored.headers, stored.body)
                self._in_flight += 1
                # A stored 403 came while the key worked: otherwise its body was not stored.
                item = _FetchedItem(claim, _NO_RESERVATION, response, key_works=True, response_id=claim.unread_response)
                self._to_settle.put_nowait(item)
            elif claim.has_history:
                owned = SettledRow(claim, Settlement(Status.DONE, Outcome.STORED))
                await self._settle_and_report(
                    owned, RecordingResult(claim.song, ResultKind.ALREADY_STORED, outcome=Outcome.STORED)
                )
            else:
                self._waiting.append(claim)

    async def _call_stage(self, group: asyncio.TaskGroup) -> None:
        per_second = self._config.requests_per_second
        max_batch = max(1, min(_BATCH, int(per_second * _BATCH_SECONDS))) if per_second else _BATCH
        while self._waiting and not self.summary.stop_reason:
            if (
                per_second
                and 1 / per_second > MAX_WAIT_IN_RUN_SECONDS
                and await self._postpone_if_pace_is_slow(per_second)
            ):
                break
            slots = min(self._breaker.available_slots(self._in_flight), max_batch)
            if slots <= 0:
                await self._wait_for_progress()
                continue
            batch = [self._waiting.popleft() for _ in range(min(slots, len(self._waiting)))]
            reserved, stale = await self._reserve([claim for claim in batch if claim.song in self._held])
            wait = await self._take_call_slots(len(reserved)) if reserved else 0.0
            for place, (claim, reservation) in enumerate(reserved):
                self._in_flight += 1
                group.create_task(self._call(claim, reservation, wait + (place / per_second if per_second else 0.0)))
            # After the calls have started: a reserved hit does not wait for Stripe.
            await self._recheck_payment(stale)
            if per_second and reserved:
                pause = wait + len(reserved) / per_second - _AHEAD_SECONDS
                await asyncio.sleep(max(0.0, min(pause, MAX_WAIT_IN_RUN_SECONDS)))

    async def _postpone_if_pace_is_slow(self, per_second: float) -> bool:
        """Postpone the waiting rows if the pace allows the next call later than a run waits; whether it did."""
        read_wait = partial(songstats_ledger.seconds_to_the_next_slot, requests_per_second=per_second)
        wait = await self._reserve_connection.execute_with_retry(read_wait)
        if wait <= MAX_WAIT_IN_RUN_SECONDS:
            return False
        self.stop(f"SONGSTATS_REQUESTS_PER_SECOND allows the next call in {wait:.0f} s")
        while self._waiting:
            await self._defer(self._waiting.popleft(), "waiting for SONGSTATS_REQUESTS_PER_SECOND", wait=wait)
        return True

    async def _call(self, claim: Claim, reservation: Reservation, wait: float) -> None:
        item = None
        with self._finish_calls_on_error():
            await asyncio.sleep(wait)
            self.summary.calls += 1
            response = await self._client.fetch_history(claim.song)
            works = read_key_validity(await self._client.fetch_status()) if needs_key_check(response) else None
            # Stored before it is parsed: whatever parsing does to this process, the paid response is in the database.
            is_complete = response.status_code == 200 and response.failure is None
            judgement = None if is_complete else judge(response, is_key_valid=works)
            item = _FetchedItem(claim, reservation, response, works, judgement)
        if item is not None:
            self._to_keep.put_nowait(item)
        else:
            self._finish_calls(1)

    async def _keep_stage(self) -> None:
        while True:
            batch = await _next_batch(self._to_keep)
            kept: list[_FetchedItem] = []
            with self._finish_calls_on_error():
                kept = await self._keep(batch)
            # The database was unavailable for too long: these responses are lost, and their hits have an unknown outcome.
            self._finish_calls(len(batch) - len(kept))
            for item in kept:
                self._to_settle.put_nowait(item)

    async def _settle_stage(self) -> None:
        while True:
            batch = await _next_batch(self._to_settle)
            with self._finish_calls_on_error():
                # After an error the stored responses stay unread: the next run parses them.
                if self._error is None:
                    await self._settle_batch(batch)
            self._finish_calls(len(batch))

    async def _settle_batch(self, batch: Sequence[_FetchedItem]) -> None:
        judged = [(item, item.judgement or judge(item.response, is_key_valid=item.key_works)) for item in batch]
        settled = await self._settle_rows([self._settled_row(item, judgement) for item, judgement in judged])
        for item, judgement in judged:
            if item.claim.song in settled:
                self._report_item(item, judgement, settled[item.claim.song].settlement)
            if item.reservation.ledger is not None:
                await self._breaker.record_outcome(item.claim.song, item.response, judgement)
        self._stop_if_breaker_opened()

    def _finish_calls(self, calls: int) -> None:
        self._in_flight -= calls
        self._progress.set()

    async def _heartbeat_stage(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_seconds)
            # A failed heartbeat never cancels the calls in flight. The claim timeout is many heartbeats long, so the next one
            # makes up for a transient failure. After any other error the run starts no more calls.
            with self._finish_calls_on_error():
                try:
                    await self._renew_claims()
                except DatabaseError as error:
                    if not is_transient(error):
                        raise

    async def _renew_claims(self) -> None:
        held = list(self._held.values())
        await self._heartbeat_connection.execute(partial(run_heartbeats.renew_async, run=self._run))
        still = await self._heartbeat_connection.execute(partial(backfill_queue.heartbeat, claims=held, run=self._run))
        # A claim that was settled or taken over meanwhile no longer belongs to this run.
        for claim in held:
            if claim.song not in still:
                self._held.pop(claim.song, None)

    # --- steps of the stages -------------------------------------------------------------------------------------------

    async def _keep(self, batch: Sequence[_FetchedItem]) -> list[_FetchedItem]:
        """Store the responses as received. A response that PostgreSQL refuses ends the run; the others are stored."""
        write = partial(songstats_ledger.keep, received=[_received_response(item) for item in batch])
        try:
            # They are paid for and exist only in memory: only an error about the row itself may drop one early.
            response_ids = await self._keep_connection.execute_with_retry(write, on_defect=self._fail)
        except DatabaseError as error:
            if classify(error) is not ErrorKind.ROW or len(batch) == 1:
                raise
            kept: list[_FetchedItem] = []
            for one in batch:
                with self._finish_calls_on_error():
                    kept += await self._keep([one])
            return kept
        return [replace(item, response_id=response_ids.get(item.reservation.ledger or 0)) for item in batch]

    async def _reserve(self, batch: list[Claim]) -> tuple[list[tuple[Claim, Reservation]], dict[UUID, list[Claim]]]:
        """Reserve hits: the claims that may be called, and, by payer, those that need a fresh payment decision."""
        reserve = partial(
            songstats_ledger.reserve,
            claims=batch,
            run=self._run,
            hits_allowed=self._config.hits_allowed,
            operators_account=self._config.rules.operators_account,
        )
        # A retry after a lost connection may reserve twice: the first hit then has no call and counts as unknown.
        reservations = await self._reserve_connection.execute_with_retry(reserve)
        reserved: list[tuple[Claim, Reservation]] = []
        stale: dict[UUID, list[Claim]] = {}
        for claim, reservation in zip(batch, reservations, strict=True):
            match reservation.verdict:
                case ReservationVerdict.RESERVED:
                    reserved.append((claim, reservation))
                case ReservationVerdict.NO_LONGER_CLAIMED:
                    self._held.pop(claim.song, None)
                case ReservationVerdict.BREAKER_OPEN_OR_PAUSED:
                    self.stop(CLOSED_BY_ANOTHER_RUN)
                case ReservationVerdict.BUDGET:
                    self.stop(QUOTA_USED)
                case ReservationVerdict.ACCOUNT_PAUSED:
                    await self._defer(claim, ACCOUNT_PAUSED, wait=None)
                case ReservationVerdict.UNPAID:
                    await self._defer(claim, NO_PAYER, wait=None)
                case ReservationVerdict.CAPPED:
                    await self._defer(claim, CAP_USED, wait=None)
                case ReservationVerdict.STALE if reservation.account is not None:
                    stale.setdefault(reservation.account, []).append(claim)
        return reserved, stale

    async def _recheck_payment(self, stale: dict[UUID, list[Claim]]) -> None:
        for account, claims in stale.items():
            if await self._payment_verdict(account) is PaymentVerdict.UNKNOWN:
                for claim in claims:
                    await self._defer(claim, "payment could not be checked", wait=_PAYMENT_RETRY_SECONDS)
            else:
                # Allowed: reserve again. Denied: another request may pay; otherwise the reservation's verdict is unpaid.
                self._waiting.extendleft(reversed(claims))

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

    async def _take_call_slots(self, calls: int) -> float:
        per_second = self._config.requests_per_second
        if not per_second:
            return 0.0
        return await self._reserve_connection.execute_with_retry(
            partial(songstats_ledger.take_call_slots, calls=calls, requests_per_second=per_second)
        )

    def _settled_row(self, item: _FetchedItem, judgement: Judgement) -> SettledRow:
        history = judgement.history
        return SettledRow(
            item.claim,
            settle(
                judgement,
                attempts=item.reservation.attempts or max(item.claim.attempts, 1),
                max_attempts=self._config.rules.max_attempts,
                retry_soon_seconds=None if self.summary.stop_reason else self._retry_soon_seconds,
            ),
            cause=judgement.cause,
            status_code=item.response.status_code,
            error=None if judgement.outcome is Outcome.STORED else judgement.detail,
            response_id=item.response_id,
            play_counts=history.play_counts if history else (),
            popularity=history.popularity if history else (),
        )

    async def _settle_rows(self, rows: list[SettledRow]) -> dict[str, SettledRow]:
        """Settle the rows that this run still owns; song → settled row.

        A row that PostgreSQL refuses becomes failed/transient with the error, and its response stays unread. It must not
        roll back the others, because their hits are paid for.
        """
        try:
            return await self._write_rows(rows)
        except DatabaseError as error:
            if classify(error) is not ErrorKind.ROW:
                raise
            if len(rows) > 1:
                return {song: done for row in rows for song, done in (await self._settle_rows([row])).items()}
            failed = Settlement(Status.FAILED, Outcome.TRANSIENT)
            # Tried once: if PostgreSQL refuses this too, the row stays claimed and the error ends the run.
            return await self._write_rows([SettledRow(rows[0].claim, failed, error=first_line(error))])

    async def _write_rows(self, rows: list[SettledRow]) -> dict[str, SettledRow]:
        write = partial(backfill_queue.settle, settlings=rows, run=self._run, parser_version=PARSER_VERSION)
        owned = await self._settle_connection.execute_with_retry(write)
        for row in rows:
            self._held.pop(row.claim.song, None)
        return {row.claim.song: row for row in rows if row.claim.song in owned}

    async def _settle_and_report(self, row: SettledRow, recording: RecordingResult) -> None:
        if await self._settle_rows([row]):
            self._report_result(recording)

    async def _defer(self, claim: Claim, reason: str, *, wait: float | None) -> None:
        row = SettledRow(claim, Settlement(Status.PENDING, None, not_before_seconds=wait), error=reason)
        await self._settle_and_report(row, RecordingResult(claim.song, ResultKind.DEFERRED, reason=reason))

    def _report_item(self, item: _FetchedItem, judgement: Judgement, settlement: Settlement) -> None:
        kind = _KIND_OF_STATUS.get(settlement.status, ResultKind.DEFERRED)
        wait = settlement.not_before_seconds
        if kind is ResultKind.DEFERRED and wait is not None and wait == self._retry_soon_seconds:
            self._request_retry(wait)
        self._report_result(
            RecordingResult(
                item.claim.song,
                kind,
                outcome=settlement.outcome,
                reason=judgement.detail,
                history=judgement.history,
                status_code=item.response.status_code,
                hit=item.reservation.ledger is not None,
                digest=digest(item.response.body) if item.response.body else None,
                account=item.reservation.account,
                job=item.reservation.job,
            )
        )

    def _stop_if_breaker_opened(self) -> None:
        if self._breaker.stop_reason is None:
            return
        self.summary.breaker_reason = self._breaker.breaker_reason
        left = self._breaker.pause_seconds_left
        if left is not None and left <= MAX_WAIT_IN_RUN_SECONDS and self._retry_soon_seconds is not None:
            self._request_retry(left)
        self.stop(self._breaker.stop_reason)

    def _request_retry(self, seconds: float | None) -> None:
        self.summary.retry_in_seconds = max(seconds or 0.0, self.summary.retry_in_seconds or 0.0)

    def _report_result(self, recording: RecordingResult) -> None:
        self.summary.count(recording)
        self._report(recording)

    async def _wait_for_progress(self) -> None:
        await self._progress.wait()
        self._progress.clear()


async def _next_batch(waiting: "asyncio.Queue[_FetchedItem]") -> list[_FetchedItem]:
    """Everything that waits, up to a batch; blocks until there is one."""
    batch = [await waiting.get()]
    while not waiting.empty() and len(batch) < _BATCH:
        batch.append(waiting.get_nowait())
    return batch


def _received_response(item: _FetchedItem) -> ReceivedResponse:
    response = item.response
    if item.reservation.ledger is None:
        raise ValueError(f"{item.claim.song} was called without a reservation")
    judgement = item.judgement
    if judgement is None:
        return ReceivedResponse(item.reservation.ledger, 200, True, None, response.headers, response.body)
    body = response.body if judgement.billable and response.failure is None else None
    # The ledger holds only the status of complete responses. An unknown hit with a status was answered by something else.
    status = response.status_code if response.failure in {None, Failure.FOREIGN} else None
    return ReceivedResponse(
        item.reservation.ledger, status, judgement.billable, judgement.cause, response.headers, body
    )
