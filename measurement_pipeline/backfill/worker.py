"""The money path for the rows that a run claims: reserve → call → keep → parse → settle, with heartbeats beside it.

The stages run in one event loop, so that PostgreSQL works on one batch while this process parses the next. Each stage processes
everything that waits for it as one batch, so that a slow database makes batches larger, not queues longer. `reserver` decides
what may be called, `settler` writes the results, `circuit_breaker` says what responses mean for the vendor. This module decides
when each stage runs.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar
from uuid import UUID

from measurement_pipeline.backfill.circuit_breaker import CircuitBreaker
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.fetched_item import (
    NO_RESERVATION,
    FetchedItem,
    JudgedItem,
    judge_item,
    received_response,
    recording_result,
    settled_row,
)
from measurement_pipeline.backfill.reserver import Reserver
from measurement_pipeline.backfill.results import RecordingResult, ResultKind, RunSummary
from measurement_pipeline.backfill.settler import Settler
from measurement_pipeline.domain.backfill_queue import MAX_WAIT_IN_RUN_SECONDS, Claim, SettledRow
from measurement_pipeline.domain.outcome import Outcome
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.postgres import backfill_queue, run_heartbeats, songstats_ledger
from measurement_pipeline.postgres.database import DatabaseError, ReconnectingConnection
from measurement_pipeline.postgres.errors import ErrorKind, classify, first_line, is_transient
from measurement_pipeline.postgres.songstats_ledger import Reservation
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline.vendors.songstats.historic_stats import judge, needs_key_check, read_key_validity
from measurement_pipeline.vendors.songstats.response import SongstatsResponse

T = TypeVar("T")

_BATCH = 64
# While more parsed histories than this wait for their settlement, no hit is reserved: their points fill the memory.
_MAX_SETTLING = 64
# A hit is reserved just before it is spent, so that no reserved hit is spent after a pause has begun. A batch holds at most what
# the pace allows in _BATCH_SECONDS. It is reserved at most _AHEAD_SECONDS before its first call.
_BATCH_SECONDS = 0.2
_AHEAD_SECONDS = 0.02
# The next rows are claimed when fewer than this wait for a hit, so that calls do not wait for the claim.
_CLAIM_BELOW = 100


class BackfillWorker:
    """Buys the claims of one run. Create it in the event loop that runs it."""

    def __init__(
        self,
        config: BackfillConfig,
        *,
        run: str,
        client: SongstatsClient,
        check_payment: Callable[[UUID], PaymentVerdict],
        report: Callable[[Sequence[RecordingResult]], None],
        retry_soon_seconds: float | None,
    ) -> None:
        """`check_payment` blocks and is called in a thread; `report` is called in the loop for each batch."""
        self.summary = RunSummary()
        self._config = config
        self._run = run
        self._client = client
        self._retry_soon_seconds = retry_soon_seconds
        # One connection for each stage, so that no stage waits for another's statement.
        new_connection = partial(
            ReconnectingConnection, config.database_url, patience_seconds=config.patience_with_database_seconds
        )
        self._reserve_connection, self._keep_connection = new_connection(), new_connection()
        self._settle_connection, self._heartbeat_connection = new_connection(), new_connection()
        self._settler = Settler(self._settle_connection, run=run, summary=self.summary, report=report)
        self._reserver = Reserver(
            config,
            self._reserve_connection,
            run=run,
            settler=self._settler,
            check_payment=check_payment,
            stop=self.stop,
        )
        self._breaker = CircuitBreaker(self._settle_connection, concurrency=config.concurrency)
        self._waiting: deque[Claim] = deque()
        self._is_claiming = True
        # Between reservation and judgement. A response that is no stored history stays here until the breaker has recorded it.
        self._in_flight = 0
        # Stored histories that are parsed but not settled.
        self._settling = 0
        self._to_keep: asyncio.Queue[FetchedItem] = asyncio.Queue()
        self._to_judge: asyncio.Queue[FetchedItem] = asyncio.Queue()
        self._to_settle: asyncio.Queue[JudgedItem] = asyncio.Queue()
        self._progress = asyncio.Event()
        self._needs_claims = asyncio.Event()
        self._error: Exception | None = None

    async def run(self, claims: Sequence[Claim], claim_more: Callable[[], Sequence[Claim]] = tuple) -> RunSummary:
        """Buy `claims`, and what `claim_more` claims until it claims nothing, as far as budget, payment, pace and vendor allow.

        `claim_more` blocks and is called in a thread. Rows without a call stay claimed.
        """
        try:
            await self._breaker.load_history()
            self._stop_if_breaker_opened()
            async with asyncio.TaskGroup() as group:
                stages = [
                    group.create_task(stage())
                    for stage in (self._heartbeat_stage, self._keep_stage, self._judge_stage, self._settle_stage)
                ]
                group.create_task(self._claim_stage(claims, claim_more))
                with self._finish_calls_on_error():
                    await self._call_stage(group)
                while self._in_flight or self._settling or self._is_claiming:
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
        self._needs_claims.set()

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

    # --- before the calls ----------------------------------------------------------------------------------------------

    async def _claim_stage(self, claims: Sequence[Claim], claim_more: Callable[[], Sequence[Claim]]) -> None:
        """Queue the claims for a hit, and claim more before the calls run out of them."""
        with self._finish_calls_on_error():
            while claims:
                self._settler.hold(claims)
                await self._sort_claims(claims)
                self._progress.set()
                if len(self._waiting) >= _CLAIM_BELOW and not self.summary.stop_reason:
                    self._needs_claims.clear()
                    await self._needs_claims.wait()
                claims = () if self.summary.stop_reason else await asyncio.to_thread(claim_more)
        self._is_claiming = False
        self._progress.set()

    async def _sort_claims(self, claims: Sequence[Claim]) -> None:
        """Settle the claims that need no call; queue the others for a hit."""
        for claim in claims:
            if claim.unread_response is not None:
                stored = await self._keep_connection.execute_with_retry(
                    partial(songstats_ledger.response, response_id=claim.unread_response)
                )
                response = SongstatsResponse(stored.status_code, stored.headers, stored.body)
                self._in_flight += 1
                # A stored 403 came while the key worked: otherwise its body was not stored.
                item = FetchedItem(claim, NO_RESERVATION, response, key_works=True, response_id=claim.unread_response)
                self._to_judge.put_nowait(item)
            elif claim.has_history:
                await self._settler.settle_owned(claim)
            else:
                self._waiting.append(claim)

    async def _call_stage(self, group: asyncio.TaskGroup) -> None:
        per_second = self._config.requests_per_second
        max_batch = max(1, min(_BATCH, int(per_second * _BATCH_SECONDS))) if per_second else _BATCH
        while (self._waiting or self._is_claiming) and not self.summary.stop_reason:
            slots = min(self._available_slots(), max_batch, len(self._waiting))
            if slots <= 0:
                await self._wait_for_progress()
                continue
            if per_second and 1 / per_second > MAX_WAIT_IN_RUN_SECONDS and await self._postpone_if_pace_is_slow():
                break
            batch = [self._waiting.popleft() for _ in range(slots)]
            if len(self._waiting) < _CLAIM_BELOW:
                self._needs_claims.set()
            reserved, stale = await self._reserver.reserve(
                [claim for claim in batch if claim.song in self._settler.held]
            )
            wait = await self._reserver.take_call_slots(len(reserved))
            for place, (claim, reservation) in enumerate(reserved):
                self._in_flight += 1
                group.create_task(self._call(claim, reservation, wait + (place / per_second if per_second else 0.0)))
            # After the calls have started: a reserved hit does not wait for Stripe.
            self._waiting.extendleft(reversed(await self._reserver.recheck_payment(stale)))
            if per_second and reserved:
                pause = wait + len(reserved) / per_second - _AHEAD_SECONDS
                await asyncio.sleep(max(0.0, min(pause, MAX_WAIT_IN_RUN_SECONDS)))

    def _available_slots(self) -> int:
        """How many hits may be reserved now."""
        if self._settling >= _MAX_SETTLING:
            return 0
        slots = self._breaker.available_slots(self._in_flight)
        # While histories wait for their settlement, the database is behind. Then a quarter of the slots are reserved together.
        return 0 if self._settling and slots < (slots + self._in_flight) // 4 else slots

    async def _postpone_if_pace_is_slow(self) -> bool:
        """Postpone the waiting rows if the pace allows the next call later than a run waits; whether it did."""
        wait = await self._reserver.seconds_to_the_next_slot()
        if wait <= MAX_WAIT_IN_RUN_SECONDS:
            return False
        self.stop(f"SONGSTATS_REQUESTS_PER_SECOND allows the next call in {wait:.0f} s")
        while self._waiting:
            claim = self._waiting.popleft()
            await self._settler.defer(claim, "waiting for SONGSTATS_REQUESTS_PER_SECOND", wait=wait)
        return True

    # --- from the call to the settled row ------------------------------------------------------------------------------

    async def _call(self, claim: Claim, reservation: Reservation, wait: float) -> None:
        item = None
        with self._finish_calls_on_error():
            if wait:
                await asyncio.sleep(wait)
            self.summary.calls += 1
            response = await self._client.fetch_history(claim.song)
            works = read_key_validity(await self._client.fetch_status()) if needs_key_check(response) else None
            # Stored before it is parsed: whatever parsing does to this process, the paid response is in the database.
            is_complete = response.status_code == 200 and response.failure is None
            judgement = None if is_complete else judge(response, is_key_valid=works)
            item = FetchedItem(claim, reservation, response, works, judgement)
        if item is not None:
            self._to_keep.put_nowait(item)
        else:
            self._finish_calls(1)

    async def _keep_stage(self) -> None:
        while True:
            batch = await _next_batch(self._to_keep)
            kept: list[FetchedItem] = []
            with self._finish_calls_on_error():
                kept = await self._keep(batch)
            # The database was unavailable for too long: these responses are lost, and their hits have an unknown outcome.
            self._finish_calls(len(batch) - len(kept))
            for item in kept:
                self._to_judge.put_nowait(item)

    async def _judge_stage(self) -> None:
        while True:
            item = await self._to_judge.get()
            judged = None
            with self._finish_calls_on_error():
                judged = judge_item(item)
            if judged is None:
                self._finish_calls(1)
            else:
                # A stored history is no evidence against the key or the vendor, once the breaker has recorded a first one.
                is_stored = judged.judgement.outcome is Outcome.STORED
                judged = replace(judged, frees_slot=is_stored and self._breaker.has_stored)
                self._to_settle.put_nowait(judged)
                if judged.frees_slot:
                    self._settling += 1
                    self._finish_calls(1)
            # Parsing takes as long as several steps of the other stages: let them go first.
            await asyncio.sleep(0)

    async def _settle_stage(self) -> None:
        while True:
            batch = await _next_batch(self._to_settle)
            with self._finish_calls_on_error():
                # After an error the stored responses stay unread: the next run parses them.
                if self._error is None:
                    await self._settle_batch(batch)
            free = sum(judged.frees_slot for judged in batch)
            self._settling -= free
            self._finish_calls(len(batch) - free)

    def _finish_calls(self, calls: int) -> None:
        self._in_flight -= calls
        self._progress.set()

    async def _keep(self, batch: Sequence[FetchedItem]) -> list[FetchedItem]:
        """Store the responses as received. A response that PostgreSQL refuses ends the run; the others are stored."""
        write = partial(songstats_ledger.keep, received=[received_response(item) for item in batch])
        try:
            # They are paid for and exist only in memory: only an error about the row itself may drop one early.
            response_ids = await self._keep_connection.execute_with_retry(write, on_defect=self._fail)
        except DatabaseError as error:
            if classify(error) is not ErrorKind.ROW or len(batch) == 1:
                raise
            kept: list[FetchedItem] = []
            for one in batch:
                with self._finish_calls_on_error():
                    kept += await self._keep([one])
            return kept
        return [replace(item, response_id=response_ids.get(item.reservation.ledger or 0)) for item in batch]

    async def _settle_batch(self, batch: Sequence[JudgedItem]) -> None:
        retry_soon_seconds = None if self.summary.stop_reason else self._retry_soon_seconds
        max_attempts = self._config.rules.max_attempts
        settled = await self._settler.settle(
            [settled_row(one, max_attempts=max_attempts, retry_soon_seconds=retry_soon_seconds) for one in batch]
        )
        self._settler.report(
            [
                self._result(judged, settled[judged.item.claim.song])
                for judged in batch
                if judged.item.claim.song in settled
            ]
        )
        for judged in batch:
            item = judged.item
            if item.reservation.ledger is not None:
                await self._breaker.record_outcome(item.claim.song, item.response, judged.judgement)
        self._stop_if_breaker_opened()

    def _result(self, judged: JudgedItem, row: SettledRow) -> RecordingResult:
        result = recording_result(judged, row.settlement)
        wait = row.settlement.not_before_seconds
        if result.kind is ResultKind.DEFERRED and wait is not None and wait == self._retry_soon_seconds:
            self._request_retry(wait)
        return result

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

    async def _wait_for_progress(self) -> None:
        await self._progress.wait()
        self._progress.clear()

    # --- beside them ---------------------------------------------------------------------------------------------------

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
        held = list(self._settler.held.values())
        await self._heartbeat_connection.execute(partial(run_heartbeats.renew_async, run=self._run))
        still = await self._heartbeat_connection.execute(partial(backfill_queue.heartbeat, claims=held, run=self._run))
        # A claim that was settled or taken over meanwhile no longer belongs to this run.
        for claim in held:
            if claim.song not in still:
                self._settler.lose(claim)


async def _next_batch(waiting: "asyncio.Queue[T]") -> list[T]:
    """Everything that waits, up to a batch; blocks until there is one."""
    batch = [await waiting.get()]
    while not waiting.empty() and len(batch) < _BATCH:
        batch.append(waiting.get_nowait())
    return batch
