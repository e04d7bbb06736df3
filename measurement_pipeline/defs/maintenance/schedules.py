"""The schedules of the sweep."""

import dagster as dg

from measurement_pipeline.defs.maintenance.jobs import backfill_reclaim, daily_maintenance
from measurement_pipeline.defs.owners import OWNERS

reclaim_schedule = dg.ScheduleDefinition(
    name="reclaim_schedule",
    job=backfill_reclaim,
    cron_schedule="0 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every hour: requeues failed rows that may be retried, checks unpaid requests again, settles hits that a crash left "
        "open, and probes a refused key."
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
