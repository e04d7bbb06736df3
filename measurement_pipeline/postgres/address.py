"""Addresses of databases: read one, name another on the same server, tell two apart, make one that is not there.

An address holds a password: nothing here puts it into an exception.
"""

import socket
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from measurement_pipeline.postgres.database import DatabaseUnavailable, connect

_DEFAULT_PORT = "5432"
_LOOPBACK = {"localhost", "127.0.0.1", "::1", ""}


def is_readable(url: str) -> bool:
    """Whether libpq can read `url` and it names a database."""
    return _read(url) is not None


def listens(embedded_url: str) -> bool:
    """Whether a server listens at the socket of `embedded_url`, which names a socket directory.

    The socket alone: a server that refuses a login, being full or on its way up, is not dead.
    """
    where = conninfo_to_dict(embedded_url)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(f"{where['host']}/.s.PGSQL.{where['port']}")
        except BlockingIOError:  # many wait to be let in
            return True
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def on_same_server(url: str, database: str) -> str:
    """`url` with another database."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{database}"))


def same_database(one: str, other: str) -> bool:
    """Whether two readable addresses name one database, whoever logs in."""
    return _place(one) == _place(other)


def in_words(url: str) -> str:
    """Database and server, without the login: fit for a banner or a log."""
    host, port, database = _place(url)
    return f"{database} on {host}" if host.startswith("/") else f"{database} on {host}:{port}"


def create_if_absent(url: str) -> bool:
    """Make the database that `url` names, if its server lacks it; whether it had to be made.

    Raises `DatabaseError` where the server cannot be reached or the login may not create databases.
    """
    try:
        with connect(url):
            return False
    except DatabaseUnavailable:
        # Told by asking, not by the message: that one comes in the server's language.
        with connect(on_same_server(url, "postgres")) as connection:
            name = str((_read(url) or {})["dbname"])
            if connection.execute("select from pg_database where datname = %s", (name,)).fetchone() is not None:
                raise
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            return True


def _read(url: str) -> dict[str, Any] | None:
    # Dagster's addresses carry SQLAlchemy's driver.
    scheme, _, rest = url.partition("://")
    try:
        found = conninfo_to_dict(f"{scheme.partition('+')[0]}://{rest}")
    except psycopg.ProgrammingError:
        return None
    return found if found.get("dbname") else None


def _place(url: str) -> tuple[str, str, str]:
    found = _read(url) or {}
    host = str(found.get("host") or "")
    return (
        "localhost" if host in _LOOPBACK else host,
        str(found.get("port") or _DEFAULT_PORT),
        str(found.get("dbname") or ""),
    )
