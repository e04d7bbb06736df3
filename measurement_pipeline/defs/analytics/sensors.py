"""The sensor that launches a refresh of the analysts' assets: once after a backfill, not once after each of its runs."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.capture.run import APIFY
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.analytics.jobs import analytics_refresh
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.domain.blockers import budget_blocker, describe, vendor_blockers
from measurement_pipeline.domain.text import counted, utc
from measurement_pipeline.postgres import account_shares, analytics, songstats_ledger, vendor_state
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.services import MeasurementDatabase

# A pause that ends sooner, and a row that is retried sooner, are part of the backfill.
_SOON_SECONDS = 15 * 60
# A nearly spent budget would otherwise cause a refresh after each hit. And a failed refresh is not repeated at once.
_MIN_INTERVAL = timedelta(hours=1)


@dg.sensor(
    job=analytics_refresh,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Launches one run of `analytics_refresh` when nothing is due or in flight and something was settled or captured since "
        "the last refresh, or when the last refresh failed. Otherwise its skip message says what it waits for."
    ),
    owners=OWNERS,
)
def analytics_refresh_sensor(
    context: dg.SensorEvaluationContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
    capture_config: dg.ResourceParam[CaptureConfig | None],
) -> dg.SensorResult | dg.SkipReason:
    """Only reads. The cursor holds the change that the last refresh was launched for, and the time of the launch."""
    seen, launched_at = _read_cursor(context.cursor)
    # In one snapshot: a row that a run claims between two statements would be in neither result.
    with measurement_database.connect() as connection, analytics.single_snapshot(connection):
        state = analytics.read_refresh_state(connection, backfill_config.rules, soon_seconds=_SOON_SECONDS)
        if state.last_change is None:
            return dg.SkipReason("nothing was ever settled or captured")
        change = state.last_change.isoformat()
        is_recent = launched_at is not None and state.now - launched_at < _MIN_INTERVAL
        # Before the due rows are counted, which takes a second with 100,000 rows.
        if change == seen and (is_recent or not _has_failed(context, change)):
            return dg.SkipReason(f"nothing was settled or captured since the last refresh, {_when(launched_at)}")
        work = _find_work(connection, backfill_config, state, has_captures=capture_config is not None)
    last = f"; last refresh: {_when(launched_at)}" if launched_at else ""
    if work.in_progress:
        return dg.SkipReason(f"the backfill has not ended: {work.in_progress}{last}")
    if work.blocked and is_recent:
        return dg.SkipReason(f"at most one refresh an hour while {work.blocked}{last}")
    # The change is the key, so that a repeated tick launches nothing new. A second refresh of one change adds the last launch.
    attempt = f"-{launched_at.isoformat()}" if change == seen and launched_at is not None else ""
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=f"refresh-{change}{attempt}", tags={tags.PLAN: _plan(change)})],
        cursor=f"{change} {state.now.isoformat()}",
    )


@dataclass(frozen=True, slots=True)
class _RemainingWork:
    """`in_progress`: work that is in flight or due and possible. `blocked`: due work that cannot be done for an unknown time."""

    in_progress: str | None = None
    blocked: str | None = None


def _find_work(
    connection: Connection, config: BackfillConfig, state: analytics.RefreshState, *, has_captures: bool
) -> _RemainingWork:
    if state.being_bought:
        return _RemainingWork(f"{counted(state.being_bought, 'recording is', 'recordings are')} being bought")
    if state.being_captured:
        return _RemainingWork(f"{counted(state.being_captured, 'capture is', 'captures are')} in progress")
    if state.captures_due and has_captures:
        apify = vendor_state.get_pause(connection, APIFY)
        if apify is None or apify.until <= state.now + timedelta(seconds=_SOON_SECONDS):
            return _RemainingWork(f"{counted(state.captures_due, 'capture is', 'captures are')} due")
    vendor = songstats_ledger.vendor_state(connection)
    stops = vendor_blockers(vendor)
    if stops:
        ends_soon = (
            vendor.operator_pause is None and vendor.breaker != "open" and vendor.pause_seconds_left <= _SOON_SECONDS
        )
        return _RemainingWork(describe(stops[0]) if ends_soon else None)
    due = account_shares.count_due(connection, config.rules) + state.tried_again_soon
    if not due:
        return _RemainingWork()
    waiting = f"{counted(due, 'recording is', 'recordings are')} due"
    spent = budget_blocker(songstats_ledger.budget(connection, hits_allowed=config.hits_allowed))
    return _RemainingWork(waiting) if spent is None else _RemainingWork(blocked=f"{waiting}. {describe(spent)}")


def _has_failed(context: dg.SensorEvaluationContext, change: str) -> bool:
    """Whether the launched refresh failed, was cancelled, or has no run."""
    runs = context.instance.get_runs(dg.RunsFilter(tags={tags.PLAN: _plan(change)}), limit=1)
    return not runs or runs[0].status in {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def _when(moment: datetime | None) -> str:
    return "at an unknown time" if moment is None else utc(moment)


def _plan(change: str) -> str:
    return f"analytics_refresh-{change}"


def _read_cursor(cursor: str | None) -> tuple[str | None, datetime | None]:
    change, _, launched = (cursor or "").partition(" ")
    try:
        return change or None, datetime.fromisoformat(launched)
    except ValueError:  # no cursor yet, or one of an earlier version: that costs one extra refresh
        return None, None
