"""The checks of Dagster for `doctor`: storage, daemon, this project's sensors and schedules, and dead runs.

dagster is imported late, because its import takes seconds.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from measurement_pipeline import services
from measurement_pipeline.cli.checks import CheckResult, fail, ok, warn
from measurement_pipeline.cli.dagster_instance import open_dagster_instance
from measurement_pipeline.cli.environment import CliEnvironment
from measurement_pipeline.cli.output import format_value
from measurement_pipeline.local import instance_lock
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import address, run_heartbeats
from measurement_pipeline.postgres.database import DatabaseError

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from measurement_pipeline.defs.dagster_private import InstigatorTick

# After `dev` is ready, the daemon may need this long for its first heartbeats and ticks on a busy machine.
_STARTING_SECONDS = 120.0
# Sensors tick every few seconds; none of them ticks if the code location does not load.
_SENSOR_SILENCE_SECONDS = 600.0


def check_dagster(environment: CliEnvironment) -> Iterator[CheckResult]:
    """Yield the results of Dagster's checks."""
    age = instance_lock.seconds_since_start(environment.home, "dev")
    starting = f"`dev` started {age:.0f} s ago" if age is not None and age < _STARTING_SECONDS else None
    with ExitStack() as stack:
        try:
            instance = stack.enter_context(open_dagster_instance(environment))
        except CommandError as error:
            if starting is None:
                is_on_same_server = address.is_same_server(environment.database_url, environment.dagster_url)
                yield fail("Dagster's storage", error.message, cause="database" if is_on_same_server else "")
                return
            yield warn("Dagster's storage", f"{starting}: {error.message}")
            return
        yield ok("Dagster's storage", f"reachable: {address.describe(environment.dagster_url)}")
        yield _schema(instance)
        yield _daemon(instance, starting, stopped_at=instance_lock.stopped_at(environment.home, "dev"))
        yield _monitoring(instance)
        yield from _automation(instance, environment, starting)
        yield _runs(instance, environment)


def _schema(instance: "DagsterInstance") -> CheckResult:
    current, head = instance.event_log_storage.alembic_version() or (None, None)
    if current == head:
        return ok("Dagster's schema", f"at {head}, the version of this Dagster")
    return fail(
        "Dagster's schema", f"at {current or 'none'}, this Dagster needs {head}: run `dagster instance migrate`"
    )


def _daemon(instance: "DagsterInstance", starting: str | None, *, stopped_at: datetime | None) -> CheckResult:
    from measurement_pipeline.defs.automation import read_silent_daemons

    quiet = read_silent_daemons(instance)
    heartbeats = instance.get_daemon_heartbeats()
    required = sorted(instance.get_required_daemon_types())
    next_step = "nothing is accepted or bought until it runs: start `measurement-pipeline dev` or `dagster-daemon run`"
    last = max((heartbeat.timestamp for heartbeat in heartbeats.values()), default=None)
    # A daemon that was started without `dev` would have sent a heartbeat since.
    if last is not None and stopped_at is not None and last < stopped_at.timestamp():
        return fail(
            "daemon",
            f"NOT RUNNING: `dev` was stopped {format_value(stopped_at)}, and there was no heartbeat since; {next_step}",
        )
    if quiet:
        if len(quiet) == len(required):
            reason = "it never ran" if last is None else f"its last heartbeat was {_format_timestamp(last)}"
        else:
            reason = ", ".join(
                f"{name} never sent a heartbeat" if at is None else f"{name} sent its last heartbeat {format_value(at)}"
                for name, at in quiet.items()
            )
        if starting:
            return warn("daemon", f"{starting}: {reason}")
        return fail("daemon", f"NOT RUNNING: {reason}; {next_step}")
    failing = [name for name in required if heartbeats[name].errors]
    if failing:
        return warn("daemon", f"running, with recent errors in {', '.join(failing)}: see its log")
    age = datetime.now(UTC).timestamp() - min(heartbeats[name].timestamp for name in required)
    return ok("daemon", f"running; all {len(required)} parts sent a heartbeat in the last {max(0.0, age):.0f} s")


