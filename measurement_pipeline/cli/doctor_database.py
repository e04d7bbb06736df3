"""The checks of the measurement database: is it reachable, is it this deployment's, and does anything stop buying."""

from collections.abc import Callable, Iterator
from datetime import timedelta

from measurement_pipeline.cli import output
from measurement_pipeline.cli.breaker_command import NEXT_STEP
from measurement_pipeline.cli.checks import CheckResult, CheckStatus, fail, ok, warn
from measurement_pipeline.cli.dagster_instance import open_dagster_instance
from measurement_pipeline.cli.environment import CliEnvironment
from measurement_pipeline.domain.text import counted
from measurement_pipeline.health import stall_checks
from measurement_pipeline.health.incidents import blocking_reason, is_transient
from measurement_pipeline.health.messages import describe_session
from measurement_pipeline.health.result import HealthResult, format_minute
from measurement_pipeline.health.stall_checks import InstanceState, Reason
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import (
    clock,
    health,
    incidents,
    migrate,
    server_settings,
    sessions,
    songstats_ledger,
    vendor_state,
)
from measurement_pipeline.postgres.database import Connection, StatementTimeout, transaction_with_timeout
from measurement_pipeline.postgres.songstats_ledger import VendorState

_BUYS, _ANSWERS, _CAPTURES = "backfill_queue_sensor", "measurement_job_sensor", "playcount_snapshot_sensor"

# Whom captures ask.
_PAUSED = {"Apify": "apify", "Spotify": "spotify"}

_LONG_SECONDS = 300.0
_LOCK_SECONDS = 25.0
_SESSIONS_SHOWN = 3

# Of one line's statements. The group has longer, so that a line that hangs leaves time for the others.
_LONGEST_SECONDS = 3.0

# Which line reports the cause of what stops buying, where there is such a line.
_LINE_OF = {
    Reason.DAEMON: "daemon",
    Reason.SENSOR_OFF: "sensors",
    Reason.SENSOR_FAILS: "sensors",
    Reason.BREAKER: "breaker",
    Reason.PAUSE: "pause",
    Reason.VENDOR: "pause",
    Reason.BUDGET: "budget",
    Reason.SLOT: "runs",
}

# Of many incidents, the first few: the command has them all.
_INCIDENTS_TOLD = 3

_ASKED_OF_OURS = ("incidents", "breaker", "pause", "clock", "budget", "queue", "requests", "captures")
_NOT_ASKED = "not asked: the database has no schema of this version, or is another deployment's"


def check_database(environment: CliEnvironment, *, seconds: float = _LONGEST_SECONDS) -> Iterator[CheckResult]:
    """The database's part, one line each. No statement of a line may take longer than `seconds`."""
    with environment.connect() as connection:
        yield ok("database", f"reached: {environment.database_location}")

        def check(name: str, make: Callable[[], CheckResult]) -> CheckResult:
            try:
                with transaction_with_timeout(connection, seconds=seconds):
                    return make()
            except StatementTimeout:
                return _no_answer(connection, name, seconds=seconds)

        is_ours = True
        for line in (check("schema", lambda: _schema(environment)), check("stamp", lambda: _stamp(environment))):
            is_ours &= line.status is CheckStatus.OK
            yield line
        yield check("encoding", lambda: _encoding(connection))
        yield check("durability", lambda: _durability(connection))
        yield check("isolation", lambda: _isolation(connection))
        yield check("sessions", lambda: check_sessions(connection))
        if not is_ours:
            yield from (warn(name, _NOT_ASKED) for name in _ASKED_OF_OURS)
            return
        yield check("incidents", lambda: _incidents(connection))
        vendor = songstats_ledger.vendor_state(connection)
        yield _breaker(vendor)
        yield _pause(vendor, alarm_hours=environment.settings.silence_alarm_hours)
        yield check("clock", lambda: _clock(connection, environment))
        yield check("budget", lambda: _budget(connection, environment))
        buys, answers, captures = _machines(environment)
        yield check("queue", lambda: _queue(connection, environment, vendor, buys))
        yield check("requests", lambda: _requests(connection, environment, answers))
        yield check("captures", lambda: _captures(connection, environment, captures))


def _no_answer(connection: Connection, name: str, *, seconds: float) -> CheckResult:
    """A line without an answer. The sessions that have been there for as long as it waited are named: one may hold a lock."""
    found = sessions.list_long_lived(connection, seconds=seconds, lock_seconds=seconds)
    if not found:
        return fail(name, f"no answer within {seconds:g} s, and no session is old enough to block it: a busy server")
    shown = "; ".join(describe_session(session) for session in found[:_SESSIONS_SHOWN])
    cure = "commit or end the transaction there, or `select pg_terminate_backend(<process>)`"
    return fail(name, f"no answer within {seconds:g} s; a session may hold a lock that it needs: {shown}: {cure}")


