"""`api`: run the HTTP API until a stop signal, and finish the open requests."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import click
import uvicorn

from measurement_pipeline import services
from measurement_pipeline.api.app import create_app
from measurement_pipeline.cli import output, sandbox_command
from measurement_pipeline.cli.environment import CliEnvironment, open_environment
from measurement_pipeline.local import supervisor
from measurement_pipeline.local.supervisor import Service

# Less than a supervisor's stop timeout, and more than a request may take.
_FINISH_SECONDS = 20


@click.command("api")
@click.option("--host", help="Listen on this address. Default: API_HOST.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Listen on this port. Default: API_PORT.")
@sandbox_command.port_option
@click.pass_obj
def command(state: Path | None, *, host: str | None, port: int | None, sandbox_port: int | None) -> None:
    """Accept measurement jobs and serve measurements over HTTP, until Ctrl-C or SIGTERM. docs/reference/http.md lists the routes.

    Without vendor keys it uses the sandbox of a running `dev`.
    """
    doubles = sandbox_command.find_doubles(sandbox_port, state)
    with (
        suppress(supervisor.Interrupted),
        supervisor.interruptible(),
        open_environment(os.environ, state=state, doubles=doubles) as environment,
    ):
        config = services.api_config(environment.settings)
        environment.require_own_database()
        output.print_banner(environment)
        _configure_logging()
        uvicorn.run(
            create_app(config),
            host=host or environment.settings.api_host,
            port=port or environment.settings.api_port,
            log_config=None,
            access_log=False,
            server_header=False,
            # Client addresses are not used, so proxy headers need not be trusted.
            proxy_headers=False,
            timeout_graceful_shutdown=_FINISH_SECONDS,
        )


def service(environment: CliEnvironment, url: str, *, log: Path) -> Service:
    """Return the API as a service for a supervisor."""
    address = urlsplit(url)
    command = ["measurement-pipeline", "api", "--host", str(address.hostname), "--port", str(address.port)]
    return Service("api", command, environment.variables, log=log, ready=supervisor.http_ready(f"{url}/readyz"))


def _configure_logging() -> None:
    """Log one line of JSON per request unchanged, and everything else with its level."""
    plain = logging.StreamHandler()
    plain.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("measurement_pipeline.api.access")
    access.addHandler(plain)
    access.setLevel(logging.INFO)
    access.propagate = False
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # It logs each call to a vendor.
    logging.getLogger("httpx").setLevel(logging.WARNING)
