"""The outbox of callbacks: take what is due, record the result, list, send again. The statements are in `job_callbacks.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("job_callbacks")


@dataclass(frozen=True, slots=True)
class DueCallback:
    """A callback to send now. `attempts` includes this attempt. `body`: without the callback's own id and time."""

    id: UUID
    account: UUID
    attempts: int
    body: dict[str, Any]
    created_at: datetime
    url: str


def count_due(connection: Connection) -> int:
    """How many callbacks are due."""
    return int((connection.execute(_SQL["due_count"]).fetchone() or {})["due"])


def take(connection: Connection, *, limit: int, lease_seconds: float) -> Sequence[DueCallback]:
    """Take due callbacks. Nothing else takes them before the lease ends."""
    found = connection.execute(_SQL["take"], {"limit": limit, "lease": lease_seconds})
    return [DueCallback(**row) for row in found]


def record_delivered(connection: Connection, callback: UUID, *, status_code: int) -> None:
    """Record that the receiver accepted a callback."""
    connection.execute(_SQL["delivered"], {"id": callback, "status_code": status_code})


def record_failed(
    connection: Connection, callback: UUID, *, status_code: int | None, error: str, wait_seconds: float
) -> bool:
    """Record a failed attempt. Returns whether it was the last one: three days have passed."""
    parameters = {"id": callback, "status_code": status_code, "error": error, "wait": wait_seconds}
    row = connection.execute(_SQL["failed"], parameters).fetchone()
    return row is not None and bool(row["is_abandoned"])


def resend(connection: Connection, callback: UUID) -> bool:
    """Make a callback due again, delivered or not. False: there is none with this id."""
    return connection.execute(_SQL["resend"], {"id": callback}).fetchone() is not None


def list_recent(
    connection: Connection, *, account: UUID | None = None, undelivered: bool = False, limit: int = 50
) -> list[dict[str, Any]]:
    """The latest callbacks, newest first, without addresses, which may contain a secret."""
    parameters = {"account": account, "undelivered": undelivered, "limit": limit}
    return connection.execute(_SQL["list"], parameters).fetchall()
