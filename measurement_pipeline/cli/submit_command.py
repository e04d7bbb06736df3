"""`submit`: request measurements with a row in `measurement_jobs`, as any client does, or estimate the cost."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any
from uuid import UUID

import click

from measurement_pipeline import services
from measurement_pipeline.cli import lookup, output, progress, receipt
from measurement_pipeline.cli.environment import CliEnvironment, open_database
from measurement_pipeline.domain.capture import Schedule
from measurement_pipeline.domain.coverage import describe_left_out, describe_value
from measurement_pipeline.domain.measurement_job import MeasurementRequest, Refusal, Source, State, read_request
from measurement_pipeline.domain.text import counted
from measurement_pipeline.intake import capture_estimate, estimate
from measurement_pipeline.local import instance_lock
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import Connection


def _share(_: click.Context, param: click.Parameter, value: str | None) -> Decimal | None:
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%", value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r}: expected a percentage such as 90%", param=param)
    return Decimal(match[1]) / 100


@click.command("submit")
@lookup.account_option
@click.option(
    "--source",
    type=click.Choice([s.value for s in Source]),
    required=True,
    help="historical buys the play-count history once. current captures today's displayed counts, album by album.",
)
@click.option(
    "--isrc",
    "isrcs",
    multiple=True,
    metavar="ISRC",
    help="Request this recording. Repeat the option, or separate several ISRCs by commas.",
)
@click.option(
    "--album",
    "albums",
    multiple=True,
    metavar="ID",
    help="Request every recording of this Spotify album. Repeat the option, or separate several ids by commas.",
)
@click.option(
    "--catalog",
    metavar="CATALOG",
    help="Request every recording of this catalogue of the account. Give its id or its name.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="Request only the N most played of these recordings. Only with --source historical.",
)
@click.option(
    "--coverage",
    callback=_share,
    metavar="SHARE",
    help="Request only the most played recordings that have this share of the known plays, such as 90%.",
)
@click.option(
    "--callback-url",
    metavar="URL",
    help="Call this https address, signed, when the request ends or needs a card. `callbacks secret` prints the secret.",
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
    top: int | None,
    coverage: Decimal | None,
    callback_url: str | None,
    monthly: bool,
    only_estimate: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Request measurements of recordings. Give exactly one of --isrc, --album and --catalog."""
    if sum(map(bool, (isrcs, albums, catalog))) != 1:
        raise click.UsageError("expected exactly one of --isrc, --album and --catalog")
    if monthly and source != Source.CURRENT:
        raise click.UsageError("--monthly needs --source current: a history is bought only once")
    if only_estimate and wait:
        raise click.UsageError("--estimate enqueues nothing, so --wait has no request to wait for: give one of the two")
    with open_database(ctx.obj) as (environment, connection):
        owner = lookup.find_account(connection, account)
        scope: dict[str, Any]
        if catalog:
            scope = {"catalog_id": str(lookup.find_catalog(connection, catalog, owner=owner))}
        else:
            scope = {"isrcs": lookup.split_commas(isrcs)} if isrcs else {"album_ids": lookup.split_commas(albums)}
        # Intake would reject it with the same error a few seconds later.
        schedule = Schedule.MONTHLY if monthly else Schedule.ONCE
        request = read_request(
            source, scope, ["spotify"], schedule, limit=top, coverage=coverage, callback_url=callback_url
        )
        if isinstance(request, Refusal):
            raise CommandError(request.error)
        if only_estimate:
            print_estimate = _print_capture_estimate if request.source is Source.CURRENT else _print_estimate
            print_estimate(connection, environment, request, owner=owner, as_json=as_json)
            return
        ended_before = instance_lock.describe_end(environment.home, "dev") is not None
        job = _submit(
            connection,
            account=owner,
            source=source,
            scope=scope,
            schedule=schedule,
            aim=request.aim,
            callback_url=callback_url,
        )
        if not wait:
            if as_json:
                output.print_json({"id": job, "state": State.QUEUED.value})
            else:
                output.print_line(f"request {job} is queued; `measurement-pipeline jobs {job}` shows its progress")
            return
        if not as_json:
            click.echo(f"request {job} is queued", err=True)
        try:
            settled = progress.wait_for_request(
                connection,
                job,
                hits_allowed=environment.settings.hits_allowed,
                # If `dev` had ended before, Dagster may run elsewhere, without `dev`.
                describe_end=lambda: None if ended_before else instance_lock.describe_end(environment.home, "dev"),
                is_starting=lambda: instance_lock.is_starting(environment.home, "dev"),
            )
        except KeyboardInterrupt:
            click.echo(
                f"stopped waiting; request {job} continues: `measurement-pipeline jobs {job}` shows it", err=True
            )
            raise
        eur_per_hit = environment.settings.songstats_eur_per_hit
        receipt.print_receipt(connection, settled, eur_per_hit=eur_per_hit, as_json=as_json)
        ctx.exit(0 if settled["state"] == State.DONE else 1)


