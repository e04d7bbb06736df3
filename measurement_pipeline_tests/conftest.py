"""One PostgreSQL server for the whole run, and a database for each test, cloned from a template that was migrated once.

The server is the one in `DATABASE_URL`, or an embedded one for the tests alone. This module creates and drops the databases.
Their names are unique, so that two runs can share a server.
"""

import gc
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from starlette.types import Receive, Scope, Send

from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.sandbox import PLAIN, SandboxClient
from measurement_pipeline.sandbox.control_app import ControlApp
from measurement_pipeline.sandbox.memory import Memory
from measurement_pipeline.sandbox.scenarios import utc_now
from measurement_pipeline.sandbox.server import serving
from measurement_pipeline_tests.database import share_connection
from measurement_pipeline_tests.faults import matrix
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, create_workbench

# Tests start some hundred processes. Without bytecode, each compiles this package anew: a second of CPU or more.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What imports make stays until the end: see `pytest_collection_finish`.
gc.disable()

pytest_plugins = ["measurement_pipeline_tests.faults.guard_items"]

# These settings belong to one worker's server; there may be several workers.
DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")
_ROOM_BYTES = 4 * 1024**3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="The long form of the fault tests: what `make faults` runs.")
    parser.addoption("--template", help="A migrated sandbox database on the server of DATABASE_URL: none is made then.")
    parser.addoption("--catalogue", type=Path, help="A catalogue file whose recordings are drained under random kills.")


