"""Runs a test's own statements on one connection, because opening one takes longer than most statements."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from measurement_pipeline.postgres.database import Connection, connect


class _SharedConnection:
    """The connection to one test's database, and its lock."""

    def __init__(self) -> None:
        self.in_use = threading.Lock()
        self.connection: Connection | None = None


_kept: dict[str, _SharedConnection] = {}


@contextmanager
def share_connection(database_url: str) -> Iterator[None]:
    """Share one connection among all calls of `execute` on this database until the block ends."""
    stored = _kept[database_url] = _SharedConnection()
    try:
        yield
    finally:
        del _kept[database_url]
        if stored.connection is not None:
            stored.connection.close()


def execute(database_url: str, statement: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
    """Run one statement and return its rows."""
    stored = _kept.get(database_url)
    # A thread that waits for a database lock must not block the thread that would release it.
    if stored is None or not stored.in_use.acquire(blocking=False):
        with connect(database_url) as connection:
            return _rows(connection, statement, parameters)
    try:
        if stored.connection is not None and not stored.connection.closed:
            try:
                return _rows(stored.connection, statement, parameters)
            except psycopg.OperationalError:
                # The test ended this session or restarted the server before the statement was sent.
                if not stored.connection.closed:
                    raise
        stored.connection = connect(database_url)
        return _rows(stored.connection, statement, parameters)
    finally:
        stored.in_use.release()


def _rows(connection: Connection, statement: str, parameters: Sequence[object]) -> list[dict[str, Any]]:
    rows = connection.execute(statement, parameters)  # type: ignore[call-overload]
    return list(rows) if rows.description else []
