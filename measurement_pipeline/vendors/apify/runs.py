"""Parses actor runs. Only the fields that the pipeline uses are read.

A run object is large and changes often. An unknown field must not prevent reading the result of a run that has been paid for.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from measurement_pipeline.vendors.errors import UnexpectedResponseError

# A larger cost of one run is a mistake.
_MAX_COST_USD = 10_000


class RunStatus(StrEnum):
    """Apify's status of an actor run."""

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
        """Whether the status is final."""
        return self in {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.ABORTED}

    @property
    def has_succeeded(self) -> bool:
        """Whether the run completed its task."""
        return self is RunStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class ActorRun:
    """One actor run when it was read. `message` is the actor's own status message.

    `cost_usd`: the cost that the run reports, in US dollars; None if it reports none.
    """

    id: str
    status: RunStatus
    message: str | None
    dataset_id: str | None
    started_at: datetime | None
    finished_at: datetime | None
    cost_usd: Decimal | None = None


def read_data(body: bytes) -> Any:
    """The value of `data` in a response. Raises UnexpectedResponseError."""
    payload = parse_json(body)
    if not isinstance(payload, dict) or "data" not in payload:
        raise unexpected("expected an object with `data`")
    return payload["data"]


def read_run_list(body: bytes) -> list[Any]:
    """The items of one page of runs. Raises UnexpectedResponseError."""
    page = read_data(body)
    items = page.get("items") if isinstance(page, dict) else None
    if not isinstance(items, list):
        raise unexpected("expected a list of runs")
    return items


def parse_json(body: bytes) -> Any:
    """The JSON value of a body. Raises UnexpectedResponseError."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise unexpected("expected JSON") from None


def read_run(run: Any) -> ActorRun:
    """One run. Raises UnexpectedResponseError if it lacks an id or a known status."""
    run_id = read_text(run, "id")
    status = read_text(run, "status")
    if status is not None:
        status = status.strip().upper().replace("_", "-")
    if run_id is None:
        raise unexpected("expected a run with an `id`")
    if status not in set(RunStatus):
        raise unexpected(f"run {run_id} has the unknown status {status}")
    return ActorRun(
        id=run_id,
        status=RunStatus(status),
        message=read_text(run, "statusMessage"),
        dataset_id=read_text(run, "defaultDatasetId"),
        started_at=_read_time(run, "startedAt"),
        finished_at=_read_time(run, "finishedAt"),
        cost_usd=_read_cost(run),
    )


def read_text(record: object, name: str) -> str | None:
    """A text field of an object; None if it is missing, empty or of another type."""
    value = record.get(name) if isinstance(record, dict) else None
    return value if isinstance(value, str) and value else None


def unexpected(problem: str) -> UnexpectedResponseError:
    """The error for a response of Apify in another shape than documented."""
    return UnexpectedResponseError("Apify", problem)


def _read_cost(record: object) -> Decimal | None:
    """The cost that a run reports. 0 counts as not reported yet: Apify sums it up after the run."""
    value = record.get("usageTotalUsd") if isinstance(record, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < _MAX_COST_USD:
        return None
    return round(Decimal(str(value)), 6)


def _read_time(record: object, name: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(read_text(record, name) or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None
