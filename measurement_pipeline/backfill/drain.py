"""The money path for the rows that a run has claimed: reserve → call → keep → parse → settle, and a beat beside it.

A conveyor in one event loop. Each station takes what has gathered before it as one batch, so that a slow database makes
batches larger, not queues longer; at most `concurrency` recordings are between reservation and settlement. What to make of an
answer is decided in `domain` and `songstats/historic_stats`; this module acts.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from measurement_pipeline.backfill.report import Kind, Recording, Summary
from measurement_pipeline.backfill.terms import Terms
from measurement_pipeline.domain.backfill_queue import (
    LONGEST_WAIT_IN_A_RUN_SECONDS,
    Settlement,
    Status,
    calls_allowed_in_the_air,
    settle,
    streak,
)
from measurement_pipeline.domain.outcome import Cause, Judgement, Outcome
from measurement_pipeline.domain.payment import Verdict as Payment
from measurement_pipeline.postgres import backfill_queue as queue
from measurement_pipeline.postgres import run_heartbeats
from measurement_pipeline.postgres import songstats_ledger as ledger
from measurement_pipeline.postgres.backfill_queue import Claim, Settling
from measurement_pipeline.postgres.database import AsyncConnection, DatabaseUnavailable, Line
from measurement_pipeline.postgres.songstats_ledger import Received, Reservation, Verdict
from measurement_pipeline.songstats.answer import Answer
from measurement_pipeline.songstats.client import SongstatsClient
from measurement_pipeline.songstats.historic_stats import PARSER_VERSION, digest, judge, key_works, needs_key_check

_T = TypeVar("_T")
_BATCH = 64
_NEVER_ASKED = Reservation(Verdict.RESERVED, None, None, None, None)


@dataclass(frozen=True, slots=True)
class _Answered:
    """A recording on its way from the call to settlement."""

    claim: Claim
    reservation: Reservation
    answer: Answer
    key_works: bool | None = None
    response: int | None = None


class Drain:
    """One run's walk. Make it in the event loop that runs it."""

    def __init__(
        self,
        terms: Terms,
        *,
        run: str,
        client: SongstatsClient,
        check_payment: Callable[[UUID], Payment],
        report: Callable[[Recording], None],
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
        self._line = Line(terms.database_url)
        self._keep_line = Line(terms.database_url)
        self._settle_line = Line(terms.database_url)
        self._beat_line = Line(terms.database_url)
        self._waiting: deque[Claim] = deque()
        self._held: dict[str, Claim] = {}
        self._in_the_air = 0
        self._causes: deque[tuple[str, str]] = deque(maxlen=100)
        self._trusted = False
        self._pause_is_known = False
        self._to_keep: asyncio.Queue[_Answered] = asyncio.Queue()
        self._to_settle: asyncio.Queue[_Answered] = asyncio.Queue()
        self._progress = asyncio.Event()

    async def walk(self, claims: Sequence[Claim]) -> Summary:
        """Buy what was claimed, as far as budget, payment, pace and vendor allow. What was never asked stays claimed."""
        self._held = {claim.song: claim for claim in claims}
        self.summary.claimed = len(claims)
        try:
            self._causes.extend(await self._persist(self._line, ledger.recent_causes))
            await self._watch_the_streak()
            async with asyncio.TaskGroup() as group:
                stations = [group.create_task(s()) for s in (self._beat, self._keep_station, self._settle_station)]
                await self._start(claims)
                await self._call_station(group)
                while self._in_the_air:
                    await self._wait_for_progress()
                for station in stations:
                    station.cancel()
        finally:
            for line in (self._line, self._keep_line, self._settle_line, self._beat_line):
                await line.close()
        return self.summary

    def stop(self, why: str) -> None:
        """Reserve nothing more; what is in the air comes down by itself. Call from the loop."""
        self.summary.stopped = self.summary.stopped or why
        self._progress.set()

    # --- stations ------------------------------------------------------------------------------------------------------

    async def _start(self, claims: Sequence[Claim]) -> None:
        """Send what needs no call straight to settlement, the rest to the queue for hits."""
        for claim in claims:
            if claim.unread_response is not None:
                unread = claim.unread_response
                kept = await self._persist(self._line, lambda connection, r=unread: ledger.response(connection, r))
                answer = Answer(kept.status_code, kept.headers, kept.body)
                self._in_the_air += 1
                # A 403 was kept only once the key had been found to work.
                item = _Answered(claim, _NEVER_ASKED, answer, key_works=True, response=claim.unread_response)
                self._to_settle.put_nowait(item)
            elif claim.has_history:
                await self._settle_as_owned(claim)
            else:
                self._waiting.append(claim)

    async def _call_station(self, group: asyncio.TaskGroup) -> None:
        while self._waiting and not self.summary.stopped:
            room = calls_allowed_in_the_air(
                streak([cause for cause, _ in self._causes]), trusted=self._trusted, concurrency=self._terms.concurrency
            )
            # A second's worth at the most: a hit is set aside when it is about to be spent, not long before.
            pace = max(1, int(self._terms.requests_per_second)) if self._terms.requests_per_second else _BATCH
            room = min(room - self._in_the_air, pace, _BATCH)
            if room <= 0:
                await self._wait_for_progress()
                continue
            batch = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            reserved = await self._reserve([claim for claim in batch if claim.song in self._held])
            wait = await self._book_calls(len(reserved))
            for place, (claim, reservation) in enumerate(reserved):
                self._in_the_air += 1
                step = place / self._terms.requests_per_second if self._terms.requests_per_second else 0.0
                group.create_task(self._call(claim, reservation, wait + step))
            if self._terms.requests_per_second:
                await asyncio.sleep(max(0.0, wait + (len(reserved) - 1) / self._terms.requests_per_second))

    async def _call(self, claim: Claim, reservation: Reservation, wait: float) -> None:
        await asyncio.sleep(wait)
        self.summary.calls += 1
        answer = await self._client.fetch_history(claim.song)
        works = key_works(await self._client.fetch_status()) if needs_key_check(answer) else None
        self._to_keep.put_nowait(_Answered(claim, reservation, answer, works))

    async def _keep_station(self) -> None:
        while True:
            batch = await _gathered(self._to_keep)
            received = [_received(item) for item in batch]
            responses = await self._persist(self._keep_line, lambda connection, r=received: ledger.keep(connection, r))
            for item in batch:
                kept = responses.get(item.reservation.ledger or 0)
                self._to_settle.put_nowait(_Answered(item.claim, item.reservation, item.answer, item.key_works, kept))

    async def _settle_station(self) -> None:
        while True:
            batch = await _gathered(self._to_settle)
            judged = [(item, judge(item.answer, key_works=item.key_works)) for item in batch]
            settlings = [self._settling(item, judgement) for item, judgement in judged]
            mine = await self._persist(
                self._settle_line,
                lambda connection, s=settlings: queue.settle(
                    connection, s, run=self._run, parser_version=PARSER_VERSION
                ),
            )
            for (item, judgement), settling in zip(judged, settlings, strict=True):
                self._held.pop(item.claim.song, None)
                if item.claim.song in mine:
                    self._tell(item, judgement, settling)
                if judgement.cause in {Cause.STORED, Cause.NO_HISTORY, Cause.REJECTED, Cause.MALFORMED}:
                    self._causes.appendleft((judgement.cause, item.claim.song))
                self._trusted |= judgement.cause is Cause.STORED
                await self._heed(item, judgement)
            await self._watch_the_streak()
            self._in_the_air -= len(batch)
            self._progress.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._terms.beat_seconds)
            held = list(self._held.values())
            # A beat that the database cannot take is made up by the next one; the claim timeout is many beats long.
            with suppress(DatabaseUnavailable):
                still = await self._beat_line.do(lambda c, h=held: queue.heartbeat(c, h, run=self._run))
                await self._beat_line.do(lambda c: run_heartbeats.beat_async(c, self._run))
                for claim in held:
                    if claim.song not in still:
                        # Settled meanwhile, or taken over: either way no longer ours to ask for.
                        self._held.pop(claim.song, None)

    # --- what the stations do ------------------------------------------------------------------------------------------

    async def _reserve(self, batch: list[Claim]) -> list[tuple[Claim, Reservation]]:
        # Repeated after a lost connection, it may have been written before: then that hit has no call and counts as unknown.
        found = await self._persist(
            self._line,
            lambda connection: ledger.reserve(
                connection,
                batch,
                run=self._run,
                hits_allowed=self._terms.hits_allowed,
                operators_account=self._terms.rules.operators_account,
            ),
        )
        reserved: list[tuple[Claim, Reservation]] = []
        stale: dict[UUID, list[Claim]] = {}
        for claim, reservation in zip(batch, found, strict=True):
            match reservation.verdict:
                case Verdict.RESERVED:
                    reserved.append((claim, reservation))
                case Verdict.LOST:
                    self._held.pop(claim.song, None)
                case Verdict.CLOSED:
                    self.stop("the breaker opened or a pause began elsewhere")
                case Verdict.BUDGET:
                    self.stop("the budget is spent")
                case Verdict.UNPAID:
                    await self._defer(claim, "no card on file", wait=None)
                case Verdict.STALE if reservation.account is not None:
                    stale.setdefault(reservation.account, []).append(claim)
        for account, claims in stale.items():
            payment = await asyncio.to_thread(self._check_payment, account)
            if payment is Payment.UNKNOWN:
                for claim in claims:
                    await self._defer(claim, "payment could not be checked", wait=60.0)
            else:
                # Allowed: reserve again. Denied: another request may pay, else the reservation says unpaid.
                self._waiting.extendleft(reversed(claims))
        return reserved

    async def _book_calls(self, calls: int) -> float:
        if not calls or not self._terms.requests_per_second:
            return 0.0
        return await self._persist(
            self._line,
            lambda connection: ledger.take_call_slots(
                connection, calls, requests_per_second=self._terms.requests_per_second
            ),
        )

    def _settling(self, item: _Answered, judgement: Judgement) -> Settling:
        attempts = item.reservation.attempts or max(item.claim.attempts, 1)
        history = judgement.history
        return Settling(
            item.claim,
            settle(
                judgement,
                attempts=attempts,
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

    def _tell(self, item: _Answered, judgement: Judgement, settling: Settling) -> None:
        match settling.settlement.status:
            case Status.DONE:
                kind = Kind.SETTLED
            case Status.FAILED:
                kind = Kind.FAILED
            case _:
                kind = Kind.DEFERRED
        if kind is Kind.DEFERRED and judgement.outcome is Outcome.TRANSIENT and self._retry_soon is not None:
            self.summary.retry_in_seconds = self._retry_soon
        self._say(
            Recording(
                item.claim.song,
                kind,
                outcome=settling.settlement.outcome,
                reason=judgement.detail,
                history=judgement.history,
                status_code=item.answer.status_code,
                hit=item.reservation.ledger is not None,
                digest=digest(item.answer.body) if item.answer.body else None,
                account=item.reservation.account,
                job=item.reservation.job,
            )
        )

    async def _heed(self, item: _Answered, judgement: Judgement) -> None:
        """What an answer says of the vendor rather than of the recording."""
        if judgement.cause is Cause.THROTTLED:
            self._pause_is_known = True
            left: float = await self._persist(
                self._settle_line, lambda c: ledger.pause(c, retry_after=item.answer.retry_after)
            )
            if left <= LONGEST_WAIT_IN_A_RUN_SECONDS and self._retry_soon is not None:
                self.summary.retry_in_seconds = max(left, self.summary.retry_in_seconds or 0.0)
            self.stop("Songstats asks for a pause")
        elif judgement.cause is Cause.REFUSED_KEY:
            await self._open_breaker("key", judgement.detail, [])
        elif item.answer.status_code is not None and not self._pause_is_known and item.answer.status_code < 400:
            self._pause_is_known = True
            await self._persist(self._settle_line, ledger.unthrottle)

    async def _watch_the_streak(self) -> None:
        seen = streak([cause for cause, _ in self._causes])
        if seen.reason is not None and self.summary.breaker_opened is None:
            doubtful = [song for cause, song in _until_stored(self._causes)]
            await self._open_breaker("streak", seen.reason, doubtful)

    async def _open_breaker(self, kind: str, reason: str, suspects: list[str]) -> None:
        await self._persist(
            self._settle_line, lambda c: ledger.open_breaker(c, kind=kind, reason=reason, suspects=suspects)
        )
        self.summary.breaker_opened = self.summary.breaker_opened or reason
        self.stop(f"the breaker opened: {reason}")

    async def _settle_as_owned(self, claim: Claim) -> None:
        settling = Settling(claim, Settlement(Status.DONE, Outcome.STORED))
        mine = await self._persist(
            self._line, lambda c: queue.settle(c, [settling], run=self._run, parser_version=PARSER_VERSION)
        )
        self._held.pop(claim.song, None)
        if claim.song in mine:
            self._say(Recording(claim.song, Kind.ALREADY_STORED, outcome=Outcome.STORED))

    async def _defer(self, claim: Claim, reason: str, *, wait: float | None) -> None:
        settling = Settling(claim, Settlement(Status.PENDING, None, not_before_seconds=wait), error=reason)
        await self._persist(
            self._line, lambda c: queue.settle(c, [settling], run=self._run, parser_version=PARSER_VERSION)
        )
        self._held.pop(claim.song, None)
        self._say(Recording(claim.song, Kind.DEFERRED, reason=reason))

    def _say(self, recording: Recording) -> None:
        self.summary.count(recording)
        self._report(recording)

    async def _persist(self, line: Line, write: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        """Write what must not be lost, again and again while the database is away; each write can be repeated safely."""
        deadline = asyncio.get_running_loop().time() + self._terms.patience_with_database_seconds
        while True:
            try:
                return await line.do(write)
            except DatabaseUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.5)

    async def _wait_for_progress(self) -> None:
        await self._progress.wait()
        self._progress.clear()


async def _gathered(waiting: "asyncio.Queue[_Answered]") -> list[_Answered]:
    """Everything that is there, up to a batch; waits for the first."""
    batch = [await waiting.get()]
    while not waiting.empty() and len(batch) < _BATCH:
        batch.append(waiting.get_nowait())
    return batch


def _received(item: _Answered) -> Received:
    answer = item.answer
    if item.reservation.ledger is None:
        raise ValueError(f"{item.claim.song} was called without a reservation")
    if answer.status_code == 200 and answer.failure is None:
        # Kept before it is read: whatever reading it does to this process, it was paid for and is there.
        return Received(item.reservation.ledger, 200, True, None, answer.headers, answer.body)
    judgement = judge(answer, key_works=item.key_works)
    body = answer.body if judgement.billable and answer.failure is None else None
    return Received(
        item.reservation.ledger, answer.status_code, judgement.billable, judgement.cause, answer.headers, body
    )


def _until_stored(causes: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    found = []
    for cause, song in causes:
        if cause == Cause.STORED:
            break
        found.append((cause, song))
    return found
