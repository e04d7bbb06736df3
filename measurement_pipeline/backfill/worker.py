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
from measurement_pipeline.backfill.results import RecordingResult, ResultKind, Summary
from measurement_pipeline.domain.backfill_queue import LONGEST_WAIT_IN_A_RUN_SECONDS, Settlement, Status, settle
from measurement_pipeline.domain.outcome import Judgement, Outcome
from measurement_pipeline.domain.payment import PaymentVerdict as Payment
from measurement_pipeline.postgres import backfill_queue as queue
from measurement_pipeline.postgres import run_heartbeats
from measurement_pipeline.postgres import songstats_ledger as ledger
from measurement_pipeline.postgres.backfill_queue import Claim, Settling
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
_NEVER_ASKED = Reservation(ReservationVerdict.RESERVED, None, None, None, None)

# A payer whose decision is still stale so soon after it was asked for is not asked again: its rows wait.
_PAYMENT_RETRY_SECONDS = 60.0
_STATUS_OF = {Status.DONE: ResultKind.SETTLED, Status.FAILED: ResultKind.FAILED}


@dataclass(frozen=True, slots=True)
class _FetchedItem:
    """A recording on its way from the call to settlement."""

    claim: Claim
    reservation: Reservation
    answer: SongstatsResponse
    key_works: bool | None = None
    response: int | None = None


