"""What a run does with each recording it covers: survey, claim, drain, and put back what it did not use.

The drain runs in a thread of its own, so that an interrupt of the caller (a cancelled run) never tears a call that has been
paid for: the caller is told at once, the calls in the air come down, and what is left is released.
"""

import asyncio
import queue as threads
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TypeVar
from uuid import UUID

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.results import RecordingResult, ResultKind, RunSummary
from measurement_pipeline.backfill.worker import BackfillWorker
from measurement_pipeline.domain import isrc
from measurement_pipeline.domain.backfill_queue import Claim, QueueRow, Status
from measurement_pipeline.domain.blockers import budget_blocker, call_blockers, describe, describe_all
from measurement_pipeline.domain.payment import PaymentVerdict as Payment
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import backfill_queue as queue
from measurement_pipeline.postgres import measurement_jobs, run_heartbeats, songs, songstats_ledger
from measurement_pipeline.postgres.database import Connection, execute_with_retry
from measurement_pipeline.vendors.songstats.client import SongstatsClient

T = TypeVar("T")

# Where nothing is settled for so long, the caller gets an empty batch: a moment to show its progress.
_EMPTY_BATCH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class BackfillDependencies:
    """What a run works with beside the database. `check_payment` asks Stripe and records the answer; it blocks."""

    new_client: Callable[[], SongstatsClient]
    check_payment: Callable[[UUID], Payment]


