"""Other sessions of the measurement database that may block ours: long transactions, advisory locks. Read-only."""

from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("sessions")

# `reserve` and migrations wait at most 30 s for a lock, so a session that blocked them is at least about that old.
_LOCK_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class Session:
    """A session. `state` is PostgreSQL's; `since` and `age_seconds` are None if this login may not see them."""

    pid: int
    login: str
    application: str
    state: str
    since: datetime | None
    age_seconds: float | None
    has_advisory_lock: bool


def list_long_lived(connection: Connection, *, seconds: float, lock_seconds: float = _LOCK_SECONDS) -> list[Session]:
    """Sessions whose transaction has been open for `seconds`, or that hold an advisory lock for `lock_seconds`; oldest first."""
    parameters = {"seconds": seconds, "lock_seconds": lock_seconds}
    return [Session(**row) for row in connection.execute(_SQL["long_lived"], parameters)]


def list_likely_blockers(connection: Connection) -> list[Session]:
    """Sessions old enough to have blocked a statement that has just timed out after 30 s."""
    return list_long_lived(connection, seconds=_LOCK_SECONDS)


def list_hidden_logins(connection: Connection) -> list[str]:
    """Logins with sessions on this database whose state is hidden from this login."""
    row = connection.execute(_SQL["hidden_logins"]).fetchone()
    return [] if row is None or row["logins"] is None else list(row["logins"])
