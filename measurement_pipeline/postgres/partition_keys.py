"""Under which name a capture or a catalogue is a partition in Dagster. Given once, kept in its row, unique."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString
from uuid import UUID

from measurement_pipeline.domain import partition_key
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("partition_keys")


def of_captures(connection: Connection, captures: Sequence[UUID]) -> dict[UUID, str]:
    """The partition of each capture, in the given order. One that has none yet gets it now."""

    def name(row: Mapping[str, Any]) -> str:
        return partition_key.of_capture(
            row["id"], what=row["what"], albums=row["albums"], monthly=row["monthly"], day=row["day"]
        )

    return _keys(connection, captures, name, find=_SQL["captures"], keep=_SQL["name_capture"])


def of_catalogs(connection: Connection, catalogs: Sequence[UUID]) -> dict[UUID, str]:
    """The partition of each catalogue, in the given order. One that has none yet gets it now."""

    def name(row: Mapping[str, Any]) -> str:
        return partition_key.of_catalog(
            row["id"], name=row["name"], account=row["account"], account_name=row["account_name"]
        )

    return _keys(connection, catalogs, name, find=_SQL["catalogs"], keep=_SQL["name_catalog"])


def capture(connection: Connection, key: str) -> UUID | None:
    """The capture whose partition is `key`; None: there is none."""
    return _id(connection, _SQL["capture"], key)


def failed_captures(connection: Connection, keys: Sequence[str]) -> frozenset[str]:
    """Those of the partitions whose capture failed."""
    return frozenset(row["partition_key"] for row in connection.execute(_SQL["failed_captures"], {"keys": list(keys)}))


def catalog(connection: Connection, key: str) -> UUID | None:
    """The catalogue whose partition is `key`; None: there is none."""
    return _id(connection, _SQL["catalog"], key)


def _keys(
    connection: Connection,
    ids: Sequence[UUID],
    name: Callable[[Mapping[str, Any]], str],
    *,
    find: LiteralString,
    keep: LiteralString,
) -> dict[UUID, str]:
    rows = connection.execute(find, {"ids": list(ids)}).fetchall()
    unnamed = [row for row in rows if row["partition_key"] is None]
    if unnamed:
        for row in unnamed:
            connection.execute(keep, {"id": row["id"], "key": name(row)})
        # Read again: another process may have named one meanwhile.
        rows = connection.execute(find, {"ids": list(ids)}).fetchall()
    found = {row["id"]: str(row["partition_key"]) for row in rows}
    return {one: found[one] for one in ids if one in found}


def _id(connection: Connection, statement: LiteralString, key: str) -> UUID | None:
    row = connection.execute(statement, {"key": key}).fetchone()
    return None if row is None else UUID(str(row["id"]))
