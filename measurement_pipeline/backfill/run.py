"""One backfill run over its recordings: claim the due rows, buy them, release the rows it did not use.

The worker runs in its own thread, so that an interrupt of the caller (a cancelled run) never breaks off a paid call: the calls in
flight finish, their responses are stored, and the remaining rows are released.
"""

import asyncio
import queue
import time
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
from measurement_pipeline.domain.backfill_queue import Claim, QueueRow, Status
from measurement_pipeline.domain.blockers import (
    NO_PAYER,
    QUOTA_USED,
    budget_blocker,
    call_blockers,
    describe,
    describe_all,
    operator_pause_blocker,
)
from measurement_pipeline.domain.isrc import normalise_isrc
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.domain.text import counted
from measurement_pipeline.domain.vendor_state import Budget
from measurement_pipeline.postgres import (
    backfill_queue,
    measurement_jobs,
    purchase_pauses,
    run_heartbeats,
    songs,
    songstats_ledger,
)
from measurement_pipeline.postgres.database import Connection, execute_with_retry
from measurement_pipeline.vendors.songstats.client import SongstatsClient

T = TypeVar("T")

# Results are passed on every half second: reporting many at once costs a sixth of reporting each.
_MAX_BATCH = 200
_BATCH_SECONDS = 0.5
# If no recording is settled for this long, the caller gets an empty batch and can show its progress.
_EMPTY_BATCH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class BackfillDependencies:
    """What a run needs beside the database. `check_payment` asks Stripe, records the decision, and blocks."""

    new_client: Callable[[], SongstatsClient]
    check_payment: Callable[[UUID], PaymentVerdict]


