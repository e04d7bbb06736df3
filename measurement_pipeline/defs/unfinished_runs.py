"""The unfinished runs of a job, and what a sensor needs to launch more of them."""

from datetime import UTC, datetime

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.defs.instance_status import ASSET_JOB, covers
from measurement_pipeline.postgres import run_heartbeats
from measurement_pipeline.services import MeasurementDatabase

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_HELD_BY_A_PROCESS = {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}


def fail_dead_runs(
    instance: dg.DagsterInstance,
    database: MeasurementDatabase,
    config: BackfillConfig,
    *,
    job_name: str,
    asset: dg.AssetKey | None = None,
) -> list[dg.DagsterRun]:
    """Report the runs of a job whose process has died as failed, and return the other unfinished ones.

    `asset`: what the job materializes. Dagster never ends a STARTED run whose process died with the whole machine, and such a run
    would hold the pool.
    """
    runs = _list_unfinished_runs(instance, job_name, asset)
    started = [run.run_id for run in runs if run.status in _HELD_BY_A_PROCESS]
    if not started:
        return runs
    silence = config.silence_seconds
    with database.connect() as connection:
        dead = run_heartbeats.list_silent(connection, started, seconds=silence)
    for run in runs:
        if run.run_id in dead:
            why = f"its process has written no heartbeat for {silence:.0f} s; the rows that it held are due again"
            instance.report_run_failed(run, why)
    return [run for run in runs if run.run_id not in dead]


def _list_unfinished_runs(
    instance: dg.DagsterInstance, job_name: str, asset: dg.AssetKey | None
) -> list[dg.DagsterRun]:
    """The unfinished runs of a job. A launch from the page of `asset` runs under Dagster's own job name."""
    return [
        record.dagster_run
        for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
        if record.dagster_run.job_name == job_name
        or (asset and record.dagster_run.job_name == ASSET_JOB and covers(record.dagster_run, asset))
    ]


def initialize_pool_limit(instance: dg.DagsterInstance, pool: str) -> None:
    """Set the limit of `pool` before its first run is queued.

    Dagster itself sets it while it dequeues, after it has let through all runs that are queued at that moment.
    """
    if pool not in {limit.name for limit in instance.event_log_storage.get_pool_limits()}:
        instance.event_log_storage.initialize_concurrency_limit_to_default(pool)


def new_plan_id(context: dg.SensorEvaluationContext) -> str:
    """A new id of a tick's plan. Dagster remembers every run key for ever, so a key must never repeat."""
    return f"{context.sensor_name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
