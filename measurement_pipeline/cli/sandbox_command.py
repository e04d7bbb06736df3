"""`sandbox`: the doubles of the vendors by themselves, and how other commands of the same checkout find them."""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import SANDBOX_PORT, CliEnvironment, Doubles, deployment_home
from measurement_pipeline.local import instance_lock
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import migrate, songstats_ledger
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.sandbox.scenarios import PLAIN, Behaviour
from measurement_pipeline.settings import Kind, Settings

if TYPE_CHECKING:  # a web server of their own: commands that ask no vendor do not load it
    from measurement_pipeline.sandbox import SandboxClient

port_option = click.option(
    "--sandbox-port",
    type=click.IntRange(1, 65_535),
    help=(
        "The loopback port of the vendors' doubles. Used only where no vendor keys are set. "
        f"Default: the port of the running `dev`, else {SANDBOX_PORT}."
    ),
)


def find_doubles(port: int | None, state: Path | None) -> Doubles:
    """The doubles on `port`; None: those of the `dev` that runs on `state`, or where they are unless somebody says otherwise."""
    port = port or instance_lock.doubles_port(deployment_home("sandbox", state)) or SANDBOX_PORT
    return Doubles.from_keys(f"http://127.0.0.1:{port}", Behaviour())


def memory_file(name: str, state: Path | None) -> Path:
    """Where the doubles of that deployment keep what they counted and stored, so that a restart does not lose it."""
    return deployment_home(name, state) / "doubles.sqlite"


@contextmanager
def run_doubles(name: str, state: Path | None, *, port: int = 0) -> Iterator["SandboxClient"]:
    """The doubles of that deployment, with the sample catalogue, for as long as the block lasts. `port` 0: any that is free."""
    from measurement_pipeline.sandbox import MemoryFileError, running, sample_catalogue

    with ExitStack() as stack:
        try:
            sandbox = stack.enter_context(
                running(catalogue=sample_catalogue(), port=port, memory=memory_file(name, state))
            )
        except MemoryFileError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"port {port}, for the doubles, is taken: choose another with --sandbox-port") from error
        yield sandbox


def bind_to_database(sandbox: "SandboxClient", connection: Connection) -> None:
    """Make the doubles remember for this database, and say so where the database remembers and they do not."""
    known = sandbox.belong_to(migrate.identity(connection))
    hits = songstats_ledger.budget(connection, hits_allowed=0).hits
    if hits and not known:
        click.echo(
            f"The doubles remember nothing of this database: their file was deleted. Its ledger has {hits} hits of the last 30 "
            "days that they did not count, so `ledger_matches_vendor` warns until the month ends. To start afresh, make a new "
            "database.",
            err=True,
        )


def require_running(environment: CliEnvironment) -> None:
    """Raise `CommandError` where `environment` is a sandbox on loopback and nothing listens there."""
    require_running_doubles(environment.settings, environment.kind)


def require_running_doubles(settings: Settings, kind: Kind) -> None:
    """Raise `CommandError` where the vendors are doubles on loopback and nothing listens there."""
    address = urlsplit(settings.songstats_base_url)
    if kind != "sandbox" or address.hostname not in {"127.0.0.1", "localhost", "::1"}:
        return
    if not instance_lock.is_listening(address.hostname, address.port or 80):
        raise CommandError(
            f"no doubles of the vendors listen at {settings.songstats_base_url}: start "
            "`measurement-pipeline dev` or `measurement-pipeline sandbox` first, or name their port with --sandbox-port"
        )


@click.command("sandbox")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=SANDBOX_PORT,
    show_default=True,
    help="Listen on this loopback port. 0 takes any free port.",
)
@click.option(
    "--plain", is_flag=True, help="Leave out all difficult cases. Every recording then has a history of usable numbers."
)
@click.option("--latency", type=click.FloatRange(0, 60), default=0.0, help="Add this many seconds to every answer.")
@click.option(
    "--forget", is_flag=True, help="Forget what these doubles counted and stored before. Use it for a new database."
)
@output.json_option
@click.pass_obj
def command(state: Path | None, *, port: int, plain: bool, latency: float, forget: bool, as_json: bool) -> None:
    """Run loopback doubles of the vendors until Ctrl-C or SIGTERM, and print the settings that use them."""
    from dataclasses import replace

    from measurement_pipeline.sandbox import MemoryFileError, sample_catalogue, serve
    from measurement_pipeline.sandbox.memory import Memory

    behaviour = replace(PLAIN if plain else Behaviour(), latency=latency)

    def ready(url: str) -> None:
        settings = Doubles.from_keys(url, behaviour).environment()
        if as_json:
            output.print_json(settings)
            return
        output.print_line(
            "SANDBOX: doubles of Songstats, Stripe, Apify and Spotify; every figure is invented. In the shell that is to use "
            "them:\n"
        )
        for name, value in settings.items():
            output.print_line(f"export {name}={shlex.quote(value)}")

    memory = memory_file("sandbox", state)
    try:
        if forget:
            with closing(Memory(memory)) as remembered:
                remembered.forget()
        serve(port=port, behaviour=behaviour, catalogue=sample_catalogue(), memory=memory, on_ready=ready)
    except MemoryFileError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"port {port} is taken: choose another with --port") from error
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