def _encoding(connection: Connection) -> CheckResult:
    found, unsuitable = server_settings.encoding(connection)
    return ok("encoding", found) if unsuitable is None else fail("encoding", unsuitable)


def _durability(connection: Connection) -> CheckResult:
    loose = server_settings.list_not_durable(connection)
    if not loose:
        return ok("durability", "a committed transaction outlasts a crash")
    cure = "set each to on (`alter system`, `alter role` or `alter database`, wherever it is off)"
    return fail("durability", f"{', '.join(loose)}: a crash can lose answers that were paid for; {cure}")


def _isolation(connection: Connection) -> CheckResult:
    isolation = server_settings.find_other_isolation(connection)
    if isolation is None:
        return ok("isolation", "read committed")
    cure = "`alter role … set default_transaction_isolation = 'read committed'` for this login"
    return warn("isolation", f"a pooler keeps single statements at {isolation}, and concurrent ones can fail: {cure}")


def check_sessions(
    connection: Connection, *, seconds: float = _LONG_SECONDS, lock_seconds: float = _LOCK_SECONDS
) -> CheckResult:
    """Long transactions and holders of advisory locks: our statements wait for their locks, and vacuum removes no dead rows."""
    found = sessions.list_long_lived(connection, seconds=seconds, lock_seconds=lock_seconds)
    hidden = sessions.list_hidden_logins(connection)
    unseen = (
        f"; sessions of {', '.join(hidden)} cannot be checked: `grant pg_read_all_stats` to this login"
        if hidden
        else ""
    )
    if not found:
        return ok("sessions", f"no transaction is older than {seconds / 60:g} min{unseen}")
    shown = "; ".join(describe_session(session) for session in found[:_SESSIONS_SHOWN])
    more = f"; and {len(found) - _SESSIONS_SHOWN:,} more" if len(found) > _SESSIONS_SHOWN else ""
    cure = "commit or end the transaction there, or `select pg_terminate_backend(<process>)`"
    return warn("sessions", f"long transactions: {shown}{more}. They block vacuum and may block claims: {cure}{unseen}")


def _pause(vendor: VendorState, *, alarm_hours: float) -> CheckResult:
    if vendor.pause_description is None or vendor.paused_until is None:
        return ok("pause", "none")
    if vendor.paused_until - vendor.now > timedelta(hours=alarm_hours):
        cure = "ask Songstats, and end it with `measurement-pipeline breaker close`"
        return fail("pause", f"{vendor.pause_description}; that is longer than SILENCE_ALARM_HOURS: {cure}")
    return warn("pause", f"{vendor.pause_description}; it ends by itself")


def _schema(environment: CliEnvironment) -> CheckResult:
    found, head = migrate.current_version(environment.database_url), migrate.expected_version()
    if found == head:
        return ok("schema", f"at {head}, this version's")
    return fail("schema", f"at {found or 'none'}, this version needs {head}: run `measurement-pipeline db upgrade`")


def _stamp(environment: CliEnvironment) -> CheckResult:
    found = migrate.get_stamp(environment.database_url)
    if found == environment.kind:
        return ok("stamp", found)
    if found is None:
        return fail("stamp", "none: run `measurement-pipeline db upgrade`, which stamps a new database", cause="schema")
    return fail(
        "stamp",
        f"the database is `{found}`, the vendors of these settings are `{environment.kind}`: point DATABASE_URL at a database of "
        "its own kind, or set the keys and addresses of the other vendors; never edit the stamp",
    )


def _incidents(connection: Connection) -> CheckResult:
    """Open incidents, whether or not another line shows them too."""
    found = incidents.list_open(connection)
    if not found:
        return ok("incidents", "none is open")
    told = [
        f"Since {format_minute(one.opened_at)}{f', {one.times:,} times' if one.times > 1 else ''}: {one.what}"
        for one in found[:_INCIDENTS_TOLD]
    ]
    words = f"{len(found):,} OPEN. {' '.join(told)} `measurement-pipeline incidents` lists them"
    if all(map(is_transient, found)):
        return warn("incidents", words)
    reasons = {blocking_reason(one) for one in found if not is_transient(one)}
    causes = {"" if reason is None else _LINE_OF.get(reason, "") for reason in reasons}
    return fail("incidents", words, cause=causes.pop() if len(causes) == 1 else "")


def _breaker(vendor: VendorState) -> CheckResult:
    if vendor.breaker != "open":
        return ok("breaker", "closed")
    what_to_do = NEXT_STEP[vendor.breaker_kind or "streak"]
    return fail("breaker", f"OPEN since {output.format_value(vendor.opened_at)}: {vendor.reason}; {what_to_do}")


