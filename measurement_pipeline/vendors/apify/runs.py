"""Runs of an actor as Apify describes them, read at the door: what is needed of them is there, or nothing is known.

The rest of a run object is not looked at. It is large and changes, and a field that nobody asks for must not stand between a
run that was paid for and what it found.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from measurement_pipeline.vendors.apify.errors import UnavailableError


class RunStatus(StrEnum):
    """Where a run of an actor stands, in Apify's own words."""

    READY = "READY"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMING_OUT = "TIMING-OUT"
    TIMED_OUT = "TIMED-OUT"
    ABORTING = "ABORTING"
    ABORTED = "ABORTED"

    @property
    def has_ended(self) -> bool:
        """Whether it will change no more."""
        return self in {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.ABORTED}

    @property
    def has_succeeded(self) -> bool:
        """Whether it did what it was asked for."""
        return self is RunStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class ActorRun:
    """One run of the actor, as it stood when it was looked at. `message` is the actor's own word on how it goes."""

    id: str
    status: RunStatus
    message: str | None
    dataset_id: str | None
    started_at: datetime | None
    finished_at: datetime | None


def read_data(body: bytes) -> Any:
    """What an answer holds below `data`. Raises UnavailableError where it cannot be read."""
    found = parse_json(body)
    if not isinstance(found, dict) or "data" not in found:
        raise UnavailableError("Apify's answer cannot be read: expected an object with `data`")
    return found["data"]


def read_run_list(body: bytes) -> list[Any]:
    """The items of a page of a list of runs. Raises UnavailableError where it cannot be read."""
    page = read_data(body)
    items = page.get("items") if isinstance(page, dict) else None
    if not isinstance(items, list):
        raise UnavailableError("Apify's answer cannot be read: expected a list of runs")
    return items


def parse_json(body: bytes) -> Any:
    """The JSON value of a body. Raises UnavailableError where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UnavailableError("Apify's answer cannot be read: expected JSON") from None


def read_run(run: Any) -> ActorRun:
    """One run. Raises UnavailableError where its id or status cannot be read."""
    identity = read_text(run, "id")
    status = read_text(run, "status")
    if status is not None:
        status = status.strip().upper().replace("_", "-")
    if identity is None:
        raise UnavailableError("Apify's answer cannot be read: expected a run with an `id`")
    if status not in set(RunStatus):
        raise UnavailableError(f"the status of Apify's run {identity} is none that is known: {status}")
    return ActorRun(
        id=identity,
        status=RunStatus(status),
        message=read_text(run, "statusMessage"),
        dataset_id=read_text(run, "defaultDatasetId"),
        started_at=_moment(run, "startedAt"),
        finished_at=_moment(run, "finishedAt"),
    )


def read_text(of: object, name: str) -> str | None:
    """A text of an object; None where it is missing, empty, or anything else."""
    found = of.get(name) if isinstance(of, dict) else None
    return found if isinstance(found, str) and found else None


def _moment(of: object, name: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(read_text(of, name) or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None
