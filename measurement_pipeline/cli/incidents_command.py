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
    columns = {"since": "opened_at", "times": "times", "last seen": "last_at", "alerted at": "told_at", "what": "what"}
    output.print_rows(
        [asdict(one) for one in found], columns, empty="no incident is open", as_json=as_json, right=("times",)
    )
