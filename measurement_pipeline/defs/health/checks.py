"""The checks of the pipeline's health. Each gathers facts and passes them to `health/`, which judges them.

A failed check of severity ERROR is an incident and sends an alert. A WARN passes by itself, or is work that can wait. The checks
belong to `pipeline_health`, which is never materialized: Dagster shows a check only as of its asset's latest materialization, so
the checks of `songstats_history` would read "Not evaluated" during each backfill (docs/decisions/0027).
"""

import dagster as dg

from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.defs.backfill.jobs import songstats_backfill
from measurement_pipeline.defs.backfill.sensors import backfill_queue_sensor
from measurement_pipeline.defs.capture.jobs import play_count_capture
from measurement_pipeline.defs.capture.sensors import playcount_snapshot_sensor
from measurement_pipeline.defs.health_check import health_check
from measurement_pipeline.defs.instance_status import read_instance_state
from measurement_pipeline.defs.intake.jobs import measurement_job_intake
from measurement_pipeline.defs.intake.sensors import measurement_job_sensor
from measurement_pipeline.health import queue_checks, reconciliation, stall_checks
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres import health, spend
from measurement_pipeline.postgres.audit import list_partition_mismatches
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.services import Alerts, Songstats

# The sweep emits missing materializations within an hour: a difference that is twice as old is a failure.
_GRACE_HOURS = 2.0


@health_check(
    "Wanted recordings do not wait for SILENCE_ALARM_HOURS while none is settled. Names the cause: daemon, sensor, breaker, "
    "payment, pool slot, vendor, budget, pause, failing runs."
)
def backfill_is_progressing(
    connection: Connection,
    dagster_database: dg.DagsterInstance,
    backfill_config: BackfillConfig,
    alerts: Alerts,
) -> HealthResult:
    """Fails while no recording is bought."""
    return stall_checks.backfill_is_progressing(
        health.read_backfill_state(
            connection,
            hits_allowed=backfill_config.hits_allowed,
            operators_account=backfill_config.rules.operators_account,
        ),
        read_instance_state(
            dagster_database, sensor=backfill_queue_sensor.name, job=songstats_backfill.name, asset=SONGSTATS_HISTORY
        ),
        alarm_hours=alerts.silence_alarm_hours,
    )


@health_check(
    "Requests do not stay queued for SILENCE_ALARM_HOURS. Names the cause: daemon, sensor, failing runs, Stripe."
)
def intake_is_progressing(connection: Connection, dagster_database: dg.DagsterInstance, alerts: Alerts) -> HealthResult:
    """Fails while no request is answered."""
    return stall_checks.intake_is_progressing(
        health.read_intake_progress(connection),
        read_instance_state(dagster_database, sensor=measurement_job_sensor.name, job=measurement_job_intake.name),
        alarm_hours=alerts.silence_alarm_hours,
    )


@health_check(
    "No recording has used up its attempts, is malformed, or is suspect. Names them and the command that helps."
)
def no_exhausted_recordings(connection: Connection) -> HealthResult:
    """Fails while rows wait for a person."""
    return queue_checks.no_exhausted_recordings(health.read_failed_rows(connection))


@health_check("Materialized partitions, settled queue rows and stored measurements agree, in both directions.")
def partitions_match_tables(connection: Connection, dagster_database: dg.DagsterInstance) -> HealthResult:
    """Compare Dagster with the tables. Dagster is read first, because a row is settled before it is shown."""
    materialized = dagster_database.get_materialized_partitions(SONGSTATS_HISTORY)
    breaches = list_partition_mismatches(connection, materialized, at_rest=False, grace_hours=_GRACE_HOURS)
    breaches += health.list_row_mismatches(connection)
    return queue_checks.partitions_match_tables(breaches, materialized=len(materialized))


@health_check(
    "The recordings stored in the last day have a plausible last count and last day, and no count falls by more than half."
)
def values_in_range(connection: Connection) -> HealthResult:
    """Fails if a recent value is implausible."""
    latest = health.latest_series(connection)
    return queue_checks.values_in_range(latest, stored=health.count_recently_stored(connection))


@health_check(
    "Captures do not stay open for SILENCE_ALARM_HOURS. Names the cause: daemon, sensor, pool slot, failing runs, Apify."
)
def captures_are_progressing(
    connection: Connection, dagster_database: dg.DagsterInstance, alerts: Alerts
) -> HealthResult:
    """Fails while no capture is finished."""
    return stall_checks.captures_are_progressing(
        health.read_capture_progress(connection),
        read_instance_state(dagster_database, sensor=playcount_snapshot_sensor.name, job=play_count_capture.name),
        alarm_hours=alerts.silence_alarm_hours,
    )


# `health_schedule` runs these every 15 minutes: they are cheap and call no vendor.
scheduled_checks: list[dg.AssetChecksDefinition] = [
    backfill_is_progressing,
    intake_is_progressing,
    no_exhausted_recordings,
    partitions_match_tables,
    values_in_range,
    captures_are_progressing,
]


@health_check(
    "The ledger's hits of this month match the requests and objects that Songstats counts (`GET /status`, free). A difference is "
    "a warning. So is a Songstats that cannot be reached: the difference is unknown then."
)
def ledger_matches_vendor(connection: Connection, songstats: Songstats) -> HealthResult:
    """Warns if Songstats counts other hits than the ledger."""
    before = spend.read_month(connection)
    counted = vendor_status.fetch_vendor_status(songstats.new_client).month
    return reconciliation.ledger_matches_vendor(before, spend.read_month(connection), counted)
