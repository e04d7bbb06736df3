"""The `measurement-pipeline` command: one module a command or group, none of which decides about money or data.

Exit status: 0 done, 1 refused or failed (one line on stderr says why; with --json also {"error": …} on stdout), 2 wrong usage,
130 interrupted. A module is imported when its command is asked for, so that none waits for what another needs.
"""

import importlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from measurement_pipeline.cli import errors
from measurement_pipeline.cli.groups import Group

# In the order of `--help`. Each is `command` in the module `<name>_command`.
_COMMANDS = (
    "demo",
    "dev",
    "db",
    "catalog",
    "submit",
    "jobs",
    "captures",
    "series",
    "queue",
    "spend",
    "report",
    "export",
    "reclaim",
    "requeue",
    "breaker",
    "api",
    "keys",
    "doctor",
    "incidents",
    "audit",
    "sandbox",
)

# For which a script reads stdout: an error goes there as well.
_AS_JSON = f"{__name__}.as_json"


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{cmd_name}_command")
        found: click.Command = module.command
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Looked for before anything is read: what cannot be read is told as JSON too.
        ctx.meta[_AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        except click.ClickException as error:
            if ctx.meta[_AS_JSON]:
                click.echo(json.dumps({"error": error.format_message()}, ensure_ascii=False))
            raise

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        # Whoever read our output (`| head`) has read enough: click ends quietly.
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt as error:
            click.echo("interrupted", err=True)
            # As shells have it: 128 and the signal's number.
            raise click.exceptions.Exit(128 + getattr(error, "number", signal.SIGINT)) from error
        except Exception as error:
            line = errors.describe_expected_error(error)
            if line is None:
                raise
            raise click.ClickException(line) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep embedded servers and Dagster's home in this directory. Default: .local/ in the checkout.",
)
@click.pass_context
def main(ctx: click.Context, state: Path | None) -> None:
    """Buys the play-count history of recordings once, stores it, and never pays for it twice."""
    ctx.obj = state
    # Output that is read by a script may hold any title; a terminal that cannot show one shows a question mark.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
