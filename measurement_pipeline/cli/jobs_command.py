"""`jobs`: list requests, or show one with its receipt."""

from pathlib import Path
from uuid import UUID

import click

from measurement_pipeline.cli import lookup, output, progress, receipt
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.postgres import measurement_jobs


@click.command("jobs")
@click.argument("job", required=False, type=click.UUID, metavar="[ID]")
@click.option("--account", metavar="ACCOUNT", help="List only those of this account. Give its UUID or its name.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="List this many of the latest."
)
@output.json_option
@click.pass_obj
def command(state: Path | None, *, job: UUID | None, account: str | None, limit: int, as_json: bool) -> None:
    """List the latest requests, or show one with its receipt: progress, outcomes, sources, hits and cost."""
    with open_database(state) as (environment, connection):
        if job is not None:
            request = progress.load_request(connection, job)
            receipt.print_receipt(
                connection, request, eur_per_hit=environment.settings.songstats_eur_per_hit, as_json=as_json
            )
            return
        owner = lookup.find_optional_account(connection, account)
        requests = measurement_jobs.recent(connection, account=owner, limit=limit)
    columns = {
        "request": "id",
        "account": "account",
        "requested at": "created_at",
        "state": "state",
        "asked": "asked",
        "enqueued": "enqueued",
        "skipped": "skipped",
        "reason": "error",
    }
    right = ("asked", "enqueued", "skipped")
    output.print_rows(requests, columns, empty="there is no request yet", as_json=as_json, right=right)
