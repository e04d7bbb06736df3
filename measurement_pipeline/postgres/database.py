"""How a connection to the measurement database is made: one place for its options.

Rows come back as dictionaries, and connections commit statement by statement (`connection.transaction()` opens a longer one).
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from measurement_pipeline.postgres import session
from measurement_pipeline.postgres.errors import ErrorKind, is_transient, kind_of

T = TypeVar("T")
Connection = session.Connection
AsyncConnection = session.AsyncConnection

# Named here, so that callers need not import psycopg. What an error means is decided by its SQLSTATE (`errors.kind_of`), not by
# these classes: a read-only server raises no `DatabaseUnavailable`, and a value that is too large does.
DatabaseUnavailable = psycopg.OperationalError
DatabaseError = psycopg.Error
# One of the above, where it was we who would not wait any longer (`within`): the transaction did nothing.
StatementTimeout = psycopg.errors.QueryCanceled

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


def create_database(url: str, name: str) -> None:
    """Create the database `name` on the server of `url`, unless it exists."""
    # The second error is that of two processes that create it at the same moment.
    exists = (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
    with connect(url) as connection, suppress(*exists):
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def pool(url: str, *, size: int, timeout_seconds: float) -> Pool:
    """Up to `size` connections that threads borrow (`with pool.connection()`), each tried before it is lent out; not open yet.

    Whoever gets none in so many seconds gets `DatabaseUnavailable`.
    """
    return ConnectionPool(
        url,
        connection_class=Connection,
        kwargs=_options(),
        min_size=1,
        max_size=size,
        timeout=timeout_seconds,
        check=ConnectionPool.check_connection,
        open=False,
        # Tried at once for whoever waits; while nobody does, now and then.
        reconnect_timeout=timeout_seconds,
        name="front desk",
    )


@contextmanager
def transaction_with_timeout(connection: Connection, *, seconds: float) -> Iterator[None]:
    """A transaction each of whose statements may take so long: then it is undone, and raises `TooLong`."""
    with connection.transaction():
        # Local to the transaction: behind a pooler a session's settings would be another client's next.
        connection.execute("select set_config('statement_timeout', %s, true)", [str(int(seconds * 1000))])
        yield


# Between two tries of the same work.
_RETRY_SECONDS = 0.5


class _RetryWindow:
    """Counts from the first error: whether to try again after this one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failing_since: float | None = None

    def is_open(self) -> bool:
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        return now - self._failing_since <= self._seconds


def execute_with_retry(url: str, work: Callable[[Connection], T], *, patience_seconds: float) -> T:
    """Do `work` on a new connection, again after each transient error, until `patience_seconds` after the first.

    Doing `work` twice must have the effect of doing it once. Raises the last error.
    """
    patience = _RetryWindow(patience_seconds)
    while True:
        try:
            with connect(url) as connection:
                return work(connection)
        except DatabaseError as error:
            if not is_transient(error) or not patience.is_open():
                raise
        time.sleep(_RETRY_SECONDS)


class ReconnectingConnection:
    """One connection of an event loop that is made when it is needed, and made anew once it was lost.

    A pool would hand a broken connection's users to its others; here each user keeps a line of its own, and one that is lost
    costs that user one failed statement.
    """

    def __init__(self, url: str, *, patience_seconds: float) -> None:
        self._url = url
        self._retry_seconds = patience_seconds
        self._connection: AsyncConnection | None = None
        self._lock = asyncio.Lock()

    async def execute(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do `work` on the connection, one at a time. Raises `DatabaseUnavailable`; the next call then connects anew."""
        async with self._lock:
            try:
                if self._connection is None:
                    self._connection = await AsyncConnection.connect(self._url, **_options())
                return await work(self._connection)
            except BaseException:
                # Whatever it was, a statement may be half-way: the connection is not to be trusted with the next one.
                await self.close()
                raise

    async def execute_with_retry(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        *,
        on_defect: Callable[[DatabaseError], None] | None = None,
    ) -> T:
        """Do `work`, again after each transient error while patience lasts: doing it twice must have the effect of doing it once.

        `hold`: what `work` writes exists nowhere else. Then a defect is outlasted too, and `hold` is called with it; only an
        error about the row itself is raised at once.
        """
        patience = _RetryWindow(self._retry_seconds)
        while True:
            try:
                return await self.execute(work)
            except DatabaseError as error:
                kind = kind_of(error)
                if kind is ErrorKind.DEFECT and on_defect is not None:
                    on_defect(error)
                elif kind is not ErrorKind.TRANSIENT:
                    raise
                if not patience.is_open():
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
