"""The money path for the rows that a run has claimed: reserve → call → keep → parse → settle, and a beat beside it.

A conveyor in one event loop. Each station takes what has gathered before it as one batch, so that a slow database makes
batches larger, not queues longer; at most `concurrency` recordings are between reservation and settlement. What to make of an
answer is decided in `domain` and `songstats/historic_stats`, what it says of the vendor in `trust`; this module acts.
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
from measurement_pipeline.domain.blockers import CLOSED_BY_ANOTHER_RUN, QUOTA_USED
from measurement_pipeline.domain.outcome import Judgement, Outcome
from measurement_pipeline.domain.payment import PaymentVerdict as Payment
from measurement_pipeline.postgres import backfill_queue as queue
from measurement_pipeline.postgres import run_heartbeats
from measurement_pipeline.postgres import songstats_ledger as ledger
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
# A hit is set aside when it is about to be spent, so that a pause which begins meanwhile finds none to be spent after it: no
# more at once than what the pace lets out in so long, and no sooner than this before the pace lets it out.
_BATCH_SECONDS = 0.2
_AHEAD_SECONDS = 0.02
_NO_RESERVATION = Reservation(ReservationVerdict.RESERVED, None, None, None, None)

# A payer whose decision is still stale so soon after it was asked for is not asked again: its rows wait.
_PAYMENT_RETRY_SECONDS = 60.0
_KIND_OF_STATUS = {Status.DONE: ResultKind.SETTLED, Status.FAILED: ResultKind.FAILED}


@dataclass(frozen=True, slots=True)
class _FetchedItem:
    """A recording on its way from the call to settlement."""

    claim: Claim
    reservation: Reservation
    response: SongstatsResponse
    key_works: bool | None = None
    response_id: int | None = None


class BackfillWorker:
    """One run's walk. Make it in the event loop that runs it."""

    def __init__(
        self,
        config: BackfillConfig,
        *,
        run: str,
        client: SongstatsClient,
        check_payment: Callable[[UUID], Payment],
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
        # A line for each station, so that none waits for another's statement.
        line = partial(
            ReconnectingConnection, config.database_url, patience_seconds=config.patience_with_database_seconds
        )
        self._reserve_connection, self._keep_connection = line(), line()
        self._settle_connection, self._heartbeat_connection = line(), line()
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
        """Buy what was claimed, as far as budget, payment, pace and vendor allow. What was never asked stays claimed."""
        self._held = {claim.song: claim for claim in claims}
        self.summary.claimed = len(claims)
        try:
            await self._breaker.load_history()
            self._stop_if_breaker_opened()
            async with asyncio.TaskGroup() as group:
                stations = [
                    group.create_task(s()) for s in (self._heartbeat_stage, self._keep_stage, self._settle_stage)
                ]
                with self._finish_calls_on_error():
                    await self._sort_claims(claims)
                    await self._call_stage(group)
                while self._in_flight:
                    await self._wait_for_progress()
                for station in stations:
                    station.cancel()
            if self._error is not None:
                raise self._error
        finally:
            for line in (
                self._reserve_connection,
                self._keep_connection,
                self._settle_connection,
                self._heartbeat_connection,
            ):
                await line.close()
        return self.summary

    def stop(self, reason: str) -> None:
        """Reserve nothing more; what is in the air comes down by itself. Call from the loop."""
        self.summary.stop_reason = self.summary.stop_reason or reason
        self._progress.set()

    @contextmanager
    def _finish_calls_on_error(self) -> Iterator[None]:
        """An error ends the run, but not before the calls in the air have come down and been kept: they were paid for."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised by `walk` once nothing is in the air
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Start no more calls; `walk` raises the first error once the calls in flight are kept."""
        self._error = self._error or error
        self.stop(f"an error: {first_line(error)}")

    # --- stations ------------------------------------------------------------------------------------------------------

    async def _sort_claims(self, claims: Sequence[Claim]) -> None:
        """Send what needs no call straight to settlement, the rest to the queue for hits."""
        for claim in claims:
            if claim.unread_response is not None:
                kept = await self._reserve_connection.execute_with_retry(
                    partial(ledger.response, response_id=claim.unread_response)
                )
                answer = SongstatsResponse(kept.status_code, kept.headers, kept.body)
                self._in_flight += 1
                # A 403 was kept only once the key had been found to work.
                item = _FetchedItem(claim, _NO_RESERVATION, answer, key_works=True, response_id=claim.unread_response)
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
        at_once = max(1, min(_BATCH, int(per_second * _BATCH_SECONDS))) if per_second else _BATCH
        while self._waiting and not self.summary.stop_reason:
            if (
                per_second
                and 1 / per_second > MAX_WAIT_IN_RUN_SECONDS
                and await self._postpone_if_pace_is_slow(per_second)
            ):
                break
            room = min(self._breaker.available_slots(self._in_flight), at_once)
            if room <= 0:
                await self._wait_for_progress()
                continue
            batch = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            reserved, stale = await self._reserve([claim for claim in batch if claim.song in self._held])
            wait = await self._take_call_slots(len(reserved)) if reserved else 0.0
            for place, (claim, reservation) in enumerate(reserved):
                self._in_flight += 1
                group.create_task(self._call(claim, reservation, wait + (place / per_second if per_second else 0.0)))
            # Asked once the calls are under way: a hit that was set aside does not wait for Stripe.
            await self._recheck_payment(stale)
            if per_second and reserved:
                pause = wait + len(reserved) / per_second - _AHEAD_SECONDS
                await asyncio.sleep(max(0.0, min(pause, MAX_WAIT_IN_RUN_SECONDS)))

    async def _postpone_if_pace_is_slow(self, per_second: float) -> bool:
        """Where the pace is so slow that the next call is further away than a run waits, put off the rest until then."""
        wish = partial(ledger.seconds_to_the_next_slot, requests_per_second=per_second)
        wait = await self._reserve_connection.execute_with_retry(wish)
        if wait <= MAX_WAIT_IN_RUN_SECONDS:
            return False
        self.stop(f"SONGSTATS_REQUESTS_PER_SECOND allows the next call in {wait:.0f} s")
        while self._waiting:
            await self._defer(self._waiting.popleft(), "the pace allows no call yet", wait=wait)
        return True

    async def _call(self, claim: Claim, reservation: Reservation, wait: float) -> None:
        answered = None
        with self._finish_calls_on_error():
            await asyncio.sleep(wait)
            self.summary.calls += 1
            answer = await self._client.fetch_history(claim.song)
            works = read_key_validity(await self._client.fetch_status()) if needs_key_check(answer) else None
            answered = _FetchedItem(claim, reservation, answer, works)
        if answered is not None:
            self._to_keep.put_nowait(answered)
        else:
            self._finish_calls(1)

    async def _keep_stage(self) -> None:
        while True:
            batch = await _next_batch(self._to_keep)
            kept: list[_FetchedItem] = []
            with self._finish_calls_on_error():
                kept = await self._keep(batch)
            # Held for as long as patience lasts, and lost: hits of unknown fate. The others in the air still come down.
            self._finish_calls(len(batch) - len(kept))
            for item in kept:
                self._to_settle.put_nowait(item)

    async def _settle_stage(self) -> None:
        while True:
            batch = await _next_batch(self._to_settle)
            with self._finish_calls_on_error():
                # After an error what was kept stays unread: the next run reads it.
                if self._error is None:
                    await self._settle_batch(batch)
            self._finish_calls(len(batch))

    async def _settle_batch(self, batch: Sequence[_FetchedItem]) -> None:
        judged = [(item, judge(item.response, is_key_valid=item.key_works)) for item in batch]
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
            # A failed beat never cancels the calls in flight. The claim timeout is many beats long, so the next beat makes up for
            # one that failed for now; after any other error the run starts no more calls.
            with self._finish_calls_on_error():
                try:
                    await self._renew_claims()
                except DatabaseError as error:
                    if not is_transient(error):
                        raise

    async def _renew_claims(self) -> None:
        held = list(self._held.values())
        await self._heartbeat_connection.execute(partial(run_heartbeats.renew_async, run=self._run))
        still = await self._heartbeat_connection.execute(partial(queue.heartbeat, claims=held, run=self._run))
        # Settled meanwhile, or taken over: either way no longer ours to ask for.
        for claim in held:
            if claim.song not in still:
                self._held.pop(claim.song, None)

    # --- what the stations do ------------------------------------------------------------------------------------------

    async def _keep(self, batch: Sequence[_FetchedItem]) -> list[_FetchedItem]:
        """Keep the answers whole. One that PostgreSQL refuses ends the run and takes none of the others with it."""
        write = partial(ledger.keep, received=[_received_response(item) for item in batch])
        try:
            # They are paid for and exist only here: no error but one about themselves is a reason to drop them early.
            found = await self._keep_connection.execute_with_retry(write, on_defect=self._fail)
        except DatabaseError as error:
            if classify(error) is not ErrorKind.ROW or len(batch) == 1:
                raise
            kept: list[_FetchedItem] = []
            for one in batch:
                with self._finish_calls_on_error():
                    kept += await self._keep([one])
            return kept
        return [replace(item, response_id=found.get(item.reservation.ledger or 0)) for item in batch]

    async def _reserve(self, batch: list[Claim]) -> tuple[list[tuple[Claim, Reservation]], dict[UUID, list[Claim]]]:
        """What may be called, and, by payer, what waits for a fresh decision."""
        wish = partial(
            ledger.reserve,
            claims=batch,
            run=self._run,
            hits_allowed=self._config.hits_allowed,
            operators_account=self._config.rules.operators_account,
        )
        # Repeated after a lost connection, it may have been written before: then that hit has no call and counts as unknown.
        found = await self._reserve_connection.execute_with_retry(wish)
        reserved: list[tuple[Claim, Reservation]] = []
        stale: dict[UUID, list[Claim]] = {}
        for claim, reservation in zip(batch, found, strict=True):
            match reservation.verdict:
                case ReservationVerdict.RESERVED:
                    reserved.append((claim, reservation))
                case ReservationVerdict.LOST:
                    self._held.pop(claim.song, None)
                case ReservationVerdict.CLOSED:
                    self.stop(CLOSED_BY_ANOTHER_RUN)
                case ReservationVerdict.BUDGET:
                    self.stop(QUOTA_USED)
                case ReservationVerdict.UNPAID:
                    await self._defer(claim, "nobody with a card on file wants it", wait=None)
                case ReservationVerdict.STALE if reservation.account is not None:
                    stale.setdefault(reservation.account, []).append(claim)
        return reserved, stale

    async def _recheck_payment(self, stale: dict[UUID, list[Claim]]) -> None:
        for account, claims in stale.items():
            if await self._payment_verdict(account) is Payment.UNKNOWN:
                for claim in claims:
                    await self._defer(claim, "payment could not be checked", wait=_PAYMENT_RETRY_SECONDS)
            else:
                # Allowed: reserve again. Denied: another request may pay, else the reservation says unpaid.
                self._waiting.extendleft(reversed(claims))

    async def _payment_verdict(self, account: UUID) -> Payment:
        now = asyncio.get_running_loop().time()
        if now - self._payment_checked_at.get(account, -_PAYMENT_RETRY_SECONDS) < _PAYMENT_RETRY_SECONDS:
            return Payment.UNKNOWN
        self._payment_checked_at[account] = now
        try:
            return await asyncio.to_thread(self._check_payment, account)
        except DatabaseError as error:
            if not is_transient(error):
                raise
            return Payment.UNKNOWN

    async def _take_call_slots(self, calls: int) -> float:
        per_second = self._config.requests_per_second
        if not per_second:
            return 0.0
        return await self._reserve_connection.execute_with_retry(
            partial(ledger.take_call_slots, calls=calls, requests_per_second=per_second)
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

    async def _settle_rows(self, settlings: list[SettledRow]) -> dict[str, SettledRow]:
        """Change the rows that are still ours; song → what it became.

        A row that PostgreSQL refuses is failed for now with what was said, its response unread: it must not take the others,
        whose hits were paid for, down with it.
        """
        try:
            return await self._write_rows(settlings)
        except DatabaseError as error:
            if classify(error) is not ErrorKind.ROW:
                raise
            if len(settlings) > 1:
                return {song: done for one in settlings for song, done in (await self._settle_rows([one])).items()}
            failed = Settlement(Status.FAILED, Outcome.TRANSIENT)
            # Tried once: where the row is refused even so, it stays claimed, and the error ends the run.
            return await self._write_rows([SettledRow(settlings[0].claim, failed, error=first_line(error))])

    async def _write_rows(self, settlings: list[SettledRow]) -> dict[str, SettledRow]:
        write = partial(queue.settle, settlings=settlings, run=self._run, parser_version=PARSER_VERSION)
        mine = await self._settle_connection.execute_with_retry(write)
        for settling in settlings:
            self._held.pop(settling.claim.song, None)
        return {settling.claim.song: settling for settling in settlings if settling.claim.song in mine}

    async def _settle_and_report(self, settling: SettledRow, recording: RecordingResult) -> None:
        if await self._settle_rows([settling]):
            self._report_result(recording)

    async def _defer(self, claim: Claim, reason: str, *, wait: float | None) -> None:
        settling = SettledRow(claim, Settlement(Status.PENDING, None, not_before_seconds=wait), error=reason)
        await self._settle_and_report(settling, RecordingResult(claim.song, ResultKind.DEFERRED, reason=reason))

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
    """Everything that is there, up to a batch; waits for the first."""
    batch = [await waiting.get()]
    while not waiting.empty() and len(batch) < _BATCH:
        batch.append(waiting.get_nowait())
    return batch


def _received_response(item: _FetchedItem) -> ReceivedResponse:
    answer = item.response
    if item.reservation.ledger is None:
        raise ValueError(f"{item.claim.song} was called without a reservation")
    if answer.status_code == 200 and answer.failure is None:
        # Kept before it is read: whatever reading it does to this process, it was paid for and is there.
        return ReceivedResponse(item.reservation.ledger, 200, True, None, answer.headers, answer.body)
    judgement = judge(answer, is_key_valid=item.key_works)
    body = answer.body if judgement.billable and answer.failure is None else None
    # The ledger has the status of whole answers alone. An unknown hit with a status is one that something else answered.
    status = answer.status_code if answer.failure in {None, Failure.FOREIGN} else None
    return ReceivedResponse(item.reservation.ledger, status, judgement.billable, judgement.cause, answer.headers, body)
