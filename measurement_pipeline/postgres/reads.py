"""Read an account's measurements for the HTTP API, with restatements applied.

Every statement takes the account and returns its recordings only. The statements are in `reads.sql`; the view `account_songs`
defines which recordings an account may read.
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
    """A recording whose measurements the account may read."""

    isrc: str
    name: str | None
    artist: str | None


def series(
    connection: Connection,
    *,
    account: UUID,
    isrc: str | None,
    track: str = "",
    first: date | None = None,
    last: date | None = None,
) -> tuple[RecordingRow, list[dict[str, Any]]] | None:
    """The account's recording of that ISRC or Spotify track id, and its points by time; None if it has no such recording.

    A point has `captured_at`, `value` and `data_source`. `first` and `last`: days in UTC, both included. None: no limit.
    """
    parameters = {"account": account, "isrc": isrc, "track": track, "first": first, "last": last}
    rows = connection.execute(_SQL["series"], parameters).fetchall()
    if not rows:
        return None
    return _recording(rows[0]), [row for row in rows if row["captured_at"] is not None]


def run_rate(
    connection: Connection, *, account: UUID, isrc: str | None, track: str = "", window_days: int
) -> tuple[RecordingRow, dict[str, Any] | None] | None:
    """The account's recording, and its plays over the `window_days` up to its last measured count; None where it has none.

    `first`, `last` and `next` are points (`captured_at`, `value`, `data_source`), or None.
    """
    parameters = {"account": account, "isrc": isrc, "track": track, "window_days": window_days}
    row = connection.execute(_SQL["run_rate"], parameters).fetchone()
    if row is None:
        return None
    if row["last_captured_at"] is None:
        return _recording(row), None
    return _recording(row), {**row, **{end: _point(row, end) for end in ("first", "last", "next")}}


def _recording(row: dict[str, Any]) -> RecordingRow:
    return RecordingRow(row["isrc"], row["name"], row["artist"])


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
    """A page of the recordings of the account's catalogue with their latest counts, by ISRC; `after`: those after that ISRC."""
    parameters = {"account": account, "catalog": catalog, "after": after, "limit": limit}
    return connection.execute(_SQL["latest_of_catalog"], parameters).fetchall()


def totals_of_catalog(connection: Connection, *, account: UUID, catalog: UUID) -> dict[str, Any]:
    """The whole catalogue: `recordings`, how many are `measured`, how many `ended`, their `plays`, and when they were counted."""
    row = connection.execute(_SQL["totals_of_catalog"], {"account": account, "catalog": catalog}).fetchone()
    if row is None:
        raise LookupError("an aggregate returned no row")
    return row


def ready(connection: Connection) -> None:
    """Run a query that any healthy database answers. Raises `DatabaseUnavailable`."""
    connection.execute(_SQL["ready"])