def _submit(connection: Connection, **request: Any) -> UUID:
    try:
        return measurement_jobs.submit(connection, **request)
    except measurement_jobs.RequestTooLargeError as error:
        raise CommandError(str(error)) from error


def _print_estimate(
    connection: Connection, environment: CliEnvironment, request: MeasurementRequest, *, owner: Any, as_json: bool
) -> None:
    settings = environment.settings
    try:
        result = estimate.estimate_hits(
            connection,
            request,
            account=owner,
            hits_allowed=settings.hits_allowed,
            eur_per_hit=settings.songstats_eur_per_hit,
            requests_per_second=settings.songstats_requests_per_second,
        )
    except estimate.NothingToEstimateError as error:
        raise CommandError(str(error)) from error
    if as_json:
        output.print_json(result.fields())
        return
    if result.days is None:
        limit, reserve = settings.songstats_hit_limit, settings.songstats_hit_reserve
        days = f"never: no hits are allowed (SONGSTATS_HIT_LIMIT {limit}, SONGSTATS_HIT_RESERVE {reserve})"
    else:
        days = str(result.days) if result.days else "0: the remaining hits are enough"
    output.console().print(
        output.build_facts(
            {
                "recordings requested": result.asked,
                "already owned": result.owned,
                "already queued": result.queued or None,
                "hits needed": result.hits,
                "need not be bought": f"{counted(result.imported, 'recording has', 'recordings have')} daily plays that an "
                "artist exported (`history list`)"
                if result.imported
                else None,
                "share of known plays": describe_value(result.value),
                "left out": describe_left_out(
                    result.left_out, of=result.asked + result.left_out, covered=result.covered
                ),
                "cost": f"€{result.eur:,.2f}",
                "days": days,
                "complete": output.format_completion(result.completion),
                "budget": f"{counted(result.hits_left_now, 'hit')} left now, {result.hits_allowed_in_30_days:,} in any 30 days",
            }
        )
    )
    output.print_line("nothing was enqueued")


def _print_capture_estimate(
    connection: Connection, environment: CliEnvironment, request: MeasurementRequest, *, owner: Any, as_json: bool
) -> None:
    limits = services.capture_limits(environment.settings)
    try:
        result = capture_estimate.estimate_capture(connection, request, account=owner, limits=limits)
    except estimate.NothingToEstimateError as error:
        raise CommandError(str(error)) from error
    if as_json:
        output.print_json(asdict(result))
        return
    month = f"${result.spent_usd_this_month:,.3f} spent of ${result.cap_usd:,.2f}"
    output.console().print(
        output.build_facts(
            {
                "albums": result.albums,
                "cost": "$0: a capture of the same albums from the last hour is reused"
                if result.reused
                else f"${result.cost_usd:,.3f}",
                "this month": month + (": it would be rejected" if result.over_cap else ""),
            }
        )
    )
    output.print_line("nothing was requested")
