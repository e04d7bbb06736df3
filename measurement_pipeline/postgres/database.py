"""Connections to the measurement database, and retries of work on them.

Rows are dictionaries. Connections are in autocommit mode; `connection.transaction()` opens a transaction.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from measurement_pipeline.postgres import session
from measurement_pipeline.postgres.errors import ErrorKind, classify, is_transient

T = TypeVar("T")
Connection = session.Connection
AsyncConnection = session.AsyncConnection

# Aliases, so that callers need not import psycopg. The SQLSTATE decides what an error means (`errors.classify`), not these
# classes: a read-only server does not raise `DatabaseUnavailable`, and a value that is too large does.
DatabaseUnavailable = psycopg.OperationalError
DatabaseError = psycopg.Error
# Raised when `transaction_with_timeout` cancels a statement; the transaction is rolled back.
StatementTimeout = psycopg.errors.QueryCanceled

# A statement waited for a lock longer than `lock_timeout`.
LockTimeout = psycopg.errors.LockNotAvailable

# No server-side prepared statements: behind a transaction pooler the next statement may run on another server process.
# `_prepare_if_direct` finds out whether there is one.
_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "prepare_threshold": None,
    "row_factory": dict_row,
    "connect_timeout": 10,
}


def _options() -> dict[str, Any]:
    # With the process id, so that a session in pg_stat_activity leads to its process.
    return {**_OPTIONS, "application_name": f"measurement_pipeline {os.getpid()}"}


def connect(url: str) -> Connection:
    """Connect to `url`, in any form that `conninfo` reads. Raises `DatabaseUnavailable` after 10 s."""
    return Connection.connect(url, **_options())


def fetch_row(connection: Connection, statement: LiteralString, **parameters: object) -> dict[str, Any]:
    """The row of a statement that always returns one, such as an aggregate. Raises `LookupError` without it."""
    row = connection.execute(statement, parameters or None).fetchone()
    if row is None:
        raise LookupError(f"this statement must return a row: {statement}")
    return row


Pool = ConnectionPool[Connection]


def create_database(url: str, name: str) -> None:
    """Create the database `name` on the server of `url`, unless it exists."""
    # The second error is that of two processes that create it at the same moment.
    exists = (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
    with connect(url) as connection, suppress(*exists):
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def pool(url: str, *, size: int, timeout_seconds: float, prepared_reads_within_seconds: float | None = None) -> Pool:
    """Create a pool of up to `size` connections, not opened yet.

    A thread that gets no connection within `timeout_seconds` gets `DatabaseUnavailable`. Each connection is checked before use.
    `prepared_reads_within_seconds`: the pool is for single reads instead. Direct connections are not checked, prepare
    statements, and limit each to that time.
    """

    def configure(connection: Connection) -> None:
        if prepared_reads_within_seconds is not None and is_direct(connection):
            # Planning takes longer than reading for most reads.
            connection.prepare_threshold = _PREPARE_AFTER
            set_statement_timeout(connection, prepared_reads_within_seconds, is_local=False)

    def check(connection: Connection) -> None:
        if connection.prepare_threshold is None:
            ConnectionPool.check_connection(connection)

    return ConnectionPool(
        url,
        connection_class=Connection,
        kwargs=_options(),
        min_size=1,
        max_size=size,
        timeout=timeout_seconds,
        configure=configure,
        check=check,
        open=False,
        # After this time without a connection, the pool retries only when a thread asks for one.
        reconnect_timeout=timeout_seconds,
        name="http api",
    )


def is_direct(connection: Connection) -> bool:
    """Whether no pooler is in between, so that the session and its prepared statements are the client's own.

    A pooler invents the process id that it sends at the start, because clients cancel statements with it.
    """
    return _is_own_process(connection, connection.execute(_SERVER_PROCESS).fetchone())


def _is_own_process(connection: Connection | AsyncConnection, row: dict[str, Any] | None) -> bool:
    return row is not None and row["process"] == connection.info.backend_pid


def set_statement_timeout(connection: Connection, seconds: float, *, is_local: bool) -> None:
    """Limit the time of each statement, in this transaction (`is_local`) or for the session."""
    connection.execute("select set_config('statement_timeout', %s, %s)", [str(int(seconds * 1000)), is_local])


@contextmanager
def transaction_with_timeout(connection: Connection, *, seconds: float) -> Iterator[None]:
    """A transaction that is rolled back with `StatementTimeout` if one of its statements takes longer than `seconds`."""
    with connection.transaction():
        # Local to the transaction, because behind a pooler another client would inherit a session setting.
        set_statement_timeout(connection, seconds, is_local=True)
        yield


_SERVER_PROCESS: LiteralString = "select pg_backend_pid() as process"

# Executions of a statement on one connection before it is prepared.
_PREPARE_AFTER = 2

# Pause between two attempts.
_RETRY_SECONDS = 0.5


class _RetryWindow:
    """Measures from the first error whether another attempt is allowed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failing_since: float | None = None

    def is_open(self) -> bool:
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        return now - self._failing_since <= self._seconds


def execute_with_retry(url: str, work: Callable[[Connection], T], *, patience_seconds: float) -> T:
    """Do `work` on a new connection, and retry transient errors for `patience_seconds` after the first one.

    `work` must be idempotent. Raises the last error.
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


async def _prepare_if_direct(connection: AsyncConnection) -> None:
    """Let the server keep the plans of statements, if `is_direct`: planning one takes 1 to 2 ms."""
    if _is_own_process(connection, await (await connection.execute(_SERVER_PROCESS)).fetchone()):
        connection.prepare_threshold = 0


class ReconnectingConnection:
    """One connection of an event loop, opened on first use and reopened after it is lost.

    Each user has its own, so that a lost connection costs one failed statement. In a pool, the users of a broken connection would
    crowd the others.
    """

    def __init__(self, url: str, *, patience_seconds: float) -> None:
        self._url = url
        self._retry_seconds = patience_seconds
        self._connection: AsyncConnection | None = None
        self._lock = asyncio.Lock()

    async def execute(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do `work` on the connection, one call at a time. Raises `DatabaseUnavailable`; the next call reconnects."""
        async with self._lock:
            try:
                if self._connection is None:
                    self._connection = await AsyncConnection.connect(self._url, **_options())
                    await _prepare_if_direct(self._connection)
                return await work(self._connection)
            except BaseException:
                # After any error, cancellation included, a statement may be unfinished, so the connection is not reused.
                await self.close()
                raise

    async def execute_with_retry(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        *,
        on_defect: Callable[[DatabaseError], None] | None = None,
    ) -> T:
        """Do `work`, and retry transient errors for the retry time. `work` must be idempotent.

        `on_defect`: for data that exists nowhere else. Defects are then retried too and passed to `on_defect`; only an error
        about the row itself is raised at once.
        """
        patience = _RetryWindow(self._retry_seconds)
        while True:
            try:
                return await self.execute(work)
            except DatabaseError as error:
                kind = classify(error)
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
