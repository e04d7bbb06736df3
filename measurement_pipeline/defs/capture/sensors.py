"""The sensor that launches captures."""

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.capture.run import APIFY
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.asset_keys import CURRENT_PLAY_COUNTS
from measurement_pipeline.defs.capture.assets import POOL
from measurement_pipeline.defs.capture.jobs import play_count_capture
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import register, snapshot_partitions
from measurement_pipeline.defs.unfinished_runs import fail_dead_runs, initialize_pool_limit, new_plan_id
from measurement_pipeline.domain.capture import NO_CAPTURES
from measurement_pipeline.domain.text import counted, utc
from measurement_pipeline.postgres import captures, partition_keys, purchase_pauses, vendor_state
from measurement_pipeline.services import MeasurementDatabase

_CAPTURES_PER_TICK = 20


@dg.sensor(
    job=play_count_capture,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Watches `playcount_snapshots` for requested captures, and launches one run of `play_count_capture` for each. When it "
        "launches none, its skip message gives the reason: none due, Apify paused, unfinished runs."
    ),
    owners=OWNERS,
)
def playcount_snapshot_sensor(
    context: dg.SensorEvaluationContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
    capture_config: dg.ResourceParam[CaptureConfig | None],
) -> dg.SensorResult | dg.SkipReason:
    """Read the captures, register partitions, and report dead runs. The run claims the capture, not the sensor."""
    if capture_config is None:
        return dg.SkipReason(NO_CAPTURES)
    with measurement_database.connect() as connection:
        pause = vendor_state.get_pause(connection, APIFY)
        if pause is not None:
            return dg.SkipReason(f"Apify is paused until {utc(pause.until)}: {pause.reason}")
        due = captures.list_due(
            connection, claim_timeout_seconds=capture_config.claim_timeout_seconds, limit=_CAPTURES_PER_TICK
        )
        keys = partition_keys.ensure_for_captures(connection, due)
        open_captures = captures.count_open(connection)
        pauses = purchase_pauses.of_open_captures(connection)
    if not due:
        waiting, next_at = open_captures["waiting"], open_captures["next_at"]
        postponed = f"; {waiting} wait, the next until {next_at}" if waiting else ""
        paused = "".join(f". {pause.cause} {pause.next_step}" for pause in pauses)
        return dg.SkipReason(
            f"no capture is due; {counted(open_captures['open'], 'is', 'are')} open{postponed}{paused}"
        )
    runs = fail_dead_runs(
        context.instance,
        measurement_database,
        backfill_config,
        job_name=play_count_capture.name,
        asset=CURRENT_PLAY_COUNTS,
    )
    covered = {run.tags.get(tags.PARTITION) for run in runs}
    uncovered = [key for key in keys.values() if key not in covered]
    if not uncovered:
        return dg.SkipReason(f"unfinished runs cover the {counted(len(due), 'due capture', 'due captures')}")
    register(context.instance, snapshot_partitions, uncovered)
    initialize_pool_limit(context.instance, POOL)
    plan_id = new_plan_id(context)
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{plan_id}-{key}",
                tags={tags.PLAN: plan_id, tags.PRIORITY: str(-1 - place), tags.PARTITION: key},
            )
            for place, key in enumerate(uncovered)
        ]
    )
