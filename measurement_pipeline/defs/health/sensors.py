"""The sensors of ended runs. A failed run opens an incident, which alerts once; a success of the same job ends it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.analytics.jobs import analytics_refresh
from measurement_pipeline.defs.asset_keys import ANALYTICS, CURRENT_PLAY_COUNTS, SONGSTATS_HISTORY
from measurement_pipeline.defs.backfill.jobs import songstats_backfill
from measurement_pipeline.defs.capture.jobs import play_count_capture
from measurement_pipeline.defs.expected_failures import NOTHING_TO_CAPTURE, REFUSED_LAUNCH
from measurement_pipeline.defs.health.checks import ledger_matches_vendor
from measurement_pipeline.defs.health.interruptions import cancel, interruption, no_run_starts
from measurement_pipeline.defs.health.jobs import health_checks, ledger_reconciliation
from measurement_pipeline.defs.instance_status import ASSET_JOB, covers, failure_line
from measurement_pipeline.health import incidents, messages
from measurement_pipeline.postgres.database import DatabaseError
from measurement_pipeline.postgres.incidents import SAME_WITHIN_HOURS
from measurement_pipeline.postgres.migrate import SchemaOutOfDateError, WrongDeploymentError
from measurement_pipeline.services import Alerts, MeasurementDatabase

# The jobs whose runs cover partitions of an asset.
_PARTITIONED = {songstats_backfill.name: SONGSTATS_HISTORY, play_count_capture.name: CURRENT_PLAY_COUNTS}
# Runs that are read at once.
_PAGE = 100


@dg.run_failure_sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Opens one incident (table `incidents`) for all failed runs of this code location with the same cause, and sends it to "
        "ALERT_WEBHOOK_URL, if set. A run that did not start, or whose process was terminated, is no incident: it becomes a "
        "cancelled run, and its partitions are due again."
    ),
)
def run_failure_alert(
    context: dg.RunFailureSensorContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    alerts: dg.ResourceParam[Alerts],
) -> None:
    """Record the incident, then send its alert.

    Dagster continues with the next failure even if this raises. A recorded incident is not lost by that: the next failure, or the
    next run of the checks, sends its alert.
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
        incidents.record_failure(measurement_database.verified_url(), job, line, run=run.run_id)
    except (DatabaseError, WrongDeploymentError, SchemaOutOfDateError):
        # Dagster does not repeat this failure, and the table is unavailable: this is the only chance to send the alert.
        if alerts.post is not None:
            _post_once(instance, run, alerts.post, job=job, line=line)
        raise
    if _ended_later(instance, run, job, dg.DagsterRunStatus.SUCCESS):
        incidents.record_success(measurement_database.url, job)
    incidents.send_alerts(measurement_database.url, alerts.post)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends the open incidents of a job when a run of it succeeds.",
)
def run_success_sensor(
    context: dg.RunStatusSensorContext, measurement_database: dg.ResourceParam[MeasurementDatabase]
) -> None:
    """End the incidents, unless the job has failed since: then they are about that failure."""
    run, job = context.dagster_run, job_name_of(context.dagster_run)
    if _ended_later(context.instance, run, job, dg.DagsterRunStatus.FAILURE):
        return
    incidents.record_success(measurement_database.verified_url(), job)


def job_name_of(run: dg.DagsterRun) -> str:
    """The equivalent job of ours: a launch from an asset's page runs under Dagster's own job name."""
    if run.job_name != ASSET_JOB:
        return run.job_name
    if covers(run, SONGSTATS_HISTORY):
        return songstats_backfill.name
    if covers(run, CURRENT_PLAY_COUNTS):
        return play_count_capture.name
    if any(key.path[0] == ANALYTICS for key in run.asset_selection or ()):
        return analytics_refresh.name
    is_reconciliation = set(run.asset_check_selection or ()) <= set(ledger_matches_vendor.check_keys)
    return ledger_reconciliation.name if is_reconciliation else health_checks.name


def _ended_later(instance: dg.DagsterInstance, run: dg.DagsterRun, job: str, status: dg.DagsterRunStatus) -> bool:
    """Whether a run of `job` ended with `status` after `run` ended."""
    record = instance.get_run_record_by_id(run.run_id)
    if record is None or record.end_time is None:
        return False
    ended_at = record.end_time
    return any(
        job_name_of(other.dagster_run) == job and (other.end_time or 0.0) > ended_at
        for name in (job, ASSET_JOB)
        for other in _runs_since(instance, name, status, datetime.fromtimestamp(ended_at, UTC))
    )


def _runs_since(
    instance: dg.DagsterInstance, job_name: str, status: dg.DagsterRunStatus, since: datetime
) -> Iterator[dg.RunRecord]:
    """Runs that were updated after `since`, the latest first, a page at a time."""
    filters = dg.RunsFilter(job_name=job_name, statuses=[status], updated_after=since)
    cursor = None
    while page := instance.get_run_records(filters, limit=_PAGE, cursor=cursor):
        yield from page
        cursor = page[-1].dagster_run.run_id


def _post_once(
    instance: dg.DagsterInstance, run: dg.DagsterRun, post: Callable[[str], None], *, job: str, line: str
) -> None:
    """Post the alert of a failure, unless a run that failed alike did so. Uses Dagster's database only, not our own."""
    tag = {tags.ALERTED: messages.incident_key(job, line)}
    since = datetime.now(UTC) - timedelta(hours=SAME_WITHIN_HOURS)
    if not instance.get_run_ids(dg.RunsFilter(tags=tag, updated_after=since), limit=1):
        post(messages.describe_failure(job, line, run=run.run_id))
        instance.add_run_tags(run.run_id, tag)