class BackfillRun:
    """One run over `isrcs`: iterate it for the result of each recording, then read `summary`.

    `is_operator`: a person launched it. It requeues failed rows, creates absent ones, and `summary.unfinished` explains the rest.
    `is_retry`: not the first attempt of its run. `already_reported`: recordings that an earlier attempt of this run reported.
    `retry_soon_seconds`: the caller can cover the same recordings again after this time.
    Iterating raises database errors. The run's claims are released in any case.
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
        # A row is claimed once in a run: an operator's run would claim one that it has just deferred again and again.
        self._unclaimed = dict.fromkeys(isrcs)
        self._retry_soon = retry_soon_seconds
        # Results that an interrupt kept from being yielded.
        self.unreported: list[RecordingResult] = []
        self._has_ended = False
        self._results: queue.SimpleQueue[Sequence[RecordingResult] | None] = queue.SimpleQueue()
        self._worker: BackfillWorker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_reason: str | None = None

    def __iter__(self) -> Iterator[RecordingResult]:
        for batch in self.batches():
            yield from batch

    def batches(self) -> Generator[list[RecordingResult], None, None]:
        """The results in batches, since reporting many at once costs less each. Empty while no recording is settled.

        Close it (`contextlib.closing`) to stop before its end. `close` returns once the calls in flight are stored and settled;
        their results are then in `unreported`.
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
        """How far the run is, as text for a person. Safe to call from any thread."""
        summary = self.summary if self._worker is None else self._worker.summary
        others = [
            f"{summary.total(kind)} {kind}"
            for kind in ResultKind
            if kind is not ResultKind.SETTLED and summary.total(kind)
        ]
        figures = [f"{summary.total(ResultKind.SETTLED)} of {summary.claimed} claimed recordings settled", *others]
        return f"{', '.join(figures)}; {counted(summary.calls, 'call')} made"

    def stop(self, reason: str) -> None:
        """Start no more calls; keep iterating for those in flight. Safe to call from any thread, and twice."""
        self._stop_reason = reason
        if self._loop is not None and self._worker is not None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._worker.stop, reason)

    # --- before the worker ---------------------------------------------------------------------------------------------

    def _claim_due(self, connection: Connection) -> tuple[list[RecordingResult], list[Claim]]:
        """Claim the due rows; return the recordings that are done already, and the claims."""
        run_heartbeats.renew(connection, self._run)
        rows = backfill_queue.rows(connection, self._isrcs, self._config.rules)
        if self._is_operator and not self._is_retry:
            rows = self._requeue_for_operator(connection, rows)
        stored = [
            RecordingResult(song, ResultKind.ALREADY_STORED, outcome=row.outcome)
            for song in self._isrcs
            if (row := rows.get(song)) is not None and row.status is Status.DONE and song not in self._already_reported
        ]
        budget = songstats_ledger.budget(connection, hits_allowed=self._config.hits_allowed)
        used = budget_blocker(budget)
        if used is not None:
            self.summary.stop_reason = describe(used)
            return stored, []
        for song, row in rows.items():
            if row.status is Status.DONE:
                self._unclaimed.pop(song, None)
        return stored, self._claim(connection, budget)

    def _claim(self, connection: Connection, budget: Budget) -> list[Claim]:
        """Claim the next due rows, best rank first. Empty if none is left, or no budget."""
        if not self._unclaimed:
            return []
        limit = min(self._config.claimed_at_once, budget.left)
        claims = backfill_queue.claim(
            connection,
            list(self._unclaimed),
            run=self._run,
            limit=limit,
            rules=self._config.rules,
            ignore_not_before=self._is_operator,
        )
        if len(claims) < limit:
            self._unclaimed.clear()
        for claim in claims:
            self._unclaimed.pop(claim.song, None)
        return claims

    def _claim_more(self) -> list[Claim]:
        """Claim again, for the worker."""

        def claim_within_budget(connection: Connection) -> list[Claim]:
            return self._claim(connection, songstats_ledger.budget(connection, hits_allowed=self._config.hits_allowed))

        return self._execute(claim_within_budget) if self._unclaimed else []

    def _requeue_for_operator(self, connection: Connection, rows: dict[str, QueueRow]) -> dict[str, QueueRow]:
        absent = [song for song in self._isrcs if song not in rows and normalise_isrc(song) == song]
        with connection.transaction():
            if absent and self._config.rules.operators_account is not None:
                songs.ensure(connection, absent)
                backfill_queue.launch(connection, absent)
            unsettled = [song for song, row in rows.items() if row.status is not Status.DONE and not row.is_alive]
            backfill_queue.launch(connection, unsettled)
            failed = [song for song in unsettled if rows[song].status is Status.FAILED]
            requeued = operator_actions.requeue(connection, failed, rebuy=False, actor=f"run {self._run}")
        return backfill_queue.rows(connection, self._isrcs, self._config.rules) if absent or requeued else rows

    # --- the worker, in its thread -------------------------------------------------------------------------------------

    def _buy(self, claims: Sequence[Claim]) -> Iterator[list[RecordingResult]]:
        ended: Future[RunSummary] = Future()
        thread = Thread(target=self._run_worker, args=(claims, ended), name=f"backfill {self._run}", daemon=True)
        thread.start()
        deadline = time.monotonic() + self._config.run_seconds
        try:
            while not self._has_ended:
                if time.monotonic() > deadline:
                    self.stop(f"the run has taken {self._config.run_seconds / 60:.0f} minutes; the next one continues")
                yield self._next_results()
        except BaseException:
            # An interrupt of the waiting caller ends this generator: later results go to `unreported`.
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
        """The results since the last call; waits a moment for the first. Empty if there is none, or the worker has ended."""
        batch: list[RecordingResult] = []
        deadline = time.monotonic() + _BATCH_SECONDS
        try:
            while not self._has_ended and len(batch) < _MAX_BATCH:
                wait = max(0.0, deadline - time.monotonic()) if batch else _EMPTY_BATCH_SECONDS
                results = self._results.get(timeout=wait)
                self._has_ended = results is None
                batch += results or ()
        except queue.Empty:
            pass
        except BaseException:
            self.unreported.extend(batch)
            raise
        return batch

    def _run_worker(self, claims: Sequence[Claim], ended: "Future[RunSummary]") -> None:
        try:
            ended.set_result(asyncio.run(self._run_worker_in_loop(claims)))
        except BaseException as error:  # noqa: BLE001 - the calling thread raises it
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
            return await self._worker.run(claims, self._claim_more)

    # --- after it ------------------------------------------------------------------------------------------------------

    def _release_unused(self, connection: Connection) -> None:
        run_heartbeats.renew(connection, self._run)
        backfill_queue.release(connection, run=self._run)
        songstats_ledger.settle_open(connection, claim_timeout_seconds=self._config.rules.claim_timeout_seconds)
        spared_run = self._run if needs_rerun(self.summary) else None
        backfill_queue.exhaust(connection, self._config.rules, spared_run=spared_run)
        self.summary.failed = backfill_queue.failed_by(connection, self._isrcs, run=self._run)
        measurement_jobs.settle(connection)
        if self.summary.stop_reason == QUOTA_USED:
            # The reservation that found no hit left returns no figures.
            used = budget_blocker(songstats_ledger.budget(connection, hits_allowed=self._config.hits_allowed))
            self.summary.stop_reason = QUOTA_USED if used is None else describe(used)

    def _explain_unfinished(self, connection: Connection) -> None:
        rows = backfill_queue.rows(connection, self._isrcs, self._config.rules)
        vendor = songstats_ledger.vendor_state(connection)
        budget = songstats_ledger.budget(connection, hits_allowed=self._config.hits_allowed)
        blocker = describe_all(call_blockers(vendor, budget)[:1]) or self._stop_reason
        paused = purchase_pauses.of_songs(
            connection, self._isrcs, operators_account=self._config.rules.operators_account
        )
        for song in self._isrcs:
            row = rows.get(song)
            if row is None or row.status in {Status.PENDING, Status.IN_PROGRESS}:
                pause = paused.get(song)
                reason = blocker if pause is None else blocker or describe(operator_pause_blocker(pause))
                self.summary.unfinished[song] = self._explain_recording(song, row, reason)

    def _explain_recording(self, song: str, row: QueueRow | None, blocker: str | None) -> str:
        if normalise_isrc(song) != song:
            return "not an ISRC: expected twelve characters such as GBUM72501895"
        if row is None:
            return "not in the queue, and no account pays for it: set BACKFILL_ACCOUNT_ID"
        if row.status is Status.IN_PROGRESS and row.is_alive:
            return f"in progress in run {row.claimed_by}"
        if blocker is not None:
            return blocker
        if row.last_error is not None:
            return row.last_error
        return f"{NO_PAYER}, and BACKFILL_ACCOUNT_ID has no saved card"


def needs_rerun(summary: RunSummary) -> bool:
    """Whether the same run should try again after `summary.retry_in_seconds`."""
    return summary.retry_in_seconds is not None and summary.breaker_reason is None
