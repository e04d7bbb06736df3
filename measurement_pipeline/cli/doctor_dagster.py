"""What `doctor` asks of Dagster: its storage, its daemons, our sensors and schedules, and runs whose process is gone.

dagster is imported when it is asked: it takes seconds.
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
    from dagster._core.scheduler.instigation import InstigatorTick

# As long as the code server and the daemon may take to be there, on a machine that has other work too.
_STARTING_SECONDS = 120.0
# A sensor ticks every few seconds; a code location that does not load ticks none of them.
_SENSOR_SILENCE_SECONDS = 600.0


def check_dagster(environment: CliEnvironment) -> Iterator[CheckResult]:
    """Dagster's part, one line each."""
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
        yield ok("Dagster's storage", f"reached: {address.describe(environment.dagster_url)}")
        yield _schema(instance)
        yield _daemon(instance, starting, stopped_at=instance_lock.stopped_at(environment.home, "dev"))
        yield _monitoring(instance)
        yield from _automation(instance, starting)
        yield _runs(instance, environment)


def _schema(instance: "DagsterInstance") -> CheckResult:
    found, head = instance.event_log_storage.alembic_version() or (None, None)
    if found == head:
        return ok("Dagster's schema", f"at {head}, this Dagster's")
    return fail("Dagster's schema", f"at {found or 'none'}, this Dagster needs {head}: run `dagster instance migrate`")


def _daemon(instance: "DagsterInstance", starting: str | None, *, stopped_at: datetime | None) -> CheckResult:
    from measurement_pipeline.defs.automation import quiet_daemons

    quiet = quiet_daemons(instance)
    beats = instance.get_daemon_heartbeats()
    required = sorted(instance.get_required_daemon_types())
    cure = "nothing is taken in or bought until it runs: start `measurement-pipeline dev` or `dagster-daemon run`"
    last = max((beat.timestamp for beat in beats.values()), default=None)
    # A daemon of somebody else's beats on after that.
    if last is not None and stopped_at is not None and last < stopped_at.timestamp():
        return fail(
            "daemon", f"NOT RUNNING: `dev` was stopped {format_value(stopped_at)}, and nothing beats since; {cure}"
        )
    if quiet:
        never_or_last = "it never ran" if last is None else f"its last sign of life was {_moment(last)}"
        parts = (
            f"{name} never beat" if beat is None else f"{name} last beat {format_value(beat)}"
            for name, beat in quiet.items()
        )
        who = never_or_last if len(quiet) == len(required) else ", ".join(parts)
        return warn("daemon", f"{starting}: {who}") if starting else fail("daemon", f"NOT RUNNING: {who}; {cure}")
    failing = [name for name in required if beats[name].errors]
    if failing:
        return warn("daemon", f"beats, with errors of late: {', '.join(failing)}; see its log")
    age = datetime.now(UTC).timestamp() - min(beats[name].timestamp for name in required)
    return ok("daemon", f"running; all {len(required)} parts of it beat, none longer ago than {max(0.0, age):.0f} s")


def _monitoring(instance: "DagsterInstance") -> CheckResult:
    if instance.run_monitoring_enabled:
        return ok("run monitoring", "on")
    return warn("run monitoring", "off: a run that never starts holds its slot; use this project's dagster.yaml")


def _automation(instance: "DagsterInstance", starting: str | None) -> Iterator[CheckResult]:
    from measurement_pipeline.defs import schedules, sensors
    from measurement_pipeline.defs.automation import read_statuses

    for kind, ours in (("sensors", sensors.sensors), ("schedules", schedules.schedules)):
        stands = read_statuses(instance, [str(definition.name) for definition in ours])
        off = [name for name, one in stands.items() if one.switched_off]
        if off:
            yield fail(kind, f"SWITCHED OFF: {', '.join(off)}; switch on in Dagster (Automation)")
        elif kind == "sensors" and all(one.last_tick is None for one in stands.values()):
            yield _never_ticked(starting)
        elif unwell := [f"{name} {why}" for name, one in stands.items() if (why := _unwell(one.last_tick, kind))]:
            cure = starting or "see Automation in Dagster, and whether the code location loads (Deployment)"
            yield warn(kind, f"on, but {'; '.join(unwell)}; {cure}")
        else:
            yield ok(kind, f"on: {', '.join(stands)}")


def _never_ticked(starting: str | None) -> CheckResult:
    if starting:
        return warn("sensors", f"none has ticked yet; {starting}")
    cure = "if the daemon runs for more than a minute, the code location does not load: see Deployment in Dagster"
    return fail("sensors", f"NONE HAS EVER TICKED: {cure}, or the code server's log")


def _unwell(tick: "InstigatorTick | None", kind: str) -> str | None:
    if tick is None:
        # A schedule may wait for its hour.
        return "has never ticked" if kind == "sensors" else None
    if tick.is_failure:
        return f"failed at its last tick, {_moment(tick.timestamp)}"
    silent = datetime.now(UTC).timestamp() - tick.timestamp
    if kind == "sensors" and silent > _SENSOR_SILENCE_SECONDS:
        return f"has not ticked since {_moment(tick.timestamp)}"
    return None


def _runs(instance: "DagsterInstance", environment: CliEnvironment) -> CheckResult:
    """Runs that Dagster calls started, and that give no sign of life: they hold the slot of the one that buys."""
    from dagster import DagsterRunStatus, RunsFilter

    from measurement_pipeline.defs.instance_status import ASSET_JOB
    from measurement_pipeline.defs.jobs import measurement_job_intake, songstats_backfill

    begun = RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
    beating = {songstats_backfill.name, measurement_job_intake.name, ASSET_JOB}
    now = datetime.now(UTC).timestamp()
    # Since when each is under way: what counts for one that has not beaten yet.
    runs = {
        record.dagster_run.run_id: now - (record.start_time or now)
        for record in instance.get_run_records(begun)
        if record.dagster_run.job_name in beating
    }
    if not runs:
        return ok("runs", "none is under way")
    try:
        with environment.connect() as connection:
            beats = run_heartbeats.seconds_since_last(connection, list(runs))
    except DatabaseError:
        return warn("runs", f"{len(runs)} under way; unknown whether they live, since the measurement database is away")
    silence = services.backfill_config(environment.settings, environment.database_url).silence_seconds
    dead = [run for run, seconds in runs.items() if beats.get(run, seconds) > silence]
    if dead:
        return warn(
            "runs",
            f"no sign of life from {', '.join(run[:8] for run in dead)} for {silence:.0f} s: dead, and holding the slot; "
            "backfill_queue_sensor reports it failed while the daemon runs, or cancel it in Dagster",
        )
    return ok("runs", f"{len(runs)} under way, and alive")


def _moment(timestamp: float) -> str:
    return format_value(datetime.fromtimestamp(timestamp, UTC))
