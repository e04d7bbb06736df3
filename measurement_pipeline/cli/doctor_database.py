"""The checks of the measurement database for `doctor`: reachable, of this deployment, and making progress."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from measurement_pipeline.cli import doctor_server, output
from measurement_pipeline.cli.checks import CheckResult, CheckStatus, fail, ok, warn
from measurement_pipeline.cli.dagster_instance import open_dagster_instance
from measurement_pipeline.cli.environment import CliEnvironment
from measurement_pipeline.domain.blockers import (
    BlockerKind,
    budget_blocker,
    describe,
    describe_all,
    operator_pause_blocker,
    vendor_blockers,
)
from measurement_pipeline.domain.purchase_pause import PurchasePause
from measurement_pipeline.domain.text import counted, utc_minute
from measurement_pipeline.domain.vendor_state import VendorState
from measurement_pipeline.health import stall_checks
from measurement_pipeline.health.incidents import blocking_reason, is_transient
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.health.stall_checks import InstanceState
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import (
    clock,
    health,
    incidents,
    migrate,
    purchase_pauses,
    songstats_ledger,
    vendor_state,
)
from measurement_pipeline.postgres.database import Connection, StatementTimeout, transaction_with_timeout

_BACKFILL_SENSOR, _INTAKE_SENSOR, _CAPTURE_SENSOR = (
    "backfill_queue_sensor",
    "measurement_job_sensor",
    "playcount_snapshot_sensor",
)

# The vendors that captures call.
_CAPTURE_VENDORS = {"Apify": "apify", "Spotify": "spotify"}

# The limit for the statements of one line. The group's limit is longer, so that one slow line leaves time for the others.
_LONGEST_SECONDS = 3.0

# The line that reports the cause of a stall, if there is one.
_CAUSE_LINES = {
    BlockerKind.DAEMON: "daemon",
    BlockerKind.SENSOR_OFF: "sensors",
    BlockerKind.SENSOR_FAILS: "sensors",
    BlockerKind.BREAKER: "breaker",
    BlockerKind.OPERATOR_PAUSE: "pause",
    BlockerKind.PAUSE: "pause",
    BlockerKind.VENDOR: "pause",
    BlockerKind.BUDGET: "budget",
    BlockerKind.SLOT: "runs",
}

# `measurement-pipeline incidents` lists the others.
_INCIDENTS_SHOWN = 3

_NEED_OWN_SCHEMA = ("incidents", "breaker", "answers", "pause", "clock", "budget", "queue", "requests", "captures")
_NOT_CHECKED = "not checked: the database has another schema version, or belongs to another deployment"


def check_database(environment: CliEnvironment, *, seconds: float = _LONGEST_SECONDS) -> Iterator[CheckResult]:
    """Yield the results of the database's checks. The statements of one line may take `seconds`."""
    with environment.connect() as connection:
        yield ok("database", f"reachable: {environment.database_location}")

        def check(name: str, run: Callable[[], CheckResult]) -> CheckResult:
            try:
                with transaction_with_timeout(connection, seconds=seconds):
                    return run()
            except StatementTimeout:
                return doctor_server.report_timeout(connection, name, seconds=seconds)

        is_own = True
        for result in (check("schema", lambda: _schema(environment)), check("stamp", lambda: _stamp(environment))):
            is_own &= result.status is CheckStatus.OK
            yield result
        yield check("encoding", lambda: doctor_server.check_encoding(connection))
        yield check("durability", lambda: doctor_server.check_durability(connection))
        yield check("isolation", lambda: doctor_server.check_isolation(connection))
        yield check("sessions", lambda: doctor_server.check_sessions(connection))
        if not is_own:
            yield from (warn(name, _NOT_CHECKED) for name in _NEED_OWN_SCHEMA)
            return
        yield check("incidents", lambda: _incidents(connection))
        vendor = songstats_ledger.vendor_state(connection)
        yield _breaker(vendor)
        yield check("answers", lambda: _vendor_form(connection))
        yield _pause(
            vendor, purchase_pauses.list_active(connection), alarm_hours=environment.settings.silence_alarm_hours
        )
        yield check("clock", lambda: _clock(connection, environment))
        yield check("budget", lambda: _budget(connection, environment))
        backfill, intake, captures = _read_instance_states(environment)
        yield check("queue", lambda: _queue(connection, environment, backfill))
        yield check("requests", lambda: _requests(connection, environment, intake))
        yield check("captures", lambda: _captures(connection, environment, captures))


