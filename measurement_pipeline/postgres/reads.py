"""What an account reads over HTTP: measurements of its recordings, as they are believed today. Only reads.

Every statement is told the account, and finds nothing of what is not the account's. The statements are in `reads.sql`; which
recordings are an account's says the view `account_songs`.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("reads")


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """A recording that the account may read of."""

    isrc: str
    name: str | None
    artist: str | None


def recording(connection: Connection, *, account: UUID, isrc: str | None, track: str) -> RecordingRow | None:
    """The account's recording of that ISRC or Spotify track id; None where it has none such."""
    row = connection.execute(_SQL["recording"], {"account": account, "isrc": isrc, "track": track}).fetchone()
    return None if row is None else RecordingRow(**row)


def series(
    connection: Connection, *, account: UUID, isrc: str, first: date | None = None, last: date | None = None
) -> list[dict[str, Any]]:
    """The points of the account's recording (`captured_at`, `value`, `data_source`), by time.

    `first` and `last`: days in UTC, both included. None: as far as there are points.
    """
    parameters = {"account": account, "isrc": isrc, "first": first, "last": last}
    return connection.execute(_SQL["series"], parameters).fetchall()


def run_rate(connection: Connection, *, account: UUID, isrc: str, window_days: int) -> dict[str, Any] | None:
    """The plays of the account's recording over the `window_days` up to its last measured count; None where it has none.

    `first`, `last` and `next` are points (`captured_at`, `value`, `data_source`), or None.
    """
    parameters = {"account": account, "isrc": isrc, "window_days": window_days}
    row = connection.execute(_SQL["run_rate"], parameters).fetchone()
    return None if row is None else {**row, **{end: _point(row, end) for end in ("first", "last", "next")}}


def _point(row: dict[str, Any], end: str) -> dict[str, Any] | None:
    if row[f"{end}_captured_at"] is None:
        return None
    return {
        "captured_at": row[f"{end}_captured_at"],
        "value": row[f"{end}_play_count"],
        "data_source": row[f"{end}_data_source"],
    }


def latest_of_album(connection: Connection, *, account: UUID, album: str) -> list[dict[str, Any]]:
    """The account's recordings on a Spotify album with their latest counts; a count may be missing."""
    return connection.execute(_SQL["latest_of_album"], {"account": account, "album": album}).fetchall()


def latest_of_catalog(
    connection: Connection, *, account: UUID, catalog: UUID, after: str | None, limit: int
) -> list[dict[str, Any]]:
    """A page of the recordings of the account's catalogue with their latest counts, by ISRC; `after`: those behind that one."""
    parameters = {"account": account, "catalog": catalog, "after": after, "limit": limit}
    return connection.execute(_SQL["latest_of_catalog"], parameters).fetchall()


def totals_of_catalog(connection: Connection, *, account: UUID, catalog: UUID) -> dict[str, Any]:
    """The whole catalogue: `recordings`, how many are `measured`, how many `ended`, their `plays`, and when they were counted."""
    row = connection.execute(_SQL["totals_of_catalog"], {"account": account, "catalog": catalog}).fetchone()
    if row is None:
        raise LookupError("an aggregate came without its row")
    return row


def ready(connection: Connection) -> None:
    """Ask the database anything. Raises `DatabaseUnavailable`."""
    connection.execute(_SQL["ready"])