def _monitoring(instance: "DagsterInstance") -> CheckResult:
    if instance.run_monitoring_enabled:
        return ok("run monitoring", "on")
    return warn("run monitoring", "off: a run that never starts keeps its slot. Use this project's dagster.yaml")


def _automation(
    instance: "DagsterInstance", environment: CliEnvironment, starting: str | None
) -> Iterator[CheckResult]:
    from measurement_pipeline.defs.automation import read_statuses
    from measurement_pipeline.defs.loading import load_definitions

    # Only the names are read, so the services are never created.
    defs = load_definitions(lambda: services.create_services(environment.settings))
    for kind, definitions in (("sensors", defs.sensors), ("schedules", defs.schedules)):
        statuses = read_statuses(instance, [str(definition.name) for definition in definitions or ()])
        off = [name for name, status in statuses.items() if status.switched_off]
        problems = {name: _tick_problem(status.last_tick, kind) for name, status in statuses.items()}
        if off:
            yield fail(kind, f"SWITCHED OFF: {', '.join(off)}: switch on in Dagster (Automation)")
        elif kind == "sensors" and all(status.last_tick is None for status in statuses.values()):
            yield _never_ticked(starting)
        elif any(problems.values()):
            listed = "; ".join(f"{name} {problem}" for name, problem in problems.items() if problem)
            next_step = starting or "see Automation in Dagster, and whether the code location loads (Deployment)"
            yield warn(kind, f"on, but {listed}; {next_step}")
        else:
            yield ok(kind, f"on: {', '.join(statuses)}")


def _never_ticked(starting: str | None) -> CheckResult:
    if starting:
        return warn("sensors", f"none has ticked yet; {starting}")
    reason = "if the daemon has been running for more than a minute, the code location does not load"
    return fail("sensors", f"NONE HAS EVER TICKED: {reason}: see Deployment in Dagster, or the code server's log")


def _tick_problem(tick: "InstigatorTick | None", kind: str) -> str | None:
    if tick is None:
        # A schedule may still wait for its time.
        return "has never ticked" if kind == "sensors" else None
    if tick.is_failure:
        return f"failed at its last tick, {_format_timestamp(tick.timestamp)}"
    age = datetime.now(UTC).timestamp() - tick.timestamp
    if kind == "sensors" and age > _SENSOR_SILENCE_SECONDS:
        return f"has not ticked since {_format_timestamp(tick.timestamp)}"
    return None


def _runs(instance: "DagsterInstance", environment: CliEnvironment) -> CheckResult:
    """Check for started runs without a heartbeat: a dead run keeps the slot of the next backfill."""
    from dagster import DagsterRunStatus, RunsFilter

    from measurement_pipeline.defs.backfill.jobs import songstats_backfill
    from measurement_pipeline.defs.instance_status import ASSET_JOB
    from measurement_pipeline.defs.intake.jobs import measurement_job_intake

    started = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
    jobs_with_heartbeat = {songstats_backfill.name, measurement_job_intake.name, ASSET_JOB}
    now = datetime.now(UTC).timestamp()
    # The age of each run, which counts for a run without a heartbeat so far.
    runs = {
        record.dagster_run.run_id: now - (record.start_time or now)
        for record in instance.get_run_records(started)
        if record.dagster_run.job_name in jobs_with_heartbeat
    }
    if not runs:
        return ok("runs", "none is running")
    try:
        with environment.connect() as connection:
            heartbeat_ages = run_heartbeats.seconds_since_last(connection, list(runs))
    except DatabaseError:
        return warn("runs", f"{len(runs)} running; heartbeats unknown: the measurement database is unreachable")
    silence = services.backfill_config(environment.settings, environment.database_url).silence_seconds
    dead = [run for run, age in runs.items() if heartbeat_ages.get(run, age) > silence]
    if dead:
        return warn(
            "runs",
            f"no heartbeat from {', '.join(run[:8] for run in dead)} for {silence:.0f} s: dead, and keeping the slot; "
            "backfill_queue_sensor reports it as failed while the daemon runs, or cancel it in Dagster",
        )
    return ok("runs", f"{len(runs)} running, with recent heartbeats")


def _format_timestamp(timestamp: float) -> str:
    return format_value(datetime.fromtimestamp(timestamp, UTC))
