"""The sensors: requests → intake runs, due rows → backfill runs. They gather and emit; what to ask for is decided elsewhere."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import dagster as dg

from measurement_pipeline.backfill import vendor_probe
from measurement_pipeline.backfill.planning import PartitionState, plan_backfill
from measurement_pipeline.capture.run import APIFY
from measurement_pipeline.defs import captures as capturing
from measurement_pipeline.defs import resources, tags
from measurement_pipeline.defs.alerts import run_failure_alert, run_success_sensor
from measurement_pipeline.defs.analytics_refresh import analytics_refresh_sensor
from measurement_pipeline.defs.instance_status import ASSET_JOB, covers
from measurement_pipeline.defs.jobs import measurement_job_intake, play_count_capture, songstats_backfill
from measurement_pipeline.defs.materializations import SONGSTATS_HISTORY
from measurement_pipeline.defs.ops import POOL
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import isrc_partitions, register, register_requested, snapshot_partitions
from measurement_pipeline.domain.blockers import describe, queued_runs
from measurement_pipeline.domain.capture import NO_CAPTURES
from measurement_pipeline.domain.text import counted, utc
from measurement_pipeline.intake.process import MAX_REQUESTS_PER_RUN
from measurement_pipeline.postgres import captures, measurement_jobs, partition_keys, run_heartbeats, vendor_state
from measurement_pipeline.postgres.database import connect

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_CAPTURES_A_TICK = 20

# What an operator launches from an asset's page runs under Dagster's own name.
_ASSET_OF = {
    songstats_backfill.name: SONGSTATS_HISTORY,
    play_count_capture.name: capturing.CURRENT_PLAY_COUNTS,
}
_HELD_BY_A_PROCESS = {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}


@dg.sensor(
    job=measurement_job_intake,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"measurement_database", "backfill_config"},
    description=(
        "Watches `measurement_jobs` for queued requests and asks for one run of `measurement_job_intake` for all that wait, "
        "unless one is under way. Registers the recordings of accepted requests as partitions of `songstats_history`."
    ),
    owners=OWNERS,
)
def measurement_job_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """One run for up to a thousand requests."""
    database_url = resources.own_database(context.resources)
    # Not in the sensor that plans: it returns early while the budget is spent, a pause lasts or the breaker is open.
    register_requested(context.instance, database_url)
    with connect(database_url) as connection:
        waiting = measurement_jobs.waiting_count(connection, limit=MAX_REQUESTS_PER_RUN + 1)
    if not waiting:
        return dg.SkipReason("no request waits")
    under_way = unfinished_runs(context, measurement_job_intake.name)
    if under_way:
        return dg.SkipReason(
            f"intake is under way in run {under_way[0].run_id}; {counted(waiting, 'request waits', 'requests wait')}"
        )
    return dg.RunRequest(tags={tags.PLAN: _plan_id(context)})


@dg.sensor(
    job=songstats_backfill,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"measurement_database", "backfill_config"},
    description=(
        "Plans what is due, the most played first, and asks for runs of `songstats_backfill`. When it asks for nothing it "
        "says why: nothing due, budget spent, paused, breaker open, runs in flight."
    ),
    owners=OWNERS,
)
def backfill_queue_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Reads, registers partitions that are missing, reports dead runs; claiming is the run's."""
    resources.own_database(context.resources)
    terms = resources.backfill_config(context.resources)
    runs = unfinished_runs(context, songstats_backfill.name)
    queued = sum(run.status is dg.DagsterRunStatus.QUEUED for run in runs)
    if queued > 1:
        # Enough to go on with: the next plan is made from what is known then.
        return dg.SkipReason(describe(queued_runs(queued)))

    planned = plan_backfill(
        terms,
        lambda: _partitions(context.instance, runs),
        partial(register, context.instance, isrc_partitions),
    )
    if planned.skip_reason is not None:
        return dg.SkipReason(planned.skip_reason)
    _initialize_pool_limit(context.instance, POOL)
    plan_id = _plan_id(context)
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                # New with each plan: Dagster remembers a key for ever, whatever became of its run.
                run_key=f"{plan_id}-{place}",
                tags={
                    tags.PLAN: plan_id,
                    # Several threads submit the runs of a plan, in any order: this is what makes the best range the first.
                    # Below 0, the priority of a run that a person launched.
                    tags.PRIORITY: str(-1 - place),
                    tags.RECORDINGS: str(len(planned_range.songs)),
                    tags.RANGE_START: planned_range.songs[0],
                    tags.RANGE_END: planned_range.songs[-1],
                },
            )
            for place, planned_range in enumerate(planned.ranges)
        ]
    )


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"measurement_database", "backfill_config", "songstats", "stripe"},
    description=(
        "While Songstats throttles and has not said for how long, asks `GET /status` (free) every half minute whether it is "
        "back, and then ends the pause. It launches nothing; a pause that Songstats asked for it keeps to."
    ),
    owners=OWNERS,
)
def vendor_probe_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """So that a drain goes on within a minute of the vendor's return, however long the pause was meant to be."""
    resources.own_database(context.resources)
    ended = vendor_probe.end_guessed_pause(
        resources.backfill_config(context.resources), resources.backfill_means(context.resources)
    )
    return dg.SkipReason(ended or "no pause to end")