class BackfillWorker:
    """One run's walk. Make it in the event loop that runs it."""

    def __init__(
        self,
        terms: BackfillConfig,
        *,
        run: str,
        client: SongstatsClient,
        check_payment: Callable[[UUID], Payment],
        report: Callable[[RecordingResult], None],
        retry_soon_seconds: float | None,
    ) -> None:
        """`check_payment` blocks and is called in a thread; `report` is called in the loop for each recording."""
        self.summary = Summary()
        self._terms = terms
        self._run = run
        self._client = client
        self._check_payment = check_payment
        self._report = report
        self._retry_soon = retry_soon_seconds
        # A line for each station, so that none waits for another's statement.
        line = partial(
            ReconnectingConnection, terms.database_url, patience_seconds=terms.patience_with_database_seconds
        )
        self._reserve_line, self._keep_line, self._settle_line, self._beat_line = line(), line(), line(), line()
        self._trust = CircuitBreaker(self._settle_line, concurrency=terms.concurrency)
        self._waiting: deque[Claim] = deque()
        self._held: dict[str, Claim] = {}
        self._in_the_air = 0
        self._payment_asked: dict[UUID, float] = {}
        self._to_keep: asyncio.Queue[_FetchedItem] = asyncio.Queue()
        self._to_settle: asyncio.Queue[_FetchedItem] = asyncio.Queue()
        self._progress = asyncio.Event()
        self._error: Exception | None = None

    async def run(self, claims: Sequence[Claim]) -> Summary:
        """Buy what was claimed, as far as budget, payment, pace and vendor allow. What was never asked stays claimed."""
        self._held = {claim.song: claim for claim in claims}
        self.summary.claimed = len(claims)
        try:
            await self._trust.begin()
            self._stop_if_trust_is_lost()
            async with asyncio.TaskGroup() as group:
                stations = [group.create_task(s()) for s in (self._beat, self._keep_station, self._settle_station)]
                with self._calls_first():
                    await self._start(claims)
                    await self._call_station(group)
                while self._in_the_air:
                    await self._wait_for_progress()
                for station in stations:
                    station.cancel()
            if self._error is not None:
                raise self._error
        finally:
            for line in (self._reserve_line, self._keep_line, self._settle_line, self._beat_line):
                await line.close()
        return self.summary

    def stop(self, why: str) -> None:
        """Reserve nothing more; what is in the air comes down by itself. Call from the loop."""
        self.summary.stopped = self.summary.stopped or why
        self._progress.set()

    @contextmanager
    def _calls_first(self) -> Iterator[None]:
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

    async def _start(self, claims: Sequence[Claim]) -> None:
        """Send what needs no call straight to settlement, the rest to the queue for hits."""
        for claim in claims:
            if claim.unread_response is not None:
                kept = await self._reserve_line.execute_with_retry(
                    partial(ledger.response, response_id=claim.unread_response)
                )
                answer = SongstatsResponse(kept.status_code, kept.headers, kept.body)
                self._in_the_air += 1
                # A 403 was kept only once the key had been found to work.
                item = _FetchedItem(claim, _NEVER_ASKED, answer, key_works=True, response=claim.unread_response)
                self._to_settle.put_nowait(item)
            elif claim.has_history:
                owned = Settling(claim, Settlement(Status.DONE, Outcome.STORED))
                await self._settle_one(
                    owned, RecordingResult(claim.song, ResultKind.ALREADY_STORED, outcome=Outcome.STORED)
                )
            else:
                self._waiting.append(claim)

    async def _call_station(self, group: asyncio.TaskGroup) -> None:
        per_second = self._terms.requests_per_second
        at_once = max(1, min(_BATCH, int(per_second * _BATCH_SECONDS))) if per_second else _BATCH
        while self._waiting and not self.summary.stopped:
            if (
                per_second
                and 1 / per_second > LONGEST_WAIT_IN_A_RUN_SECONDS
                and await self._next_call_is_far(per_second)
            ):
                break
            room = min(self._trust.available_slots(self._in_the_air), at_once)
            if room <= 0:
                await self._wait_for_progress()
                continue
            batch = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            reserved, stale = await self._reserve([claim for claim in batch if claim.song in self._held])
            wait = await self._book_calls(len(reserved)) if reserved else 0.0
            for place, (claim, reservation) in enumerate(reserved):
                self._in_the_air += 1
                group.create_task(self._call(claim, reservation, wait + (place / per_second if per_second else 0.0)))
            # Asked once the calls are under way: a hit that was set aside does not wait for Stripe.
            await self._ask_for_the_stale(stale)
            if per_second and reserved:
                pause = wait + len(reserved) / per_second - _AHEAD_SECONDS
                await asyncio.sleep(max(0.0, min(pause, LONGEST_WAIT_IN_A_RUN_SECONDS)))

    async def _next_call_is_far(self, per_second: float) -> bool:
        """Where the pace is so slow that the next call is further away than a run waits, put off the rest until then."""
        wish = partial(ledger.seconds_to_the_next_slot, requests_per_second=per_second)
        wait = await self._reserve_line.execute_with_retry(wish)
        if wait <= LONGEST_WAIT_IN_A_RUN_SECONDS:
            return False
        self.stop(f"SONGSTATS_REQUESTS_PER_SECOND allows the next call in {wait:.0f} s")
        while self._waiting:
            await self._defer(self._waiting.popleft(), "the pace allows no call yet", wait=wait)
        return True

    async def _call(self, claim: Claim, reservation: Reservation, wait: float) -> None:
        answered = None
        with self._calls_first():
            await asyncio.sleep(wait)
            self.summary.calls += 1
            answer = await self._client.fetch_history(claim.song)
            works = read_key_validity(await self._client.fetch_status()) if needs_key_check(answer) else None
            answered = _FetchedItem(claim, reservation, answer, works)
        if answered is not None:
            self._to_keep.put_nowait(answered)
        else:
            self._land(1)

    async def _keep_station(self) -> None:
        while True:
            batch = await _gathered(self._to_keep)
            kept: list[_FetchedItem] = []
            with self._calls_first():
                kept = await self._keep(batch)
            # Held for as long as patience lasts, and lost: hits of unknown fate. The others in the air still come down.
            self._land(len(batch) - len(kept))
            for item in kept:
                self._to_settle.put_nowait(item)

    async def _settle_station(self) -> None:
        while True:
            batch = await _gathered(self._to_settle)
            with self._calls_first():
                # After an error what was kept stays unread: the next run reads it.
                if self._error is None:
                    await self._settle_batch(batch)
            self._land(len(batch))

    async def _settle_batch(self, batch: Sequence[_FetchedItem]) -> None:
        judged = [(item, judge(item.answer, is_key_valid=item.key_works)) for item in batch]
        settled = await self._settle([self._settling(item, judgement) for item, judgement in judged])
        for item, judgement in judged:
            if item.claim.song in settled:
                self._tell(item, judgement, settled[item.claim.song].settlement)
            if item.reservation.ledger is not None:
                await self._trust.record_outcome(item.claim.song, item.answer, judgement)
        self._stop_if_trust_is_lost()

    def _land(self, calls: int) -> None:
        self._in_the_air -= calls
        self._progress.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._terms.heartbeat_seconds)
            # A failed beat never cancels the calls in flight. The claim timeout is many beats long, so the next beat makes up for
            # one that failed for now; after any other error the run starts no more calls.
            with self._calls_first():
                try:
                    await self._beat_once()
                except DatabaseError as error:
                    if not is_transient(error):
                        raise

    async def _beat_once(self) -> None:
        held = list(self._held.values())
        await self._beat_line.execute(partial(run_heartbeats.renew_async, run=self._run))
        still = await self._beat_line.execute(partial(queue.heartbeat, claims=held, run=self._run))
        # Settled meanwhile, or taken over: either way no longer ours to ask for.
        for claim in held:
            if claim.song not in still:
                self._held.pop(claim.song, None)

    # --- what the stations do ------------------------------------------------------------------------------------------

    async def _keep(self, batch: Sequence[_FetchedItem]) -> list[_FetchedItem]:
        """Keep the answers whole. One that PostgreSQL refuses ends the run and takes none of the others with it."""
        write = partial(ledger.keep, received=[_received(item) for item in batch])
        try:
            # They are paid for and exist only here: no error but one about themselves is a reason to drop them early.
            found = await self._keep_line.execute_with_retry(write, on_defect=self._fail)
        except DatabaseError as error:
            if classify(error) is not ErrorKind.ROW or len(batch) == 1:
                raise
            kept: list[_FetchedItem] = []
            for one in batch:
                with self._calls_first():
                    kept += await self._keep([one])
            return kept
        return [replace(item, response=found.get(item.reservation.ledger or 0)) for item in batch]

    async def _reserve(self, batch: list[Claim]) -> tuple[list[tuple[Claim, Reservation]], dict[UUID, list[Claim]]]:
        """What may be called, and, by payer, what waits for a fresh decision."""
        wish = partial(
            ledger.reserve,
            claims=batch,
            run=self._run,
            hits_allowed=self._terms.hits_allowed,
            operators_account=self._terms.rules.operators_account,
        )
        # Repeated after a lost connection, it may have been written before: then that hit has no call and counts as unknown.
        found = await self._reserve_line.execute_with_retry(wish)
        reserved: list[tuple[Claim, Reservation]] = []
        stale: dict[UUID, list[Claim]] = {}
        for claim, reservation in zip(batch, found, strict=True):
            match reservation.verdict:
                case ReservationVerdict.RESERVED:
                    reserved.append((claim, reservation))
                case ReservationVerdict.LOST:
                    self._held.pop(claim.song, None)
                case ReservationVerdict.CLOSED:
                    self.stop("the breaker opened or a pause began elsewhere")
                case ReservationVerdict.BUDGET:
                    self.stop("the budget is spent")
                case ReservationVerdict.UNPAID:
                    await self._defer(claim, "nobody with a card on file wants it", wait=None)
                case ReservationVerdict.STALE if reservation.account is not None:
                    stale.setdefault(reservation.account, []).append(claim)
        return reserved, stale

    async def _ask_for_the_stale(self, stale: dict[UUID, list[Claim]]) -> None:
        for account, claims in stale.items():
            if await self._ask_about_payment(account) is Payment.UNKNOWN:
                for claim in claims:
                    await self._defer(claim, "payment could not be checked", wait=_PAYMENT_RETRY_SECONDS)
            else:
                # Allowed: reserve again. Denied: another request may pay, else the reservation says unpaid.
                self._waiting.extendleft(reversed(claims))

    async def _ask_about_payment(self, account: UUID) -> Payment:
        now = asyncio.get_running_loop().time()
        if now - self._payment_asked.get(account, -_PAYMENT_RETRY_SECONDS) < _PAYMENT_RETRY_SECONDS:
            return Payment.UNKNOWN
        self._payment_asked[account] = now
        try:
            return await asyncio.to_thread(self._check_payment, account)
        except DatabaseError as error:
            if not is_transient(error):
                raise
            return Payment.UNKNOWN

    async def _book_calls(self, calls: int) -> float:
        per_second = self._terms.requests_per_second
        if not per_second:
            return 0.0
        return await self._reserve_line.execute_with_retry(
            partial(ledger.take_call_slots, calls=calls, requests_per_second=per_second)
        )

    def _settling(self, item: _FetchedItem, judgement: Judgement) -> Settling:
        history = judgement.history
        return Settling(
            item.claim,
            settle(
                judgement,
                attempts=item.reservation.attempts or max(item.claim.attempts, 1),
                max_attempts=self._terms.rules.max_attempts,
                retry_soon_seconds=None if self.summary.stopped else self._retry_soon,
            ),
            cause=judgement.cause,
            status_code=item.answer.status_code,
            error=None if judgement.outcome is Outcome.STORED else judgement.detail,
            response=item.response,
            play_counts=history.play_counts if history else (),
            popularity=history.popularity if history else (),
        )

    async def _settle(self, settlings: list[Settling]) -> dict[str, Settling]:
        """Change the rows that are still ours; song → what it became.

        A row that PostgreSQL refuses is failed for now with what was said, its response unread: it must not take the others,
        whose hits were paid for, down with it.
        """
        try:
            return await self._write(settlings)
        except DatabaseError as error:
            if classify(error) is not ErrorKind.ROW:
                raise
            if len(settlings) > 1:
                return {song: done for one in settlings for song, done in (await self._settle([one])).items()}
            failed = Settlement(Status.FAILED, Outcome.TRANSIENT)
            # Tried once: where the row is refused even so, it stays claimed, and the error ends the run.
            return await self._write([Settling(settlings[0].claim, failed, error=first_line(error))])

    async def _write(self, settlings: list[Settling]) -> dict[str, Settling]:
        write = partial(queue.settle, settlings=settlings, run=self._run, parser_version=PARSER_VERSION)
        mine = await self._settle_line.execute_with_retry(write)
        for settling in settlings:
            self._held.pop(settling.claim.song, None)
        return {settling.claim.song: settling for settling in settlings if settling.claim.song in mine}

    async def _settle_one(self, settling: Settling, recording: RecordingResult) -> None:
        if await self._settle([settling]):
            self._say(recording)

    async def _defer(self, claim: Claim, reason: str, *, wait: float | None) -> None:
        settling = Settling(claim, Settlement(Status.PENDING, None, not_before_seconds=wait), error=reason)
        await self._settle_one(settling, RecordingResult(claim.song, ResultKind.DEFERRED, reason=reason))

    def _tell(self, item: _FetchedItem, judgement: Judgement, settlement: Settlement) -> None:
        kind = _STATUS_OF.get(settlement.status, ResultKind.DEFERRED)
        wait = settlement.not_before_seconds
        if kind is ResultKind.DEFERRED and wait is not None and wait == self._retry_soon:
            self._come_back_in(wait)
        self._say(
            RecordingResult(
                item.claim.song,
                kind,
                outcome=settlement.outcome,
                reason=judgement.detail,
                history=judgement.history,
                status_code=item.answer.status_code,
                hit=item.reservation.ledger is not None,
                digest=digest(item.answer.body) if item.answer.body else None,
                account=item.reservation.account,
                job=item.reservation.job,
            )
        )

    def _stop_if_trust_is_lost(self) -> None:
        if self._trust.open_reason is None:
            return
        self.summary.breaker_opened = self._trust.breaker_opened
        left = self._trust.pause_left
        if left is not None and left <= LONGEST_WAIT_IN_A_RUN_SECONDS and self._retry_soon is not None:
            self._come_back_in(left)
        self.stop(self._trust.open_reason)

    def _come_back_in(self, seconds: float | None) -> None:
        self.summary.retry_in_seconds = max(seconds or 0.0, self.summary.retry_in_seconds or 0.0)

    def _say(self, recording: RecordingResult) -> None:
        self.summary.count(recording)
        self._report(recording)

    async def _wait_for_progress(self) -> None:
        await self._progress.wait()
        self._progress.clear()


async def _gathered(waiting: "asyncio.Queue[_FetchedItem]") -> list[_FetchedItem]:
    """Everything that is there, up to a batch; waits for the first."""
    batch = [await waiting.get()]
    while not waiting.empty() and len(batch) < _BATCH:
        batch.append(waiting.get_nowait())
    return batch


def _received(item: _FetchedItem) -> ReceivedResponse:
    answer = item.answer
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
