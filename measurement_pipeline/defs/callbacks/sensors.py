"""The sensor that launches the sending of callbacks."""

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.callbacks.jobs import send_callbacks
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.unfinished_runs import fail_dead_runs, new_plan_id
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import job_callbacks
from measurement_pipeline.services import MeasurementDatabase


@dg.sensor(
    job=send_callbacks,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches `job_callbacks`, and launches one run of `send_callbacks` for what is due, unless one is unfinished.",
    owners=OWNERS,
)
def callback_sensor(
    context: dg.SensorEvaluationContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
) -> dg.RunRequest | dg.SkipReason:
    """Launch one run for everything that is due."""
    with measurement_database.connect() as connection:
        due = job_callbacks.count_due(connection)
    if not due:
        return dg.SkipReason("no callback is due")
    runs = fail_dead_runs(context.instance, measurement_database, backfill_config, job_name=send_callbacks.name)
    if runs:
        return dg.SkipReason(f"run {runs[0].run_id} is unfinished; {counted(due, 'callback is', 'callbacks are')} due")
    return dg.RunRequest(tags={tags.PLAN: new_plan_id(context)})
