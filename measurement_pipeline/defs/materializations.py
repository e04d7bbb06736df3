"""One materialization an ISRC: what a run, or the sweep after it, says of a recording in the UI."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.results import RecordingResult, ResultKind, RunSummary, sparkline
from measurement_pipeline.defs import failures
from measurement_pipeline.defs.partition_status import restore_statuses
from measurement_pipeline.defs.partitions import isrc_partitions
from measurement_pipeline.defs.storage import STORAGE_ERRORS
from measurement_pipeline.domain.backfill_queue import Status
from measurement_pipeline.domain.outcome import Outcome
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres.database import connect

SONGSTATS_HISTORY = dg.AssetKey("songstats_history")

logger = logging.getLogger(__name__)

# A sweep reports no more than this at once, so that it stays a matter of seconds.
_MOST_LATE = 2_000
# Between two tries to report what was refused.
_REFUSED_SECONDS = 1.0
_DONE = frozenset({ResultKind.SETTLED, ResultKind.ALREADY_STORED})


class Reporter:
    """Reports a run's recordings. What Dagster's database refuses is reported with a later batch, or by the hourly sweep.

    Reporting never fails a run that buys: the recordings are stored in our database, whatever Dagster shows of them.
    """

    def __init__(self, context: dg.OpExecutionContext, terms: BackfillConfig) -> None:
        self._context = context
        self._terms = terms
        self._unreported: list[RecordingResult] = []
        self._not_before = 0.0

    @property
    def unreported(self) -> int:
        """How many recordings are done, and Dagster does not show them yet."""
        return sum(recording.kind in _DONE for recording in self._unreported)

    def report(self, batch: Sequence[RecordingResult], *, is_last: bool = False) -> None:
        """Report `batch` and whatever was refused before it; after a refusal once a second, and in any case with the last one."""
        self._unreported += batch
        if not self._unreported or (time.monotonic() < self._not_before and not is_last):
            return
        if is_reported(lambda: emit_materializations(self._context, self._unreported, self._terms)):
            self._unreported = []
        else:
            self._not_before = time.monotonic() + _REFUSED_SECONDS


def is_reported(report: Callable[[], None]) -> bool:
    """Do `report`, which only writes to Dagster's database; False where that is away or refuses it."""
    try:
        report()
    except STORAGE_ERRORS as error:
        # To the process's own log: the run's log is in the database that refuses.
        logger.warning("Dagster's database refused a report: %s", str(error).strip().partition("\n")[0])
        return False
    return True


def emit_materializations(
    context: dg.OpExecutionContext, batch: Sequence[RecordingResult], terms: BackfillConfig
) -> None:
    """Log the materializations of recordings that are done; say in the run's log what became of the others.

    Logged as one batch, which `context.log_event` cannot: 0.3 ms each instead of 2.4 (defs/storage.py).
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
                metadata=_metadata(recording, terms),
            ),
            DagsterEventBatchMetadata(batch_id, is_end=recording is done[-1]),
        )
    for recording in batch:
        if recording.kind not in _DONE:
            # Not a warning: a deferred row is nobody's fault, and a failed one fails the run, which says so.
            context.log.debug(f"{recording.song}: {recording.kind} ({recording.reason})")


def emit_totals(context: dg.OpExecutionContext, summary: RunSummary, *, unreported: int) -> None:
    """Log the run's totals beside the recordings, deferred ones included, and how many the sweep will report."""
    metadata = failures.metadata(summary)
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


def emit_missing_materializations(context: dg.OpExecutionContext, terms: BackfillConfig) -> int:
    """Report done recordings whose materialization a crash swallowed; how many.

    Dagster's storage is another database than ours, so the two cannot commit together.
    """
    with connect(terms.database_url) as connection:
        done = backfill_queue.done(connection)
    told = context.instance.get_materialized_partitions(SONGSTATS_HISTORY)
    untold = sorted(set(done) - set(told))[:_MOST_LATE]
    if untold:
        context.instance.add_dynamic_partitions(str(isrc_partitions.name), untold)
    for song in untold:
        context.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                SONGSTATS_HISTORY,
                partition=song,
                description="settled earlier, reported by the sweep",
                metadata={"outcome": done[song].value, "hit": False},
            )
        )
    return len(untold)


def restore_partition_statuses(context: dg.OpExecutionContext, terms: BackfillConfig) -> int:
    """Let recordings that did not fail, but were in a run that did, show as missing or stored again; how many."""

    def failed(songs: Sequence[str]) -> frozenset[str]:
        with connect(terms.database_url) as connection:
            rows = backfill_queue.rows(connection, songs, terms.rules)
        return frozenset(song for song, row in rows.items() if row.status is Status.FAILED)

    return restore_statuses(context, SONGSTATS_HISTORY, isrc_partitions, failed)


def _headline(recording: RecordingResult) -> str:
    if recording.kind is ResultKind.ALREADY_STORED:
        return (
            "already stored: no hit was spent"
            if recording.outcome is Outcome.STORED
            else f"settled before as {recording.outcome}"
        )
    return recording.reason or str(recording.outcome)


def _metadata(recording: RecordingResult, terms: BackfillConfig) -> dict[str, Any]:
    found: dict[str, Any] = {
        "outcome": str(recording.outcome),
        "hit": recording.hit,
        "cost_eur": terms.eur_per_hit if recording.hit else 0.0,
    }
    if recording.kind is ResultKind.ALREADY_STORED:
        return found
    history = recording.history
    if history is not None:
        found |= {
            "points": len(history.play_counts),
            "popularity_points": len(history.popularity),
            "points_dropped": sum(history.dropped.values()),
            "first_date": str(recording.first_day),
            "last_date": str(recording.last_day),
            "latest_count": history.play_counts[-1].value,
            "its row": dg.MetadataValue.md(
                f"`#{recording.song}` of the page that `measurement-pipeline report` writes"
            ),
            "plays": sparkline([point.value for point in history.play_counts]),
        }
        if history.dropped:
            found["why_dropped"] = ", ".join(f"{count} {reason}" for reason, count in history.dropped.items())
    optional = {
        "status_code": recording.status_code,
        "response_sha256": recording.digest,
        "measurement_job": None if recording.job is None else str(recording.job),
        "account": None if recording.account is None else str(recording.account),
    }
    return found | {key: value for key, value in optional.items() if value is not None}