def _clock(connection: Connection, environment: CliEnvironment) -> CheckResult:
    """Whether times are stored that are still to come: then the clock of the database server was set back."""
    found = clock.list_future_times(connection, requests_per_second=environment.settings.songstats_requests_per_second)
    if not found:
        return ok("clock", "no stored time is ahead of it")
    which = ", ".join(
        f"{one.what} ({counted(one.rows, 'row')}, up to {output.format_value(one.latest)})" for one in found
    )
    return warn(
        "clock",
        f"stored times are ahead of the database's clock, which was set back: {which}. Check the server's time service; "
        "`measurement-pipeline reclaim` corrects what would hold up work",
    )


def _budget(connection: Connection, environment: CliEnvironment) -> CheckResult:
    budget = songstats_ledger.budget(connection, hits_allowed=environment.settings.hits_allowed)
    words = output.format_budget(budget)
    if budget.left:
        return ok("budget", words)
    return warn("budget", f"SPENT: {words}; it goes on by itself, or raise SONGSTATS_HIT_LIMIT with the plan")


def _machines(environment: CliEnvironment) -> tuple[InstanceState, InstanceState, InstanceState]:
    """What Dagster shows of what buys, answers and captures, as far as it can be asked: why not is told by lines of its own."""
    try:
        with open_dagster_instance(environment) as instance:
            from measurement_pipeline.defs.instance_status import read_instance_state

            return (
                read_instance_state(instance, sensor=_BUYS, job="songstats_backfill", buys=True),
                read_instance_state(instance, sensor=_ANSWERS, job="measurement_job_intake", buys=False),
                read_instance_state(instance, sensor=_CAPTURES, job="play_count_capture", buys=False),
            )
    except CommandError:
        return InstanceState(sensor=_BUYS), InstanceState(sensor=_ANSWERS), InstanceState(sensor=_CAPTURES)


def _queue(
    connection: Connection, environment: CliEnvironment, vendor: VendorState, machine: InstanceState
) -> CheckResult:
    buying = health.buying(connection, operators_account=environment.settings.backfill_account_id)
    budget = songstats_ledger.budget(connection, hits_allowed=environment.settings.hits_allowed)
    alarm_hours = environment.settings.silence_alarm_hours
    found = stall_checks.backfill_is_progressing(buying, vendor, budget, machine, alarm_hours=alarm_hours)
    oldest = "" if buying.oldest_waiting is None else f"; the oldest since {output.format_value(buying.oldest_waiting)}"
    unpaid = buying.waiting - buying.payable
    owing = f"; {unpaid:,} of them wait for somebody with a card on file" if unpaid else ""
    return _told("queue", found, f"{oldest}{owing}")


def _requests(connection: Connection, environment: CliEnvironment, machine: InstanceState) -> CheckResult:
    alarm_hours = environment.settings.silence_alarm_hours
    answering = health.answering(connection)
    return _told("requests", stall_checks.intake_is_progressing(answering, machine, alarm_hours=alarm_hours))


def _captures(connection: Connection, environment: CliEnvironment, machine: InstanceState) -> CheckResult:
    """Also where none is open: the next one would meet the same pause."""
    capturing = health.capturing(connection)
    found = stall_checks.captures_are_progressing(
        capturing, machine, alarm_hours=environment.settings.silence_alarm_hours
    )
    told = _told("captures", found)
    more = []
    if found.passed and capturing.oldest is not None:
        more.append(f"the oldest since {output.format_value(capturing.oldest)}")
    pauses = {name: vendor_state.get_pause(connection, vendor) for name, vendor in _PAUSED.items()}
    # Each thing once: a capture that waits for a vendor says what its pause says, and so may what was found.
    reasons = {name: pause.reason for name, pause in pauses.items() if pause is not None}
    if found.passed and capturing.error and capturing.error not in reasons.values():
        more.append(f"one of them says: {capturing.error}")
    more += [
        f"{name} is left alone until {output.format_value(pause.until)}"
        + ("" if pause.reason in told.message else f": {pause.reason}")
        for name, pause in pauses.items()
        if pause is not None
    ]
    waits = any(pauses.values()) or capturing.error is not None
    verdict = CheckStatus.WARN if waits and told.status is CheckStatus.OK else told.status
    return CheckResult(told.name, verdict, "; ".join([told.message, *more]))


def _told(name: str, found: HealthResult, more: str = "") -> CheckResult:
    if found.passed:
        return CheckResult(name, CheckStatus.WARN if found.reason else CheckStatus.OK, f"{found.message}{more}")
    # A spent budget is what a plan of so many hits means, and needs no repair: its date is in the line.
    is_failure = found.should_alert and found.reason != Reason.BUDGET
    cause = _LINE_OF.get(Reason(found.reason), "") if found.reason else ""
    return CheckResult(name, CheckStatus.FAIL if is_failure else CheckStatus.WARN, f"{found.message}{more}", cause)
