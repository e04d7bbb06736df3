"""Finds accounts and catalogues by what a person calls them. Deciding which one was meant is the caller's."""

from typing import Any
from uuid import UUID

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("names")


def accounts(connection: Connection, name: str) -> list[UUID]:
    """The accounts of that name; names need not be unique."""
    return [row["id"] for row in connection.execute(_SQL["accounts"], {"name": name})]


def account_is_known(connection: Connection, account: UUID) -> bool:
    """Whether anything here is of that account: all that was spent is."""
    row = connection.execute(_SQL["account_is_known"], {"account": account}).fetchone()
    return row is not None and bool(row["is_known"])


def catalogs(connection: Connection, *, id_: UUID | None, name: str, account: UUID | None) -> list[dict[str, Any]]:
    """The catalogues (id, account, name) of that id or name; with `account`, among its own."""
    parameters = {"id": id_, "name": name, "account": account}
    return connection.execute(_SQL["catalogs"], parameters).fetchall()
