"""When an incident is seen, when it is over, and how it is told. Its key and its words are in `wording`.

It is written to the table first and told from there, so that a webhook that is away loses nothing.
"""

import time
from collections.abc import Callable

from measurement_pipeline.domain.backfill_queue import BREAKER_OPENED
from measurement_pipeline.health.messages import (
    alert_text,
    describe_failure,
    describe_lock_holders,
    describe_result,
    incident_key,
    is_lock_timeout,
)
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.health.stall_checks import Reason
from measurement_pipeline.postgres import incidents, sessions
from measurement_pipeline.postgres.database import Connection, connect, transaction_with_timeout
from measurement_pipeline.postgres.incidents import Incident, OpenIncident
from measurement_pipeline.vendors.errors import UnavailableError

_TIMEOUT_SECONDS = 10.0

# What one call of `tell` may do. Dagster hands a tick of the run-failure sensor up to five failures, each tells, and the tick has
# a minute; and a webhook takes about one message a second.
_MAX_ALERTS = 10
_ALERT_SECONDS = 5.0

# How the keys of what checks say begin; those of runs begin with a job's name.
_CHECK_PREFIX = "check "


def record_failure(database_url: str, job: str, line: str, *, run: str) -> None:
    """A run failed: a new incident, or one more of an open one.

    A job that fails now and then is told once. An opening of the breaker is told each time, since a person closed the last one.
    After a lock timeout the incident names sessions that may hold the lock. Raises `StatementTimeout` if the table is locked.
    """
    same_within_hours = 0 if BREAKER_OPENED in line else incidents.SAME_WITHIN_HOURS
    # A lock that fails runs must not keep the alert about them: the caller posts it without the table then.
    with connect(database_url) as connection, transaction_with_timeout(connection, seconds=_TIMEOUT_SECONDS):
        what = describe_failure(job, line, run=run)
        if is_lock_timeout(line):
            what = f"{what} {describe_lock_holders(sessions.list_likely_blockers(connection))}"
        incidents.record(connection, key=incident_key(job, line), what=what, same_within_hours=same_within_hours)


def record_success(database_url: str, job: str) -> None:
    """A run succeeded: the incidents of its job end."""
    with connect(database_url) as connection:
        incidents.end_by_source(connection, source=f"{job}: ")


def is_transient(incident: OpenIncident) -> bool:
    """Whether it may: a run that failed once, or a spent budget, whose next hit has a date. Other failures of checks do not."""
    if incident.key.startswith(_CHECK_PREFIX):
        return blocking_reason(incident) is Reason.BUDGET
    return incident.times == 1


def blocking_reason(incident: OpenIncident) -> Reason | None:
    """What stops buying according to a check's incident; None where it is about something else."""
    if not incident.key.startswith(_CHECK_PREFIX):
        return None
    _, _, reason = incident.key.rpartition(": ")
    return Reason(reason) if reason in set(Reason) else None


def record_result(database_url: str, check: str, result: HealthResult) -> None:
    """A check fails, and not only for a while: an incident. It passes: what it said is over.

    Another reason is another incident and ends none, so that a check that goes back and forth between two tells each once.
    """
    source = f"{_CHECK_PREFIX}{check}: "
    with connect(database_url) as connection:
        if result.passed:
            incidents.end_by_source(connection, source=source)
        elif result.should_alert:
            incidents.record(connection, key=source + result.reason, what=describe_result(check, result))


def end_songstats_incidents(connection: Connection) -> None:
    """A person closed the breaker or ended the pause: incidents with these reasons end now, not at the next check."""
    for reason in (Reason.BREAKER, Reason.PAUSE, Reason.VENDOR):
        incidents.end_by_source(connection, source=f"{_CHECK_PREFIX}backfill_is_progressing: {reason.value}")


def send_alerts(
    database_url: str, post: Callable[[str], None] | None, *, clock: Callable[[], float] = time.monotonic
) -> int:
    """Tell what was not told yet, oldest first; how many. Without a webhook nothing is told.

    One that the webhook refuses does not keep the others from being told; then, at the end, it raises what `post` raised first.
    Stops after a few messages, and after a few seconds: the next call goes on.
    """
    if post is None:
        return 0
    told, seen, refused = 0, 0, None
    deadline = clock() + _ALERT_SECONDS

    def send(incident: Incident) -> None:
        nonlocal seen
        seen = incident.id
        post(alert_text(incident))

    with connect(database_url) as connection:
        while told < _MAX_ALERTS and clock() < deadline:
            try:
                if not incidents.post_next(connection, send, after=seen):
                    break
                told += 1
            except UnavailableError as error:
                refused = refused or error
    if refused is not None:
        raise refused
    return told
