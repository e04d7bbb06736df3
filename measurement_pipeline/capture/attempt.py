"""One run's hold on one capture: how its result is written, and how the capture is released."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.capture.outcome import CaptureOutcome, CaptureResultKind
from measurement_pipeline.domain.capture import SnapshotState
from measurement_pipeline.postgres import apify_runs, captures, measurement_jobs, operator_acts
from measurement_pipeline.postgres.database import Connection, DatabaseError


@dataclass(frozen=True, slots=True)
class CaptureAttempt:
    """One attempt of one run at a capture. `is_last_try`: the run has no further attempt."""

    connection: Connection
    services: CaptureServices
    snapshot: UUID
    account: UUID
    run_id: str
    is_first_try: bool
    is_retry: bool
    is_last_try: bool

    def outcome(self, kind: CaptureResultKind, reason: str | None) -> CaptureOutcome:
        """The outcome with the capture's row as it is now."""
        return CaptureOutcome(
            kind,
            reason,
            captures.get(self.connection, self.snapshot) or {},
            apify_runs.cost_of_run(self.connection, self.snapshot, run=self.run_id),
            apify_runs.list_unmapped(self.connection, self.snapshot),
        )

    def finish(self, kind: CaptureResultKind, reason: str | None) -> CaptureOutcome:
        """Close the capture, and settle the requests that wait for it."""
        is_failed = kind in {CaptureResultKind.FAILED, CaptureResultKind.NOT_FOUND}
        status_code = captures.NOT_FOUND if kind is CaptureResultKind.NOT_FOUND else captures.FAILED
        with self.connection.transaction():
            if not captures.finish(
                self.connection,
                self.snapshot,
                run=self.run_id,
                state=SnapshotState.FAILED if is_failed else SnapshotState.DONE,
                status_code=status_code,
                error=reason,
            ):
                return self.outcome(CaptureResultKind.UNCHANGED, "another run has taken the capture over")
            measurement_jobs.settle(self.connection)
        return self.outcome(kind, reason)

    def give_up(self, reason: str) -> CaptureOutcome:
        """Close the capture without further work. What was captured stays."""
        runs = apify_runs.list_latest_runs(self.connection, self.snapshot)
        is_captured = any(run.is_mapped for run in runs.values())
        return self.finish(CaptureResultKind.PARTLY_DONE if is_captured else CaptureResultKind.FAILED, reason)

    def postpone(
        self, kind: CaptureResultKind, reason: str, *, seconds: float | None, refund_attempt: bool = True
    ) -> CaptureOutcome:
        """Release the capture for a later run. `seconds` None: a part of the capture's age."""
        self._release(reason, seconds=seconds, refund_attempt=refund_attempt)
        return self.outcome(kind, reason)

    def release_if_possible(self, reason: str, *, seconds: float | None, refund_attempt: bool) -> None:
        """Release the capture. If the database cannot be reached, the claim expires."""
        with suppress(DatabaseError):
            self._release(reason, seconds=seconds, refund_attempt=refund_attempt)

    def record_act(self, act: str, row: dict[str, Any]) -> None:
        """Record what an operator's launch changed."""
        detail = {"snapshot": str(self.snapshot), "was": row["state"]}
        operator_acts.record(self.connection, actor=f"run {self.run_id}", act=act, detail=detail)

    def _release(self, reason: str, *, seconds: float | None, refund_attempt: bool) -> None:
        captures.release(
            self.connection,
            self.snapshot,
            run=self.run_id,
            seconds=seconds,
            error=reason,
            refund_attempt=refund_attempt,
        )
