"""How a session of PostgreSQL begins, whatever the server, the role, the database or a PG… variable says (decision 0025).

libpq has no connection parameter for `TimeZone` and `DateStyle`: it sends the values of PGTZ and PGDATESTYLE, and sends them as
parameters of their own, which PgBouncer takes too. So these two variables are set here, once for each process.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow

from measurement_pipeline.postgres import conninfo

T = TypeVar("T")

os.environ.update({"PGTZ": "UTC", "PGDATESTYLE": "ISO, MDY"})

# For statements outside a transaction of our own; `begin` states the level by itself.
_READ_COMMITTED = r"-c default_transaction_isolation=read\ committed"

# Addresses where a pooler takes no `options`, known after the first try.
_without_options: set[str] = set()


def pinned(parameters: Mapping[str, str], *, isolation: bool = True) -> dict[str, str]:
    """`parameters` with what every session is opened with. `options` is never absent: libpq would read PGOPTIONS."""
    options = parameters.get("options", "")
    if isolation:
        options = f"{options} {_READ_COMMITTED}".lstrip()
    return {**parameters, "client_encoding": "UTF8", "options": options}


def open_pinned(address: str, connect: Callable[[dict[str, str]], T]) -> T:
    """Call `connect` with the pinned parameters of `address`; without the isolation level where a pooler refuses it."""
    parameters = conninfo.parse(address)
    if address not in _without_options:
        try:
            return connect(pinned(parameters))
        except Exception as error:  # noqa: BLE001  # of either driver; raised again unless it is the pooler's
            _remember_refusal(address, error)
    return connect(pinned(parameters, isolation=False))


class Connection(psycopg.Connection[DictRow]):
    """A connection whose session begins as above."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """As psycopg's, from an address."""
        opened = open_pinned(
            conninfo, lambda given: super(Connection, cls).connect(make_conninfo("", **given), **kwargs)
        )
        opened.isolation_level = IsolationLevel.READ_COMMITTED
        return opened


class AsyncConnection(psycopg.AsyncConnection[DictRow]):
    """The same for an event loop."""

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """As psycopg's, from an address."""
        opened = await cls._open(conninfo, kwargs)
        await opened.set_isolation_level(IsolationLevel.READ_COMMITTED)
        return opened

    @classmethod
    async def _open(cls, address: str, kwargs: Mapping[str, Any]) -> Self:
        parameters = conninfo.parse(address)
        if address not in _without_options:
            try:
                return await super().connect(make_conninfo("", **pinned(parameters)), **kwargs)
            except Exception as error:  # noqa: BLE001  # raised again unless it is the pooler's
                _remember_refusal(address, error)
        return await super().connect(make_conninfo("", **pinned(parameters, isolation=False)), **kwargs)


def _remember_refusal(address: str, error: Exception) -> None:
    """Raise `error` unless it says that a pooler takes no such parameter. PgBouncer's words, which it never translates."""
    if "unsupported startup parameter" not in str(error):
        raise error
    _without_options.add(address)