@dg.sensor(
    job=play_count_capture,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"measurement_database", "backfill_config", "capture_config"},
    description=(
        "Watches `playcount_snapshots` for captures that are asked for, and asks for one run of `play_count_capture` each. When "
        "it asks for nothing it says why: none due, Apify paused, runs in flight."
    ),
    owners=OWNERS,
)
def playcount_snapshot_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Reads, registers partitions, reports dead runs; claiming is the run's."""
    terms = resources.capture_config(context.resources)
    url = resources.own_database(context.resources)
    if terms is None:
        return dg.SkipReason(NO_CAPTURES)
    with connect(url) as connection:
        paused = vendor_state.get_pause(connection, APIFY)
        if paused is not None:
            return dg.SkipReason(f"Apify is left alone until {utc(paused.until)}: {paused.reason}")
        due = captures.list_due(connection, claim_timeout_seconds=terms.claim_timeout_seconds, limit=_CAPTURES_A_TICK)
        keys = partition_keys.ensure_for_captures(connection, due)
        still = captures.count_open(connection)
    if not due:
        waiting = f"; {still['waiting']} wait, the next until {still['next_at']}" if still["waiting"] else ""
        return dg.SkipReason(f"no capture is due; {counted(still['open'], 'is', 'are')} open{waiting}")
    covered = {run.tags.get(tags.PARTITION) for run in unfinished_runs(context, play_count_capture.name)}
    asked = [key for key in keys.values() if key not in covered]
    if not asked:
        covered_ones = counted(len(due), "capture that is due", "captures that are due")
        return dg.SkipReason(f"runs in flight cover the {covered_ones}")
    register(context.instance, snapshot_partitions, asked)
    _initialize_pool_limit(context.instance, capturing.POOL)
    plan_id = _plan_id(context)
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{plan_id}-{key}",
                tags={tags.PLAN: plan_id, tags.PRIORITY: str(-1 - place), tags.PARTITION: key},
            )
            for place, key in enumerate(asked)
        ]
    )


def _partitions(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> PartitionState:
    keys = instance.get_dynamic_partitions(str(isrc_partitions.name))
    registered = {key: place for place, key in enumerate(keys)}
    covered: set[str] = set()
    for run in runs:
        first = run.tags.get(tags.RANGE_START) or run.tags.get(tags.PARTITION)
        last = run.tags.get(tags.RANGE_END) or first
        if first in registered and last in registered:
            covered.update(keys[registered[first] : registered[last] + 1])
    return PartitionState(registered, covered)


def unfinished_runs(context: dg.SensorEvaluationContext, job_name: str) -> list[dg.DagsterRun]:
    """The unfinished runs of a job, an operator's too, after those whose process is gone were reported as failed.

    Dagster calls a run STARTED for ever when its process died with the whole machine; it would hold the pool.
    """
    asset = _ASSET_OF.get(job_name)
    records = [
        record
        for record in context.instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED))
        if record.dagster_run.job_name == job_name
        or (asset and record.dagster_run.job_name == ASSET_JOB and covers(record.dagster_run, asset))
    ]
    started = [record.dagster_run.run_id for record in records if record.dagster_run.status in _HELD_BY_A_PROCESS]
    terms = resources.backfill_config(context.resources)
    silence = terms.silence_seconds
    with connect(terms.database_url) as connection:
        dead = run_heartbeats.list_silent(connection, started, seconds=silence) if started else set()
    for record in records:
        if record.dagster_run.run_id in dead:
            why = f"no sign of life from its process for {silence:.0f} s; what it held is due again"
            context.instance.report_run_failed(record.dagster_run, why)
    return [record.dagster_run for record in records if record.dagster_run.run_id not in dead]


def _initialize_pool_limit(instance: dg.DagsterInstance, pool: str) -> None:
    """Give a pool its limit before its first run is queued.

    Left to itself, Dagster does so while it dequeues, and lets through whatever is queued at that moment, all at once.
    """
    if pool not in {limit.name for limit in instance.event_log_storage.get_pool_limits()}:
        instance.event_log_storage.initialize_concurrency_limit_to_default(pool)


def _plan_id(context: dg.SensorEvaluationContext) -> str:
    return f"{context.sensor_name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


sensors: list[dg.SensorDefinition] = [
    measurement_job_sensor,
    backfill_queue_sensor,
    playcount_snapshot_sensor,
    vendor_probe_sensor,
    analytics_refresh_sensor,
    run_failure_alert,
    run_success_sensor,
]
