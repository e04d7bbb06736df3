"""Record and end incidents, and post alerts about them. `messages` has their keys and texts.

An incident is first written to the table and then posted, so that an unavailable webhook loses no alert.
"""

import time
from collections.abc import Callable

from measurement_pipeline.domain.backfill_queue import BREAKER_OPENED
from measurement_pipeline.domain.blockers import BlockerKind
from measurement_pipeline.health.messages import (
    alert_text,
    describe_failure,
    describe_lock_holders,
    describe_result,
    incident_key,
    is_lock_timeout,
)
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres import incidents, sessions
from measurement_pipeline.postgres.database import Connection, connect, transaction_with_timeout
from measurement_pipeline.postgres.incidents import Incident, OpenIncident
from measurement_pipeline.vendors.errors import UnavailableError

_TIMEOUT_SECONDS = 10.0

# Limits of one `send_alerts` call. One tick of the run-failure sensor handles up to five failures, each with such a call, and the
# tick has a minute. A webhook accepts about one message a second.
_MAX_ALERTS = 10
_ALERT_SECONDS = 5.0

# Prefix of the incident keys of checks. Those of runs begin with the job's name.
_CHECK_PREFIX = "check "


def record_failure(database_url: str, job: str, line: str, *, run: str) -> None:
    """Record a failed run: open an incident, or count it in an open one.

    A job that fails now and then causes one alert. Each opening of the breaker causes an alert, since a person closed it before.
    After a lock timeout the incident names sessions that may hold the lock. Raises `StatementTimeout` if the table is locked.
    """
    same_within_hours = 0 if BREAKER_OPENED in line else incidents.SAME_WITHIN_HOURS
    # With a timeout, so that the lock that fails runs cannot block their alert: the caller then posts it without the table.
    with connect(database_url) as connection, transaction_with_timeout(connection, seconds=_TIMEOUT_SECONDS):
        what = describe_failure(job, line, run=run)
        if is_lock_timeout(line):
            what = f"{what} {describe_lock_holders(sessions.list_likely_blockers(connection))}"
        incidents.record(connection, key=incident_key(job, line), what=what, same_within_hours=same_within_hours)


def record_success(database_url: str, job: str) -> None:
    """Record a successful run: end the incidents of its job."""
    with connect(database_url) as connection:
        incidents.end_by_source(connection, source=f"{job}: ")


def is_transient(incident: OpenIncident) -> bool:
    """Return whether the incident may end by itself: a run that failed once, or a spent budget, which has a known end."""
    if incident.key.startswith(_CHECK_PREFIX):
        return blocking_reason(incident) is BlockerKind.BUDGET
    return incident.times == 1


def blocking_reason(incident: OpenIncident) -> BlockerKind | None:
    """Return what blocks purchases according to a check's incident; None if the incident is about something else."""
    if not incident.key.startswith(_CHECK_PREFIX):
        return None
    _, _, reason = incident.key.rpartition(": ")
    return BlockerKind(reason) if reason in set(BlockerKind) else None


def record_result(database_url: str, check: str, result: HealthResult) -> None:
    """Record a check's result: open an incident if it should alert, end the check's incidents if it passed.

    Another reason opens another incident and ends none, so that a check that alternates between two reasons alerts once for each.
    """
    source = f"{_CHECK_PREFIX}{check}: "
    with connect(database_url) as connection:
        if result.passed:
            incidents.end_by_source(connection, source=source)
        elif result.should_alert:
            incidents.record(connection, key=source + result.reason, what=describe_result(check, result))


def end_songstats_incidents(connection: Connection) -> None:
    """End incidents about breaker and pause, because an operator ended these. The next check would end them later."""
    for reason in (BlockerKind.BREAKER, BlockerKind.PAUSE, BlockerKind.VENDOR):
        incidents.end_by_source(connection, source=f"{_CHECK_PREFIX}backfill_is_progressing: {reason.value}")


def send_alerts(
    database_url: str, post: Callable[[str], None] | None, *, clock: Callable[[], float] = time.monotonic
) -> int:
    """Post incidents that were not posted yet, oldest first; return their number. Without a webhook post nothing.

    If the webhook rejects one, continue with the others, then raise the first error. Stop after a number of messages or seconds:
    the next call continues.
    """
    if post is None:
        return 0
    sent, last_id, first_error = 0, 0, None
    deadline = clock() + _ALERT_SECONDS

    def send(incident: Incident) -> None:
        nonlocal last_id
        last_id = incident.id
        post(alert_text(incident))

    with connect(database_url) as connection:
        while sent < _MAX_ALERTS and clock() < deadline:
            try:
                if not incidents.post_next(connection, send, after=last_id):
                    break
                sent += 1
            except UnavailableError as error:
                first_error = first_error or error
    if first_error is not None:
        raise first_error
    return sent
