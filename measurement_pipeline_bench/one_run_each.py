"""What the drain is compared with, as Dagster loads it: the same asset and jobs, and a sensor that asks for a run a recording.

As many runs at once as dagster.yaml allows; with the project's pool, which lets one run buy at a time, it would look worse
than it has to.
"""

import os

import dagster as dg

from measurement_pipeline import services
from measurement_pipeline.defs import assets, jobs, sensors, tags
from measurement_pipeline.defs.ops import POOL
from measurement_pipeline.defs.partitions import isrc_partitions
from measurement_pipeline.defs.resources import backfill_config, resource_definitions
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres.database import connect

# runs.max_concurrent_runs in dagster.yaml.
_RUNS_AT_ONCE = 3


@dg.sensor(
    job=jobs.songstats_backfill,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"backfill_config"},
)
def one_run_a_recording(context: dg.SensorEvaluationContext) -> list[dg.RunRequest]:
    """A run for each due row, once."""
    terms = backfill_config(context.resources)
    with connect(terms.database_url) as connection:
        due = [row.song for row in backfill_queue.due(connection, terms.rules)]
    context.instance.add_dynamic_partitions(str(isrc_partitions.name), due)
    context.instance.event_log_storage.set_concurrency_slots(POOL, _RUNS_AT_ONCE)
    return [dg.RunRequest(run_key=song, partition_key=song, tags={tags.PLAN: "one run each"}) for song in due]


defs = dg.Definitions(
    assets=assets.assets,
    jobs=[jobs.measurement_job_intake, jobs.songstats_backfill],
    sensors=[sensors.measurement_job_sensor, one_run_a_recording],
    resources={**resource_definitions(services.pipeline_at_launch(os.environ)), "io_manager": dg.mem_io_manager},
    executor=dg.in_process_executor,
)
