"""The sensor that launches intake."""

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.intake.jobs import measurement_job_intake
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import register_requested
from measurement_pipeline.defs.unfinished_runs import fail_dead_runs, new_plan_id
from measurement_pipeline.domain.text import counted
from measurement_pipeline.intake.process import MAX_REQUESTS_PER_RUN
from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.services import MeasurementDatabase


@dg.sensor(
    job=measurement_job_intake,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Watches `measurement_jobs` for queued requests, and launches one run of `measurement_job_intake` for all of them, "
        "unless one is unfinished. Registers the recordings of accepted requests as partitions of `songstats_history`."
    ),
    owners=OWNERS,
)
def measurement_job_sensor(
    context: dg.SensorEvaluationContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
) -> dg.RunRequest | dg.SkipReason:
    """Launch one run for up to a thousand requests."""
    # Not in the sensor that plans: it returns early while the budget is spent, a pause lasts or the breaker is open.
    register_requested(context.instance, measurement_database.verified_url())
    with measurement_database.connect() as connection:
        waiting = measurement_jobs.waiting_count(connection, limit=MAX_REQUESTS_PER_RUN + 1)
    if not waiting:
        return dg.SkipReason("no request is waiting")
    runs = fail_dead_runs(context.instance, measurement_database, backfill_config, job_name=measurement_job_intake.name)
    if runs:
        return dg.SkipReason(
            f"run {runs[0].run_id} of intake is unfinished; {counted(waiting, 'request waits', 'requests wait')}"
        )
    return dg.RunRequest(tags={tags.PLAN: new_plan_id(context)})
