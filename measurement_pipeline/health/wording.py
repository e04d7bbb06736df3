"""What makes two failures one incident, and in which words it is told. Pure.

Fifty runs that fail alike are one incident: its key is where it failed and the first paragraph of why, without what changes from
one run to the next.
"""

import re

from measurement_pipeline.health.finding import Finding, at
from measurement_pipeline.postgres.incidents import Incident

_LONGEST_LINE = 500

# What differs between two failures of one kind: times, ids, ISRCs, figures; and then lists of those.
_CHANGING = (
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(UTC|Z|[+-]\d\d:?\d\d))?"),
    re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE),
    re.compile(r"\b[A-Z]{2}[A-Z0-9]{3}\d{7}\b"),
    re.compile(r"\b(0x)?(?=[0-9a-f]*\d)[0-9a-f]{6,}\b", re.IGNORECASE),
    re.compile(r"\d+([.,:]\d+)*"),
    re.compile(r"…([\s,;'\"]*…)+"),
)
# One of them is none the less the same.
_SEVERAL = re.compile(r"(… (?:recording|request|row|hit|call|account))s\b")
# Where what is worth telling ends: at a blank line, a traceback, or the mark below a statement that PostgreSQL shows.
_REST = re.compile(r"\n\s*(?:\n|Traceback \(|\^\s*(?:\n|$))")
_MODULE = re.compile(r"^(\w+\.)+(?=[A-Z]\w*: )")
_LOGIN = re.compile(r"(?<=://)[^/\s@]*@")


def key_of(job: str, line: str) -> str:
    """What makes two failures the same incident."""
    for changing in _CHANGING:
        line = changing.sub("…", line)
    line = _SEVERAL.sub(r"\1", line)
    return f"{job}: {line}"


def one_line(text: str) -> str:
    """The first paragraph of an error in one line, of a length to be read.

    Without its class's module, a traceback, or a login that an address carries.
    """
    first = _REST.split(text.strip(), maxsplit=1)[0]
    plain = _LOGIN.sub("", _MODULE.sub("", " ".join(first.split()) or "no reason was given"))
    return plain if len(plain) <= _LONGEST_LINE else plain[: _LONGEST_LINE - 1] + "…"


def about_failure(job: str, line: str, *, run: str) -> str:
    """The message about a run that failed."""
    return f"{job} failed: {line}\nLook at run {run[:8]} in Dagster (Runs); its last line says more."


def about_finding(check: str, finding: Finding) -> str:
    """The message about a check that fails."""
    return f"{finding.words}\nThe check {check} says so (Dagster, Checks)."


def message(incident: Incident) -> str:
    """What a person reads: what, where to look, since when."""
    since = f"Since {at(incident.opened_at)}"
    times = f", {incident.times} times by now" if incident.times > 1 else ""
    over = "" if incident.ended_at is None else f"; over since {at(incident.ended_at)}"
    return f"{incident.what} {since}{times}{over}."
