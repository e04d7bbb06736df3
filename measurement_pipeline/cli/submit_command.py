"""`submit`: asks for measurements as any client does, by a row of `measurement_jobs`; or says what it would cost."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

import click

from measurement_pipeline.cli import lookup, output, progress, receipt
from measurement_pipeline.cli.environment import CliEnvironment, open_database
from measurement_pipeline.domain.capture import Schedule
from measurement_pipeline.domain.measurement_job import MeasurementRequest, Refusal, Source, State, read_request
from measurement_pipeline.domain.text import counted
from measurement_pipeline.intake import capture_estimate, estimate
from measurement_pipeline.local import instance_lock
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import Connection


@click.command("submit")
@lookup.account_option
@click.option(
    "--source",
    type=click.Choice([s.value for s in Source]),
    required=True,
    help="historical buys the past once. current captures the counts displayed today, album by album.",
)
@click.option(
    "--isrc",
    "isrcs",
    multiple=True,
    metavar="ISRC",
    help="Ask for this recording. Repeat the option, or separate several ISRCs by commas.",
)
@click.option(
    "--album",
    "albums",
    multiple=True,
    metavar="ID",
    help="Ask for every recording of this Spotify album. Repeat the option, or separate several ids by commas.",
)
@click.option(
    "--catalog",
    metavar="CATALOG",
    help="Ask for every recording of this catalogue of the account. Give its id or its name.",
)
@click.option("--monthly", is_flag=True, help="Capture again every 30 days. Only with --source current.")
@click.option("--estimate", "only_estimate", is_flag=True, help="Enqueue nothing. Print what the request would cost.")
@click.option("--wait", is_flag=True, help="Wait until the request is settled. Exit status 1 unless it is done.")
@output.json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    account: str,
    source: str,
    isrcs: Sequence[str],
    albums: Sequence[str],
    catalog: str | None,
    monthly: bool,
    only_estimate: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Request measurements of recordings. Give exactly one of --isrc, --album and --catalog."""
    if sum(map(bool, (isrcs, albums, catalog))) != 1:
        raise click.UsageError("expected exactly one of --isrc, --album and --catalog")
    if monthly and source != Source.CURRENT:
        raise click.UsageError("--monthly goes with --source current: a history is bought once")
    if only_estimate and wait:
        raise click.UsageError("--estimate enqueues nothing, so there is nothing to --wait for")
    with open_database(ctx.obj) as (environment, connection):
        owner = lookup.find_account(connection, account)
        scope: dict[str, Any]
        if catalog:
            scope = {"catalog_id": str(lookup.find_catalog(connection, catalog, of=owner))}
        else:
            scope = {"isrcs": _several(isrcs)} if isrcs else {"album_ids": _several(albums)}
        # Intake would give the same answer a few seconds later.
        schedule = Schedule.MONTHLY if monthly else Schedule.ONCE
        request = read_request(source, scope, ["spotify"], schedule)
        if isinstance(request, Refusal):
            raise CommandError(request.error)
        if only_estimate:
            say = _say_capture_estimate if request.source is Source.CURRENT else _say_estimate
            say(connection, environment, request, owner=owner, as_json=as_json)
            return
        was_gone = instance_lock.describe_end(environment.home, "dev")
        job = _submit(connection, account=owner, source=source, scope=scope, schedule=schedule)
        if not wait:
            if as_json:
                output.print_json({"id": job, "state": State.QUEUED.value})
            else:
                output.print_line(
                    f"request {job} is queued; `measurement-pipeline jobs {job}` shows what becomes of it"
                )
            return
        if not as_json:
            click.echo(f"request {job} is queued", err=True)
        try:
            shown = progress.wait_for_request(
                connection,
                job,
                hits_allowed=environment.settings.hits_allowed,
                # Where it had ended before, Dagster may run without `dev`, elsewhere.
                why_gone=lambda: None if was_gone else instance_lock.describe_end(environment.home, "dev"),
            )
        except KeyboardInterrupt:
            click.echo(f"stopped waiting; request {job} goes on: `measurement-pipeline jobs {job}`", err=True)
            raise
        receipt.print_receipt(
            connection, shown, eur_per_hit=environment.settings.songstats_eur_per_hit, as_json=as_json
        )
        ctx.exit(0 if shown["state"] == State.DONE else 1)


def _submit(connection: Connection, **request: Any) -> UUID:
    try:
        return measurement_jobs.submit(connection, **request)
    except measurement_jobs.RequestTooLargeError as error:
        raise CommandError(str(error)) from error


def _several(values: Sequence[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _say_estimate(
    connection: Connection, environment: CliEnvironment, request: MeasurementRequest, *, owner: Any, as_json: bool
) -> None:
    settings = environment.settings
    try:
        found = estimate.of_scope(
            connection,
            request.scope,
            account=owner,
            hits_allowed=settings.hits_allowed,
            eur_per_hit=settings.songstats_eur_per_hit,
        )
    except estimate.NothingToEstimateError as error:
        raise CommandError(str(error)) from error
    if as_json:
        output.print_json(asdict(found))
        return
    if found.days is None:
        limit, reserve = settings.songstats_hit_limit, settings.songstats_hit_reserve
        days = f"never: no hits are allowed (limit {limit}, reserve {reserve})"
    else:
        days = str(found.days) if found.days else "0: the hits that are left now are enough"
    output.console().print(
        output.build_facts(
            {
                "recordings asked for": found.asked,
                "already owned": found.owned,
                "already queued": found.queued or None,
                "hits needed": found.hits,
                "cost": f"€{found.eur:,.2f}",
                "days": days,
                "budget": f"{counted(found.hits_left_now, 'hit')} left now, {found.hits_allowed_in_30_days:,} in any 30 days",
            }
        )
    )
    output.print_line("nothing was enqueued")


def _say_capture_estimate(
    connection: Connection, environment: CliEnvironment, request: MeasurementRequest, *, owner: Any, as_json: bool
) -> None:
    cap = environment.settings.snapshot_monthly_cap_usd
    try:
        found = capture_estimate.of_request(connection, request, account=owner, cap_usd=cap)
    except estimate.NothingToEstimateError as error:
        raise CommandError(str(error)) from error
    if as_json:
        output.print_json(asdict(found) | {"over_cap": found.is_over_cap})
        return
    month = f"${found.spent_usd_this_month:,.3f} spent of ${found.cap_usd:,.2f}"
    output.console().print(
        output.build_facts(
            {
                "albums": found.albums,
                "cost": "$0: a capture of the same albums within the hour answers it"
                if found.reused
                else f"${found.cost_usd:,.3f}",
                "this month": month + (": it would be refused" if found.is_over_cap else ""),
            }
        )
    )
    output.print_line("nothing was asked for")
