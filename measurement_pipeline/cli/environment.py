"""Which deployment a command works on: sandbox or live, which database, whose vendors, where Dagster lives.

Composition for the command line. What settings there are is `settings`; the objects made of them are `deployment`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from measurement_pipeline.local import dagster_processes
from measurement_pipeline.local.dagster_processes import DagsterProcesses
from measurement_pipeline.local.embedded_postgres import EmbeddedServer, EmbeddedServerError, dagster_url
from measurement_pipeline.local.signals import defer_signals
from measurement_pipeline.postgres import address, migrate
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.settings import REAL_SONGSTATS, REAL_STRIPE, Kind, Settings, SettingsError

if TYPE_CHECKING:  # a web server of their own: commands that ask no vendor do not load it
    from measurement_pipeline.sandbox import Behaviour, SandboxClient

# Where the doubles of one checkout listen unless they are told otherwise, so that its commands find them.
SANDBOX_PORT = 8917

MEASUREMENT_DATABASE = "measurement_pipeline"
DAGSTER_DATABASE = "dagster"

_CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class CliEnvironment:
    """A deployment whose server answers. `environment` is what every process of it must be started with."""

    kind: Kind
    settings: Settings
    database_url: str = field(repr=False)
    dagster_url: str = field(repr=False)
    home: Path
    is_embedded: bool
    variables: Mapping[str, str] = field(repr=False)

    @property
    def database_location(self) -> str:
        """The measurement database, for people: no login."""
        return (
            f"the embedded server in {self.home / 'postgres'}"
            if self.is_embedded
            else address.describe(self.database_url)
        )

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME of its processes."""
        return Path(self.variables["DAGSTER_HOME"])

    def require_own_database(self) -> None:
        """Raise `SchemaOutOfDateError` or `WrongDeploymentError` unless the database is this version's and kind's."""
        migrate.require_current(self.database_url, kind=self.kind)

    def connect(self) -> Connection:
        """A connection to the measurement database."""
        return connect(self.database_url)


@dataclass(frozen=True, slots=True)
class Doubles:
    """Where doubles of the vendors listen, and the keys they take."""

    url: str
    songstats_key: str
    stripe_key: str
    apify_token: str
    spotify_client_id: str
    spotify_client_secret: str

    @classmethod
    def from_keys(cls, url: str, keys: "Behaviour | SandboxClient") -> Self:
        """Doubles at `url` that take the keys of `keys`."""
        return cls(
            url,
            keys.songstats_key,
            keys.stripe_key,
            keys.apify_token,
            keys.spotify_client_id,
            keys.spotify_client_secret,
        )

    def environment(self) -> dict[str, str]:
        """What makes a process talk to them."""
        return {
            "SONGSTATS_BASE_URL": self.url,
            "STRIPE_API_BASE": self.url,
            "SONGSTATS_API_KEY": self.songstats_key,
            "STRIPE_SECRET_KEY": self.stripe_key,
            "APIFY_BASE_URL": self.url,
            "APIFY_TOKEN": self.apify_token,
            "SPOTIFY_API_BASE": self.url,
            "SPOTIFY_ACCOUNTS_BASE": self.url,
            "SPOTIFY_CLIENT_ID": self.spotify_client_id,
            "SPOTIFY_CLIENT_SECRET": self.spotify_client_secret,
        }


def should_use_doubles(settings: Settings) -> bool:
    """Whether the doubles of this checkout stand in for the vendors: nothing set says who or where the vendors are.

    Raises `SettingsError` where only one of the two keys is set.
    """
    keys = {"SONGSTATS_API_KEY": settings.songstats_api_key, "STRIPE_SECRET_KEY": settings.stripe_secret_key}
    missing = [name for name, key in keys.items() if key is None]
    if len(missing) == 1:
        (given,) = set(keys) - set(missing)
        raise SettingsError(
            f"{given} is set and {missing[0]} is not: expected both, for the vendors, or neither, for the sandbox"
        )
    return bool(missing) and settings.deployment_kind != "live" and not _has_vendor_urls(settings)


def deployment_home(name: str, state: Path | None) -> Path:
    """Where the deployment of that kind, or name, keeps what is its own."""
    return (state or _CHECKOUT / ".local").absolute() / name


