"""Addresses of databases: read one, name another on the same server, tell two apart, make one that is not there.

An address holds a password: nothing here puts it into an exception.
"""

import socket

from psycopg import sql

from measurement_pipeline.postgres import conninfo
from measurement_pipeline.postgres.database import DatabaseUnavailable, connect

_DEFAULT_PORT = "5432"
_LOOPBACK = {"localhost", "127.0.0.1", "::1", ""}


def listens(embedded_url: str) -> bool:
    """Whether a server listens at the socket of `embedded_url`, which names a socket directory.

    The socket alone: a server that refuses a login, being full or on its way up, is not dead.
    """
    where = conninfo.parse(embedded_url)
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
    return conninfo.uri({**conninfo.parse(url), "dbname": database})


def same_database(one: str, other: str) -> bool:
    """Whether two addresses name one database, whoever logs in: it is the same name on a host and port that both list."""
    return _place(one)[1] == _place(other)[1] and same_server(one, other)


def same_server(one: str, other: str) -> bool:
    """Whether two addresses list a host and port in common."""
    return not set(_place(one)[0]).isdisjoint(_place(other)[0])


def in_words(url: str) -> str:
    """Database and server, without the login: fit for a banner or a log."""
    servers, database = _place(url)
    return f"{database} on {', '.join(host if host.startswith('/') else f'{host}:{port}' for host, port in servers)}"


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
            name = conninfo.parse(url)["dbname"]
            if connection.execute("select from pg_database where datname = %s", (name,)).fetchone() is not None:
                raise
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            return True


def _place(url: str) -> tuple[list[tuple[str, str]], str]:
    """The servers that it lists, as host and port, and the database."""
    found = conninfo.parse(url)
    hosts, ports = found.get("host", "").split(","), found.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = zip(hosts, ports, strict=True)
    return [("localhost" if host in _LOOPBACK else host, port or _DEFAULT_PORT) for host, port in places], found[
        "dbname"
    ]
