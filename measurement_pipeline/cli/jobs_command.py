"""`jobs`: list requests, or show one with its receipt."""

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import click

from measurement_pipeline.cli import lookup, output, progress, receipt
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.domain.completion import Completion, completion_fields
from measurement_pipeline.intake.completion import read_completions
from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.settings import Settings


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
                connection,
                request,
                eur_per_hit=environment.settings.songstats_eur_per_hit,
                as_json=as_json,
                completion=_completions(connection, environment.settings, [job]).get(job),
            )
            return
        owner = lookup.find_optional_account(connection, account)
        requests = measurement_jobs.recent(connection, account=owner, limit=limit)
        completions = _completions(connection, environment.settings, [request["id"] for request in requests])
    requests = [request | completion_fields(completions.get(request["id"])) for request in requests]
    columns = {
        "request": "id",
        "account": "account",
        "requested at": "created_at",
        "state": "state",
        "asked": "asked",
        "enqueued": "enqueued",
        "skipped": "skipped",
        "complete about": "estimated_completion",
        "reason": "error",
    }
    right = ("asked", "enqueued", "skipped")
    output.print_rows(requests, columns, empty="there is no request yet", as_json=as_json, right=right)


def _completions(connection: Connection, settings: Settings, jobs: Sequence[UUID]) -> dict[UUID, Completion]:
    return read_completions(
        connection,
        jobs,
        hits_allowed=settings.hits_allowed,
        requests_per_second=settings.songstats_requests_per_second,
    )
