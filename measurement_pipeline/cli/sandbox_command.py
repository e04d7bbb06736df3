"""`sandbox`: the doubles of the vendors by themselves, and how other commands of the same checkout find them."""

import shlex
from pathlib import Path
from urllib.parse import urlsplit

import click

from measurement_pipeline.cli import output, presence
from measurement_pipeline.cli.failures import RefusedError
from measurement_pipeline.cli.target import SANDBOX_PORT, Doubles, Target, home_of
from measurement_pipeline.sandbox.behaviour import PLAIN, Behaviour
from measurement_pipeline.settings import Kind, Settings

port_option = click.option(
    "--sandbox-port",
    type=click.IntRange(1, 65_535),
    help=(
        "The loopback port of the vendors' doubles. Used only where no vendor keys are set. "
        f"Default: the port of the running `dev`, else {SANDBOX_PORT}."
    ),
)


def at_port(port: int | None, state: Path | None) -> Doubles:
    """The doubles on `port`; None: those of the `dev` that runs on `state`, or where they are unless somebody says otherwise."""
    port = port or presence.doubles_port(home_of("sandbox", state)) or SANDBOX_PORT
    return Doubles.at(f"http://127.0.0.1:{port}", Behaviour())


def require_running(target: Target) -> None:
    """Raise `RefusedError` where `target` is a sandbox on loopback and nothing listens there."""
    require_doubles(target.settings, target.kind)


def require_doubles(settings: Settings, kind: Kind) -> None:
    """Raise `RefusedError` where the vendors are doubles on loopback and nothing listens there."""
    address = urlsplit(settings.songstats_base_url)
    if kind != "sandbox" or address.hostname not in {"127.0.0.1", "localhost", "::1"}:
        return
    if not presence.listens(address.hostname, address.port or 80):
        raise RefusedError(
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
@output.json_option
def command(*, port: int, plain: bool, latency: float, as_json: bool) -> None:
    """Run loopback doubles of the vendors until Ctrl-C or SIGTERM, and print the settings that use them."""
    from dataclasses import replace

    from measurement_pipeline.sandbox import sample_catalogue, serve

    behaviour = replace(PLAIN if plain else Behaviour(), latency=latency)

    def ready(url: str) -> None:
        settings = Doubles.at(url, behaviour).environment()
        if as_json:
            output.as_json(settings)
            return
        output.say(
            "SANDBOX: doubles of Songstats, Stripe, Apify and Spotify; every figure is invented. In the shell that is to use "
            "them:\n"
        )
        for name, value in settings.items():
            output.say(f"export {name}={shlex.quote(value)}")

    try:
        serve(port=port, behaviour=behaviour, catalogue=sample_catalogue(), on_ready=ready)
    except OSError as error:
        raise RefusedError(f"port {port} is taken: choose another with --port") from error
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
