"""`incidents`: list the open incidents."""

from dataclasses import asdict
from pathlib import Path

import click

from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.postgres import incidents


@click.command("incidents")
@output.json_option
@click.pass_obj
def command(state: Path | None, *, as_json: bool) -> None:
    """List open incidents, the oldest first: failed runs and failing checks, each once however often it occurred."""
    with open_database(state) as (_, connection):
        found = incidents.list_open(connection)
    if as_json:
        output.print_json([asdict(one) for one in found])
    elif not found:
        output.print_line("no incident is open")
    else:
        columns = ("since", "times", "last seen", "alerted at", "what")
        rows = [(one.opened_at, one.times, one.last_at, one.told_at, one.what) for one in found]
        output.console().print(output.build_table(columns, rows, right=("times",)))