def _pause(vendor: VendorState, operators: Sequence[PurchasePause], *, alarm_hours: float) -> CheckResult:
    pauses = [blocker for blocker in vendor_blockers(vendor) if blocker.kind is not BlockerKind.BREAKER]
    pauses += [operator_pause_blocker(pause) for pause in operators if pause != vendor.operator_pause]
    if vendor.paused_until is None:
        return warn("pause", describe_all(pauses)) if operators else ok("pause", "none")
    if vendor.paused_until - vendor.now > timedelta(hours=alarm_hours):
        return fail("pause", f"longer than SILENCE_ALARM_HOURS. {describe_all(pauses)}")
    return warn("pause", f"{describe_all(pauses)} It ends without a person.")


def _schema(environment: CliEnvironment) -> CheckResult:
    current, expected = migrate.current_version(environment.database_url), migrate.expected_version()
    if current == expected:
        return ok("schema", f"at {expected}, the schema of this version")
    return fail(
        "schema", f"at {current or 'none'}, this version needs {expected}: run `measurement-pipeline db upgrade`"
    )


def _stamp(environment: CliEnvironment) -> CheckResult:
    stamp = migrate.get_stamp(environment.database_url)
    if stamp == environment.kind:
        return ok("stamp", stamp)
    if stamp is None:
        return fail("stamp", "none: run `measurement-pipeline db upgrade`, which stamps a new database", cause="schema")
    return fail(
        "stamp",
        f"the database is `{stamp}`, but the settings name `{environment.kind}` vendors: set DATABASE_URL to a database of that "
        f"kind, or set the keys and URLs of {stamp} vendors. Never edit the stamp",
    )


def _incidents(connection: Connection) -> CheckResult:
    """List open incidents, even if another line shows them too."""
    found = incidents.list_open(connection)
    if not found:
        return ok("incidents", "none is open")
    listed = " ".join(
        f"Since {utc_minute(incident.opened_at)}{f', {incident.times:,} times' if incident.times > 1 else ''}: {incident.what}"
        for incident in found[:_INCIDENTS_SHOWN]
    )
    message = f"{len(found):,} OPEN. {listed} `measurement-pipeline incidents` lists all"
    if all(map(is_transient, found)):
        return warn("incidents", message)
    reasons = {blocking_reason(incident) for incident in found if not is_transient(incident)}
    causes = {"" if reason is None else _CAUSE_LINES.get(reason, "") for reason in reasons}
    return fail("incidents", message, cause=causes.pop() if len(causes) == 1 else "")


def _breaker(vendor: VendorState) -> CheckResult:
    opened = [blocker for blocker in vendor_blockers(vendor) if blocker.kind is BlockerKind.BREAKER]
    return fail("breaker", describe_all(opened)) if opened else ok("breaker", "closed")


def _vendor_form(connection: Connection) -> CheckResult:
    """Warn about new fields in Songstats' answers. A missing one or another type opens the breaker, which has its own line."""
    found = songstats_ledger.get_latest_drift(connection)
    if found is None:
        return ok("answers", "Songstats' answers have the form of the earlier ones")
    at, drift = found
    if drift.is_serious:
        return warn("answers", f"{utc_minute(at)}: {drift.reason}")
    names = ", ".join(drift.new)
    return warn(
        "answers", f"{utc_minute(at)}: Songstats' answers have new fields: {names}. They are stored, and not read"
    )


def _clock(connection: Connection, environment: CliEnvironment) -> CheckResult:
    """Check for stored times in the future, which appear if the clock of the database server was set back."""
    found = clock.list_future_times(connection, requests_per_second=environment.settings.songstats_requests_per_second)
    if not found:
        return ok("clock", "no stored time is in the future")
    listed = ", ".join(
        f"{times.what} ({counted(times.rows, 'row')}, up to {output.format_value(times.latest)})" for times in found
    )
    return warn(
        "clock",
        f"stored times are ahead of the database's clock, which was set back: {listed}. Check the server's time service; "
        "`measurement-pipeline reclaim` corrects times that delay work",
    )


