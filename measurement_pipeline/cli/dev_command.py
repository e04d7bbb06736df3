"""`dev`: run the pipeline with Dagster's UI until a stop signal; a sandbox gets sample data.

It uses neither `dagster dev` nor `dg dev`, because both run the code server as a hidden child and restart it late after its
death (docs/decisions/0012).
"""

import os
import shlex
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import click

from measurement_pipeline import services
from measurement_pipeline.cli import api_command, output, sample_accounts, sandbox_command
from measurement_pipeline.cli.environment import (
    SANDBOX_PORT,
    keep_server_running,
    open_environment,
    prepare_dagster,
    should_use_doubles,
)
from measurement_pipeline.local import supervisor
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.local.instance_lock import acquire_instance_lock
from measurement_pipeline.postgres import migrate
from measurement_pipeline.settings import Settings

# The time that a stopped run needs to store its last response and to end.
_STORING_SECONDS = 15.0


@click.command("dev")
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=3000,
    show_default=True,
    help="Serve Dagster's UI on this port of 127.0.0.1.",
)
@click.option(
    "--read-only-port",
    type=click.IntRange(1, 65_535),
    help="Serve a second, read-only UI on this port of 127.0.0.1. Default: none.",
)
@click.option("--api-port", type=click.IntRange(1, 65_535), help="Serve the HTTP API on this port. Default: API_PORT.")
@sandbox_command.port_option
@click.pass_obj
def command(
    state: Path | None, *, port: int, read_only_port: int | None, api_port: int | None, sandbox_port: int | None
) -> None:
    """Run everything with Dagster's UI and the HTTP API, until Ctrl-C or SIGTERM.

    With vendor keys in the environment it uses the real vendors and a live database. Without keys it uses vendor doubles and a
    sandbox database.
    """
    with suppress(supervisor.Interrupted), ExitStack() as stack:
        stack.enter_context(supervisor.interruptible())
        settings = Settings.read(os.environ)
        api_port = api_port or settings.api_port
        _require_free(port, "--port", user="Dagster's UI")
        if read_only_port is not None:
            _require_free(read_only_port, "--read-only-port", user="Dagster's UI")
            if read_only_port == port:
                raise CommandError(f"port {port} is given for both UIs: choose another with --read-only-port")
        _require_free(api_port, "--api-port", user="the HTTP API", host=settings.api_host)
        sandbox = None
        if should_use_doubles(settings):
            sandbox = stack.enter_context(
                sandbox_command.run_doubles("sandbox", state, port=sandbox_port or SANDBOX_PORT)
            )
        doubles = None if sandbox is None else sandbox.environment
        environment = stack.enter_context(open_environment(os.environ, state=state, doubles=doubles))
        port_of_doubles = None if sandbox is None else urlsplit(sandbox.songstats_url).port
        has_api = environment.kind == "sandbox" or environment.settings.api_key_secret is not None
        api = f"http://{environment.settings.api_host}:{api_port}"
        lock = acquire_instance_lock(
            environment.home, "dev", doubles_port=port_of_doubles, api_url=api if has_api else None
        )
        mark_ready = stack.enter_context(lock)
        services.create_services(
            environment.settings
        )  # reports a missing key here instead of in the logs of three processes
        # Before the banner, because a database of the other kind ends the command.
        migrate.upgrade(environment.database_url, kind=environment.kind)
        output.print_banner(environment)
        dagster = prepare_dagster(environment)
        if sandbox is not None:
            with environment.connect() as connection:
                sandbox_command.bind_to_database(sandbox, connection)
                sample_accounts.seed_accounts(connection, sandbox)
                key = sample_accounts.ensure_api_key(
                    connection, services.key_secret(environment.settings, environment.kind)
                )
            _print_examples(state, api, key)
        running_services = [dagster.code_server(), dagster.daemon(), dagster.webserver(port)]
        if read_only_port is not None:
            running_services.append(dagster.webserver(read_only_port, read_only=True))
        if has_api:
            running_services.append(api_command.service(environment, api, log=dagster.logs / "api.log"))
        click.echo(f"Dagster is starting; it logs to {dagster.logs}", err=True)
        server = stack.enter_context(keep_server_running(environment))
        # A stopped run waits for its calls in flight, because they are billed.
        stop_seconds = environment.settings.songstats_timeout_seconds + _STORING_SECONDS
        with supervisor.supervised(running_services, stop_seconds=stop_seconds) as running:
            output.print_line(f"Dagster's UI: http://127.0.0.1:{port}  (Ctrl-C stops everything)")
            if read_only_port is not None:
                output.print_line(f"Dagster's UI, read-only: http://127.0.0.1:{read_only_port}")
            output.print_line(f"HTTP API: {api}" if has_api else "no HTTP API: API_KEY_SECRET is not set")
            mark_ready()
            running.wait(server)
            click.echo("stopping: calls in flight finish, and other claims are released", err=True)
    click.echo("stopped", err=True)


def _print_examples(state: Path | None, api: str, key: str | None) -> None:
    program = output.program_name() + ("" if state is None else f" --state {shlex.quote(str(state))}")
    submit = f"{program} submit --source historical --wait"
    labelled = (
        ("account with a card:   ", sample_accounts.WITH_CARD),
        ("account without a card:", sample_accounts.WITHOUT_CARD),
    )
    for label, account in labelled:
        output.print_line(
            f"{label} {account}\n  {submit} --account {account} --catalog {sample_accounts.CATALOGS[account]}"
        )
    if key is None:
        create = f"{program} keys create --account {sample_accounts.WITH_CARD} --name sandbox"
        output.print_line(f"over HTTP: the sandbox's key is no longer valid; this command creates another\n  {create}")
        return
    output.print_line(
        f"over HTTP, as the account with a card:\n  curl -H 'x-api-key: {key}' {api}/api/research/measurement-jobs"
    )


def _require_free(port: int, option: str, *, user: str, host: str = "127.0.0.1") -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(f"port {port} for {user} is in use: choose another with {option}") from error
