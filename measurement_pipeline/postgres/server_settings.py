"""Check a server's settings: encoding, durability and transaction isolation."""

from measurement_pipeline.postgres.database import Connection, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("server_settings")

# The only encoding that stores every title. SQL_ASCII accepts all bytes without knowing their meaning.
_HOLDS_TITLES = "UTF8"
_READ_COMMITTED = "read committed"


def encoding(connection: Connection) -> tuple[str, str | None]:
    """The database's encoding, and one line on why it cannot store titles, or None."""
    found = fetch_row(connection, _SQL["session"])["encoding"]
    if found == _HOLDS_TITLES:
        return found, None
    return found, (
        f"the database's encoding is {found}, which cannot store every title: create a database with `createdb --encoding=UTF8 "
        "--template=template0`, restore a dump into it, and set DATABASE_URL to it"
    )


def list_not_durable(connection: Connection) -> list[str]:
    """Settings that can lose a committed transaction, each with the login or database it applies to."""
    return [row["what"] for row in connection.execute(_SQL["not_durable"]).fetchall()]


def find_other_isolation(connection: Connection) -> str | None:
    """The isolation level of single statements if it is not READ COMMITTED, because a pooler rejects that parameter."""
    found = fetch_row(connection, _SQL["session"])["isolation"]
    return None if found == _READ_COMMITTED else found
