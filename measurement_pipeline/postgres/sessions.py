"""Other sessions on the measurement database that may block ours: long transactions and holders of advisory locks. Only reads."""

from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("sessions")

# `reserve` and migrations give up waiting for a lock after 30 s: a session that made them wait has been there for longer.
_LOCK_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class Session:
    """A session: who it is, what it does (PostgreSQL's `state`), since when.

    `since` and `age_seconds` are None where this login may not see them.
    """

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
    """Sessions old enough to be what a statement waited for that has just given up after 30 s."""
    return list_long_lived(connection, seconds=_LOCK_SECONDS)


def list_hidden_logins(connection: Connection) -> list[str]:
    """Logins with sessions on this database whose state this login may not see."""
    row = connection.execute(_SQL["hidden_logins"]).fetchone()
    return [] if row is None or row["logins"] is None else list(row["logins"])
