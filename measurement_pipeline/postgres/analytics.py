"""Query the analysts' views for assets, checks, reports and exports.

The statements are in `analytics.sql`; the views are in `views/`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID, uuid4

from measurement_pipeline.domain.backfill_queue import QueueRules
from measurement_pipeline.postgres.backfill_queue import PLAY_COUNT
from measurement_pipeline.postgres.database import Connection, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("analytics")

# Series that a check reads: a few seconds.
MOST_SERIES = 500
_MOST_FOUND = 100

# Rows that an export holds in memory.
ROWS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class RefreshState:
    """When something was last settled, parsed or captured (None: never), and what is in progress or due soon."""

    last_change: datetime | None
    being_bought: int
    tried_again_soon: int
    being_captured: int
    captures_due: int
    now: datetime


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a view, from the data dictionary."""

    column_name: str
    type: str
    unit: str
    meaning: str
    source: str


@dataclass(frozen=True, slots=True)
class RecentSeries:
    """A recording that was bought or captured in the last day."""

    song: str
    falls: int
    days_missing: int
    days: int
    last_count: int
    latest_count: int


@dataclass(frozen=True, slots=True)
class SourceDifference:
    """The counts of two sources for one recording and day."""

    song: str
    day: str
    displayed: int
    bought: int


def read_refresh_state(connection: Connection, rules: QueueRules, *, soon_seconds: float) -> RefreshState:
    """What is in progress, from the tables. Rows due within `soon_seconds` count as in progress."""
    row = fetch_row(
        connection,
        _SQL["refresh_state"],
        claim_timeout=rules.claim_timeout_seconds,
        max_attempts=rules.max_attempts,
        soon=soon_seconds,
    )
    return RefreshState(**row)


def now(connection: Connection) -> datetime:
    """The database's clock."""
    at: datetime = fetch_row(connection, _SQL["now"])["now"]
    return at


@contextmanager
def single_snapshot(connection: Connection) -> Iterator[None]:
    """Run the block on one read-only snapshot of the tables."""
    with connection.transaction():
        # Set for the transaction only: nothing has to be reset, which an interrupted connection would refuse.
        connection.execute("set transaction isolation level repeatable read, read only")
        yield


def count_rows(connection: Connection, view: str) -> int:
    """Number of rows of a view."""
    return int(fetch_row(connection, _SQL[f"rows_{view}"], play_count=PLAY_COUNT)["row_count"])


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
    """A catalogue's row of `catalog_totals`; None if it has no recordings or does not exist."""
    return connection.execute(_SQL["totals"], {"catalog": catalog}).fetchone()


def coverage(connection: Connection, catalog: UUID) -> dict[str, Any]:
    """Coverage of a catalogue's series, and what was spent on them."""
    return fetch_row(connection, _SQL["coverage"], catalog=catalog)


def top(connection: Connection, catalog: UUID, *, most: int) -> list[dict[str, Any]]:
    """Its most played recordings, with their yearly rates."""
    return connection.execute(_SQL["top"], {"catalog": catalog, "most": most}).fetchall()


def not_measured(connection: Connection, catalog: UUID) -> list[dict[str, Any]]:
    """Recordings that its totals leave out, by status."""
    return connection.execute(_SQL["not_measured"], {"catalog": catalog}).fetchall()


def over_time(connection: Connection, catalog: UUID, *, steps: int, step_days: int) -> list[dict[str, Any]]:
    """Its total and its cohort's at up to `steps` + 1 days, `step_days` apart, ending at its last count."""
    asked = {"catalog": catalog, "steps": steps, "step_days": step_days, "play_count": PLAY_COUNT}
    return connection.execute(_SQL["over_time"], asked).fetchall()


def count_quality_flags(connection: Connection, catalog: UUID) -> dict[str, Any]:
    """How many of its most played recordings have falls, rebounds, jumps, gaps, restatements, two sources."""
    return fetch_row(connection, _SQL["warnings"], catalog=catalog, most=MOST_SERIES)


def import_differences(connection: Connection, catalog: UUID, *, most: int) -> list[dict[str, Any]]:
    """Its recordings whose imported count differs by more than 10 % from the measured one, the largest differences first."""
    return connection.execute(_SQL["import_differences"], {"catalog": catalog, "most": most}).fetchall()


def list_future_dates(connection: Connection) -> list[str]:
    """Describe recordings whose latest count has a future date."""
    found = connection.execute(_SQL["future_dates"], {"most": _MOST_FOUND})
    return [f"{row['song']} has a figure for {row['day']}" for row in found]


def list_recent_series(connection: Connection) -> list[RecentSeries]:
    """The series of recently bought or captured recordings."""
    return [RecentSeries(**row) for row in connection.execute(_SQL["recent_series"], {"most": MOST_SERIES})]


def compare_sources(connection: Connection, *, share: float, plays: int) -> tuple[int, list[SourceDifference]]:
    """Recent days with counts of both sources: their number, and those that differ by more than both limits, worst first."""
    parameters = {"most": _MOST_FOUND, "play_count": PLAY_COUNT, "share": share, "plays": plays}
    row = fetch_row(connection, _SQL["source_differences"], **parameters)
    return row["looked_at"], [SourceDifference(**one) for one in row["apart"]]


def list_total_mismatches(connection: Connection) -> dict[UUID, str]:
    """Catalogues whose total differs from the sum of their recordings, each with a description."""
    found = connection.execute(_SQL["total_mismatches"], {"most": _MOST_FOUND, "play_count": PLAY_COUNT})
    return {row["catalog"]: _describe_mismatch(row) for row in found}


def _describe_mismatch(row: dict[str, Any]) -> str:
    return (
        f"{row['catalog_name']} ({row['catalog']}): {row['play_count']} plays of {row['recordings']} recordings, which add up "
        f"to {row['adds_up_to']} of {row['holds']}"
    )


def stream(connection: Connection, view: str, catalog: UUID) -> Iterator[Sequence[tuple[Any, ...]]]:
    """A catalogue's rows of `daily_play_counts` or `catalog_play_counts`, a batch at a time, from one snapshot."""
    chosen: dict[str, LiteralString] = {"daily_play_counts": _SQL["series"], "catalog_play_counts": _SQL["recordings"]}
    # A server-side cursor needs a transaction.
    with connection.transaction(), connection.cursor(f"export_{uuid4().hex}") as cursor:
        cursor.execute(chosen[view], {"catalog": catalog})
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            yield [tuple(row.values()) for row in rows]
