"""The sensors of ended runs: a run that failed is an incident, told once, until a run of its job succeeds."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.asset_checks import ledger_matches_vendor
from measurement_pipeline.defs.captures import CURRENT_PLAY_COUNTS
from measurement_pipeline.defs.catalog_charts import ANALYTICS
from measurement_pipeline.defs.failures import NOTHING_TO_CAPTURE, REFUSED_LAUNCH
from measurement_pipeline.defs.instance_status import ASSET_JOB, covers, failure_line
from measurement_pipeline.defs.interruptions import cancel, interruption, no_run_starts
from measurement_pipeline.defs.jobs import (
    analytics_refresh,
    health_checks,
    ledger_reconciliation,
    play_count_capture,
    songstats_backfill,
)
from measurement_pipeline.defs.materializations import SONGSTATS_HISTORY
from measurement_pipeline.defs.resources import Alerts, MeasurementDatabase
from measurement_pipeline.health import incidents, messages
from measurement_pipeline.postgres.database import DatabaseError
from measurement_pipeline.postgres.incidents import SAME_WITHIN_HOURS
from measurement_pipeline.postgres.migrate import SchemaOutOfDateError, WrongDeploymentError

# The jobs whose runs cover partitions, and of which asset.
_PARTITIONED = {songstats_backfill.name: SONGSTATS_HISTORY, play_count_capture.name: CURRENT_PLAY_COUNTS}
# Earlier failures looked through where our own tables cannot be asked.
_MOST_FAILURES = 100


@dg.run_failure_sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Sees every run of this code location that fails, makes one incident of those that fail alike (table `incidents`), and "
        "tells it to ALERT_WEBHOOK_URL, if there is one. A run that did not start, or whose process was asked to end, is no "
        "incident: it becomes a cancelled run, and what it covered is due again."
    ),
)
def run_failure_alert(
    context: dg.RunFailureSensorContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    alerts: dg.ResourceParam[Alerts],
) -> None:
    """Written to the table, then told.

    Dagster moves on to the next failure even where this raises. What was written is not lost by that: the next failure, or the
    next run of the checks, tells it.
    """
    run, instance = context.dagster_run, context.instance
    job = job_name_of(run)
    why = interruption(instance, run)
    if why is None:
        line = failure_line(instance, run.run_id)
    else:
        cancel(instance, run, why, _PARTITIONED.get(job))
        since = no_run_starts(instance, run.job_name)
        if since is None:
            return
        line = f"no run starts ({why}); see the code server's log, and whether run workers have room"
    if line.startswith(NOTHING_TO_CAPTURE) or (tags.is_operators(run) and line.startswith(REFUSED_LAUNCH)):
        return
    try:
        incidents.record_failure(measurement_database.own_url(), job, line, run=run.run_id)
    except (DatabaseError, WrongDeploymentError, SchemaOutOfDateError):
        # Dagster will not come back to this failure, and the table cannot have it: told from here, or never.
        if alerts.post is not None and not _failed_alike_before(context, job, line):
            alerts.post(messages.describe_failure(job, line, run=run.run_id))
        raise
    if _any_later(instance, run, job, dg.DagsterRunStatus.SUCCESS):
        incidents.record_success(measurement_database.url, job)
    incidents.send_alerts(measurement_database.url, alerts.post)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sees every run of this code location that succeeds, and ends the open incidents of its job.",
)
def run_success_sensor(
    context: dg.RunStatusSensorContext, measurement_database: dg.ResourceParam[MeasurementDatabase]
) -> None:
    """Unless the job has failed since: then the incident is about that failure."""
    run, job = context.dagster_run, job_name_of(context.dagster_run)
    if _any_later(context.instance, run, job, dg.DagsterRunStatus.FAILURE):
        return
    incidents.record_success(measurement_database.own_url(), job)


def job_name_of(run: dg.DagsterRun) -> str:
    """The job that does the same: a launch from the asset's page runs under a name of Dagster's own."""
    if run.job_name != ASSET_JOB:
        return run.job_name
    if covers(run, SONGSTATS_HISTORY):
        return songstats_backfill.name
    if covers(run, CURRENT_PLAY_COUNTS):
        return play_count_capture.name
    if any(key.path[0] == ANALYTICS for key in run.asset_selection or ()):
        return analytics_refresh.name
    of_the_vendor = set(run.asset_check_selection or ()) <= set(ledger_matches_vendor.check_keys)
    return ledger_reconciliation.name if of_the_vendor else health_checks.name


def _any_later(instance: dg.DagsterInstance, run: dg.DagsterRun, job: str, status: dg.DagsterRunStatus) -> bool:
    """Whether a run of `job` ended with `status` after `run` ended."""
    record = instance.get_run_record_by_id(run.run_id)
    if record is None or record.end_time is None:
        return False
    after = dg.RunsFilter(statuses=[status], updated_after=datetime.fromtimestamp(record.end_time, UTC))
    return any(
        job_name_of(other.dagster_run) == job and (other.end_time or 0.0) > record.end_time
        for other in instance.get_run_records(after, limit=_MOST_FAILURES)
    )


def _failed_alike_before(context: dg.RunFailureSensorContext, job: str, line: str) -> bool:
    """Whether Dagster remembers an earlier run that failed alike and would have been told, without asking our own tables."""
    run = context.dagster_run
    lately = datetime.now(UTC) - timedelta(hours=SAME_WITHIN_HOURS)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=lately)
    # Those launched before this one, the latest first: of all that fail alike, the one launched first is told.
    earlier = context.instance.get_runs(failed, cursor=run.run_id, limit=_MOST_FAILURES)
    return any(
        job_name_of(other) == job
        and messages.incident_key(job, failure_line(context.instance, other.run_id)) == messages.incident_key(job, line)
        for other in earlier
    )
