"""`captures`: list captures of current counts, stop one, and end a vendor's pause."""

import getpass
from pathlib import Path
from uuid import UUID

import click

from measurement_pipeline.cli import lookup, output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.groups import Group
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import captures, measurement_jobs, operator_acts, vendor_state

_VENDORS = ("apify", "spotify")


@click.group("captures", cls=Group)
def command() -> None:
    """Show and stop captures of today's counts. `submit --source current` requests one."""


@command.command("list")
@click.option("--account", metavar="ACCOUNT", help="List only those of this account. Give its UUID or its name.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="List this many of the latest."
)
@output.json_option
@click.pass_obj
def list_(state: Path | None, *, account: str | None, limit: int, as_json: bool) -> None:
    """List the latest captures, newest first."""
    with open_database(state) as (_, connection):
        owner = lookup.find_optional_account(connection, account)
        found = captures.list_recent(connection, account=owner, limit=limit)
    columns = {
        "capture": "id",
        "account": "account",
        "requested at": "created_at",
        "state": "shown_state",
        "albums": "album_count",
        "cost": "cost",
        "recordings": "recordings",
        "not before": "not_before",
        "reason": "error",
    }
    if not as_json:
        found = [
            {
                **one,
                "shown_state": "waits" if one["waits"] else one["state"],
                "cost": f"${one['estimated_cost_usd']:,.3f}",
            }
            for one in found
        ]
    right = ("albums", "cost", "recordings")
    output.print_rows(found, columns, empty="no capture was requested", as_json=as_json, right=right)


@command.command("stop")
@click.argument("capture", type=click.UUID)
@click.pass_obj
def stop(state: Path | None, *, capture: UUID) -> None:
    """Stop the open capture CAPTURE. It and its requests fail. A run that has started is billed. The action is recorded."""
    who = getpass.getuser()
    with open_database(state) as (_, connection), connection.transaction():
        if not captures.stop(connection, capture, error=f"stopped by {who}"):
            raise CommandError(f"there is no open capture {capture}: see `measurement-pipeline captures list`")
        measurement_jobs.settle(connection)
        operator_acts.record(connection, actor=who, act="capture stopped", detail={"snapshot": str(capture)})
    output.print_line(f"capture {capture} is stopped")


@command.command("resume")
@click.pass_obj
def resume(state: Path | None) -> None:
    """End the pauses of Apify and Spotify now, for example after a token was replaced. The action is recorded."""
    with open_database(state) as (_, connection), connection.transaction():
        ended = vendor_state.resume(connection, _VENDORS)
        if ended:
            operator_acts.record(connection, actor=getpass.getuser(), act="pause ended", detail={"vendors": ended})
    output.print_line(
        f"the pause of {' and '.join(ended)} has ended" if ended else "neither Apify nor Spotify is paused"
    )
