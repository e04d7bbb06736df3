"""Incidents and whether the webhook received them. `health/` decides what an incident is; statements in `incidents.sql`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.domain.backfill_queue import BREAKER_OPENED
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("incidents")

# An incident ends when its job or check succeeds. One not seen for this long ends too: its job or check may not exist any more.
EXPIRES_AFTER_DAYS = 7
# A job that fails, succeeds and fails the same way within this time has one incident and one message.
SAME_WITHIN_HOURS = 6


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident to post. `what` is the text of its first occurrence."""

    id: int
    what: str
    times: int
    opened_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """An open incident. `told_at` is None until the webhook has accepted it."""

    id: int
    key: str
    what: str
    times: int
    opened_at: datetime
    last_at: datetime
    told_at: datetime | None


def list_open(connection: Connection) -> list[OpenIncident]:
    """Open incidents, oldest first. Read-only."""
    found = connection.execute(_SQL["open"], {"days": EXPIRES_AFTER_DAYS, "opened": BREAKER_OPENED})
    return [OpenIncident(**row) for row in found]


def record(connection: Connection, *, key: str, what: str, same_within_hours: int = 0) -> bool:
    """Open the incident `key` or count another occurrence; return whether it is new.

    An incident that ended less than `same_within_hours` ago is reopened, and is not posted again.
    """
    with connection.transaction():
        _end_expired(connection)
        connection.execute(_SQL["reopen"], {"key": key, "hours": same_within_hours})
        row = connection.execute(_SQL["see"], {"key": key, "what": what}).fetchone()
    return row is not None and row["times"] == 1


def end_by_source(connection: Connection, *, source: str) -> None:
    """End the open incidents whose key begins with `source`, and all others that have expired."""
    with connection.transaction():
        _end_expired(connection)
        connection.execute(_SQL["end_of"], {"source": source, "opened": BREAKER_OPENED})


def post_next(connection: Connection, post: Callable[[Incident], None], *, after: int) -> bool:
    """Pass the oldest unposted incident with an id above `after` to `post`, then mark it as posted; return whether there was one.

    An advisory lock claims it, so that no other process posts it. If `post` raises, the incident stays unposted. A crash between
    the two steps posts it twice; the other order would lose it.
    """
    while (row := connection.execute(_SQL["next_unposted"], {"after": after}).fetchone()) is not None:
        after = row["id"]
        # The transaction ends the claim, whatever happens to this process. It holds no row lock and no snapshot while it posts.
        with connection.transaction():
            incident = _claim_unposted(connection, after)
            if incident is not None:
                post(incident)
                connection.execute(_SQL["mark_posted"], {"id": incident.id})
                return True
    return False


def _claim_unposted(connection: Connection, identifier: int) -> Incident | None:
    claim = connection.execute(_SQL["claim_posting"], {"id": identifier}).fetchone()
    if claim is None or not claim["is_claimed"]:
        return None
    row = connection.execute(_SQL["unposted"], {"id": identifier}).fetchone()
    return None if row is None else Incident(**row)


def _end_expired(connection: Connection) -> None:
    connection.execute(_SQL["end_unseen"], {"days": EXPIRES_AFTER_DAYS})
    connection.execute(_SQL["end_of_breaker"], {"opened": BREAKER_OPENED})