def _budget(connection: Connection, environment: CliEnvironment) -> CheckResult:
    budget = songstats_ledger.budget(connection, hits_allowed=environment.settings.hits_allowed)
    used = budget_blocker(budget)
    return ok("budget", output.format_budget(budget)) if used is None else warn("budget", describe(used))


def _read_instance_states(environment: CliEnvironment) -> tuple[InstanceState, InstanceState, InstanceState]:
    """Read the sensor and job states of backfill, intake and capture; unknown if Dagster's storage is unreachable."""
    try:
        with open_dagster_instance(environment) as instance:
            from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
            from measurement_pipeline.defs.instance_status import read_instance_state

            return (
                read_instance_state(
                    instance, sensor=_BACKFILL_SENSOR, job="songstats_backfill", asset=SONGSTATS_HISTORY
                ),
                read_instance_state(instance, sensor=_INTAKE_SENSOR, job="measurement_job_intake"),
                read_instance_state(instance, sensor=_CAPTURE_SENSOR, job="play_count_capture"),
            )
    except CommandError:
        return (
            InstanceState(sensor=_BACKFILL_SENSOR),
            InstanceState(sensor=_INTAKE_SENSOR),
            InstanceState(sensor=_CAPTURE_SENSOR),
        )


def _queue(connection: Connection, environment: CliEnvironment, instance: InstanceState) -> CheckResult:
    state = health.read_backfill_state(
        connection,
        hits_allowed=environment.settings.hits_allowed,
        operators_account=environment.settings.backfill_account_id,
    )
    buying = state.backlog
    alarm_hours = environment.settings.silence_alarm_hours
    found = stall_checks.backfill_is_progressing(state, instance, alarm_hours=alarm_hours)
    oldest = "" if buying.oldest_waiting is None else f"; the oldest since {output.format_value(buying.oldest_waiting)}"
    unpaid = buying.waiting - buying.payable
    unpaid_note = f"; {unpaid:,} of them wait for an account with a card on file" if unpaid else ""
    return _to_check_result("queue", found, f"{oldest}{unpaid_note}")


def _requests(connection: Connection, environment: CliEnvironment, instance: InstanceState) -> CheckResult:
    alarm_hours = environment.settings.silence_alarm_hours
    answering = health.read_intake_progress(connection)
    return _to_check_result(
        "requests", stall_checks.intake_is_progressing(answering, instance, alarm_hours=alarm_hours)
    )


def _captures(connection: Connection, environment: CliEnvironment, instance: InstanceState) -> CheckResult:
    """Check captures and the pauses of their vendors; a pause matters even without an open capture."""
    capturing = health.read_capture_progress(connection)
    found = stall_checks.captures_are_progressing(
        capturing, instance, alarm_hours=environment.settings.silence_alarm_hours
    )
    result = _to_check_result("captures", found)
    more = []
    if found.passed and capturing.oldest is not None:
        more.append(f"the oldest since {output.format_value(capturing.oldest)}")
    pauses = {name: vendor_state.get_pause(connection, vendor) for name, vendor in _CAPTURE_VENDORS.items()}
    # Each reason is shown once: a waiting capture may have the same reason as the pause, and so may the health result.
    reasons = {name: pause.reason for name, pause in pauses.items() if pause is not None}
    if found.passed and capturing.error and capturing.error not in reasons.values():
        more.append(f"the oldest error: {capturing.error}")
    more += [
        f"{name} is paused until {output.format_value(pause.until)}"
        + ("" if pause.reason in result.message else f": {pause.reason}")
        for name, pause in pauses.items()
        if pause is not None
    ]
    waits = any(pauses.values()) or capturing.error is not None
    status = CheckStatus.WARN if waits and result.status is CheckStatus.OK else result.status
    return CheckResult(result.name, status, "; ".join([result.message, *more]))


def _to_check_result(name: str, found: HealthResult, more: str = "") -> CheckResult:
    if found.passed:
        return CheckResult(name, CheckStatus.WARN if found.reason else CheckStatus.OK, f"{found.message}{more}")
    # A spent budget is normal for a plan with a hit limit. The line contains the date when it ends.
    is_failure = found.should_alert and found.reason != BlockerKind.BUDGET
    cause = _CAUSE_LINES.get(BlockerKind(found.reason), "") if found.reason else ""
    return CheckResult(name, CheckStatus.FAIL if is_failure else CheckStatus.WARN, f"{found.message}{more}", cause)
