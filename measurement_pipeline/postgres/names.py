"""Find accounts and catalogues by name or id. The caller decides between several matches."""

from typing import Any
from uuid import UUID

from measurement_pipeline.postgres.database import Connection, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("names")


def find_accounts(connection: Connection, name: str) -> list[UUID]:
    """Accounts with this name; names are not unique."""
    return [row["id"] for row in connection.execute(_SQL["accounts"], {"name": name})]


def is_account_known(connection: Connection, account: UUID) -> bool:
    """Whether the account exists or has a request."""
    return bool(fetch_row(connection, _SQL["account_is_known"], account=account)["is_known"])


def find_catalogs(connection: Connection, *, id_: UUID | None, name: str, account: UUID | None) -> list[dict[str, Any]]:
    """Catalogues (id, account, name) with this id or name; with `account`, only its own."""
    parameters = {"id": id_, "name": name, "account": account}
    return connection.execute(_SQL["catalogs"], parameters).fetchall()
