"""The run-failure sensor: a run that failed is an incident, and an incident is told once."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from measurement_pipeline.defs.jobs import health_checks, songstats_backfill
from measurement_pipeline.defs.machine import ASSET_JOB, failure_line
from measurement_pipeline.defs.materializations import SONGSTATS_HISTORY
from measurement_pipeline.defs.resources import Pipeline
from measurement_pipeline.health import incidents
from measurement_pipeline.postgres.database import DatabaseError
from measurement_pipeline.postgres.incidents import OVER_AFTER_HOURS
from measurement_pipeline.postgres.migrate import SchemaOutOfDateError, WrongDeploymentError


@dg.run_failure_sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Sees every run of this code location that fails, makes one incident of those that fail alike (table `incidents`), and "
        "tells it to ALERT_WEBHOOK_URL, if there is one."
    ),
)
def run_failure_alert(context: dg.RunFailureSensorContext, pipeline: dg.ResourceParam[Pipeline]) -> None:
    """Written to the table, then told.

    Dagster moves on to the next failure even where this raises. What was written is not lost by that: the next failure, or the
    next run of the checks, tells it.
    """
    run = context.dagster_run
    job = _name(run)
    line = failure_line(context.instance, run.run_id)
    try:
        pipeline.require_own_database()
        incidents.see_failure(pipeline.terms.database_url, job, line, run=run.run_id)
    except (DatabaseError, WrongDeploymentError, SchemaOutOfDateError):
        # Dagster will not come back to this failure, and the table cannot have it: told from here, or never.
        if pipeline.post_alert is not None and not _failed_so_before(context, job, line):
            pipeline.post_alert(incidents.about_failure(job, line, run=run.run_id))
        raise
    incidents.tell(pipeline.terms.database_url, pipeline.post_alert)


def _name(run: dg.DagsterRun) -> str:
    """What a person calls it, whoever launched it: a launch from the asset's page runs under a name of Dagster's own."""
    if run.job_name != ASSET_JOB:
        return run.job_name
    buys = run.asset_selection is None or SONGSTATS_HISTORY in run.asset_selection
    return songstats_backfill.name if buys else health_checks.name


def _failed_so_before(context: dg.RunFailureSensorContext, job: str, line: str) -> bool:
    """Whether Dagster remembers an earlier run that failed alike and would have been told, without asking our own tables."""
    run = context.dagster_run
    lately = datetime.now(UTC) - timedelta(hours=OVER_AFTER_HOURS)
    alike = dg.RunsFilter(job_name=run.job_name, statuses=[dg.DagsterRunStatus.FAILURE], updated_after=lately)
    records = {r.dagster_run.run_id: r for r in context.instance.get_run_records(alike, limit=20)}
    this = records.get(run.run_id)
    return this is not None and any(
        record.storage_id < this.storage_id
        and incidents.key_of(job, failure_line(context.instance, run_id)) == incidents.key_of(job, line)
        for run_id, record in records.items()
    )
