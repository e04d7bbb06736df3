"""What `doctor` asks of Dagster: its storage, its daemons, our sensors and schedules, and runs whose process is gone.

dagster is imported when it is asked: it takes seconds.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from measurement_pipeline import deployment
from measurement_pipeline.cli import output
from measurement_pipeline.cli.dagster_instance import reading
from measurement_pipeline.cli.diagnosis import Line, fail, ok, warn
from measurement_pipeline.cli.target import Target
from measurement_pipeline.postgres import address, run_heartbeats
from measurement_pipeline.postgres.database import DatabaseError

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick

# A daemon beats every 30 s. Dagster itself calls one healthy for half an hour after its last beat.
_DAEMON_SILENCE_SECONDS = 120.0
# A sensor ticks every few seconds; a code location that does not load ticks none of them.
_SENSOR_SILENCE_SECONDS = 600.0


def lines(target: Target) -> Iterator[Line]:
    """Dagster's part, one line each. Raises `RefusedError` where its storage cannot be read."""
    with reading(target) as instance:
        yield ok("Dagster's storage", f"reached: {address.in_words(target.dagster_url)}")
        yield _schema(instance)
        yield _daemon(instance)
        yield _monitoring(instance)
        yield from _automation(instance)
        yield _runs(instance, target)


def _schema(instance: "DagsterInstance") -> Line:
    found, head = instance.event_log_storage.alembic_version() or (None, None)
    if found == head:
        return ok("Dagster's schema", f"at {head}, this Dagster's")
    return fail("Dagster's schema", f"at {found or 'none'}, this Dagster needs {head}: run `dagster instance migrate`")


def _daemon(instance: "DagsterInstance") -> Line:
    beats = instance.get_daemon_heartbeats()
    now = datetime.now(UTC).timestamp()
    quiet, failing = [], []
    required = sorted(instance.get_required_daemon_types())
    for name in required:
        beat = beats.get(name)
        if beat is None:
            quiet.append(f"{name} never beat")
        elif now - beat.timestamp > _DAEMON_SILENCE_SECONDS:
            quiet.append(f"{name} last beat {_moment(beat.timestamp)}")
        elif beat.errors:
            failing.append(name)
    if quiet:
        cure = "nothing is taken in or bought until it runs: start `measurement-pipeline dev` or `dagster-daemon run`"
        last = max((beat.timestamp for beat in beats.values()), default=None)
        never_or_last = "it never ran" if last is None else f"its last sign of life was {_moment(last)}"
        who = never_or_last if len(quiet) == len(required) else ", ".join(quiet)
        return fail("daemon", f"NOT RUNNING: {who}; {cure}")
    if failing:
        return warn("daemon", f"beats, with errors of late: {', '.join(failing)}; see its log")
    return ok("daemon", f"running; all {len(required)} parts of it beat")


def _monitoring(instance: "DagsterInstance") -> Line:
    if instance.run_monitoring_enabled:
        return ok("run monitoring", "on")
    return warn("run monitoring", "off: a run that never starts holds its slot; use this project's dagster.yaml")


def _automation(instance: "DagsterInstance") -> Iterator[Line]:
    from measurement_pipeline.defs import schedules, sensors

    states: dict[str, list[InstigatorState]] = {}
    for state in instance.all_instigator_state():
        states.setdefault(state.name, []).append(state)
    for kind, ours in (("sensors", sensors.sensors), ("schedules", schedules.schedules)):
        names = [str(definition.name) for definition in ours]
        standing = {name: _latest(instance, states.get(name, [])) for name in names}
        off = [name for name, (state, _) in standing.items() if state is not None and not _is_on(state)]
        if off:
            yield fail(kind, f"SWITCHED OFF: {', '.join(off)}; switch on in Dagster (Automation)")
            continue
        if kind == "sensors" and all(tick is None for _, tick in standing.values()):
            cure = (
                "if the daemon runs for more than a minute, the code location does not load: see Deployment in Dagster"
            )
            yield fail(kind, f"NONE HAS EVER TICKED: {cure}, or the code server's log")
            continue
        unwell = [f"{name} {why}" for name, (_, tick) in standing.items() if (why := _unwell(tick, kind))]
        if unwell:
            cure = "see Automation in Dagster, and whether the code location loads (Deployment)"
            yield warn(kind, f"on, but {'; '.join(unwell)}; {cure}")
        else:
            yield ok(kind, f"on: {', '.join(names)}")


def _latest(
    instance: "DagsterInstance", states: "list[InstigatorState]"
) -> "tuple[InstigatorState | None, InstigatorTick | None]":
    """The state in use and its last tick. None: nobody has touched it, and it is as the code declares: on.

    A location that was renamed leaves its states behind; the one that ticked last is in use.
    """
    found = [
        (state, next(iter(instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)), None))
        for state in states
    ]
    return max(found, key=lambda each: each[1].timestamp if each[1] else 0.0, default=(None, None))


def _is_on(state: "InstigatorState") -> bool:
    return bool(state.is_running)


def _unwell(tick: "InstigatorTick | None", kind: str) -> str | None:
    from dagster._core.scheduler.instigation import TickStatus

    if tick is None:
        return None
    if tick.status is TickStatus.FAILURE:
        return f"failed at its last tick, {_moment(tick.timestamp)}"
    silent = datetime.now(UTC).timestamp() - tick.timestamp
    if kind == "sensors" and silent > _SENSOR_SILENCE_SECONDS:
        return f"has not ticked since {_moment(tick.timestamp)}"
    return None


def _runs(instance: "DagsterInstance", target: Target) -> Line:
    """Runs that Dagster calls started, and that give no sign of life: they hold the slot of the one that buys."""
    from dagster import DagsterRunStatus, RunsFilter

    from measurement_pipeline.defs.jobs import measurement_job_intake, songstats_backfill
    from measurement_pipeline.defs.machine import ASSET_JOB

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
        with target.connect() as connection:
            beats = run_heartbeats.last_beats(connection, list(runs))
    except DatabaseError:
        return warn("runs", f"{len(runs)} under way; unknown whether they live, since the measurement database is away")
    silence = deployment.terms(target.settings, target.database_url).silence_seconds
    dead = [run for run, seconds in runs.items() if beats.get(run, seconds) > silence]
    if dead:
        return warn(
            "runs",
            f"no sign of life from {', '.join(run[:8] for run in dead)} for {silence:.0f} s: dead, and holding the slot; "
            "backfill_queue_sensor reports it failed while the daemon runs, or cancel it in Dagster",
        )
    return ok("runs", f"{len(runs)} under way, and alive")


def _moment(timestamp: float) -> str:
    return output.shown(datetime.fromtimestamp(timestamp, UTC))
