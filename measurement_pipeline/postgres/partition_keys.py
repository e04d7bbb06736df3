"""Dagster partition keys of captures and catalogues. A key is unique, stored in the row, and never changes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString
from uuid import UUID

from measurement_pipeline.domain import partition_key
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("partition_keys")


def ensure_for_captures(connection: Connection, captures: Sequence[UUID]) -> dict[UUID, str]:
    """The partition key of each capture, in the given order. A missing key is created."""

    def name(row: Mapping[str, Any]) -> str:
        return partition_key.capture_partition_key(
            row["id"], what=row["what"], albums=row["albums"], monthly=row["monthly"], day=row["day"]
        )

    return _keys(connection, captures, name, select=_SQL["captures"], update=_SQL["name_capture"])


def ensure_for_catalogs(connection: Connection, catalogs: Sequence[UUID]) -> dict[UUID, str]:
    """The partition key of each catalogue, in the given order. A missing key is created."""

    def name(row: Mapping[str, Any]) -> str:
        return partition_key.catalog_partition_key(
            row["id"], name=row["name"], account=row["account"], account_name=row["account_name"]
        )

    return _keys(connection, catalogs, name, select=_SQL["catalogs"], update=_SQL["name_catalog"])


def find_capture(connection: Connection, key: str) -> UUID | None:
    """The capture with partition key `key`, or None."""
    return _id(connection, _SQL["capture"], key)


def list_failed_captures(connection: Connection, keys: Sequence[str]) -> frozenset[str]:
    """The keys whose capture failed."""
    return frozenset(row["partition_key"] for row in connection.execute(_SQL["failed_captures"], {"keys": list(keys)}))


def find_catalog(connection: Connection, key: str) -> UUID | None:
    """The catalogue with partition key `key`, or None."""
    return _id(connection, _SQL["catalog"], key)


def _keys(
    connection: Connection,
    ids: Sequence[UUID],
    name: Callable[[Mapping[str, Any]], str],
    *,
    select: LiteralString,
    update: LiteralString,
) -> dict[UUID, str]:
    rows = connection.execute(select, {"ids": list(ids)}).fetchall()
    unnamed = [row for row in rows if row["partition_key"] is None]
    if unnamed:
        for row in unnamed:
            connection.execute(update, {"id": row["id"], "key": name(row)})
        # Read again, because another process may have set a key in between.
        rows = connection.execute(select, {"ids": list(ids)}).fetchall()
    keys = {row["id"]: str(row["partition_key"]) for row in rows}
    return {id_: keys[id_] for id_ in ids if id_ in keys}


def _id(connection: Connection, statement: LiteralString, key: str) -> UUID | None:
    row = connection.execute(statement, {"key": key}).fetchone()
    return None if row is None else UUID(str(row["id"]))
