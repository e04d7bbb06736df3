"""The state of a sensor, its runs and the daemon in Dagster's instance, for `health/` to judge. Only reads."""

from datetime import UTC, datetime

import dagster as dg

from measurement_pipeline.defs.automation import read_silent_daemons, read_statuses
from measurement_pipeline.defs.dagster_private import JobFailureData, SerializableErrorInfo
from measurement_pipeline.health.messages import summarize_error
from measurement_pipeline.health.stall_checks import InstanceState, UnfinishedRun

# The job name of a run that an operator launches from an asset's page, and of a partition backfill.
ASSET_JOB = "__ASSET_JOB"

_BUSY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]
_WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]

# The most runs that are read, the latest first: more never run at once.
_MAX_RUNS = 100


def read_instance_state(
    instance: dg.DagsterInstance, *, sensor: str, job: str, asset: dg.AssetKey | None = None
) -> InstanceState:
    """The state of `sensor` and of the runs of `job`.

    `asset`: what the job buys. The state then includes the runs that operators launched from the asset's page.
    """
    busy, queued, ended = (_runs(instance, statuses, job, asset) for statuses in (_BUSY, _WAITING, _ENDED))
    status = read_statuses(instance, [sensor])[sensor]
    tick = status.last_tick
    last = ended[0] if ended else None
    return InstanceState(
        sensor=sensor,
        switched_off=status.switched_off,
        tick_error=_cause(tick.error) if tick and tick.is_failure and tick.error else None,
        silent_daemons=read_silent_daemons(instance),
        busy=_run(busy[-1]) if busy else None,
        queued=_run(queued[-1]) if queued else None,
        failed=_failed(instance, last) if last and last.dagster_run.status is dg.DagsterRunStatus.FAILURE else None,
        deferred=None if asset is None else _deferred(instance, asset),
    )


def covers(run: dg.DagsterRun, asset: dg.AssetKey) -> bool:
    """Whether `run` materializes `asset`. A launch from an asset's page may also run checks only."""
    if run.asset_selection is None:
        return not run.asset_check_selection
    return asset in run.asset_selection


def failure_line(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed, in one line: the message of its last failed step, or else of the run."""
    steps = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    if steps and steps[-1].dagster_event is not None:
        failure = steps[-1].dagster_event.step_failure_data
        if failure.user_failure_data is not None and failure.user_failure_data.description:
            return summarize_error(failure.user_failure_data.description)
        if failure.error is not None:
            return _cause(failure.error)
    runs = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    event = runs[-1].dagster_event if runs else None
    if event is None:
        return ""
    # For example, a resource could not be created: no step has started.
    data = event.event_specific_data
    if isinstance(data, JobFailureData) and data.error is not None:
        return _cause(data.error)
    return summarize_error(event.message or "")


def _cause(error: SerializableErrorInfo) -> str:
    while error.cause is not None:
        error = error.cause
    return summarize_error(error.message)


def _runs(
    instance: dg.DagsterInstance, statuses: list[dg.DagsterRunStatus], job: str, asset: dg.AssetKey | None
) -> list[dg.RunRecord]:
    """The runs of `job`, and those that materialize `asset` under Dagster's own job name, the latest first."""
    jobs = (job,) if asset is None else (job, ASSET_JOB)
    records = [
        record
        for name in jobs
        for record in instance.get_run_records(dg.RunsFilter(job_name=name, statuses=statuses), limit=_MAX_RUNS)
        if asset is None or covers(record.dagster_run, asset)
    ]
    return sorted(records, key=lambda record: record.storage_id, reverse=True)


def _run(record: dg.RunRecord) -> UnfinishedRun:
    since = record.create_timestamp if record.start_time is None else _time(record.start_time)
    return UnfinishedRun(record.dagster_run.run_id, since)


def _failed(instance: dg.DagsterInstance, record: dg.RunRecord) -> UnfinishedRun:
    run = _run(record)
    return UnfinishedRun(run.id, run.since, failure_line(instance, run.id))


def _deferred(instance: dg.DagsterInstance, asset: dg.AssetKey) -> str | None:
    """The deferred recordings of the last run, from its totals."""
    records = instance.fetch_observations(asset, limit=1).records
    observation = records[0].asset_observation if records else None
    totals = {} if observation is None else dict(observation.metadata)
    deferred = {
        name.removeprefix("deferred: "): value.value for name, value in totals.items() if name.startswith("deferred: ")
    }
    return ", ".join(f"{count} × {why}" for why, count in deferred.items()) or None


def _time(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=UTC)
