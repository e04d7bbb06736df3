"""The backfill's comparison, as Dagster loads it: the same asset and jobs, and a sensor that requests a run for each recording.

It uses as many concurrent runs as dagster.yaml allows. The project's pool, which lets one run buy at a time, would make it
slower than necessary.
"""

import os

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.backfill.assets import songstats_history
from measurement_pipeline.defs.backfill.jobs import songstats_backfill
from measurement_pipeline.defs.backfill.ops import POOL
from measurement_pipeline.defs.intake.jobs import measurement_job_intake
from measurement_pipeline.defs.intake.sensors import measurement_job_sensor
from measurement_pipeline.defs.partitions import isrc_partitions
from measurement_pipeline.defs.resources import resource_definitions, services_at_launch
from measurement_pipeline.postgres import account_shares
from measurement_pipeline.postgres.database import connect

# runs.max_concurrent_runs in dagster.yaml.
_RUNS_AT_ONCE = 3


@dg.sensor(
    job=songstats_backfill,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def one_run_a_recording(
    context: dg.SensorEvaluationContext, backfill_config: dg.ResourceParam[BackfillConfig]
) -> list[dg.RunRequest]:
    """Request a run for each due row, once."""
    with connect(backfill_config.database_url) as connection:
        due = [row.song for row in account_shares.due(connection, backfill_config.rules)]
    context.instance.add_dynamic_partitions(str(isrc_partitions.name), due)
    context.instance.event_log_storage.set_concurrency_slots(POOL, _RUNS_AT_ONCE)
    return [dg.RunRequest(run_key=song, partition_key=song, tags={tags.PLAN: "one run each"}) for song in due]


defs = dg.Definitions(
    assets=[songstats_history],
    jobs=[measurement_job_intake, songstats_backfill],
    sensors=[measurement_job_sensor, one_run_a_recording],
    resources={**resource_definitions(services_at_launch(os.environ)), "io_manager": dg.mem_io_manager},
    executor=dg.in_process_executor,
)
