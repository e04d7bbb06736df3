"""`requeue`: put settled recordings on the queue again. The action is recorded with the user's name."""

import getpass
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from measurement_pipeline import services
from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.cli import lookup, output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.domain import isrc, spend
from measurement_pipeline.domain.backfill_queue import QueueRow, Status
from measurement_pipeline.domain.outcome import Outcome
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import backfill_queue

# A stored recording is never bought again.
_CHOICES = [outcome.value for outcome in Outcome if outcome is not Outcome.STORED]
_SHOWN = 5
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def _seconds(_: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", value)
    if match is None:
        raise click.BadParameter(f"{value!r}: expected a number and s, m, h, d or w, such as 30d", param=param)
    return float(int(match[1]) * _UNIT_SECONDS[match[2]])


@click.command("requeue")
@click.option("--outcome", type=click.Choice(_CHOICES), help="Choose recordings with this outcome.")
@click.option(
    "--suspect", is_flag=True, help="Choose recordings that were settled in a streak that opened the breaker."
)
@click.option("--catalog", metavar="CATALOG", help="Choose recordings of this catalogue. Give its id or its name.")
@click.option("--account", metavar="ACCOUNT", help="The account that owns the catalogue of --catalog.")
@click.option(
    "--older-than",
    callback=_seconds,
    metavar="AGE",
    help="Choose recordings that were settled longer ago than this, such as 30d or 12h.",
)
@click.option(
    "--isrc",
    "isrcs",
    multiple=True,
    metavar="ISRC",
    help="Choose this recording. Repeat the option, or separate several ISRCs by commas.",
)
@click.option(
    "--rebuy", is_flag=True, help="Buy malformed responses again. Without it, the stored response is parsed again."
)
@click.option(
    "--estimate",
    is_flag=True,
    help="Change nothing. Print how many recordings would be requeued, and at most how many hits that costs.",
)
@output.json_option
@click.pass_obj
def command(
    state: Path | None,
    *,
    outcome: str | None,
    suspect: bool,
    catalog: str | None,
    account: str | None,
    older_than: float | None,
    isrcs: Sequence[str],
    rebuy: bool,
    estimate: bool,
    as_json: bool,
) -> None:
    """Requeue settled recordings that meet all given conditions, except stored ones.

    The requests that wanted them are reopened, and pay.
    """
    if not (outcome or suspect or catalog or isrcs or older_than is not None):
        raise click.UsageError("expected at least one of --outcome, --suspect, --catalog, --older-than and --isrc")
    if account and not catalog:
        raise click.UsageError("--account selects the owner of --catalog: give --catalog too")
    wanted = _isrcs(isrcs)
    with open_database(state) as (environment, connection):
        owner = lookup.find_optional_account(connection, account)
        chosen = backfill_queue.choose(
            connection,
            outcome=None if outcome is None else Outcome(outcome),
            suspect=suspect,
            catalog=None if catalog is None else lookup.find_catalog(connection, catalog, owner=owner),
            isrcs=wanted or None,
            older_than_seconds=older_than,
        )
        others = [song for song in dict.fromkeys(wanted) if song not in chosen]
        rules = services.backfill_config(environment.settings, environment.database_url).rules
        rows = backfill_queue.rows(connection, others, rules) if others else {}
        done = (
            [] if estimate else operator_actions.requeue(connection, list(chosen), rebuy=rebuy, actor=getpass.getuser())
        )
    skipped = {song: _skip_reason(rows.get(song)) for song in others}
    hits = sum(rebuy or outcome is not Outcome.MALFORMED for outcome in chosen.values())
    eur = spend.cost_eur(hits, environment.settings.songstats_eur_per_hit)
    if as_json:
        by_outcome = Counter(outcome.value for outcome in chosen.values())
        output.print_json(
            {
                "chosen": len(chosen),
                "by_outcome": by_outcome,
                "requeued": len(done),
                "skipped": others,
                "skip_reasons": skipped,
                "hits_at_most": hits,
                "eur_at_most": float(eur),
            }
        )
    else:
        cost = f"at most {counted(hits, 'hit')}, €{eur:,.2f}"
        result = "nothing was changed" if estimate else f"{len(done):,} requeued"
        output.print_line(f"{counted(len(chosen), 'recording')}{_by_outcome(chosen)}: {result}; {cost}")
        for reason in dict.fromkeys(skipped.values()):
            songs = [song for song in others if skipped[song] == reason]
            output.print_line(f"skipped: {', '.join(songs[:_SHOWN])}{', …' if len(songs) > _SHOWN else ''}: {reason}")


def _skip_reason(row: QueueRow | None) -> str:
    """Why a given recording is not requeued."""
    if row is None:
        return "no request has asked for it"
    if row.outcome is Outcome.STORED:
        return "it is stored, and never bought again"
    if row.status is Status.PENDING:
        return "it is already on the queue"
    if row.status is Status.IN_PROGRESS:
        return "a run is processing it"
    return f"it is {row.outcome or row.status}, which the other conditions exclude"


def _isrcs(values: Sequence[str]) -> list[str]:
    given = lookup.split_commas(values)
    invalid = [part for part in given if isrc.normalise_isrc(part) is None]
    if invalid:
        raise click.BadParameter(
            f"{', '.join(map(repr, invalid))}: expected an ISRC such as GBUM72501895", param_hint="--isrc"
        )
    return [normal for part in given if (normal := isrc.normalise_isrc(part)) is not None]


def _by_outcome(chosen: Mapping[str, Outcome]) -> str:
    outcomes = Counter(outcome.value for outcome in chosen.values())
    return f" ({', '.join(f'{count:,} {outcome}' for outcome, count in sorted(outcomes.items()))})" if outcomes else ""
