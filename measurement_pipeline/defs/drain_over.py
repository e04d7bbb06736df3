"""The sensor that has the analysts' assets look at their views once a drain is over: once a drain, and not once a run."""

import dagster as dg

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.jobs import analytics_refresh
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.resources import Pipeline
from measurement_pipeline.domain.wording import counted
from measurement_pipeline.postgres import analytics, backfill_queue, songstats_ledger
from measurement_pipeline.postgres.database import Connection, connect

# A pause that ends sooner is part of the drain.
_SHORT_PAUSE_SECONDS = 15 * 60


@dg.sensor(
    job=analytics_refresh,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"pipeline"},
    description=(
        "Asks for one run of `analytics_refresh` once nothing is due or in flight and something was settled or captured since "
        "the last one. Otherwise it says what it waits for, and when it last asked."
    ),
    owners=OWNERS,
)
def drain_over_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Only reads; its cursor is the change that it last asked for, and when it did."""
    pipeline: Pipeline = context.resources.pipeline
    pipeline.require_own_database()
    seen, asked = (context.cursor or " ").split(" ", 1)
    with connect(pipeline.terms.database_url) as connection:
        standing = analytics.standing(connection)
        if standing.last_change is None:
            return dg.SkipReason("nothing was ever settled or captured")
        change = standing.last_change.isoformat()
        if change == seen:
            return dg.SkipReason(f"nothing was settled or captured since the refresh that was asked for at {asked}")
        under_way = _under_way(connection, pipeline, standing)
    if under_way:
        return dg.SkipReason(
            f"the drain is not over: {under_way}" + (f"; last refresh asked for at {asked}" if asked else "")
        )
    now = f"{standing.now:%Y-%m-%d %H:%M:%S} UTC"
    return dg.SensorResult(
        # The change is the key: a tick that is repeated asks for nothing new.
        run_requests=[dg.RunRequest(run_key=f"refresh-{change}", tags={tags.PLAN: f"drain_over-{change}"})],
        cursor=f"{change} {now}",
    )


def _under_way(connection: Connection, pipeline: Pipeline, standing: analytics.Standing) -> str | None:
    """What is in flight or due, in words; None: nothing."""
    if standing.being_bought:
        return f"{counted(standing.being_bought, 'recording is', 'recordings are')} being bought"
    if standing.being_captured:
        return f"{counted(standing.being_captured, 'capture is', 'captures are')} due or under way"
    state = songstats_ledger.deployment(connection)
    if state.breaker == "open":
        return None
    if state.why_paused is not None:
        return state.why_paused if state.pause_left <= _SHORT_PAUSE_SECONDS else None
    if not songstats_ledger.budget(connection, hits_allowed=pipeline.terms.hits_allowed).left:
        return None
    due = len(backfill_queue.due(connection, pipeline.terms.rules))
    return f"{counted(due, 'recording is', 'recordings are')} due" if due else None
