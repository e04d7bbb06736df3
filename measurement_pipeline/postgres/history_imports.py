"""Imports of histories that artists export: store a file and its points, list. The statements are in `history_imports.sql`."""

from collections.abc import Sequence
from datetime import date
from hashlib import sha256
from typing import Any

from measurement_pipeline.domain.exported_history import DATA_SOURCE, FORMAT, METRIC, ExportedHistory
from measurement_pipeline.postgres import songs
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("history_imports")


def get_today(connection: Connection) -> date:
    """Today in UTC, by the database's clock."""
    row = connection.execute(_SQL["today"]).fetchone()
    if row is None:
        raise LookupError("the database's clock could not be read")
    return row["today"]  # type: ignore[no-any-return]


def store(
    connection: Connection, song: str, history: ExportedHistory, *, file_name: str, body: bytes, actor: str
) -> tuple[int, int]:
    """Store the file and its points in one transaction: the import's id, and how many points are new or changed."""
    with connection.transaction():
        songs.ensure(connection, [song])
        parameters = {
            "song": song,
            "format": FORMAT,
            "file_name": file_name,
            "sha256": sha256(body).hexdigest(),
            "body": body,
            "actor": actor,
            "days": len(history.days),
            "first_day": history.days[0],
            "last_day": history.days[-1],
            "plays": sum(history.plays),
        }
        row = connection.execute(_SQL["insert"], parameters).fetchone()
        if row is None:
            raise LookupError("the insert of an import returned no id")
        points = {
            "song": song,
            "metric": METRIC,
            "data_source": DATA_SOURCE,
            "raw_ref": f"history_imports/{row['id']}",
            "day_list": list(history.days),
            "play_list": list(history.plays),
        }
        return int(row["id"]), connection.execute(_SQL["store"], points).rowcount


def list_recent(connection: Connection, *, song: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """The latest imports, newest first, without their files."""
    return connection.execute(_SQL["list"], {"song": song, "limit": limit}).fetchall()


def count_imported(connection: Connection, recordings: Sequence[str]) -> int:
    """How many of `recordings` (no duplicates) have an imported history and no bought one."""
    row = connection.execute(_SQL["count_imported"], {"songs": list(recordings)}).fetchone()
    return 0 if row is None else int(row["imported"])
