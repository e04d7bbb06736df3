"""The embedded server as a real process: started, shared, killed and started again."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psycopg
import pytest
import sqlalchemy

from measurement_pipeline.local.embedded_postgres import EmbeddedServer, EmbeddedServerError
from measurement_pipeline.postgres.conninfo import sqlalchemy_url
from measurement_pipeline_tests.faults.waiting import wait_until

QUICK = {"fsync": "off"}

OWNER = """
import subprocess, sys, time
from pathlib import Path
import psycopg
from measurement_pipeline.local.embedded_postgres import EmbeddedServer
from measurement_pipeline_tests.faults.waiting import wait_until
server = EmbeddedServer(Path(sys.argv[1]), settings={"fsync": "off"})
server.start()
server.create_database("kept")
with psycopg.connect(server.url("kept"), autocommit=True) as connection:
    connection.execute("select pg_advisory_lock(1)")
    connection.execute("create table if not exists word (word text)")
    connection.execute("insert into word values ('kept')")
exec(sys.argv[2])
print(server._guard.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def empty_directory() -> Iterator[Path]:
    # Not tmp_path: a short path keeps the socket beside the data, which is the usual case.
    with tempfile.TemporaryDirectory(prefix="mp-embedded-") as path:
        yield Path(path) / "postgres"


@pytest.fixture(scope="module")
def initialised() -> Iterator[Path]:
    """The data directory of a server that has been stopped. initdb takes a second of CPU, a copy a tenth of that."""
    with tempfile.TemporaryDirectory(prefix="mp-embedded-") as path:
        with EmbeddedServer(Path(path) / "postgres", settings=QUICK):
            pass
        yield Path(path) / "postgres" / "data"


@pytest.fixture
def directory(empty_directory: Path, initialised: Path) -> Path:
    empty_directory.mkdir()
    # `cp`, because it keeps the owner, who is another user under root.
    subprocess.run(["cp", "-a", str(initialised), str(empty_directory / "data")], check=True)
    return empty_directory


def _words(server: EmbeddedServer) -> list[str]:
    with psycopg.connect(server.url("kept")) as connection:
        return [word for (word,) in connection.execute("select word from word").fetchall()]


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


class Owner:
    """Another process that owns the server and has stored a word in it."""

    def __init__(self, directory: Path, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(directory), code], stdout=subprocess.PIPE, text=True
        )

    def wait(self) -> Self:
        """Wait until the process owns the server."""
        assert self.process.stdout is not None
        self._guard = self.process.stdout.readline()
        assert self._guard, "the owner did not start"
        return self

    def kill_guard(self) -> None:
        os.kill(int(self._guard), signal.SIGKILL)

    def kill(self, *, with_signal: int = signal.SIGKILL) -> None:
        self.process.send_signal(with_signal)
        self.process.wait()


@pytest.fixture
def new_owner(directory: Path) -> Iterator[Callable[..., Owner]]:
    owners: list[Owner] = []

    def new(code: str = "") -> Owner:
        owners.append(Owner(directory, code))
        return owners[-1]

    yield new
    for owner in owners:
        owner.kill()
        assert owner.process.stdout is not None
        owner.process.stdout.close()


def _serves(directory: Path) -> bool:
    return _answers(f"postgresql://postgres@/postgres?host={directory / 'socket'}&port=5432")


def test_a_database_is_created_once_and_reachable_by_its_url(directory: Path) -> None:
    with EmbeddedServer(directory, settings=QUICK) as server:
        for _ in range(2):
            server.create_database("an odd/name")
        with psycopg.connect(server.url("an odd/name")) as connection:
            assert connection.execute("select current_database(), current_setting('timezone')").fetchone() == (
                "an odd/name",
                "UTC",
            )


def test_dagsters_url_reaches_the_same_server_through_psycopg2(directory: Path) -> None:
    with EmbeddedServer(directory, settings=QUICK) as server:
        engine = sqlalchemy.create_engine(sqlalchemy_url(server.url("postgres")))
        assert engine.driver == "psycopg2"
        with engine.connect() as connection:
            assert connection.exec_driver_sql("select current_database()").scalar() == "postgres"
        engine.dispose()


def test_the_server_stops_with_its_last_owner(directory: Path) -> None:
    first, second = (
        EmbeddedServer(directory, settings=QUICK).start(),
        EmbeddedServer(directory).start(),
    )
    url = first.url("postgres")
    first.stop()
    assert _answers(url)
    second.stop()
    assert not _answers(url)
    second.stop()


