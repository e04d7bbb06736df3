"""The sensors of the backfill: launch runs for due rows, and probe Songstats during a pause."""

from collections.abc import Sequence
from functools import partial

import dagster as dg

from measurement_pipeline.backfill import vendor_probe
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.planning import plan_backfill
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.defs.backfill.jobs import songstats_backfill
from measurement_pipeline.defs.backfill.ops import POOL
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partition_order import RunPartitions
from measurement_pipeline.defs.partitions import isrc_partitions
from measurement_pipeline.defs.tick_wait import TickWait
from measurement_pipeline.defs.unfinished_runs import UNFINISHED, fail_dead_runs, initialize_pool_limit, new_plan_id
from measurement_pipeline.domain.blockers import describe, queued_runs
from measurement_pipeline.domain.fair_share import describe_shares
from measurement_pipeline.services import MeasurementDatabase, Songstats, Stripe, backfill_dependencies

_POLL_SECONDS = 0.1
# Reads Dagster's database.
_RUN_POLL_SECONDS = 0.5


@dg.sensor(
    job=songstats_backfill,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Plans the due rows, each account with its share of the hits and the most played recordings first, and launches runs of "
        "`songstats_backfill`. When it launches none, its skip message gives the reason: nothing due, budget spent, paused, "
        "breaker open, unfinished runs."
    ),
    owners=OWNERS,
)
def backfill_queue_sensor(
    context: dg.SensorEvaluationContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
    tick_wait: dg.ResourceParam[TickWait],
) -> dg.SensorResult | dg.SkipReason:
    """Plan, and plan again when rows were enqueued or a run ended, until the end of the tick.

    Registers missing partitions and reports dead runs. The run claims the rows, not the sensor.
    """
    deadline = tick_wait.deadline()
    # The address is in `backfill_config` too.
    measurement_database.require_own()
    while True:
        tick_wait.queue_changed.clear()
        runs = fail_dead_runs(
            context.instance,
            measurement_database,
            backfill_config,
            job_name=songstats_backfill.name,
            asset=SONGSTATS_HISTORY,
        )
        result = _plan_runs(context, backfill_config, runs)
        if not isinstance(result, dg.SkipReason):
            return result
        is_changed = partial(_is_changed, context.instance, tick_wait, [run.run_id for run in runs])
        if not tick_wait.wait(deadline, is_changed, poll_seconds=_RUN_POLL_SECONDS if runs else _POLL_SECONDS):
            return result


def _is_changed(instance: dg.DagsterInstance, tick_wait: TickWait, run_ids: Sequence[str]) -> bool:
    if tick_wait.queue_changed.is_set():
        return True
    if not run_ids:
        return False
    return instance.get_runs_count(dg.RunsFilter(run_ids=run_ids, statuses=UNFINISHED)) < len(run_ids)


def _plan_runs(
    context: dg.SensorEvaluationContext, backfill_config: BackfillConfig, runs: Sequence[dg.DagsterRun]
) -> dg.SensorResult | dg.SkipReason:
    queued = sum(run.status is dg.DagsterRunStatus.QUEUED for run in runs)
    if queued > 1:
        # Enough work is queued. The next plan is better made from the state at that time.
        return dg.SkipReason(describe(queued_runs(queued)))

    plan = plan_backfill(backfill_config, RunPartitions(context.instance, isrc_partitions, runs))
    if plan.skip_reason is not None:
        return dg.SkipReason(plan.skip_reason)
    context.log.info(describe_shares(plan.shares))
    initialize_pool_limit(context.instance, POOL)
    plan_id = new_plan_id(context)
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{plan_id}-{place}",
                tags={
                    tags.PLAN: plan_id,
                    # Several threads submit the runs of a plan, in any order: the priority makes the best range the first.
                    # It is below 0, the priority of a run that a person launched.
                    tags.PRIORITY: str(-1 - place),
                    tags.RECORDINGS: str(len(planned_range.songs)),
                    tags.RANGE_START: planned_range.songs[0],
                    tags.RANGE_END: planned_range.songs[-1],
                },
            )
            for place, planned_range in enumerate(plan.ranges)
        ]
    )


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "While calls to Songstats are paused, calls `GET /status` (free) and ends the pause when it succeeds. A Retry-After of "
        "Songstats is kept without a call for a day at most. This sensor launches no run."
    ),
    owners=OWNERS,
)
def vendor_probe_sensor(
    context: dg.SensorEvaluationContext,  # noqa: ARG001 - Dagster's signature
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
    songstats: dg.ResourceParam[Songstats],
    stripe: dg.ResourceParam[Stripe],
) -> dg.SkipReason:
    """End a pause that may be probed, so that the backfill resumes within a minute after Songstats recovers."""
    # The address is in `backfill_config`: it is checked here, because nothing is written through `measurement_database`.
    measurement_database.require_own()
    ended = vendor_probe.end_guessed_pause(backfill_config, backfill_dependencies(songstats, stripe))
    return dg.SkipReason(ended or "no pause to end")