class BackfillRun:
    """One run over `isrcs`: iterate it for what became of each, then read `summary`.

    `operator`: a person launched it, so failed rows are taken up again, absent ones made, and whatever could not be done is
    named in `summary.undone`. `again`: it is not the first try of its
    run. `told`: recordings that an earlier attempt of the same run has reported already.
    `retry_soon_seconds`: the caller will cover the same recordings again in so many seconds if asked to.
    Iterating raises what the database raises; what the run held is released in any case.
    """

    def __init__(
        self,
        isrcs: Sequence[str],
        *,
        run: str,
        is_operator: bool,
        config: BackfillConfig,
        dependencies: BackfillDependencies,
        is_retry: bool = False,
        already_reported: frozenset[str] = frozenset(),
        retry_soon_seconds: float | None = None,
    ) -> None:
        self.summary = RunSummary()
        self._isrcs = isrcs
        self._run = run
        self._is_operator = is_operator
        self._config = config
        self._dependencies = dependencies
        self._is_retry = is_retry
        self._already_reported = already_reported
        self._retry_soon = retry_soon_seconds
        # What an interrupt kept from being yielded.
        self.unreported: list[RecordingResult] = []
        self._has_ended = False
        self._results: threads.SimpleQueue[RecordingResult | None] = threads.SimpleQueue()
        self._worker: BackfillWorker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_reason: str | None = None

    def __iter__(self) -> Iterator[RecordingResult]:
        for batch in self.batches():
            yield from batch

    def batches(self) -> Generator[list[RecordingResult], None, None]:
        """The same, as many at a time as there are: what is told together costs less each. Empty while nothing is settled.

        Close it (`contextlib.closing`) if you stop before its end. `close` returns once the calls in flight are kept and settled;
        their results are then in `unsaid`.
        """
        stored, claims = self._execute(self._claim_due)
        for recording in stored:
            self.summary.count(recording)
        try:
            if stored:
                yield stored
            if claims:
                yield from self._buy(claims)
        finally:
            self._execute(self._release_unused)
        if self._is_operator:
            self._execute(self._explain_unfinished)

    def _execute(self, work: Callable[[Connection], T]) -> T:
        patience = self._config.patience_with_database_seconds
        return execute_with_retry(self._config.database_url, work, patience_seconds=patience)

    @property
    def progress(self) -> str:
        """How far the run is, for a person who watches it. Safe to call from any thread."""
        summary = self.summary if self._worker is None else self._worker.summary
        others = [
            f"{summary.total(kind)} {kind}"
            for kind in ResultKind
            if kind is not ResultKind.SETTLED and summary.total(kind)
        ]
        figures = [f"{summary.total(ResultKind.SETTLED)} of {summary.claimed} claimed recordings settled", *others]
        return f"{', '.join(figures)}; {counted(summary.calls, 'call')} made"

    def stop(self, reason: str) -> None:
        """Ask for nothing more; iterate on for what was in the air. Safe to call from any thread, and twice."""
        self._stop_reason = reason
        if self._loop is not None and self._worker is not None:
            with suppress(RuntimeError):  # the loop has ended by itself meanwhile
                self._loop.call_soon_threadsafe(self._worker.stop, reason)

    # --- before the drain ----------------------------------------------------------------------------------------------

    def _claim_due(self, connection: Connection) -> tuple[list[RecordingResult], list[Claim]]:
        """What needs no work, and the rows claimed."""
        run_heartbeats.renew(connection, self._run)
        found = queue.rows(connection, self._isrcs, self._config.rules)
        if self._is_operator and not self._is_retry:
            found = self._requeue_for_operator(connection, found)
        stored = [
            RecordingResult(song, ResultKind.ALREADY_STORED, outcome=row.outcome)
            for song in self._isrcs
            if (row := found.get(song)) is not None and row.status is Status.DONE and song not in self._already_reported
        ]
        budget = songstats_ledger.budget(connection, hits_allowed=self._config.hits_allowed)
        used = budget_blocker(budget)
        if used is not None:
            self.summary.stop_reason = describe(used)
            return stored, []
        return stored, queue.claim(
            connection,
            self._isrcs,
            run=self._run,
            limit=min(len(self._isrcs), budget.left),
            rules=self._config.rules,
            ignore_not_before=self._is_operator,
        )

    def _requeue_for_operator(self, connection: Connection, found: dict[str, QueueRow]) -> dict[str, QueueRow]:
        absent = [song for song in self._isrcs if song not in found and isrc.normalise_isrc(song) == song]
        with connection.transaction():
            if absent and self._config.rules.operators_account is not None:
                songs.ensure(connection, absent)
                queue.launch(connection, absent)
            unsettled = [song for song, row in found.items() if row.status is not Status.DONE and not row.is_alive]
            queue.launch(connection, unsettled)
            failed = [song for song in unsettled if found[song].status is Status.FAILED]
            taken_up = operator_actions.requeue(connection, failed, rebuy=False, actor=f"run {self._run}")
        return queue.rows(connection, self._isrcs, self._config.rules) if absent or taken_up else found

    # --- the drain, in its thread --------------------------------------------------------------------------------------

    def _buy(self, claims: Sequence[Claim]) -> Iterator[list[RecordingResult]]:
        ended: Future[RunSummary] = Future()
        thread = Thread(target=self._run_worker, args=(claims, ended), name=f"drain {self._run}", daemon=True)
        thread.start()
        try:
            while not self._has_ended:
                yield self._next_results()
        except BaseException:
            # An interrupt of the waiting caller ends this generator: what comes down meanwhile is for `unsaid`.
            self.stop("the run was interrupted")
            while not self._has_ended:
                self.unreported.extend(self._next_results())
            raise
        finally:
            thread.join()
        before = self.summary
        self.summary = ended.result()
        for kind, count in before.by_kind.items():
            self.summary.by_kind[kind] = self.summary.by_kind.get(kind, 0) + count

    def _next_results(self) -> list[RecordingResult]:
        """What the drain has reported since, waiting a moment for the first; empty where none came, or where it has ended."""
        batch: list[RecordingResult] = []
        try:
            while not self._has_ended and (not batch or not self._results.empty()):
                recording = self._results.get(timeout=_EMPTY_BATCH_SECONDS)
                self._has_ended = recording is None
                if recording is not None:
                    batch.append(recording)
        except threads.Empty:
            pass
        except BaseException:
            self.unreported.extend(batch)
            raise
        return batch

    def _run_worker(self, claims: Sequence[Claim], ended: "Future[RunSummary]") -> None:
        try:
            ended.set_result(asyncio.run(self._run_worker_in_loop(claims)))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
            ended.set_exception(error)
        finally:
            self._results.put(None)

    async def _run_worker_in_loop(self, claims: Sequence[Claim]) -> RunSummary:
        async with self._dependencies.new_client() as client:
            self._worker = BackfillWorker(
                self._config,
                run=self._run,
                client=client,
                check_payment=self._dependencies.check_payment,
                report=self._results.put,
                retry_soon_seconds=self._retry_soon,
            )
            self._loop = asyncio.get_running_loop()
            if self._stop_reason is not None:
                self._worker.stop(self._stop_reason)
            return await self._worker.run(claims)

    # --- after it ------------------------------------------------------------------------------------------------------

    def _release_unused(self, connection: Connection) -> None:
        run_heartbeats.renew(connection, self._run)
        queue.release(connection, run=self._run)
        songstats_ledger.settle_open(connection, claim_timeout_seconds=self._config.rules.claim_timeout_seconds)
        spared = self._run if needs_rerun(self.summary) else None
        queue.exhaust(connection, self._config.rules, spared_run=spared)
        self.summary.failed = queue.failed_by(connection, self._isrcs, run=self._run)
        measurement_jobs.settle(connection)

    def _explain_unfinished(self, connection: Connection) -> None:
        found = queue.rows(connection, self._isrcs, self._config.rules)
        vendor = songstats_ledger.vendor_state(connection)
        budget = songstats_ledger.budget(connection, hits_allowed=self._config.hits_allowed)
        why_none = describe_all(call_blockers(vendor, budget)[:1]) or None
        for song in self._isrcs:
            row = found.get(song)
            if row is None or row.status in {Status.PENDING, Status.IN_PROGRESS}:
                self.summary.unfinished[song] = self._explain_recording(song, row, why_none)

    def _explain_recording(self, song: str, row: QueueRow | None, why_none: str | None) -> str:
        if isrc.normalise_isrc(song) != song:
            return "not an ISRC: twelve characters such as GBUM72501895 were expected"
        if row is None:
            return "not in the queue, and BACKFILL_ACCOUNT_ID, who would pay for it, is not set"
        if row.status is Status.IN_PROGRESS and row.is_alive:
            return f"run {row.claimed_by} is buying it"
        if why_none is not None:
            return why_none
        if row.last_error is not None:
            return row.last_error
        return "nobody pays: no accepted request of an account with a card wants it, nor has BACKFILL_ACCOUNT_ID a card"


def needs_rerun(summary: RunSummary) -> bool:
    """Whether the same run is to come back in `summary.retry_in_seconds`."""
    return summary.retry_in_seconds is not None and summary.breaker_reason is None
