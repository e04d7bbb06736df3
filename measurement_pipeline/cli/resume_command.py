"""`resume`: end a pause that an operator began."""

import getpass
from pathlib import Path

import click

from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.pause_command import read_scope
from measurement_pipeline.domain.purchase_pause import PausableVendor
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import purchase_pauses


@click.command("resume")
@click.option("--account", metavar="ACCOUNT", help="End the pause of this account. Give its UUID or its name.")
@click.option(
    "--vendor", type=click.Choice([one.value for one in PausableVendor]), help="End the pause of this vendor."
)
@output.json_option
@click.pass_obj
def command(state: Path | None, *, account: str | None, vendor: str | None, as_json: bool) -> None:
    """End the pause of an account, of a vendor, or, without options, of everything. The action is recorded."""
    with open_database(state) as (_, connection):
        scope = read_scope(connection, account=account, vendor=vendor)
        ended = purchase_pauses.end(connection, scope, actor=getpass.getuser())
        others = purchase_pauses.list_active(connection)
    if ended is None:
        active = "".join(f" {pause.cause} {pause.next_step}" for pause in others) or " No pause is active."
        raise CommandError(f"{scope}: not paused.{active}")
    if as_json:
        output.print_json({"what": str(scope), "paused_at": ended.paused_at, "reason": ended.reason})
        return
    output.print_line(f"{scope}: resumed; paused since {output.format_value(ended.paused_at)}: {ended.reason}")
    for pause in others:
        output.print_line(f"Still paused: {pause.cause}")
