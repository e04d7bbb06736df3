"""Session parameters do not depend on the server, the role, the database or a PG… variable."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from measurement_pipeline.defs.storage import PooledRunStorage
from measurement_pipeline.domain.blockers import describe, vendor_blockers
from measurement_pipeline.postgres import conninfo, songstats_ledger
from measurement_pipeline.postgres.conninfo import sqlalchemy_url
from measurement_pipeline.postgres.database import AsyncConnection, ReconnectingConnection, connect, pool

FOREIGN = {
    "timezone": "Asia/Tokyo",
    "datestyle": "German, DMY",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
}
PARAMETERS = ("UTC", "ISO, MDY", "UTF8", "read committed")
# The message that carries the server process id.
_BACKEND_KEY = re.compile(rb"(?<=K\0\0\0\x0c).{4}", re.DOTALL)
_INVENTED_KEY = b"\x7f\xff\xff\xff"
SHOWN = "select {} as value".format(" || '|' || ".join(f"current_setting('{name}')" for name in FOREIGN))
PG_VARIABLES = {
    "PGTZ": "Asia/Tokyo",
    "PGDATESTYLE": "German",
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c default_transaction_isolation=serializable",
    "PGDATABASE": "elsewhere",
    "PGAPPNAME": "elsewhere",
}


@pytest.fixture
def foreign_url(empty_database_url: str) -> str:
    """A database with other defaults than ours."""
    name = conninfo.parse(empty_database_url)["dbname"]
    with psycopg.connect(empty_database_url, autocommit=True) as opened:
        for setting, value in FOREIGN.items():
            opened.execute(
                sql.SQL("alter database {} set {} = {}").format(
                    sql.Identifier(name), sql.Identifier(setting), sql.Literal(value)
                )
            )
    return empty_database_url


def test_every_kind_of_connection_pins_the_same_parameters(foreign_url: str):
    def check(value: str) -> None:
        assert tuple(value.split("|")) == PARAMETERS

    with connect(foreign_url) as opened:
        check(opened.execute(SHOWN).fetchone()["value"])
        with opened.transaction():
            check(opened.execute(SHOWN).fetchone()["value"])
    with pool(foreign_url, size=1, timeout_seconds=10) as lent_connection, lent_connection.connection() as opened:
        check(opened.execute(SHOWN).fetchone()["value"])

    async def read_parameters() -> str:
        async with await AsyncConnection.connect(foreign_url) as opened:
            cursor = await opened.execute(SHOWN)
            (value,) = await cursor.fetchone()
            return value

    check(asyncio.run(read_parameters()))
    storage = PooledRunStorage(sqlalchemy_url(foreign_url))
    with storage.connect() as opened:
        check(opened.exec_driver_sql(SHOWN).scalar_one())


def test_a_transaction_sets_its_isolation_level_if_the_session_could_not(foreign_url: str):
    """Behind a pooler that accepts no options, `begin` sets the level."""
    with connect(foreign_url) as opened:
        opened.execute("set default_transaction_isolation = serializable")
        with opened.transaction():
            assert opened.execute("show transaction_isolation").fetchone() == {
                "transaction_isolation": "read committed"
            }


def test_pg_variables_change_nothing(foreign_url: str):
    script = (
        "import sys; from measurement_pipeline.postgres.database import connect\n"
        f"print(connect(sys.argv[1]).execute({SHOWN!r}).fetchone()['value'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, foreign_url],
        env={**os.environ, **PG_VARIABLES},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("|".join(PARAMETERS), "")


@contextmanager
def pooler_without_options(target: str) -> Iterator[str]:
    """Act as PgBouncer: reject untracked start parameters with its message, invent the process id, and pass other bytes on."""
    result = conninfo.parse(target)
    host, port = result.get("host", "localhost"), result.get("port", "5432")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=[client], daemon=True).start()

        def handle(client: socket.socket) -> None:
            start = client.recv(65_536)
            while len(start) <= 16 and start:  # a request for TLS or GSS, which it does not offer
                client.sendall(b"N")
                start = client.recv(65_536)
            if b"options\0" in start:
                expected = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"
                client.sendall(b"E" + (len(expected) + 4).to_bytes(4, "big") + expected)
                client.close()
                return
            if host.startswith("/"):
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(f"{host}/.s.PGSQL.{port}")
            else:
                upstream = socket.create_connection((host, int(port)))
            upstream.sendall(start)
            threading.Thread(target=copy, args=[client, upstream], daemon=True).start()
            copy(upstream, client)

        def copy(source: socket.socket, sink: socket.socket) -> None:
            try:
                while data := source.recv(65_536):
                    sink.sendall(_BACKEND_KEY.sub(_INVENTED_KEY, data, count=1))
            except OSError:
                pass
            sink.close()

        threading.Thread(target=serve, daemon=True).start()
        via = {**result, "host": "127.0.0.1", "port": str(server.getsockname()[1]), "gssencmode": "disable"}
        yield conninfo.uri(via)


def test_a_pooler_that_rejects_options_gets_the_other_parameters(foreign_url: str):
    with pooler_without_options(foreign_url) as url:
        for _ in range(2):
            with connect(url) as opened:
                assert opened.execute(SHOWN).fetchone() == {"value": "UTC|ISO, MDY|UTF8|serializable"}
                with opened.transaction():
                    (row,) = opened.execute("show transaction_isolation").fetchall()
                    assert row["transaction_isolation"] == "read committed"
        with PooledRunStorage(sqlalchemy_url(url), should_autocreate_tables=False).connect() as opened:
            assert opened.exec_driver_sql(SHOWN).scalar_one().startswith("UTC|ISO, MDY|UTF8|")


@pytest.mark.parametrize(("is_pooled", "expected"), [(False, 1), (True, 0)])
def test_statements_are_prepared_only_without_a_pooler(database_url: str, is_pooled: bool, expected: int):
    async def count_prepared(connection: AsyncConnection) -> int:
        found = await connection.execute("select count(*) as statements from pg_prepared_statements")
        return (await found.fetchone())["statements"]

    async def connect_and_count(url: str) -> int:
        connection = ReconnectingConnection(url, patience_seconds=0)
        try:
            return await connection.execute(count_prepared)
        finally:
            await connection.close()

    with pooler_without_options(database_url) as pooled:
        assert asyncio.run(connect_and_count(pooled if is_pooled else database_url)) == expected


def test_times_labelled_utc_are_utc(database_url: str):
    name = conninfo.parse(database_url)["dbname"]
    with connect(database_url) as opened:
        opened.execute(sql.SQL("alter database {} set timezone = 'Asia/Tokyo'").format(sql.Identifier(name)))
        opened.execute(
            "update vendor_state set paused_until = '2100-01-01 00:00+00', pause_reason = 'asked to' where vendor = 'songstats'"
        )
    with connect(database_url) as opened:
        vendor = songstats_ledger.vendor_state(opened)
        (pause,) = vendor_blockers(vendor)
        assert "2100-01-01 00:00:00 UTC: asked to" in describe(pause)
        assert str(vendor.now.tzinfo) == "UTC"


def test_a_key_value_address_is_accepted(foreign_url: str):
    with connect(make_conninfo("", **conninfo.parse(foreign_url))) as opened:
        assert opened.execute("select 1 as one").fetchone() == {"one": 1}
