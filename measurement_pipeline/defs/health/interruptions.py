"""Failed runs that say nothing about their work: the run never started, or its process was asked to end.

A code server that restarts, a worker that a platform moves and a `dev` that is stopped all end runs so. Nothing is wrong with
what such a run covered, and it is due again. Dagster calls the run failed and shows its partitions as failed; here it becomes
a cancelled run, whose partitions show what they showed before.
"""

from datetime import UTC, datetime, timedelta
from itertools import takewhile

import dagster as dg

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.dagster_private import JobFailureData, RunFailureReason
from measurement_pipeline.defs.partition_status import forget_failed_partitions

_ASKED_TO_END = "the process of the run was asked to end"
_REASONS = {
    RunFailureReason.UNEXPECTED_TERMINATION: _ASKED_TO_END,
    RunFailureReason.RUN_WORKER_RESTART: _ASKED_TO_END,
    RunFailureReason.START_TIMEOUT: "the run did not start in time",
}
# Dagster names no reason where its code server fails the run; what it logs about the run has one of these.
_WORDS = {
    "on a server after telling it to shut down": "the code server was shutting down when the run was to start",
    "was terminated by signal 15 (SIGTERM)": _ASKED_TO_END,
    "was terminated by signal 2 (SIGINT)": _ASKED_TO_END,
    "terminated unexpectedly with exit code -15": _ASKED_TO_END,
    "terminated unexpectedly with exit code -2": _ASKED_TO_END,
}

# Runs of a job that do not start for so long are more than a restart.
STARTS_AGAIN_WITHIN = timedelta(hours=1)
_MOST_RUNS = 100


def interruption(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """Why a failed run says nothing about its work, in words; None: the run itself failed."""
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE):
        data = entry.dagster_event.event_specific_data if entry.dagster_event else None
        if isinstance(data, JobFailureData) and data.failure_reason in _REASONS:
            return _REASONS[data.failure_reason]
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        if entry.dagster_event is not None:
            error = entry.dagster_event.engine_event_data.error
            line = f"{entry.dagster_event.message} {error.message if error else ''}"
            for words, reason in _WORDS.items():
                if words in line:
                    return reason
    return None


def cancel(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str, asset: dg.AssetKey | None) -> None:
    """Turn the failed run into a cancelled one; `asset`: the partitioned asset that it covers, if any."""
    instance.add_run_tags(run.run_id, {tags.INTERRUPTED: why})
    instance.report_run_canceled(run, f"Cancelled: {why}. Nothing is wrong with what it covered; it is due again.")
    if asset is not None:
        forget_failed_partitions(instance, asset)


def no_run_starts(instance: dg.DagsterInstance, job: str) -> datetime | None:
    """Since when runs of `job` are launched and do not start, where that is longer than a restart takes."""
    latest_first = instance.get_run_records(dg.RunsFilter(job_name=job), limit=_MOST_RUNS)
    unstarted = takewhile(lambda record: record.start_time is None, latest_first)
    interrupted = [record for record in unstarted if tags.INTERRUPTED in record.dagster_run.tags]
    if not interrupted:
        return None
    since = interrupted[-1].create_timestamp
    return since if datetime.now(UTC) - since > STARTS_AGAIN_WITHIN else None
