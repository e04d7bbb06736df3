"""The checks of the PostgreSQL server for `doctor`: its settings, and sessions that block others."""

from measurement_pipeline.cli.checks import CheckResult, fail, ok, warn
from measurement_pipeline.health.messages import describe_session
from measurement_pipeline.postgres import server_settings, sessions
from measurement_pipeline.postgres.database import Connection

_LONG_SECONDS = 300.0
_LOCK_SECONDS = 25.0
_SESSIONS_SHOWN = 3
_END_SESSION = "commit or end the transaction there, or `select pg_terminate_backend(<process>)`"


def report_timeout(connection: Connection, name: str, *, seconds: float) -> CheckResult:
    """Return a failure that names the sessions older than the timeout, because one of them may hold a lock."""
    blockers = sessions.list_long_lived(connection, seconds=seconds, lock_seconds=seconds)
    if not blockers:
        return fail(
            name, f"no answer within {seconds:g} s, and no session is old enough to block it: the server is busy"
        )
    listed = "; ".join(describe_session(session) for session in blockers[:_SESSIONS_SHOWN])
    return fail(
        name, f"no answer within {seconds:g} s; a session may hold a lock that it needs: {listed}: {_END_SESSION}"
    )


def check_encoding(connection: Connection) -> CheckResult:
    """Check that the database's encoding can store every title."""
    encoding, problem = server_settings.encoding(connection)
    return ok("encoding", encoding) if problem is None else fail("encoding", problem)


def check_durability(connection: Connection) -> CheckResult:
    """Check that committed transactions survive a crash."""
    settings = server_settings.list_not_durable(connection)
    if not settings:
        return ok("durability", "a committed transaction survives a crash")
    next_step = "set each to on with `alter system`, `alter role` or `alter database`"
    return fail("durability", f"{', '.join(settings)}: a crash can lose responses that were billed; {next_step}")


def check_isolation(connection: Connection) -> CheckResult:
    """Check that a pooler leaves single statements at read committed."""
    isolation = server_settings.find_other_isolation(connection)
    if isolation is None:
        return ok("isolation", "read committed")
    next_step = "`alter role … set default_transaction_isolation = 'read committed'` for this login"
    return warn("isolation", f"a pooler keeps single statements at {isolation}; concurrent ones can fail: {next_step}")


def check_sessions(
    connection: Connection, *, seconds: float = _LONG_SECONDS, lock_seconds: float = _LOCK_SECONDS
) -> CheckResult:
    """Check for long transactions and holders of advisory locks: they block statements, and vacuum removes no dead rows."""
    long_lived = sessions.list_long_lived(connection, seconds=seconds, lock_seconds=lock_seconds)
    hidden_logins = sessions.list_hidden_logins(connection)
    hidden = (
        f"; sessions of {', '.join(hidden_logins)} cannot be checked: `grant pg_read_all_stats` to this login"
        if hidden_logins
        else ""
    )
    if not long_lived:
        return ok("sessions", f"no transaction is older than {seconds / 60:g} min{hidden}")
    listed = "; ".join(describe_session(session) for session in long_lived[:_SESSIONS_SHOWN])
    more = f"; and {len(long_lived) - _SESSIONS_SHOWN:,} more" if len(long_lived) > _SESSIONS_SHOWN else ""
    return warn(
        "sessions", f"long transactions: {listed}{more}. They block vacuum and may block claims: {_END_SESSION}{hidden}"
    )
