"""`sandbox`: run the vendor doubles alone. Also finds running doubles for the other commands of this checkout."""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import SANDBOX_PORT, deployment_home
from measurement_pipeline.local import instance_lock
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import migrate, songstats_ledger
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.sandbox.scenarios import PLAIN, Behaviour
from measurement_pipeline.settings import Kind, Settings

if TYPE_CHECKING:  # imported late: commands that call no vendor must not load the doubles' web server
    from measurement_pipeline.sandbox import SandboxClient

port_option = click.option(
    "--sandbox-port",
    type=click.IntRange(1, 65_535),
    help=(
        "The loopback port of the vendor doubles. Used only if no vendor keys are set. "
        f"Default: the port of the running `dev`, else {SANDBOX_PORT}."
    ),
)


def find_doubles(port: int | None, state: Path | None) -> dict[str, str]:
    """Return the variables of the doubles on `port`, of the `dev` that runs on `state`, or on the default port."""
    port = port or instance_lock.doubles_port(deployment_home("sandbox", state)) or SANDBOX_PORT
    return Behaviour().environment(f"http://127.0.0.1:{port}")


def memory_file(name: str, state: Path | None) -> Path:
    """The file in which the doubles of deployment `name` store their state across restarts."""
    return deployment_home(name, state) / "doubles.sqlite"


@contextmanager
def run_doubles(name: str, state: Path | None, *, port: int = 0) -> Iterator["SandboxClient"]:
    """Run the doubles of deployment `name` with the sample catalogue during the block. Port 0 takes any free port."""
    from measurement_pipeline.sandbox import MemoryFileError, running, sample_catalogue

    with ExitStack() as stack:
        try:
            sandbox = stack.enter_context(
                running(catalogue=sample_catalogue(), port=port, memory=memory_file(name, state))
            )
        except MemoryFileError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(
                f"port {port} for the vendor doubles is in use: choose another with --sandbox-port"
            ) from error
        yield sandbox


def bind_to_database(sandbox: "SandboxClient", connection: Connection) -> None:
    """Bind the doubles' state to this database, and warn if the ledger has hits that the doubles did not count."""
    known = sandbox.belong_to(migrate.identity(connection))
    hits = songstats_ledger.budget(connection, hits_allowed=0).hits
    if hits and not known:
        click.echo(
            f"The vendor doubles have no state for this database, because their file was deleted. The ledger has {hits} hits of "
            "the last 30 days that they did not count, so `ledger_matches_vendor` warns until the month ends. To start again, "
            "create a new database.",
            err=True,
        )


def require_running_doubles(settings: Settings, kind: Kind) -> None:
    """Raise `CommandError` if the vendors are doubles on loopback and nothing listens there."""
    address = urlsplit(settings.songstats_base_url)
    if kind != "sandbox" or address.hostname not in {"127.0.0.1", "localhost", "::1"}:
        return
    if not instance_lock.is_listening(address.hostname, address.port or 80):
        raise CommandError(
            f"no vendor doubles listen at {settings.songstats_base_url}: start `measurement-pipeline dev` or "
            "`measurement-pipeline sandbox` first, or give their port with --sandbox-port"
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
    "--plain", is_flag=True, help="Omit all difficult cases. Every recording then has a history of usable numbers."
)
@click.option("--latency", type=click.FloatRange(0, 60), default=0.0, help="Delay every response by this many seconds.")
@click.option("--forget", is_flag=True, help="Delete the stored state of these doubles. Use it for a new database.")
@output.json_option
@click.pass_obj
def command(state: Path | None, *, port: int, plain: bool, latency: float, forget: bool, as_json: bool) -> None:
    """Run loopback doubles of the vendors until Ctrl-C or SIGTERM, and print the settings to use them."""
    from dataclasses import replace

    from measurement_pipeline.sandbox import MemoryFileError, sample_catalogue, serve
    from measurement_pipeline.sandbox.memory import Memory

    behaviour = replace(PLAIN if plain else Behaviour(), latency=latency)

    def ready(url: str) -> None:
        settings = behaviour.environment(url)
        if as_json:
            output.print_json(settings)
            return
        output.print_line(
            "SANDBOX: doubles of Songstats, Stripe, Apify and Spotify; all figures are invented. To use them, run in your "
            "shell:\n"
        )
        for name, value in settings.items():
            output.print_line(f"export {name}={shlex.quote(value)}")

    memory = memory_file("sandbox", state)
    try:
        if forget:
            with closing(Memory(memory)) as stored:
                stored.forget()
        serve(port=port, behaviour=behaviour, catalogue=sample_catalogue(), memory=memory, on_ready=ready)
    except MemoryFileError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"port {port} is in use: choose another with --port") from error
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
