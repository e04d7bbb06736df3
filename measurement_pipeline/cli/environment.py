"""Determines which deployment a command works on: sandbox or live, its database, its vendors, and Dagster's home.

`settings` defines the settings; `services` creates the objects from them.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from measurement_pipeline.local import dagster_processes
from measurement_pipeline.local.dagster_processes import DagsterProcesses
from measurement_pipeline.local.embedded_postgres import EmbeddedServer, EmbeddedServerError
from measurement_pipeline.local.signals import defer_signals
from measurement_pipeline.postgres import address, conninfo, migrate
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.settings import REAL_SONGSTATS, REAL_STRIPE, Kind, Settings, SettingsError

# The default port of the vendor doubles, on which the commands of a checkout find them.
SANDBOX_PORT = 8917

MEASUREMENT_DATABASE = "measurement_pipeline"
DAGSTER_DATABASE = "dagster"

_CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class CliEnvironment:
    """A deployment with a running database server. `variables` is the process environment that all its processes need."""

    kind: Kind
    settings: Settings
    database_url: str = field(repr=False)
    dagster_url: str = field(repr=False)
    home: Path
    is_embedded: bool
    variables: Mapping[str, str] = field(repr=False)

    @property
    def database_location(self) -> str:
        """The address of the measurement database as text, without login."""
        return (
            f"the embedded server in {self.home / 'postgres'}"
            if self.is_embedded
            else address.describe(self.database_url)
        )

    @property
    def dagster_home(self) -> Path:
        """The DAGSTER_HOME of its processes."""
        return Path(self.variables["DAGSTER_HOME"])

    def require_own_database(self) -> None:
        """Raise `SchemaOutOfDateError` or `WrongDeploymentError` unless the database has this version's schema and this kind."""
        migrate.require_current(self.database_url, kind=self.kind)

    def connect(self) -> Connection:
        """Connect to the measurement database."""
        return connect(self.database_url)


def should_use_doubles(settings: Settings) -> bool:
    """Whether to use the vendor doubles: no setting names a vendor's key or URL.

    Raises `SettingsError` if only one of the two keys is set.
    """
    keys = {"SONGSTATS_API_KEY": settings.songstats_api_key, "STRIPE_SECRET_KEY": settings.stripe_secret_key}
    missing = [name for name, key in keys.items() if key is None]
    if len(missing) == 1:
        (given,) = set(keys) - set(missing)
        raise SettingsError(
            f"{given} is set, but {missing[0]} is not: set both for real vendors, or neither for the sandbox"
        )
    return bool(missing) and settings.deployment_kind != "live" and not _has_vendor_urls(settings)


def deployment_home(name: str, state: Path | None) -> Path:
    """The directory of the deployment with this kind or name."""
    return (state or _CHECKOUT / ".local").absolute() / name


@contextmanager
def open_environment(
    variables: Mapping[str, str],
    *,
    state: Path | None = None,
    doubles: Mapping[str, str] | None = None,
    name: str | None = None,
    create: bool = True,
) -> Iterator[CliEnvironment]:
    """Open the deployment that `variables` describes; an embedded server runs during the block.

    `doubles`: variables of the vendor doubles, used if `should_use_doubles`. The directory `state` holds `<kind>/postgres` and
    `<kind>/dagster`; `name` replaces the kind. Without `create`, a missing server is an error. Raises `SettingsError`,
    `EmbeddedServerError` and database errors.
    """
    settings = Settings.read(variables)
    without_vendors = should_use_doubles(settings)
    vendors = doubles if doubles is not None and without_vendors else {}
    settings = Settings.read({**variables, **vendors})
    kind = _kind(settings, without_vendors=without_vendors, has_doubles=bool(vendors))
    home = deployment_home(name or kind, state)
    with _server(settings, home, create=create) as (database_url, dagster):
        if address.is_same_database(database_url, dagster):
            raise SettingsError(
                f"DATABASE_URL and DAGSTER_POSTGRES_URL both name {address.describe(dagster)}: expected two databases, "
                "because both record their migrations in a table of the same name"
            )
        dagster_home = settings.dagster_home or str(home / "dagster")
        resolved = {
            **vendors,
            "DATABASE_URL": database_url,
            "DAGSTER_POSTGRES_URL": conninfo.sqlalchemy_url(dagster),
            "DAGSTER_HOME": str(Path(dagster_home).absolute()),
        }
        yield CliEnvironment(
            kind=kind,
            settings=Settings.read({**variables, **resolved}),
            database_url=database_url,
            dagster_url=dagster,
            home=home,
            is_embedded=settings.database_url is None,
            variables={**variables, **resolved},
        )


@contextmanager
def open_database(state: Path | None) -> Iterator[tuple[CliEnvironment, Connection]]:
    """Open and check the deployment of this process's environment, with a connection; for commands that call no vendor."""
    with open_environment(os.environ, state=state) as environment:
        environment.require_own_database()
        with environment.connect() as connection:
            yield environment, connection


@contextmanager
def keep_server_running(environment: CliEnvironment) -> Iterator[Callable[[], None]]:
    """Yield a function that restarts the embedded server if it has died; call it about once a second.

    It does nothing for another server. It raises `EmbeddedServerError` if the server does not start.
    """
    with ExitStack() as restarted:

        def check() -> None:
            if not environment.is_embedded or address.is_listening(environment.database_url):
                return
            click.echo(f"PostgreSQL stopped unexpectedly: restarting {environment.database_location}", err=True)
            with defer_signals():
                restarted.close()
                restarted.enter_context(EmbeddedServer(environment.home / "postgres"))
            click.echo("PostgreSQL is running again; later runs complete interrupted work", err=True)

        yield check


def prepare_dagster(environment: CliEnvironment) -> DagsterProcesses:
    """Create Dagster's database and home if missing, and return its processes. An existing dagster.yaml is kept."""
    address.create_if_absent(environment.dagster_url)
    dagster_processes.prepare_home(environment.dagster_home)
    return DagsterProcesses(environment.home, environment.variables)


def _has_vendor_urls(settings: Settings) -> bool:
    return (settings.songstats_base_url.rstrip("/"), settings.stripe_api_base.rstrip("/")) != (
        REAL_SONGSTATS,
        REAL_STRIPE,
    )


def _kind(settings: Settings, *, without_vendors: bool, has_doubles: bool) -> Kind:
    if not without_vendors or has_doubles:
        return settings.kind
    # The command calls no vendor, so it cannot mix deployments: the database's stamp decides.
    if (
        settings.deployment_kind is None
        and settings.database_url is not None
        and migrate.get_stamp(settings.database_url) == "live"
    ):
        return "live"
    return "sandbox"


@contextmanager
def _server(settings: Settings, home: Path, *, create: bool) -> Iterator[tuple[str, str]]:
    """Yield the URLs of the measurement database and of Dagster's storage."""
    if settings.database_url is not None:
        dagster = settings.dagster_postgres_url or address.with_database(settings.database_url, DAGSTER_DATABASE)
        yield settings.database_url, dagster
        return
    embedded = EmbeddedServer(home / "postgres")
    if not (create or embedded.exists):
        raise EmbeddedServerError(
            f"there is no server in {home}: start `measurement-pipeline dev`, or set DATABASE_URL to a database"
        )
    with embedded as server:
        if create:
            server.create_database(MEASUREMENT_DATABASE)
        yield server.url(MEASUREMENT_DATABASE), settings.dagster_postgres_url or server.url(DAGSTER_DATABASE)
