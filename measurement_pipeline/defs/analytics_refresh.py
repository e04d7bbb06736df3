"""The sensor that has the analysts' assets look at their views once a drain is over: once a drain, and not once a run."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.capture.run import APIFY
from measurement_pipeline.defs import resources, tags
from measurement_pipeline.defs.jobs import analytics_refresh
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.domain.blockers import budget_blocker, describe, vendor_blockers
from measurement_pipeline.domain.text import counted, utc
from measurement_pipeline.postgres import analytics, backfill_queue, songstats_ledger, vendor_state
from measurement_pipeline.postgres.database import Connection, connect

# What waits no longer than this, for a pause to end or for another try, is part of the drain.
_SOON_SECONDS = 15 * 60
# While the budget trickles, each hit that frees up would otherwise be a drain; and a refresh that failed is not repeated at once.
_NOT_SOONER = timedelta(hours=1)


@dg.sensor(
    job=analytics_refresh,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"measurement_database", "backfill_config", "capture_config"},
    description=(
        "Asks for one run of `analytics_refresh` once nothing is due or in flight and something was settled or captured since "
        "the last one; anew where that one failed. Otherwise it says what it waits for, and when it last asked."
    ),
    owners=OWNERS,
)
def analytics_refresh_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Only reads; its cursor is the change that it last asked for, and when it did."""
    url = resources.own_database(context.resources)
    terms = resources.backfill_config(context.resources)
    captures = resources.capture_config(context.resources) is not None
    seen, asked_at = _read(context.cursor)
    # Of one moment, or what a run claims between two questions is in neither answer.
    with connect(url) as connection, analytics.of_one_moment(connection):
        standing = analytics.standing(connection, terms.rules, soon_seconds=_SOON_SECONDS)
        if standing.last_change is None:
            return dg.SkipReason("nothing was ever settled or captured")
        change = standing.last_change.isoformat()
        lately = asked_at is not None and standing.now - asked_at < _NOT_SOONER
        # Before what is due is looked for, which takes a second where a hundred thousand rows are.
        if change == seen and (lately or not _failed(context, change)):
            return dg.SkipReason(
                f"nothing was settled or captured since the refresh that was asked for at {_when(asked_at)}"
            )
        found = _under_way(connection, terms, standing, captures=captures)
    last = f"; last refresh asked for at {_when(asked_at)}" if asked_at else ""
    if found.under_way:
        return dg.SkipReason(f"the drain is not over: {found.under_way}{last}")
    if found.held_up and lately:
        return dg.SkipReason(f"no more than one refresh an hour while {found.held_up}{last}")
    # The change is the key, and of one that is asked for anew when it was before: a tick that is repeated asks for nothing new.
    attempt = f"-{asked_at.isoformat()}" if change == seen and asked_at is not None else ""
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=f"refresh-{change}{attempt}", tags={tags.PLAN: _plan(change)})],
        cursor=f"{change} {standing.now.isoformat()}",
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What is in flight, or due and can be done; and what is due and cannot be, for how long is not known. In words, or None."""

    under_way: str | None = None
    held_up: str | None = None


def _under_way(
    connection: Connection, terms: BackfillConfig, standing: analytics.RefreshState, *, captures: bool
) -> _Found:
    if standing.being_bought:
        return _Found(f"{counted(standing.being_bought, 'recording is', 'recordings are')} being bought")
    if standing.being_captured:
        return _Found(f"{counted(standing.being_captured, 'capture is', 'captures are')} under way")
    if standing.captures_due and captures:
        apify = vendor_state.get_pause(connection, APIFY)
        if apify is None or apify.until <= standing.now + timedelta(seconds=_SOON_SECONDS):
            return _Found(f"{counted(standing.captures_due, 'capture is', 'captures are')} due")
    vendor = songstats_ledger.vendor_state(connection)
    stops = vendor_blockers(vendor)
    if stops:
        ends_soon = vendor.breaker != "open" and vendor.pause_seconds_left <= _SOON_SECONDS
        return _Found(describe(stops[0]) if ends_soon else None)
    due = len(backfill_queue.due(connection, terms.rules)) + standing.tried_again_soon
    if not due:
        return _Found()
    waiting = f"{counted(due, 'recording is', 'recordings are')} due"
    used = budget_blocker(songstats_ledger.budget(connection, hits_allowed=terms.hits_allowed))
    return _Found(waiting) if used is None else _Found(held_up=f"{waiting}. {describe(used)}")


def _failed(context: dg.SensorEvaluationContext, change: str) -> bool:
    """Whether the refresh that was asked for came to nothing: its run failed, or is not there."""
    runs = context.instance.get_runs(dg.RunsFilter(tags={tags.PLAN: _plan(change)}), limit=1)
    return not runs or runs[0].status in {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def _when(at: datetime | None) -> str:
    return "an unknown time" if at is None else utc(at)


def _plan(change: str) -> str:
    return f"analytics_refresh-{change}"


def _read(cursor: str | None) -> tuple[str | None, datetime | None]:
    change, _, asked = (cursor or "").partition(" ")
    try:
        return change or None, datetime.fromisoformat(asked)
    except ValueError:  # none yet, or an earlier version's: then one refresh more
        return None, None
