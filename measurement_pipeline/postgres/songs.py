"""Recordings and catalogues, and their counts. The statements are in `songs.sql`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any
from uuid import UUID

from measurement_pipeline.postgres.database import Connection, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("songs")


@dataclass(frozen=True, slots=True)
class CatalogLine:
    """One recording of a catalogue file; a field is None if the file lacks it."""

    isrc: str
    title: str | None
    artist: str | None
    album: str | None
    release_date: date | None
    play_count: int | None
    album_ids: tuple[str, ...] = ()


def ensure(connection: Connection, isrcs: Sequence[str]) -> None:
    """Insert the recordings that have no row yet."""
    connection.execute(_SQL["ensure"], {"isrcs": list(isrcs)})


def import_catalog(
    connection: Connection, lines: Iterable[CatalogLine], *, account: UUID, name: str, as_of: date, raw_ref: str
) -> UUID:
    """Load a catalogue in one transaction: recordings, membership, counts as of `as_of`, ranks of queued rows. Returns its id.

    `lines` has each ISRC once; the caller has resolved duplicates.
    """
    lines = list(lines)
    with connection.transaction():
        connection.execute(_SQL["stage"])
        with connection.cursor() as cursor, cursor.copy(_SQL["copy_in"]) as copy:
            for line in lines:
                copy.write_row((line.isrc, line.title, line.artist, line.album, line.release_date, line.play_count))
        connection.execute(_SQL["merge_songs"])
        found = fetch_row(connection, _SQL["catalog"], account=account, name=name)
        connection.execute(_SQL["list_songs"], {"catalog": found["id"]})
        on_albums = sorted((line.isrc, album_id) for line in lines for album_id in line.album_ids)
        store_identifiers(connection, on_albums, platform="spotify", identifier_type="album_id")
        connection.execute(_SQL["merge_counts"], {"as_of": as_of, "raw_ref": raw_ref})
        refresh_ranks(connection, [line.isrc for line in lines])
        return UUID(str(found["id"]))


def refresh_ranks(connection: Connection, isrcs: Sequence[str]) -> None:
    """Set the rank of the queued recordings among `isrcs` to their latest count."""
    connection.execute(_SQL["refresh_ranks"], {"songs": list(isrcs)})


def store_identifiers(
    connection: Connection, identifiers: Sequence[tuple[str, str]], *, platform: str, identifier_type: str
) -> None:
    """Store a platform's identifiers of known recordings: (ISRC, identifier) pairs."""
    connection.execute(
        _SQL["identify"],
        {
            "platform": platform,
            "identifier_type": identifier_type,
            "songs": [song for song, _ in identifiers],
            "values": [value for _, value in identifiers],
        },
    )


def list_most_played(connection: Connection, *, limit: int) -> list[dict[str, Any]]:
    """The recordings with the highest latest bought count, with first and last day of their history."""
    return connection.execute(_SQL["most_played"], {"limit": limit}).fetchall()


def count_points(connection: Connection) -> int:
    """Number of bought measurements."""
    return int(fetch_row(connection, _SQL["point_count"])["points"])


def get_series(connection: Connection, song: str) -> dict[date, int]:
    """A recording's bought play counts by day, restatements resolved."""
    return {
        row["captured_at"].astimezone(UTC).date(): row["value"]
        for row in connection.execute(_SQL["series"], {"song": song})
    }
