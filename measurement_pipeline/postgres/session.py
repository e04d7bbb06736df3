"""Session parameters that every connection pins, independent of server, role, database and PG* variables (decision 0025).

libpq has no connection parameter for `TimeZone` and `DateStyle`. It sends the values of PGTZ and PGDATESTYLE as start-up
parameters, which PgBouncer accepts. So this module sets these two variables once per process.
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

# For statements outside an explicit transaction; `begin` sets the level itself.
_READ_COMMITTED = r"-c default_transaction_isolation=read\ committed"

# Addresses whose pooler rejects `options`; filled by the first attempt.
_without_options: set[str] = set()


def pinned(parameters: Mapping[str, str], *, isolation: bool = True) -> dict[str, str]:
    """`parameters` with the pinned ones. `options` is always present, because libpq would read PGOPTIONS otherwise."""
    options = parameters.get("options", "")
    if isolation:
        options = f"{options} {_READ_COMMITTED}".lstrip()
    return {**parameters, "client_encoding": "UTF8", "options": options}


def open_pinned(address: str, connect: Callable[[dict[str, str]], T]) -> T:
    """Call `connect` with the pinned parameters of `address`, without the isolation level if a pooler rejects it."""
    parameters = conninfo.parse(address)
    if address not in _without_options:
        try:
            return connect(pinned(parameters))
        except Exception as error:  # noqa: BLE001  # from either driver; re-raised unless the pooler rejects `options`
            _remember_refusal(address, error)
    return connect(pinned(parameters, isolation=False))


class Connection(psycopg.Connection[DictRow]):
    """A connection with pinned session parameters."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Like psycopg's `connect`, from an address."""
        opened = open_pinned(
            conninfo, lambda given: super(Connection, cls).connect(make_conninfo("", **given), **kwargs)
        )
        opened.isolation_level = IsolationLevel.READ_COMMITTED
        return opened


class AsyncConnection(psycopg.AsyncConnection[DictRow]):
    """A connection with pinned session parameters, for an event loop."""

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Like psycopg's `connect`, from an address."""
        opened = await cls._open(conninfo, kwargs)
        try:
            await opened.set_isolation_level(IsolationLevel.READ_COMMITTED)
        except BaseException:  # psycopg yields to a busy loop here, so the task can be cancelled
            await opened.close()
            raise
        return opened

    @classmethod
    async def _open(cls, address: str, kwargs: Mapping[str, Any]) -> Self:
        parameters = conninfo.parse(address)
        if address not in _without_options:
            try:
                return await super().connect(make_conninfo("", **pinned(parameters)), **kwargs)
            except Exception as error:  # noqa: BLE001  # re-raised unless the pooler rejects `options`
                _remember_refusal(address, error)
        return await super().connect(make_conninfo("", **pinned(parameters, isolation=False)), **kwargs)


def _remember_refusal(address: str, error: Exception) -> None:
    """Raise `error` unless a pooler rejected the parameter. PgBouncer never translates this message."""
    if "unsupported startup parameter" not in str(error):
        raise error
    _without_options.add(address)
