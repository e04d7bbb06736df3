"""One PostgreSQL for the whole run, one database a test, cloned from a template that was migrated once.

The server is the one that `DATABASE_URL` names, or an embedded one of the tests' own. Databases are made and dropped here, and
named so that two runs against one server do not meet.
"""

import os
import shutil
import signal
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
from measurement_pipeline_tests.database import one_connection
from measurement_pipeline_tests.faults import matrix
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.workbench import Workbench, workbench

pytest_plugins = ["measurement_pipeline_tests.faults.guard_items"]

# Of one worker's server; there may be several.
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
    os.environ.setdefault("SSL_CERT_FILE", str(Path(__file__).with_name("no_authority.pem")))
    # The guards' runs of pytest do without this plugin, and without its import.
    if config.pluginmanager.has_plugin("hypothesispytest"):
        from hypothesis import HealthCheck, settings

        # On a busy machine an example takes as long as it takes. Fewer examples in `make test`: they differ in each run.
        settings.register_profile(
            "any machine",
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            max_examples=200 if config.getoption("--long") else 40,
        )
        settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take tens of seconds first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("dagster") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the fault matrix of the tests that passed."""
    properties = [item for report in terminalreporter.getreports("passed") for item in report.user_properties]
    found, caught = matrix.proofs(properties), matrix.guards(properties)
    if found or caught:
        terminalreporter.section("faults met, invariants that held")
        terminalreporter.write_line(matrix.as_markdown(found, caught))


@pytest.fixture
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether this is `make faults`, which takes its time, or `make test`, which does not."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def catalogue(request: pytest.FixtureRequest) -> Path | None:
    """The catalogue file that was named to be drained; None: recordings are made up."""
    found: Path | None = request.config.getoption("--catalogue")
    return found


@pytest.fixture
def proves(request: pytest.FixtureRequest) -> matrix.Proves:
    """What a fault test says once it has proved it."""
    return matrix.Proves(request.node.user_properties)


class Server:
    """A PostgreSQL server on which the tests may make databases."""

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

    def make(self, *, template: str | None = None, encoding: str | None = None) -> str:
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

    def hurry(self) -> None:
        """Nothing of a throw-away server has to survive a power cut. Never asked of a server that was given."""
        for setting in DURABILITY:
            self.set(setting, "off")
        self._run(sql.SQL("alter system set max_wal_size = '128MB'"))
        # Compiling a query takes longer than the few rows of a test.
        self._run(sql.SQL("alter system set jit = off"))
        self._run(sql.SQL("select pg_reload_conf()"))
        # Copies the files instead of writing each block to the log: 23 ms of CPU a test in place of 60. It costs two checkpoints,
        # which are free only here.
        self._strategy = sql.SQL(" strategy file_copy")

    def set(self, setting: str, value: str) -> None:
        """Change a setting of the whole server, and wait until new sessions have it."""
        self._run(sql.SQL("alter system set {} = {}").format(sql.Identifier(setting), sql.Literal(value)))
        self._run(sql.SQL("select pg_reload_conf()"))

        def is_taken() -> bool:
            with psycopg.connect(self._admin) as connection:
                return connection.execute("select current_setting(%s)", [setting]).fetchone() == (value,)

        until(is_taken, what=f"the server to set {setting} to {value}")

    def close(self) -> None:
        """Close the connection that databases are made on."""
        if self._connection is not None:
            self._connection.close()

    def _run(self, statement: sql.Composable) -> None:
        # One connection for all: a new one, with its empty caches, costs a third of what making a database does.
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


def _roomy() -> str | None:
    """In memory where that has room: a test's database is 400 new files, for which a disk may take a tenth of a second."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES else None


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    given = os.environ.get("DATABASE_URL")
    if given:
        with closing(Server(given)) as found:
            yield found
        return
    from measurement_pipeline.local.embedded_postgres import EmbeddedServer

    with (
        tempfile.TemporaryDirectory(prefix="mp", dir=_roomy()) as directory,
        EmbeddedServer(Path(directory) / "postgres") as embedded,
        closing(Server(embedded.url("postgres"))) as found,
    ):
        found.hurry()
        yield found


@pytest.fixture(scope="session")
def template(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated sandbox database that no test connects to."""
    given = request.config.getoption("--template")
    if given:
        yield given
        return
    # Imported where it is needed: SQLAlchemy is a quarter of what a short start of pytest takes.
    from measurement_pipeline.postgres import migrate

    name = server.make()
    migrate.upgrade(server.url(name), kind="sandbox")
    yield name
    server.drop(name)


@pytest.fixture
def empty_database_url(server: Server) -> Iterator[str]:
    """A database that was never migrated."""
    name = server.make()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def database_url(server: Server, template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = server.make(template=template)
    with one_connection(server.url(name)):
        yield server.url(name)
    server.drop(name)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as opened:
        yield opened


class _CurrentDoubles:
    """Answers with the doubles of the test that runs: a server for each test would take longer than most tests."""

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
    """Doubles of the test's own, with nothing awkward but what the test asks for."""
    current, url = doubles
    with closing(Memory()) as memory, SandboxClient(url, PLAIN) as client:
        current.app = ControlApp(PLAIN, {}, lambda: url, utc_now, memory)
        yield client


@pytest.fixture
def bench(database_url: str, sandbox: SandboxClient) -> Workbench:
    return workbench(database_url, sandbox)
