"""What is asked of the analysts' views: for their assets and checks, for reports and exports. Only reads.

The statements are in `analytics.sql`; what the views themselves say is in `views/`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID, uuid4

from measurement_pipeline.domain.backfill_queue import QueueRules
from measurement_pipeline.postgres.backfill_queue import PLAY_COUNT
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("analytics")

# Recordings whose series a check reads through: some seconds' work.
MOST_SERIES = 500
_MOST_FOUND = 100

# Rows that an export holds at once.
ROWS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class RefreshState:
    """When something was last settled, read or captured (None: never), and what is under way, or will be soon."""

    last_change: datetime | None
    being_bought: int
    tried_again_soon: int
    being_captured: int
    captures_due: int
    now: datetime


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a view, in the words of the data dictionary."""

    column_name: str
    type: str
    unit: str
    meaning: str
    source: str


@dataclass(frozen=True, slots=True)
class SeriesOfLate:
    """A recording that was bought or captured in the last day."""

    song: str
    falls: int
    days_missing: int
    days: int
    last_count: int
    latest_count: int


@dataclass(frozen=True, slots=True)
class Apart:
    """What two sources say of one recording and day."""

    song: str
    day: str
    displayed: int
    bought: int


def standing(connection: Connection, rules: QueueRules, *, soon_seconds: float) -> RefreshState:
    """Whether a drain is over, in so far as the tables show it. `soon_seconds`: what waits no longer than that is part of it."""
    parameters = {
        "claim_timeout": rules.claim_timeout_seconds,
        "max_attempts": rules.max_attempts,
        "soon": soon_seconds,
    }
    (row,) = connection.execute(_SQL["standing"], parameters).fetchall()
    return RefreshState(**row)


def now(connection: Connection) -> datetime:
    """The database's clock."""
    (row,) = connection.execute(_SQL["now"]).fetchall()
    at: datetime = row["now"]
    return at


@contextmanager
def of_one_moment(connection: Connection) -> Iterator[None]:
    """Let the block see the tables as they are now, whatever is written beside it, and change nothing."""
    with connection.transaction():
        # Of the transaction alone: nothing is left to undo, which an interrupted connection would refuse.
        connection.execute("set transaction isolation level repeatable read, read only")
        yield


def row_count(connection: Connection, view: str) -> int:
    """How many rows a view has."""
    (row,) = connection.execute(_SQL[f"rows_{view}"], {"play_count": PLAY_COUNT}).fetchall()
    return int(row["row_count"])


def columns(connection: Connection, view: str) -> list[Column]:
    """A view's columns, in their order."""
    return [Column(**row) for row in connection.execute(_SQL["columns"], {"view": view})]


def dictionary(connection: Connection) -> list[dict[str, Any]]:
    """Every column of every view."""
    return connection.execute(_SQL["dictionary"]).fetchall()


def catalogs(connection: Connection, *, most: int) -> dict[UUID, str]:
    """The latest imported catalogues and their names."""
    return {row["id"]: row["name"] for row in connection.execute(_SQL["catalogs"], {"most": most})}


def totals(connection: Connection, catalog: UUID) -> dict[str, Any] | None:
    """A catalogue's row of `catalog_totals`; None where it holds nothing, or is none."""
    return connection.execute(_SQL["totals"], {"catalog": catalog}).fetchone()


def coverage(connection: Connection, catalog: UUID) -> dict[str, Any]:
    """How whole a catalogue's series are, and what they took."""
    (row,) = connection.execute(_SQL["coverage"], {"catalog": catalog}).fetchall()
    return row


def top(connection: Connection, catalog: UUID, *, most: int) -> list[dict[str, Any]]:
    """Its most played recordings, with their yearly rates."""
    return connection.execute(_SQL["top"], {"catalog": catalog, "most": most}).fetchall()


def not_measured(connection: Connection, catalog: UUID) -> list[dict[str, Any]]:
    """What its totals leave out, by the reason."""
    return connection.execute(_SQL["not_measured"], {"catalog": catalog}).fetchall()


def over_time(connection: Connection, catalog: UUID, *, steps: int, step_days: int) -> list[dict[str, Any]]:
    """Its total and its cohort's at days `step_days` apart, the last of them its last: `steps` before that at most."""
    asked = {"catalog": catalog, "steps": steps, "step_days": step_days, "play_count": PLAY_COUNT}
    return connection.execute(_SQL["over_time"], asked).fetchall()


def distrust(connection: Connection, catalog: UUID) -> dict[str, Any]:
    """How many of its most played recordings have falls, returns, jumps, gaps, restatements, two sources."""
    (row,) = connection.execute(_SQL["distrust"], {"catalog": catalog, "most": MOST_SERIES}).fetchall()
    return row


def import_differences(connection: Connection, catalog: UUID, *, most: int) -> list[dict[str, Any]]:
    """Its recordings whose imported count differs by more than 10 % from the measured one, the largest differences first."""
    return connection.execute(_SQL["import_differences"], {"catalog": catalog, "most": most}).fetchall()


def in_the_future(connection: Connection) -> list[str]:
    """Recordings whose latest figure is for a day to come."""
    found = connection.execute(_SQL["in_the_future"], {"most": _MOST_FOUND})
    return [f"{row['song']} has a figure for {row['day']}" for row in found]


def series_of_late(connection: Connection) -> list[SeriesOfLate]:
    """The series of what was bought or captured last."""
    return [SeriesOfLate(**row) for row in connection.execute(_SQL["series_of_late"], {"most": MOST_SERIES})]


def sources_apart(connection: Connection, *, share: float, plays: int) -> tuple[int, list[Apart]]:
    """Of how many days both sources have a figure, of late, and those on which they differ by more than both; the worst first."""
    parameters = {"most": _MOST_FOUND, "play_count": PLAY_COUNT, "share": share, "plays": plays}
    (row,) = connection.execute(_SQL["sources_apart"], parameters).fetchall()
    return row["looked_at"], [Apart(**one) for one in row["apart"]]


def totals_apart(connection: Connection) -> dict[UUID, str]:
    """Catalogues whose total is not what their recordings add up to, with what each says."""
    found = connection.execute(_SQL["totals_apart"], {"most": _MOST_FOUND, "play_count": PLAY_COUNT})
    return {row["catalog"]: _apart(row) for row in found}


def _apart(row: dict[str, Any]) -> str:
    return (
        f"{row['catalog_name']} ({row['catalog']}): {row['play_count']} plays of {row['recordings']} recordings, which add up "
        f"to {row['adds_up_to']} of {row['holds']}"
    )


def stream(connection: Connection, view: str, catalog: UUID) -> Iterator[Sequence[tuple[Any, ...]]]:
    """A catalogue's rows of `daily_play_counts` or `catalog_play_counts`, a batch at a time, from one moment's view of them."""
    chosen: dict[str, LiteralString] = {"daily_play_counts": _SQL["series"], "catalog_play_counts": _SQL["recordings"]}
    # A cursor that the server keeps lives in a transaction.
    with connection.transaction(), connection.cursor(f"export_{uuid4().hex}") as cursor:
        cursor.execute(chosen[view], {"catalog": catalog})
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            yield [tuple(row.values()) for row in rows]
