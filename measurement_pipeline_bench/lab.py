"""Shared by all benchmarks: a throw-away PostgreSQL, doubles of the vendors in their own process, and deployments on them.

The server keeps PostgreSQL's default durability (fsync on, synchronous commits), which both sides of every comparison pay for.
The environment's own deployment is not touched.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

from rich.console import Console

from measurement_pipeline import services
from measurement_pipeline.intake import process as intake
from measurement_pipeline.local import dagster_processes
from measurement_pipeline.local.embedded_postgres import EmbeddedServer
from measurement_pipeline.postgres import measurement_jobs, migrate
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.postgres.payment_decisions import ensure_account
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.settings import Settings

# Larger than any benchmark needs, and without a pace: neither is measured.
_SETTINGS = {"SONGSTATS_HIT_LIMIT": "1000000", "SONGSTATS_REQUESTS_PER_SECOND": "0"}


def isrcs(count: int) -> list[str]:
    """ISRCs of IFPI's example registrant, which are never real recordings."""
    return [f"AA6Q72{number:06d}" for number in range(count)]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Two fresh databases, a DAGSTER_HOME and an account with a card. `environment` is for its processes."""

    database_url: str
    dagster_url: str
    home: Path
    environment: Mapping[str, str] = field(repr=False)
    account: UUID

    @property
    def processes(self) -> Path:
        """The directory of its processes' files. Not Dagster's home, whose telemetry deletes a directory `logs` there."""
        return self.home / "processes"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.processes / "logs" / "dagster-daemon.log"

    def connect(self) -> Connection:
        """A connection to the measurement database."""
        return connect(self.database_url)

    def services(self) -> services.Services:
        """The pipeline's own services, created from the environment."""
        return services.load_services(self.environment)

    def know_account(self, connection: Connection) -> None:
        """Create the account's row, which a catalogue needs before its owner's first request."""
        ensure_account(connection, self.account)

    def submit(self, songs: Sequence[str]) -> UUID:
        """Submit `songs` as a client does, by an insert."""
        return self.submit_scope({"isrcs": list(songs)})

    def submit_scope(self, scope: dict[str, Any]) -> UUID:
        """Submit a request for `scope`; return its id."""
        with self.connect() as connection:
            return measurement_jobs.submit(connection, account=self.account, source="historical", scope=scope)

    def process_requests(self) -> None:
        """Process the submitted requests in this process, for benchmarks that start with a queue."""
        opened = intake.load_batch(self.database_url)
        decisions = intake.check_payments(opened, self.services().stripe.decide)
        intake.process_batch(self.database_url, opened, decisions, run="bench")


class Lab:
    """One run of the benchmark. `quick` uses sizes that only show that it works."""

    def __init__(self, directory: Path, server: EmbeddedServer, console: Console, *, quick: bool) -> None:
        self.quick = quick
        self.console = console
        self._directory = directory
        self._server = server
        self._since = time.monotonic()
        self._made = 0

    def size(self, full: int, quick: int) -> int:
        """The size of a sample."""
        return quick if self.quick else full

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self.console.print(f"[dim]{time.monotonic() - self._since:6.1f} s[/]  {text}", highlight=False)

    def database(self) -> str:
        """The URL of a fresh, migrated sandbox database."""
        url = self._empty_database()
        migrate.upgrade(url, kind="sandbox")
        return url

    def deployment(self, sandbox: SandboxClient, **settings: str) -> Deployment:
        """A fresh deployment that talks to `sandbox`."""
        database_url, dagster_url = self.database(), self._empty_database()
        home = self._directory / f"dagster{self._made}"
        dagster_processes.prepare_home(home)
        names = {setting.alias for setting in Settings.model_fields.values()}
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if name not in names and not name.startswith("DAGSTER_")
            },
            **_SETTINGS,
            "DATABASE_URL": database_url,
            "DAGSTER_POSTGRES_URL": dagster_url,
            "DAGSTER_HOME": str(home),
            "SONGSTATS_API_KEY": sandbox.songstats_key,
            "SONGSTATS_BASE_URL": sandbox.songstats_url,
            "STRIPE_SECRET_KEY": sandbox.stripe_key,
            "STRIPE_API_BASE": sandbox.stripe_url,
            **settings,
        }
        account = uuid4()
        sandbox.card(str(account))
        return Deployment(database_url, dagster_url, home, environment, account)

    def _empty_database(self) -> str:
        self._made += 1
        name = f"bench{self._made}"
        self._server.create_database(name)
        return self._server.url(name)


@contextmanager
def opened(console: Console, *, quick: bool) -> Iterator[Lab]:
    """A lab; its server and files are removed when the block ends."""
    with (
        TemporaryDirectory(prefix="mp_bench") as directory,
        EmbeddedServer(Path(directory) / "postgres") as server,
    ):
        yield Lab(Path(directory), server, console, quick=quick)


@contextmanager
def doubles(*, points: int, latency: float = 0.0) -> Iterator[SandboxClient]:
    """The vendors in their own process: every recording has a history of `points` points; `latency` is in seconds."""
    options = ["--plain", "--points", str(points), "--latency", str(latency), "--search-lag", "0", "--with-parent"]
    process = subprocess.Popen(
        [sys.executable, "-m", "measurement_pipeline.sandbox", *options], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["songstats_url"]
            with SandboxClient(url) as sandbox:
                yield sandbox
        finally:
            process.terminate()
