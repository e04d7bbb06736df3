"""Times in the tables that are ahead of the database's clock, because it was set back. The statements are in `clock.sql`."""

from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.domain.backfill_queue import LONGEST_BACKOFF_SECONDS, furthest_booking_seconds
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("clock")


@dataclass(frozen=True, slots=True)
class FutureTimes:
    """A column with values that are later than they can be."""

    what: str
    rows: int
    latest: datetime


def list_future_times(connection: Connection, *, requests_per_second: float) -> list[FutureTimes]:
    """The columns whose values are later than the clock and the pace allow; none while the clock was never set back."""
    parameters = {
        "furthest_booking": furthest_booking_seconds(requests_per_second),
        "longest_backoff": LONGEST_BACKOFF_SECONDS,
    }
    return [FutureTimes(**row) for row in connection.execute(_SQL["ahead"], parameters)]


def correct_future_times(connection: Connection) -> int:
    """Correct the times that would hold something up until the clock has caught up with them; how many there were."""
    row = connection.execute(_SQL["pull_back"], {"longest_backoff": LONGEST_BACKOFF_SECONDS}).fetchone() or {}
    return int(row["corrected"])
