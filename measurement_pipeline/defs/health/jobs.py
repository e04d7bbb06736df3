"""The jobs of the health checks."""

import dagster as dg

from measurement_pipeline.defs.health.checks import ledger_matches_vendor, scheduled_checks
from measurement_pipeline.defs.owners import OWNERS

health_checks = dg.define_asset_job(
    "health_checks",
    selection=dg.AssetSelection.checks(*(key for check in scheduled_checks for key in check.check_keys)),
    description=(
        "Checks that backfill, intake and captures make progress, that no recording is exhausted, that partitions match tables, "
        "and that values are in range. A failed check of severity ERROR sends an alert like a failed run."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)

ledger_reconciliation = dg.define_asset_job(
    "ledger_reconciliation",
    selection=dg.AssetSelection.checks(*ledger_matches_vendor.check_keys),
    description="Compares this month's ledger with Songstats' own count. `GET /status` is free. A difference stops nothing.",
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
