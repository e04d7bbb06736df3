"""Materializations of `songstats_history`: one for each ISRC, emitted by a run or by the sweep after it."""

import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.results import RecordingResult, ResultKind, RunSummary
from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.defs.backfill import results
from measurement_pipeline.defs.dagster_private import DagsterEvent, DagsterEventBatchMetadata
from measurement_pipeline.defs.partition_status import restore_statuses
from measurement_pipeline.defs.partitions import isrc_partitions
from measurement_pipeline.defs.reporting import try_report
from measurement_pipeline.domain.backfill_queue import Status
from measurement_pipeline.domain.outcome import Outcome
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres.database import connect

# The most that one sweep reports, so that it takes seconds.
_MOST_LATE = 2_000
# Between two attempts to report again after a refusal.
_REFUSED_SECONDS = 1.0
_DONE = frozenset({ResultKind.SETTLED, ResultKind.ALREADY_STORED})


class Reporter:
    """Reports a run's recordings to Dagster. A refused batch is reported with a later one, or by the hourly sweep.

    Reporting never fails a run that buys: the recordings are stored in our own database already.
    """

    def __init__(self, context: dg.OpExecutionContext, config: BackfillConfig) -> None:
        self._context = context
        self._config = config
        self._unreported: list[RecordingResult] = []
        self._not_before = 0.0

    @property
    def unreported(self) -> int:
        """How many settled recordings Dagster does not show yet."""
        return sum(recording.kind in _DONE for recording in self._unreported)

    def report(self, batch: Sequence[RecordingResult], *, is_last: bool = False) -> None:
        """Report `batch` and all refused ones before it: after a refusal once a second, and always with the last batch."""
        self._unreported += batch
        if not self._unreported or (time.monotonic() < self._not_before and not is_last):
            return
        if try_report(lambda: emit_materializations(self._context, self._unreported, self._config)):
            self._unreported = []
        else:
            self._not_before = time.monotonic() + _REFUSED_SECONDS


def emit_materializations(
    context: dg.OpExecutionContext, batch: Sequence[RecordingResult], config: BackfillConfig
) -> None:
    """Emit the materializations of settled recordings, and log the result of the others.

    All are logged as one batch, which `context.log_event` cannot do: 0.3 ms each instead of 2.4 ms (defs/storage.py).
    """
    done = [recording for recording in batch if recording.kind in _DONE]
    batch_id = str(uuid4())
    for recording in done:
        DagsterEvent.asset_materialization(
            context.get_step_execution_context(),
            dg.AssetMaterialization(
                SONGSTATS_HISTORY,
                partition=recording.song,
                description=_headline(recording),
                metadata=_metadata(recording, config),
            ),
            DagsterEventBatchMetadata(batch_id, is_end=recording is done[-1]),
        )
    for recording in batch:
        if recording.kind not in _DONE:
            # Not a warning: a deferred row is no error, and a failed one fails the run, which logs the reason.
            context.log.debug(f"{recording.song}: {recording.kind} ({recording.reason})")


def emit_totals(context: dg.OpExecutionContext, summary: RunSummary, *, unreported: int) -> None:
    """Emit the run's totals, deferred recordings included, and how many recordings the sweep will report."""
    metadata = results.metadata(summary)
    if unreported:
        metadata["not reported yet"] = dg.MetadataValue.int(unreported)
        context.log.warning(
            f"{counted(unreported, 'recording is', 'recordings are')} stored and not shown here: Dagster's database refused the "
            "materializations. `backfill_reclaim` reports them within the hour."
        )
    context.log_event(dg.AssetObservation(SONGSTATS_HISTORY, description="totals of a run", metadata=metadata))


def materialized_by_this_run(context: dg.OpExecutionContext) -> frozenset[str]:
    """The recordings that an earlier attempt of this run has materialized."""
    logged = context.instance.all_logs(context.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    return frozenset(
        entry.dagster_event.partition
        for entry in logged
        if entry.dagster_event is not None and entry.dagster_event.partition is not None
    )


def emit_missing_materializations(context: dg.OpExecutionContext, config: BackfillConfig) -> int:
    """Emit the materializations that a crash prevented, and return their number.

    Dagster's storage is a database of its own, so a recording and its materialization cannot commit together.
    """
    with connect(config.database_url) as connection:
        done = backfill_queue.done(connection)
    materialized = context.instance.get_materialized_partitions(SONGSTATS_HISTORY)
    missing = sorted(set(done) - set(materialized))[:_MOST_LATE]
    if missing:
        context.instance.add_dynamic_partitions(str(isrc_partitions.name), missing)
    for song in missing:
        context.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                SONGSTATS_HISTORY,
                partition=song,
                description="settled earlier, reported by the sweep",
                metadata={"outcome": done[song].value, "hit": False},
            )
        )
    return len(missing)


def restore_partition_statuses(context: dg.OpExecutionContext, config: BackfillConfig) -> int:
    """Restore the status of recordings that did not fail but whose run did, and return their number."""

    def failed_among(songs: Sequence[str]) -> frozenset[str]:
        with connect(config.database_url) as connection:
            rows = backfill_queue.rows(connection, songs, config.rules)
        return frozenset(song for song, row in rows.items() if row.status is Status.FAILED)

    return restore_statuses(context, SONGSTATS_HISTORY, isrc_partitions, failed_among)


def _headline(recording: RecordingResult) -> str:
    if recording.kind is ResultKind.ALREADY_STORED:
        return (
            "already stored: no hit was spent"
            if recording.outcome is Outcome.STORED
            else f"settled before as {recording.outcome}"
        )
    return recording.reason or str(recording.outcome)


def _metadata(recording: RecordingResult, config: BackfillConfig) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "outcome": str(recording.outcome),
        "hit": recording.hit,
        "cost_eur": config.eur_per_hit if recording.hit else 0.0,
    }
    if recording.kind is ResultKind.ALREADY_STORED:
        return shown
    history = recording.history
    if history is not None:
        shown |= {
            "points": history.points,
            "popularity_points": history.popularity_points,
            "points_dropped": sum(history.dropped.values()),
            "first_date": str(history.first_day),
            "last_date": str(history.last_day),
            "latest_count": history.latest_count,
            "report_row": dg.MetadataValue.md(
                f"`#{recording.song}` on the page that `measurement-pipeline report` writes"
            ),
            "plays": history.plays,
        }
        if history.dropped:
            shown["why_dropped"] = ", ".join(f"{count} {reason}" for reason, count in history.dropped.items())
    optional = {
        "status_code": recording.status_code,
        "response_sha256": recording.digest,
        "measurement_job": None if recording.job is None else str(recording.job),
        "account": None if recording.account is None else str(recording.account),
    }
    return shown | {key: value for key, value in optional.items() if value is not None}