def pytest_configure(config: pytest.Config) -> None:
    """Set up what tests and the processes that they start inherit."""
    # A background shell leaves SIGINT ignored. Dagster then ignores SIGTERM too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Loading all authorities takes httpx 45 ms for each client, and no test speaks TLS. Processes that tests start inherit this.
    os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("no_authority.pem"))
    # The guards' runs of pytest exclude this plugin to save its import.
    if config.pluginmanager.has_plugin("hypothesispytest"):
        from hypothesis import HealthCheck, settings

        # A busy machine needs more time for an example, so there is no deadline. `make test` uses fewer examples, which differ
        # in each run.
        settings.register_profile(
            "any machine",
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            max_examples=200 if config.getoption("--long") else 40,
        )
        settings.load_profile("any machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests marked `long` unless `--long` is given. Run the slowest first: no worker runs one alone at the end."""
    if not config.getoption("--long"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    items.sort(key=lambda item: item.get_closest_marker("dagster") is None)


def pytest_collection_finish() -> None:
    """Keep garbage collection from walking through the modules and tests: an eighth of the run's CPU."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the fault matrix of the tests that passed."""
    properties = [item for report in terminalreporter.getreports("passed") for item in report.user_properties]
    result, caught = matrix.proofs(properties), matrix.guards(properties)
    if result or caught:
        terminalreporter.section("faults met, invariants that held")
        terminalreporter.write_line(matrix.as_markdown(result, caught))


@pytest.fixture
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether this is `make faults` (the long form) or `make test`."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Path | None:
    """The catalogue file to backfill, or None to generate recordings."""
    result: Path | None = request.config.getoption("--catalogue")
    return result


@pytest.fixture
def record_proof(request: pytest.FixtureRequest) -> matrix.ProofRecorder:
    """Records what a fault test has proved, at its end."""
    return matrix.ProofRecorder(request.node.user_properties)


class Server:
    """A PostgreSQL server on which the tests create databases."""

    def __init__(self, admin_url: str) -> None:
        self._admin = admin_url
        self._prefix = f"mp_test_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self._made = 0
        self._strategy = sql.SQL("")
        self._connection: psycopg.Connection | None = None

    def url(self, database: str) -> str:
        info = psycopg.conninfo.conninfo_to_dict(self._admin)
        info["dbname"] = database
        host, port = str(info.get("host", "")), info.get("port", "5432")
        user, password = info.get("user", "postgres"), info.get("password")
        login = f"{user}:{password}" if password else str(user)
        if host.startswith("/"):
            return f"postgresql://{login}@/{database}?host={host}"
        return f"postgresql://{login}@{host}:{port}/{database}"

    def create_database(self, *, template: str | None = None, encoding: str | None = None) -> str:
        self._made += 1
        name = f"{self._prefix}_{self._made}"
        statement = sql.SQL("create database {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" template {}").format(sql.Identifier(template)) + self._strategy
        if encoding is not None:
            statement += sql.SQL(" template template0 encoding {} locale 'C'").format(sql.Literal(encoding))
        self._run(statement)
        return name

    def drop(self, name: str) -> None:
        self._run(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def disable_durability(self) -> None:
        """Trade durability for speed on a throw-away server. Never called for the server in `DATABASE_URL`."""
        for setting in DURABILITY:
            self.set(setting, "off")
        self._run(sql.SQL("alter system set max_wal_size = '128MB'"))
        # Compiling a query takes longer than reading a test's few rows.
        self._run(sql.SQL("alter system set jit = off"))
        self._run(sql.SQL("select pg_reload_conf()"))
        # Copies the files instead of logging each block: 23 ms of CPU for each test instead of 60. It needs two checkpoints,
        # which are cheap only here.
        self._strategy = sql.SQL(" strategy file_copy")

    def set(self, setting: str, value: str) -> None:
        """Change a setting of the whole server, and wait until new sessions use it."""
        self._run(sql.SQL("alter system set {} = {}").format(sql.Identifier(setting), sql.Literal(value)))
        self._run(sql.SQL("select pg_reload_conf()"))

        def is_taken() -> bool:
            with psycopg.connect(self._admin) as connection:
                return connection.execute("select current_setting(%s)", [setting]).fetchone() == (value,)

        wait_until(is_taken, what=f"the server to set {setting} to {value}")

    def close(self) -> None:
        """Close the connection that creates databases."""
        if self._connection is not None:
            self._connection.close()

    def _run(self, statement: sql.Composable) -> None:
        # All statements share one connection: a new one, with its empty caches, costs a third of creating a database.
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._admin, autocommit=True)
        try:
            self._connection.execute(statement)
        except psycopg.OperationalError:
            # A test has restarted the server, or ended all sessions.
            if not self._connection.closed:
                raise
            self._connection = psycopg.connect(self._admin, autocommit=True)
            self._connection.execute(statement)


def _directory_in_memory() -> str | None:
    """A directory in memory, if there is space: a test's database is 400 new files, which may take a disk a tenth of a second."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES else None


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    given = os.environ.get("DATABASE_URL")
    if given:
        with closing(Server(given)) as result:
            yield result
        return
    from measurement_pipeline.local.embedded_postgres import EmbeddedServer

    with (
        tempfile.TemporaryDirectory(prefix="mp", dir=_directory_in_memory()) as directory,
        EmbeddedServer(Path(directory) / "postgres") as embedded,
        closing(Server(embedded.url("postgres"))) as result,
    ):
        result.disable_durability()
        yield result


@pytest.fixture(scope="session")
def template(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated sandbox database that no test connects to."""
    given = request.config.getoption("--template")
    if given:
        yield given
        return
    # Imported here, because SQLAlchemy takes a quarter of a short start of pytest.
    from measurement_pipeline.postgres import migrate

    name = server.create_database()
    migrate.upgrade(server.url(name), kind="sandbox")
    yield name
    server.drop(name)


@pytest.fixture
def empty_database_url(server: Server) -> Iterator[str]:
    """A database without any migration."""
    name = server.create_database()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def database_url(server: Server, template: str) -> Iterator[str]:
    """A migrated database for this test alone."""
    name = server.create_database(template=template)
    with share_connection(server.url(name)):
        yield server.url(name)
    server.drop(name)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as opened:
        yield opened


class _CurrentDoubles:
    """Forwards to the current test's doubles: starting a server takes longer than most tests."""

    app: ControlApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def doubles() -> Iterator[tuple[_CurrentDoubles, str]]:
    """The server of all tests' doubles, and its base URL."""
    current = _CurrentDoubles()
    with serving(current) as url:
        yield current, url


@pytest.fixture
def sandbox(doubles: tuple[_CurrentDoubles, str]) -> Iterator[SandboxClient]:
    """Doubles for this test alone, without irregularities unless the test asks for them."""
    current, url = doubles
    with closing(Memory()) as memory, SandboxClient(url, PLAIN) as client:
        current.app = ControlApp(PLAIN, {}, lambda: url, utc_now, memory)
        yield client


@pytest.fixture
def bench(database_url: str, sandbox: SandboxClient) -> Workbench:
    return create_workbench(database_url, sandbox)