def test_processes_that_start_at_the_same_time_share_one_server(
    directory: Path, new_owner: Callable[..., Owner]
) -> None:
    shutil.rmtree(directory)  # one of them runs initdb
    owners = [owner.wait() for owner in [new_owner() for _ in range(3)]]
    with EmbeddedServer(directory) as server:
        assert _words(server) == ["kept"] * 3
        for owner in owners:
            owner.kill()
        assert _words(server) == ["kept"] * 3


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_stops_after_a_killed_owner_and_keeps_its_data(
    directory: Path, new_owner: Callable[..., Owner], end: int
) -> None:
    owner = new_owner().wait()
    assert _serves(directory)
    owner.kill(with_signal=end)
    wait_until(lambda: not _serves(directory), what="the server to stop after its owner")
    with EmbeddedServer(directory, settings=QUICK) as server:
        assert _words(server) == ["kept"]


def test_an_inheriting_child_keeps_the_server_running_after_a_killed_owner(
    directory: Path, new_owner: Callable[..., Owner]
) -> None:
    pid = directory.parent / "child"
    code = f"Path({str(pid)!r}).write_text(str(subprocess.Popen(['sleep', '600'], close_fds=False).pid))"
    owner = new_owner(code).wait()
    owner.kill()
    # Long enough for a server that would stop.
    time.sleep(1)
    assert _serves(directory)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    wait_until(lambda: not _serves(directory), what="the server to stop after the child")


def test_the_next_owner_joins_and_stops_a_server_whose_owner_and_guard_were_killed(
    directory: Path, new_owner: Callable[..., Owner]
) -> None:
    owner = new_owner().wait()
    owner.kill_guard()
    owner.kill()
    with EmbeddedServer(directory) as server:
        assert _words(server) == ["kept"]
    assert not _serves(directory)


def test_a_killed_server_recovers_even_if_another_process_has_its_pid(
    directory: Path, new_owner: Callable[..., Owner]
) -> None:
    owner = new_owner().wait()
    owner.kill_guard()
    lock_files = (
        directory / "data" / "postmaster.pid",
        directory / "socket" / ".s.PGSQL.5432.lock",
    )
    killed = lock_files[0].read_text().splitlines()[0]
    os.kill(int(killed), signal.SIGKILL)
    owner.kill()
    server_user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    other = subprocess.Popen(["sleep", "600"], user=server_user)
    for file in lock_files:
        file.write_text(file.read_text().replace(killed, str(other.pid), 1))
    try:
        with EmbeddedServer(directory, settings=QUICK) as server:
            assert _words(server) == ["kept"]
        assert other.poll() is None, "the other process must survive"
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("content", ["", "12"])
def test_the_server_starts_despite_an_incomplete_lock_file(directory: Path, content: str) -> None:
    with EmbeddedServer(directory, settings=QUICK):
        pass
    (directory / "data" / "postmaster.pid").write_text(content)
    with EmbeddedServer(directory, settings=QUICK) as server:
        assert _answers(server.url("postgres"))


def test_an_interrupted_initdb_is_repeated(empty_directory: Path) -> None:
    unfinished = empty_directory / "unfinished-1"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with EmbeddedServer(empty_directory, settings=QUICK) as server:
        assert _answers(server.url("postgres"))
    assert not unfinished.exists()


def test_a_path_too_long_for_a_socket_is_replaced_by_a_short_one(empty_directory: Path) -> None:
    deep = empty_directory.joinpath(*["d" * 40] * 4)
    with EmbeddedServer(deep, settings=QUICK) as server, EmbeddedServer(deep) as joined:
        assert _answers(server.url("postgres"))
        assert server.url("postgres") == joined.url("postgres")
        sockets = Path(server.url("postgres").partition("host=")[2].partition("&")[0])
        assert not sockets.is_relative_to(deep)
    shutil.rmtree(sockets)


def test_a_start_without_a_short_enough_socket_path_fails(
    empty_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = empty_directory.joinpath(*["d" * 40] * 4)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(EmbeddedServerError, match="too long for a unix socket"):
        EmbeddedServer(deep).start()


def test_the_error_of_a_failed_start_includes_postgresqls_message(directory: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        EmbeddedServer(directory, settings={"no_such_setting": "1"}).start()


def test_the_url_of_a_server_that_is_not_running_raises_an_error(empty_directory: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="not started"):
        EmbeddedServer(empty_directory).url("postgres")
