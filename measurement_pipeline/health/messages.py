"""Incident keys and alert texts. Pure.

Fifty runs that fail for the same reason are one incident. Its key is the job and the first paragraph of the error, without the
parts that differ between runs.
"""

import re
from collections.abc import Sequence

from measurement_pipeline.domain.text import utc_minute
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres.incidents import Incident
from measurement_pipeline.postgres.sessions import Session

_MAX_LENGTH = 500
_MAX_SESSIONS = 5

# Parts that differ between failures of one kind: times, ids, ISRCs, numbers; last, lists of those.
_VARIABLE_PARTS = (
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(UTC|Z|[+-]\d\d:?\d\d))?"),
    re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE),
    re.compile(r"\b[A-Z]{2}[A-Z0-9]{3}\d{7}\b"),
    re.compile(r"\b(0x)?(?=[0-9a-f]*\d)[0-9a-f]{6,}\b", re.IGNORECASE),
    re.compile(r"\d+([.,:]\d+)*"),
    re.compile(r"…([\s,;'\"]*…)+"),
)
# Singular and plural are the same failure.
_PLURAL = re.compile(r"(… (?:recording|request|row|hit|call|account))s\b")
# End of the first paragraph: a blank line, a traceback, or the mark below a statement that PostgreSQL shows.
_REST = re.compile(r"\n\s*(?:\n|Traceback \(|\^\s*(?:\n|$))")
_MODULE = re.compile(r"^(\w+\.)+(?=[A-Z]\w*: )")
_LOGIN = re.compile(r"(?<=://)[^/\s@]*@")


def incident_key(job: str, line: str) -> str:
    """Return the key of a failure. Failures with the same key are one incident."""
    for variable in _VARIABLE_PARTS:
        line = variable.sub("…", line)
    line = _PLURAL.sub(r"\1", line)
    return f"{job}: {line}"


def summarize_error(text: str) -> str:
    """Return the first paragraph of an error in one line of limited length.

    Removes the module of its class, a traceback, and the login in a URL.
    """
    paragraph = _REST.split(text.strip(), maxsplit=1)[0]
    line = _LOGIN.sub("", _MODULE.sub("", " ".join(paragraph.split()) or "no reason was given"))
    return line if len(line) <= _MAX_LENGTH else line[: _MAX_LENGTH - 1] + "…"


def describe_failure(job: str, line: str, *, run: str) -> str:
    """Return the alert for a failed run."""
    return f"{job} failed: {line}\nSee run {run[:8]} in Dagster (Runs)."


def is_lock_timeout(line: str) -> bool:
    """Return whether a run failed because a statement timed out waiting for a lock."""
    return "LockNotAvailable" in line or "lock timeout" in line


def describe_session(session: Session) -> str:
    """Describe a database session: process, login, application, state, start time."""
    lock = ", holds an advisory lock" if session.has_advisory_lock else ""
    process = f"process {session.pid} (login {session.login}, {session.application})"
    if session.since is None or session.age_seconds is None:
        return f"{process}: {session.state}{lock}"
    minutes = session.age_seconds / 60
    return f"{process}: {session.state}{lock}, since {utc_minute(session.since)} ({minutes:,.0f} min)"


def describe_lock_holders(sessions: Sequence[Session]) -> str:
    """Describe the sessions that may hold the lock a statement waited for, and how to end them."""
    if not sessions:
        return "The session that held the lock has ended."
    shown = "; ".join(describe_session(session) for session in sessions[:_MAX_SESSIONS])
    return f"Sessions that may hold the lock: {shown}. End one with `select pg_terminate_backend(<process>)`."


def describe_result(check: str, result: HealthResult) -> str:
    """Return the alert for a failed check."""
    return f"{result.message}\nReported by the check {check} (Dagster, Checks)."


def alert_text(incident: Incident) -> str:
    """Return the text of an alert: what failed, where to look, since when."""
    since = f"Since {utc_minute(incident.opened_at)}"
    times = f", {incident.times} times so far" if incident.times > 1 else ""
    ended = "" if incident.ended_at is None else f"; ended {utc_minute(incident.ended_at)}"
    return f"{incident.what} {since}{times}{ended}."