@contextmanager
def open_environment(
    variables: Mapping[str, str],
    *,
    state: Path | None = None,
    doubles: Doubles | None = None,
    name: str | None = None,
    create: bool = True,
) -> Iterator[CliEnvironment]:
    """The deployment that `environment` describes; an embedded server is held for as long as the block lasts.

    `doubles` stand in for the vendors where `wants_doubles`. `state` is where `<kind>/postgres` and `<kind>/dagster`
    are kept; `name` overrides the first part. Where `make` is not set, nothing is made that is not there. Raises
    `SettingsError`, `EmbeddedServerError`, what the database raises.
    """
    settings = Settings.read(variables)
    without_vendors = should_use_doubles(settings)
    vendors = doubles.environment() if doubles is not None and without_vendors else {}
    settings = Settings.read({**variables, **vendors})
    kind = _kind(settings, without_vendors=without_vendors, has_doubles=bool(vendors))
    home = deployment_home(name or kind, state)
    with _server(settings, home, create=create) as (database_url, dagster):
        if address.is_same_database(database_url, dagster):
            raise SettingsError(
                f"DATABASE_URL and DAGSTER_POSTGRES_URL both name {address.describe(dagster)}: expected two databases, "
                "since each keeps the account of its migrations in a table of the same name"
            )
        dagster_home = settings.dagster_home or str(home / "dagster")
        decided = {
            **vendors,
            "DATABASE_URL": database_url,
            "DAGSTER_POSTGRES_URL": dagster_url(dagster),
            "DAGSTER_HOME": str(Path(dagster_home).absolute()),
        }
        yield CliEnvironment(
            kind=kind,
            settings=Settings.read({**variables, **decided}),
            database_url=database_url,
            dagster_url=dagster,
            home=home,
            is_embedded=settings.database_url is None,
            variables={**variables, **decided},
        )


@contextmanager
def open_database(state: Path | None) -> Iterator[tuple[CliEnvironment, Connection]]:
    """The deployment of this process's environment, checked, and a connection: for commands that ask no vendor."""
    with open_environment(os.environ, state=state) as environment:
        environment.require_own_database()
        with environment.connect() as connection:
            yield environment, connection


@contextmanager
def keep_server_running(environment: CliEnvironment) -> Iterator[Callable[[], None]]:
    """What to call every second or so: it starts `environment`'s embedded server again where that has died.

    Elsewhere it does nothing. Raises `EmbeddedServerError` where the server does not start.
    """
    with ExitStack() as again:

        def check() -> None:
            if not environment.is_embedded or address.is_listening(environment.database_url):
                return
            click.echo(f"POSTGRESQL DIED: starting {environment.database_location} again", err=True)
            with defer_signals():
                again.close()
                again.enter_context(EmbeddedServer(environment.home / "postgres"))
            click.echo("PostgreSQL is up again; what was in flight is taken up by later runs", err=True)

        yield check


def prepare_dagster(environment: CliEnvironment) -> DagsterProcesses:
    """Dagster's processes; its database and home are made where they are missing. A dagster.yaml of its own stays."""
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
    # A command that asks no vendor: it cannot mix anything, and goes by the stamp that the database has.
    if (
        settings.deployment_kind is None
        and settings.database_url is not None
        and migrate.get_stamp(settings.database_url) == "live"
    ):
        return "live"
    return "sandbox"


@contextmanager
def _server(settings: Settings, home: Path, *, create: bool) -> Iterator[tuple[str, str]]:
    """The measurement database's URL, and that of Dagster's storage."""
    if settings.database_url is not None:
        dagster = settings.dagster_postgres_url or address.with_database(settings.database_url, DAGSTER_DATABASE)
        yield settings.database_url, dagster
        return
    embedded = EmbeddedServer(home / "postgres")
    if not (create or embedded.exists):
        raise EmbeddedServerError(
            f"none was made in {home} yet: start `measurement-pipeline dev`, or let DATABASE_URL name a database"
        )
    with embedded as server:
        if create:
            server.create_database(MEASUREMENT_DATABASE)
        yield server.url(MEASUREMENT_DATABASE), settings.dagster_postgres_url or server.url(DAGSTER_DATABASE)
