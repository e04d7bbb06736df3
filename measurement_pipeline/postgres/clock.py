"""Times in the tables that are later than now, because the database's clock was set back. Statements in `clock.sql`."""

from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.domain.backfill_queue import MAX_BACKOFF_SECONDS, max_call_lead_seconds
from measurement_pipeline.postgres.database import Connection, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("clock")


@dataclass(frozen=True, slots=True)
class FutureTimes:
    """A column with values later than any that this code writes."""

    what: str
    rows: int
    latest: datetime


def list_future_times(connection: Connection, *, requests_per_second: float) -> list[FutureTimes]:
    """The columns with values later than the clock and the pace allow; empty unless the clock was set back."""
    parameters = {
        "furthest_booking": max_call_lead_seconds(requests_per_second),
        "longest_backoff": MAX_BACKOFF_SECONDS,
    }
    return [FutureTimes(**row) for row in connection.execute(_SQL["future_times"], parameters)]


def correct_future_times(connection: Connection) -> int:
    """Correct the future times that would delay work until the clock reaches them; return their number."""
    return int(fetch_row(connection, _SQL["correct"], longest_backoff=MAX_BACKOFF_SECONDS)["corrected"])
