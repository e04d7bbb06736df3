"""What is an incident, in which words it is told, and when it is over.

Fifty runs that fail alike are one incident: its key is where it failed and the first line of why, without what changes from one
run to the next. It is written to the table first and told from there, so that a webhook that is away loses nothing.
"""

import re
import time
from collections.abc import Callable

from measurement_pipeline.alerts.webhook import WebhookError
from measurement_pipeline.health.finding import Finding, at
from measurement_pipeline.postgres import incidents
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.postgres.incidents import Incident

_LONGEST_LINE = 300

# What one call of `tell` may do. Dagster hands a tick of the run-failure sensor up to five failures, each tells, and the tick has
# a minute; and a webhook takes about one message a second.
_MOST_TOLD = 10
_TELLING_SECONDS = 5.0

# What differs between two failures of one kind: times, ids, ISRCs, figures; and then lists of those.
_CHANGING = (
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(UTC|Z|[+-]\d\d:?\d\d))?"),
    re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE),
    re.compile(r"\b[A-Z]{2}[A-Z0-9]{3}\d{7}\b"),
    re.compile(r"\b(0x)?(?=[0-9a-f]*\d)[0-9a-f]{6,}\b", re.IGNORECASE),
    re.compile(r"\d+([.,:]\d+)*"),
    re.compile(r"…([\s,;]*…)+"),
)
_MODULE = re.compile(r"^(\w+\.)+(?=[A-Z]\w*: )")
_LOGIN = re.compile(r"(?<=://)[^/\s@]*@")


def key_of(job: str, line: str) -> str:
    """What makes two failures the same incident."""
    for changing in _CHANGING:
        line = changing.sub("…", line)
    return f"{job}: {line}"


def one_line(text: str) -> str:
    """The first line of an error, of a length to be read: without its class's module, or a login that an address carries."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no reason was given")
    plain = _LOGIN.sub("", _MODULE.sub("", first))
    return plain if len(plain) <= _LONGEST_LINE else plain[: _LONGEST_LINE - 1] + "…"


def about_failure(job: str, line: str, *, run: str) -> str:
    """The message about a run that failed."""
    return f"{job} failed: {line}\nLook at run {run[:8]} in Dagster (Runs); its last line says more."


def see_failure(database_url: str, job: str, line: str, *, run: str) -> None:
    """A run failed: a new incident, or one more of an open one."""
    with connect(database_url) as connection:
        incidents.see(connection, key=key_of(job, line), what=about_failure(job, line, run=run))


def see_finding(database_url: str, check: str, finding: Finding) -> None:
    """A check fails, and not only for a while: an incident. It passes: what it said is over.

    Another reason is another incident and ends none, so that a check that goes back and forth between two tells each once.
    """
    source = f"check {check}: "
    with connect(database_url) as connection:
        if finding.passed:
            incidents.end(connection, source=source)
        elif finding.serious:
            what = f"{finding.words}\nThe check {check} of songstats_history says so (Dagster, Checks)."
            incidents.see(connection, key=source + finding.reason, what=what)


def tell(database_url: str, post: Callable[[str], None] | None, *, clock: Callable[[], float] = time.monotonic) -> int:
    """Tell what was not told yet, oldest first; how many. Without a webhook nothing is told.

    One that the webhook refuses does not keep the others from being told; then, at the end, it raises what `post` raised first.
    Stops after a few messages, and after a few seconds: the next call goes on.
    """
    if post is None:
        return 0
    told, seen, refused = 0, 0, None
    deadline = clock() + _TELLING_SECONDS

    def send(incident: Incident) -> None:
        nonlocal seen
        seen = incident.id
        post(message(incident))

    with connect(database_url) as connection:
        while told < _MOST_TOLD and clock() < deadline:
            try:
                if not incidents.tell_next(connection, send, after=seen):
                    break
                told += 1
            except WebhookError as error:
                refused = refused or error
    if refused is not None:
        raise refused
    return told


def message(incident: Incident) -> str:
    """What a person reads: what, where to look, since when."""
    since = f"Since {at(incident.opened_at)}"
    times = f", {incident.times} times by now" if incident.times > 1 else ""
    over = "" if incident.ended_at is None else f"; over since {at(incident.ended_at)}"
    return f"{incident.what} {since}{times}{over}."
