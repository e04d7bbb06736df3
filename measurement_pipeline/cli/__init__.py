"""The `measurement-pipeline` command: one module per command or group. None of them contains a rule about money or data.

Exit status: 0 success, 1 failure with one line on stderr (with --json also {"error": …} on stdout), 2 wrong usage,
130 interrupted. A command's module is imported when the command runs, so that no command waits for another's imports.
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

# In the order of `--help`. Each is the object `command` in the module `<name>_command`.
_COMMANDS = (
    "demo",
    "dev",
    "db",
    "catalog",
    "history",
    "submit",
    "jobs",
    "captures",
    "series",
    "callbacks",
    "queue",
    "spend",
    "report",
    "export",
    "reclaim",
    "requeue",
    "pause",
    "resume",
    "breaker",
    "api",
    "keys",
    "doctor",
    "incidents",
    "audit",
    "sandbox",
)

# Whether the command prints JSON; then its error goes to stdout too, because a script reads stdout.
_AS_JSON = f"{__name__}.as_json"


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{cmd_name}_command")
        command: click.Command = module.command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Set before parsing, so that usage errors are printed as JSON too.
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
        # BrokenPipeError: the reader of the output (`| head`) has closed it, and click exits quietly.
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt as error:
            click.echo("interrupted", err=True)
            # The shells' convention: 128 plus the signal's number.
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
    help="Store embedded servers and Dagster's home in this directory. Default: .local/ in the checkout.",
)
@click.pass_context
def main(ctx: click.Context, state: Path | None) -> None:
    """Buy the play-count history of each recording once, store it, and never pay for it twice."""
    ctx.obj = state
    # A terminal that cannot show a character of a title shows a question mark.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
