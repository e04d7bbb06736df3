"""What makes two failures one incident, and in which words it is told. Pure.

Fifty runs that fail alike are one incident: its key is where it failed and the first paragraph of why, without what changes from
one run to the next.
"""

import re
from collections.abc import Sequence

from measurement_pipeline.health.result import HealthResult, format_minute
from measurement_pipeline.postgres.incidents import Incident
from measurement_pipeline.postgres.sessions import Session

_MAX_LENGTH = 500
_MAX_SESSIONS = 5

# What differs between two failures of one kind: times, ids, ISRCs, figures; and then lists of those.
_VARIABLE_PARTS = (
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(UTC|Z|[+-]\d\d:?\d\d))?"),
    re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE),
    re.compile(r"\b[A-Z]{2}[A-Z0-9]{3}\d{7}\b"),
    re.compile(r"\b(0x)?(?=[0-9a-f]*\d)[0-9a-f]{6,}\b", re.IGNORECASE),
    re.compile(r"\d+([.,:]\d+)*"),
    re.compile(r"…([\s,;'\"]*…)+"),
)
# One of them is none the less the same.
_PLURAL = re.compile(r"(… (?:recording|request|row|hit|call|account))s\b")
# Where what is worth telling ends: at a blank line, a traceback, or the mark below a statement that PostgreSQL shows.
_REST = re.compile(r"\n\s*(?:\n|Traceback \(|\^\s*(?:\n|$))")
_MODULE = re.compile(r"^(\w+\.)+(?=[A-Z]\w*: )")
_LOGIN = re.compile(r"(?<=://)[^/\s@]*@")


def incident_key(job: str, line: str) -> str:
    """What makes two failures the same incident."""
    for changing in _VARIABLE_PARTS:
        line = changing.sub("…", line)
    line = _PLURAL.sub(r"\1", line)
    return f"{job}: {line}"


def summarize_error(text: str) -> str:
    """The first paragraph of an error in one line, of a length to be read.

    Without its class's module, a traceback, or a login that an address carries.
    """
    first = _REST.split(text.strip(), maxsplit=1)[0]
    plain = _LOGIN.sub("", _MODULE.sub("", " ".join(first.split()) or "no reason was given"))
    return plain if len(plain) <= _MAX_LENGTH else plain[: _MAX_LENGTH - 1] + "…"


def describe_failure(job: str, line: str, *, run: str) -> str:
    """The message about a run that failed."""
    return f"{job} failed: {line}\nLook at run {run[:8]} in Dagster (Runs); its last line says more."


def is_lock_timeout(line: str) -> bool:
    """Whether a failure was a statement that gave up waiting for a lock."""
    return "LockNotAvailable" in line or "lock timeout" in line


def describe_session(session: Session) -> str:
    """One session for a person: process, login, application, what it does, since when."""
    lock = ", holds an advisory lock" if session.has_advisory_lock else ""
    who = f"process {session.pid} (login {session.login}, {session.application})"
    if session.since is None or session.age_seconds is None:
        return f"{who}: {session.state}{lock}"
    return f"{who}: {session.state}{lock}, since {format_minute(session.since)} ({session.age_seconds / 60:,.0f} min)"


def describe_lock_holders(sessions: Sequence[Session]) -> str:
    """What is added to a failure that waited for a lock: the sessions that may hold it."""
    if not sessions:
        return "The session that held the lock has ended meanwhile."
    shown = "; ".join(describe_session(session) for session in sessions[:_MAX_SESSIONS])
    return f"Sessions that may hold the lock: {shown}. End one with `select pg_terminate_backend(<process>)`."


def describe_result(check: str, result: HealthResult) -> str:
    """The message about a check that fails."""
    return f"{result.message}\nThe check {check} says so (Dagster, Checks)."


def alert_text(incident: Incident) -> str:
    """What a person reads: what, where to look, since when."""
    since = f"Since {format_minute(incident.opened_at)}"
    times = f", {incident.times} times by now" if incident.times > 1 else ""
    over = "" if incident.ended_at is None else f"; over since {format_minute(incident.ended_at)}"
    return f"{incident.what} {since}{times}{over}."
