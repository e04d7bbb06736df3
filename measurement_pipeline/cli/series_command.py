"""`series`: list the series that are captured every 30 days, and stop one."""

import getpass
from pathlib import Path
from uuid import UUID

import click

from measurement_pipeline.cli import lookup, output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.groups import Group
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import capture_series, operator_acts


@click.group("series", cls=Group)
def command() -> None:
    """Show and stop monthly series. `submit --source current --monthly` starts one."""


@command.command("list")
@click.option("--account", metavar="ACCOUNT", help="List only those of this account. Give its UUID or its name.")
@output.json_option
@click.pass_obj
def list_(state: Path | None, *, account: str | None, as_json: bool) -> None:
    """List all series with their last captures."""
    with open_database(state) as (_, connection):
        owner = lookup.find_optional_account(connection, account)
        found = capture_series.list_all(connection, account=owner)
    columns = {
        "series": "id",
        "account": "account",
        "albums": "albums",
        "since": "created_at",
        "last captured": "last_captured_at",
        "last state": "last_state",
        "stopped": "stopped_at",
    }
    output.print_rows(found, columns, empty="no series was requested", as_json=as_json, right=("albums",))


@command.command("stop")
@click.argument("series", type=click.UUID)
@click.pass_obj
def stop(state: Path | None, *, series: UUID) -> None:
    """Stop the series SERIES. A new request starts it again. The action is recorded."""
    with open_database(state) as (_, connection), connection.transaction():
        if not capture_series.stop(connection, series):
            raise CommandError(f"there is no active series {series}: see `measurement-pipeline series list`")
        operator_acts.record(connection, actor=getpass.getuser(), act="series stopped", detail={"series": str(series)})
    output.print_line(f"series {series} is stopped")
