"""The jobs of the project. Each runs in one process: its steps share a claim, and a process a step would cost seconds."""

from typing import Any

import dagster as dg

from measurement_pipeline.defs.analytics import analytics_assets
from measurement_pipeline.defs.analytics_checks import analytics_asset_checks
from measurement_pipeline.defs.asset_checks import health_checks as checks
from measurement_pipeline.defs.asset_checks import ledger_matches_vendor
from measurement_pipeline.defs.assets import songstats_history
from measurement_pipeline.defs.captures import current_play_counts, start_due_series
from measurement_pipeline.defs.catalog_charts import catalog_charts
from measurement_pipeline.defs.ops import check_payment_method, enqueue_backfill, read_requests, reclaim
from measurement_pipeline.defs.owners import OWNERS


@dg.job(
    description=(
        "Takes the waiting requests off `measurement_jobs`: shape, payment, resolution. Launched by `measurement_job_sensor`; "
        "launching it by hand does the same now."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
def measurement_job_intake() -> None:
    """Read, ask Stripe, enqueue."""
    opened, accounts = read_requests()
    enqueue_backfill(opened, check_payment_method(accounts))


songstats_backfill = dg.define_asset_job(
    "songstats_backfill",
    selection=dg.AssetSelection.assets(songstats_history),
    description=(
        "Buys the history of a range of recordings. `backfill_queue_sensor` launches it for what is due, the most played first; "
        "an operator launches one ISRC, a range, or all missing."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)


@dg.job(
    description="The hourly sweep: see the op. Launch it by hand, or `measurement-pipeline reclaim`, for the same at once.",
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
def backfill_reclaim() -> None:
    """One sweep."""
    reclaim()


play_count_capture = dg.define_asset_job(
    "play_count_capture",
    selection=dg.AssetSelection.assets(current_play_counts),
    description=(
        "Makes one capture. `playcount_snapshot_sensor` launches it for those that are asked for; launching one that is done "
        "maps what was kept once more, for nothing; launching one that failed buys what it lacks."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)


@dg.job(
    description="The daily round: the sweep, then the captures of monthly series that are due. Each step says how many.",
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
def daily_maintenance() -> None:
    """A sweep, then due series, whatever became of the sweep."""
    reclaim()
    start_due_series()


health_checks = dg.define_asset_job(
    "health_checks",
    selection=dg.AssetSelection.checks(*(key for check in checks for key in check.check_keys)),
    description=(
        "Asks whether it is well: silence, requests without an answer, recordings given up, what is shown against what is "
        "stored, figures out of range. A failing check of severity ERROR is told like a failing run."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)

ledger_reconciliation = dg.define_asset_job(
    "ledger_reconciliation",
    selection=dg.AssetSelection.checks(*ledger_matches_vendor.check_keys),
    description="Compares this month's ledger with what Songstats counts. Asks `GET /status`, which is free; stops nothing.",
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)

analytics_refresh = dg.define_asset_job(
    "analytics_refresh",
    # Without the charts: they are drawn with the totals, for all catalogues in one step.
    selection=dg.AssetSelection.assets(*analytics_assets).without_checks() - dg.AssetSelection.assets(catalog_charts)
    | dg.AssetSelection.checks(*(key for check in analytics_asset_checks for key in check.check_keys)),
    description=(
        "Looks at the analysts' views after a drain: rows, columns, whether they can be believed, and the catalogues' charts. "
        "`analytics_refresh_sensor` launches it. The views themselves are always up to date."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)


jobs: list[Any] = [
    measurement_job_intake,
    songstats_backfill,
    backfill_reclaim,
    play_count_capture,
    daily_maintenance,
    health_checks,
    ledger_reconciliation,
    analytics_refresh,
]
