"""The job of the analysts' assets."""

import dagster as dg

from measurement_pipeline.defs.analytics.assets import analytics_assets
from measurement_pipeline.defs.analytics.catalog_charts import catalog_charts
from measurement_pipeline.defs.analytics.checks import view_checks
from measurement_pipeline.defs.owners import OWNERS

analytics_refresh = dg.define_asset_job(
    "analytics_refresh",
    # Without the charts: the step of the totals draws them for all catalogues.
    selection=dg.AssetSelection.assets(*analytics_assets).without_checks() - dg.AssetSelection.assets(catalog_charts)
    | dg.AssetSelection.checks(*(key for check in view_checks for key in check.check_keys)),
    description=(
        "Counts the rows of the analysts' views after a backfill, checks the views, and draws the catalogues' charts. "
        "`analytics_refresh_sensor` launches it. The views themselves are always up to date."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
