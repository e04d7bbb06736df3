"""The schedules of the project."""

import dagster as dg

from measurement_pipeline.defs.jobs import backfill_reclaim, daily_maintenance, health_checks, ledger_reconciliation
from measurement_pipeline.defs.owners import OWNERS

reclaim_schedule = dg.ScheduleDefinition(
    name="reclaim_schedule",
    job=backfill_reclaim,
    cron_schedule="0 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every hour: puts failed rows that may be tried again back on the queue, looks at unpaid requests again, settles hits "
        "that a crash left open, and probes a refused key."
    ),
    owners=OWNERS,
)

maintenance_schedule = dg.ScheduleDefinition(
    name="maintenance_schedule",
    job=daily_maintenance,
    cron_schedule="0 7 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Once a day: the sweep, then the captures of monthly series whose last one is 30 days old.",
    owners=OWNERS,
)

health_schedule = dg.ScheduleDefinition(
    name="health_schedule",
    job=health_checks,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every quarter of an hour: runs the checks of pipeline_health, and tells the incidents that were not told yet.",
    owners=OWNERS,
)

reconciliation_schedule = dg.ScheduleDefinition(
    name="reconciliation_schedule",
    job=ledger_reconciliation,
    # From UTC−11 to UTC+12 it is the same day then, so the month is the vendor's too, wherever its clock is.
    cron_schedule="0 11 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Once a day: compares the ledger with what Songstats counts this month.",
    owners=OWNERS,
)

schedules = [reclaim_schedule, maintenance_schedule, health_schedule, reconciliation_schedule]
