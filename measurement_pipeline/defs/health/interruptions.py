"""Interrupted runs: the run never started, or its process was terminated from outside.

A restarted code server, a worker that a platform moves and a stopped `dev` end runs this way. The work itself did not fail, and
its rows are due again. Dagster calls the run failed and shows its partitions as failed. Here it becomes a cancelled run, and its
partitions show their earlier status.
"""

from datetime import UTC, datetime, timedelta
from itertools import takewhile

import dagster as dg

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.dagster_private import JobFailureData, RunFailureReason
from measurement_pipeline.defs.partition_status import forget_failed_partitions

_TERMINATED = "the process of the run was terminated"
_REASONS = {
    RunFailureReason.UNEXPECTED_TERMINATION: _TERMINATED,
    RunFailureReason.RUN_WORKER_RESTART: _TERMINATED,
    RunFailureReason.START_TIMEOUT: "the run did not start in time",
}
# Dagster gives no reason if its code server fails the run. Its log message then contains one of these.
_MESSAGES = {
    "on a server after telling it to shut down": "the code server was shutting down when the run was to start",
    "was terminated by signal 15 (SIGTERM)": _TERMINATED,
    "was terminated by signal 2 (SIGINT)": _TERMINATED,
    "terminated unexpectedly with exit code -15": _TERMINATED,
    "terminated unexpectedly with exit code -2": _TERMINATED,
}

# If no run of a job starts for this long, the cause is more than a restart.
STARTS_AGAIN_WITHIN = timedelta(hours=1)
_MAX_RUNS = 100


def interruption(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """Why the run was interrupted. None: the run itself failed."""
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE):
        data = entry.dagster_event.event_specific_data if entry.dagster_event else None
        if isinstance(data, JobFailureData) and data.failure_reason in _REASONS:
            return _REASONS[data.failure_reason]
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        if entry.dagster_event is not None:
            error = entry.dagster_event.engine_event_data.error
            line = f"{entry.dagster_event.message} {error.message if error else ''}"
            for text, reason in _MESSAGES.items():
                if text in line:
                    return reason
    return None


def cancel(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str, asset: dg.AssetKey | None) -> None:
    """Turn the failed run into a cancelled one. `asset`: the partitioned asset that it covers, if any."""
    instance.add_run_tags(run.run_id, {tags.INTERRUPTED: why})
    instance.report_run_canceled(run, f"Cancelled: {why}. The work itself did not fail, and its rows are due again.")
    if asset is not None:
        forget_failed_partitions(instance, asset)


def no_run_starts(instance: dg.DagsterInstance, job: str) -> datetime | None:
    """Since when no launched run of `job` has started. None: for no longer than a restart takes."""
    latest_first = instance.get_run_records(dg.RunsFilter(job_name=job), limit=_MAX_RUNS)
    unstarted = takewhile(lambda record: record.start_time is None, latest_first)
    interrupted = [record for record in unstarted if tags.INTERRUPTED in record.dagster_run.tags]
    if not interrupted:
        return None
    since = interrupted[-1].create_timestamp
    return since if datetime.now(UTC) - since > STARTS_AGAIN_WITHIN else None
