"""Incidents, and whether they were told. What is one, and in which words, is `health/`; the statements are in the .sql file."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.domain.backfill_queue import BREAKER_OPENED
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("incidents")

# An incident ends when what it names works again. One that was not seen for so long ends too: its job or check may be gone.
OVER_AFTER_DAYS = 7
# A job that fails, succeeds and fails alike within so long has one incident, and one message.
SAME_WITHIN_HOURS = 6


@dataclass(frozen=True, slots=True)
class Incident:
    """One to be told. `what` is as it was first seen."""

    id: int
    what: str
    times: int
    opened_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """One that is not over. `told_at` None: the webhook has not taken it, or there is none."""

    id: int
    key: str
    what: str
    times: int
    opened_at: datetime
    last_at: datetime
    told_at: datetime | None


def open_now(connection: Connection) -> list[OpenIncident]:
    """Those that are not over, the oldest first. Only reads."""
    found = connection.execute(_SQL["open"], {"days": OVER_AFTER_DAYS, "opened": BREAKER_OPENED})
    return [OpenIncident(**row) for row in found]


def see(connection: Connection, *, key: str, what: str, same_within_hours: int = 0) -> bool:
    """Open the incident `key`, or count it once more; whether it is new.

    One that ended less than `same_within_hours` ago opens again, and is not told again.
    """
    with connection.transaction():
        _end_what_is_over(connection)
        connection.execute(_SQL["reopen"], {"key": key, "hours": same_within_hours})
        row = connection.execute(_SQL["see"], {"key": key, "what": what}).fetchone()
    return row is not None and row["times"] == 1


def end(connection: Connection, *, source: str) -> None:
    """End the open incidents whose key begins with `source`, and what is over of the others."""
    with connection.transaction():
        _end_what_is_over(connection)
        connection.execute(_SQL["end_of"], {"source": source, "opened": BREAKER_OPENED})


def tell_next(connection: Connection, tell: Callable[[Incident], None], *, after: int) -> bool:
    """Hand the oldest untold incident `after` that id to `tell`, and mark it as told once that returns; whether there was one.

    Nobody else tells it meanwhile. Where `tell` raises, it stays untold. A crash between the two tells it twice: the other order
    would lose it.
    """
    with connection.transaction():
        row = connection.execute(_SQL["next_untold"], {"after": after}).fetchone()
        if row is None:
            return False
        tell(Incident(**row))
        connection.execute(_SQL["told"], {"id": row["id"]})
    return True


def _end_what_is_over(connection: Connection) -> None:
    connection.execute(_SQL["end_unseen"], {"days": OVER_AFTER_DAYS})
    connection.execute(_SQL["end_of_breaker"], {"opened": BREAKER_OPENED})
