"""The schedules of the health checks."""

import dagster as dg

from measurement_pipeline.defs.health.jobs import health_checks, ledger_reconciliation
from measurement_pipeline.defs.owners import OWNERS

health_schedule = dg.ScheduleDefinition(
    name="health_schedule",
    job=health_checks,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every 15 minutes: runs the checks of pipeline_health, and sends the alerts of incidents that were not sent yet.",
    owners=OWNERS,
)

reconciliation_schedule = dg.ScheduleDefinition(
    name="reconciliation_schedule",
    job=ledger_reconciliation,
    # At 11:00 UTC it is the same day from UTC−11 to UTC+12, so the month is the vendor's in any time zone that it may use.
    cron_schedule="0 11 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Once a day: compares the ledger with Songstats' own count of this month.",
    owners=OWNERS,
)
