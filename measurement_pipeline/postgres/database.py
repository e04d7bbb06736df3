"""How a connection to the measurement database is made: one place for its options.

Rows come back as dictionaries, and connections commit statement by statement (`connection.transaction()` opens a longer one).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

Connection = psycopg.Connection[DictRow]
AsyncConnection = psycopg.AsyncConnection[DictRow]
AsyncPool = AsyncConnectionPool[AsyncConnection]

# Raised here and caught by callers, so that they need not import psycopg to name it: the database could not be reached, or
# went away under the statement. Nothing is known of what it did.
DatabaseUnavailable = psycopg.OperationalError
DatabaseError = psycopg.Error

# No server-side prepared statements: behind a transaction pooler the next statement may run on another server process.
_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "prepare_threshold": None,
    "row_factory": dict_row,
    "connect_timeout": 10,
    "application_name": "measurement_pipeline",
}


def connect(url: str) -> Connection:
    """A connection to `url` (postgresql://…). Raises `DatabaseUnavailable` where there is none to be had in 10 s."""
    return Connection.connect(url, **_OPTIONS)


@asynccontextmanager
async def pool(url: str, *, size: int) -> AsyncIterator[AsyncPool]:
    """At most `size` connections; one that the server dropped is replaced before it is handed out."""
    async with AsyncConnectionPool(
        url,
        min_size=1,
        max_size=size,
        kwargs=_OPTIONS,
        connection_class=AsyncConnection,
        check=AsyncConnectionPool.check_connection,
        timeout=30,
        open=False,
    ) as opened:
        yield opened
