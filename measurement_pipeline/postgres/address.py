"""Compare and describe database addresses, and create a missing database.

An address contains a password, so no exception here contains an address.
"""

import socket

from psycopg import sql

from measurement_pipeline.postgres import conninfo
from measurement_pipeline.postgres.database import DatabaseUnavailable, connect

_DEFAULT_PORT = "5432"
_LOOPBACK = {"localhost", "127.0.0.1", "::1", ""}


def is_listening(embedded_url: str) -> bool:
    """Whether a server listens at the socket of `embedded_url`, which names a socket directory.

    Tests the socket only, because a server that is full or starting rejects logins and is alive.
    """
    where = conninfo.parse(embedded_url)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(f"{where['host']}/.s.PGSQL.{where['port']}")
        except BlockingIOError:  # the server's backlog is full
            return True
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def with_database(url: str, database: str) -> str:
    """`url` with another database."""
    return conninfo.uri({**conninfo.parse(url), "dbname": database})


def is_same_database(one: str, other: str) -> bool:
    """Whether two addresses name the same database: one name, and a host and port that both list. Logins are ignored."""
    return _servers_and_database(one)[1] == _servers_and_database(other)[1] and is_same_server(one, other)


def is_same_server(one: str, other: str) -> bool:
    """Whether two addresses share a host and port."""
    return not set(_servers_and_database(one)[0]).isdisjoint(_servers_and_database(other)[0])


def describe(url: str) -> str:
    """Database and server without the login, for banners and logs."""
    servers, database = _servers_and_database(url)
    return f"{database} on {', '.join(host if host.startswith('/') else f'{host}:{port}' for host, port in servers)}"


def create_if_absent(url: str) -> bool:
    """Create the database of `url` if it is missing; return whether it was created.

    Raises `DatabaseError` if the server is unreachable or the login may not create databases.
    """
    try:
        with connect(url):
            return False
    except DatabaseUnavailable:
        # Looks the database up, because the error message is in the server's language.
        with connect(with_database(url, "postgres")) as connection:
            name = conninfo.parse(url)["dbname"]
            if connection.execute("select from pg_database where datname = %s", (name,)).fetchone() is not None:
                raise
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            return True


def _servers_and_database(url: str) -> tuple[list[tuple[str, str]], str]:
    """The servers (host, port) and the database of `url`."""
    found = conninfo.parse(url)
    hosts, ports = found.get("host", "").split(","), found.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = zip(hosts, ports, strict=True)
    return [("localhost" if host in _LOOPBACK else host, port or _DEFAULT_PORT) for host, port in places], found[
        "dbname"
    ]
