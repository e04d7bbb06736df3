"""Whether a server's settings can hold what is stored: its encoding, its durability, and the isolation of its transactions."""

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("server_settings")

# The one encoding of PostgreSQL that holds every title; SQL_ASCII takes all bytes and knows none.
_HOLDS_TITLES = "UTF8"
_READ_COMMITTED = "read committed"


def encoding(connection: Connection) -> tuple[str, str | None]:
    """The database's encoding, and why it cannot hold titles, in one line, or None."""
    found = _session(connection)["encoding"]
    if found == _HOLDS_TITLES:
        return found, None
    return found, (
        f"the database's encoding is {found}, which cannot hold every title: create one with `createdb --encoding=UTF8 "
        "--template=template0`, restore what there is into it, and let DATABASE_URL name it"
    )


def not_durable(connection: Connection) -> list[str]:
    """The settings that let a committed transaction be lost, each with whom it is set for."""
    return [row["what"] for row in connection.execute(_SQL["not_durable"]).fetchall()]


def other_isolation(connection: Connection) -> str | None:
    """The isolation level of single statements, where it is not the one that every session asks for: a pooler keeps it out."""
    found = _session(connection)["isolation"]
    return None if found == _READ_COMMITTED else found


def _session(connection: Connection) -> dict[str, str]:
    (row,) = connection.execute(_SQL["session"]).fetchall()
    return row
