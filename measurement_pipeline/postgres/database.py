"""How a connection to the measurement database is made: one place for its options.

Rows come back as dictionaries, and connections commit statement by statement (`connection.transaction()` opens a longer one).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from measurement_pipeline.postgres import session

T = TypeVar("T")
Connection = session.Connection
AsyncConnection = session.AsyncConnection

# Raised here and caught by callers, so that they need not import psycopg to name it: the database could not be reached, or
# went away under the statement. Nothing is known of what it did.
DatabaseUnavailable = psycopg.OperationalError
DatabaseError = psycopg.Error
# One of the above, where it was we who would not wait any longer (`within`): the transaction did nothing.
TooLong = psycopg.errors.QueryCanceled

# A statement waited for a lock longer than `lock_timeout`.
LockTimeout = psycopg.errors.LockNotAvailable

# No server-side prepared statements: behind a transaction pooler the next statement may run on another server process.
_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "prepare_threshold": None,
    "row_factory": dict_row,
    "connect_timeout": 10,
}


def _options() -> dict[str, Any]:
    # With the process id, so that whoever sees a session in pg_stat_activity can find the process behind it.
    return {**_OPTIONS, "application_name": f"measurement_pipeline {os.getpid()}"}


def connect(url: str) -> Connection:
    """A connection to `url`, any address that `conninfo` reads. Raises `DatabaseUnavailable` after 10 s without one."""
    return Connection.connect(url, **_options())


Pool = ConnectionPool[Connection]


def pool(url: str, *, size: int, patience_seconds: float) -> Pool:
    """Up to `size` connections that threads borrow (`with pool.connection()`), each tried before it is lent out; not open yet.

    Whoever gets none in so many seconds gets `DatabaseUnavailable`.
    """
    return ConnectionPool(
        url,
        connection_class=Connection,
        kwargs=_options(),
        min_size=1,
        max_size=size,
        timeout=patience_seconds,
        check=ConnectionPool.check_connection,
        open=False,
        # Tried at once for whoever waits; while nobody does, now and then.
        reconnect_timeout=patience_seconds,
        name="front desk",
    )


@contextmanager
def within(connection: Connection, *, seconds: float) -> Iterator[None]:
    """A transaction each of whose statements may take so long: then it is undone, and raises `TooLong`."""
    with connection.transaction():
        # Local to the transaction: behind a pooler a session's settings would be another client's next.
        connection.execute("select set_config('statement_timeout', %s, true)", [str(int(seconds * 1000))])
        yield


class Line:
    """One connection of an event loop that is made when it is needed, and made anew once it was lost.

    A pool would hand a broken connection's users to its others; here each user keeps a line of its own, and one that is lost
    costs that user one failed statement.
    """

    def __init__(self, url: str, *, patience_seconds: float) -> None:
        self._url = url
        self._patience = patience_seconds
        self._connection: AsyncConnection | None = None
        self._turn = asyncio.Lock()

    async def do(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do `work` on the connection, one at a time. Raises `DatabaseUnavailable`; the next call then connects anew."""
        async with self._turn:
            try:
                if self._connection is None:
                    self._connection = await AsyncConnection.connect(self._url, **_options())
                return await work(self._connection)
            except BaseException:
                # Whatever it was, a statement may be half-way: the connection is not to be trusted with the next one.
                await self.close()
                raise

    async def persist(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do `work`, again and again while the database is away and patience lasts: it must be such that twice does once."""
        deadline = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                return await self.do(work)
            except DatabaseUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.5)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
