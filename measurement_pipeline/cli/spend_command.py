"""`spend`: what was spent, on what and for whom, what of it was wasted, and how long the queue will take. Only reads."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from measurement_pipeline import services
from measurement_pipeline.cli import lookup, output, spend_tables
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.domain.blockers import describe_all, vendor_blockers
from measurement_pipeline.domain.spend import CallGroup, cost_eur, sum_by_account, sum_by_cause, sum_calls
from measurement_pipeline.domain.text import counted
from measurement_pipeline.domain.vendor_state import Budget
from measurement_pipeline.intake.estimate import seconds_until_bought
from measurement_pipeline.postgres import songstats_ledger, spend
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.spend import BudgetRelease, ToBuy

_HOUR_SECONDS = 3_600.0
# Fewer are a trial, and no pace.
_HITS_THAT_SHOW_A_PACE = 20
_CENTURY_SECONDS = 100 * 365 * 24 * _HOUR_SECONDS


@dataclass(frozen=True, slots=True)
class QueueForecast:
    """When the queue will be empty, as things are. `empty_at` None: not within a hundred years, or nobody knows.

    `held_by`: budget, the pace, or the breaker, which a person or a probe closes; `pace` says which pace that is.
    """

    empty_at: datetime | None
    held_by: str
    pace: str


@click.command("spend")
@click.option("--account", metavar="ACCOUNT", help="Count only the hits of this account. Give its UUID or its name.")
@click.option(
    "--days",
    type=click.IntRange(1, 3_650),
    default=30,
    show_default=True,
    help="Count the calls of this many last days.",
)
@output.json_option
@click.pass_obj
def command(state: Path | None, *, account: str | None, days: int, as_json: bool) -> None:
    """Show hits by cause and account in euros, what was wasted, the budget, and when the queue will be empty."""
    with open_database(state) as (environment, connection):
        owner = None if account is None else lookup.find_known_account(connection, account)
        window = spend.since(connection, days=days)
        calls = spend.spent(connection, days=days, account=owner)
        budget = songstats_ledger.budget(connection, hits_allowed=environment.settings.hits_allowed)
        frees = spend.frees(connection)
        queue = spend.to_buy(connection, services.backfill_config(environment.settings, environment.database_url).rules)
        ahead = forecast(
            connection, queue, budget, pace=environment.settings.songstats_requests_per_second, now=window[1]
        )
        held = songstats_ledger.vendor_state(connection)
        if held.breaker == "open":
            ahead = replace(ahead, empty_at=None, held_by="breaker")
    eur_per_hit = environment.settings.songstats_eur_per_hit
    if as_json:
        output.print_json(
            {
                "kind": environment.kind,
                "since": window[0],
                "until": window[1],
                "account": owner,
                "eur_per_hit": eur_per_hit,
                **_totals(calls, eur_per_hit),
                "budget": {**asdict(budget), "left": budget.left, "frees": asdict(frees)},
                "queue": {**asdict(queue), **asdict(ahead)},
            }
        )
        return
    whose = "all accounts" if owner is None else f"account {owner}"
    output.print_line(f"{environment.kind.upper()}: {environment.database_location}")
    output.print_line(f"{whose}, {output.format_value(window[0])} to {output.format_value(window[1])}\n")
    _say_tables(calls, eur_per_hit)
    _say_facts(calls, budget, frees, queue, ahead, eur_per_hit=eur_per_hit, stops=describe_all(vendor_blockers(held)))


def forecast(connection: Connection, queue: ToBuy, budget: Budget, *, pace: float, now: datetime) -> QueueForecast:
    """When the last recording that somebody pays for can be bought: as the budget frees, and no faster than the pace.

    The pace is that of the part of the last hour in which anything was bought, where that was enough to show one; else the set
    one.
    """
    hits = queue.to_buy - queue.unpaid
    by_budget = seconds_until_bought(
        hits,
        allowed=budget.allowed,
        counted=budget.hits,
        frees_in=lambda place: songstats_ledger.frees_in(connection, place),
    )
    if queue.recent_hits >= _HITS_THAT_SHOW_A_PACE:
        by_pace = hits / queue.recent_hits * queue.recent_seconds
        an_hour = queue.recent_hits / queue.recent_seconds * _HOUR_SECONDS
        which = f"{counted(round(an_hour), 'hit')} an hour, as when it last bought"
    else:
        by_pace = hits / pace if pace else 0.0
        which = (
            f"{counted(int(pace) if pace == int(pace) else pace, 'call')} a second, as set"
            if pace
            else "no pace is set"
        )
    held_by = "budget" if by_budget is None or by_budget > by_pace else "pace"
    if by_budget is None or max(by_budget, by_pace) > _CENTURY_SECONDS:
        return QueueForecast(None, held_by, which)
    return QueueForecast(now + timedelta(seconds=max(by_budget, by_pace)), held_by, which)


def _totals(calls: list[CallGroup], eur_per_hit: float) -> dict[str, Any]:
    total = sum_calls(calls)
    return {
        **spend_tables.to_json_row(total, eur=cost_eur(total.hits, eur_per_hit)),
        "wasted_eur": float(cost_eur(total.wasted, eur_per_hit)),
        "hits_per_recording_settled": total.hits_per_recording_settled,
        "by_cause": spend_tables.to_json_rows(sum_by_cause(calls), key_name="cause", eur_per_hit=eur_per_hit),
        "by_account": [
            {**one, "name": _names(calls)[one["account"]]}
            for one in spend_tables.to_json_rows(sum_by_account(calls), key_name="account", eur_per_hit=eur_per_hit)
        ],
    }


def _names(calls: list[CallGroup]) -> dict[UUID, str | None]:
    return {line.account: line.name for line in calls}


def _say_tables(calls: list[CallGroup], eur_per_hit: float) -> None:
    if not calls:
        output.print_line("nothing was called for\n")
        return
    total, known = sum_calls(calls), _names(calls)
    console = output.console()
    console.print(
        spend_tables.build_spend_table(sum_by_cause(calls), key_name="cause", total=total, eur_per_hit=eur_per_hit)
    )
    output.print_line("")
    named = {f"{known[key] or ''} {key}".strip(): found for key, found in sum_by_account(calls).items()}
    console.print(spend_tables.build_spend_table(named, key_name="account", total=total, eur_per_hit=eur_per_hit))
    output.print_line("")


def _say_facts(
    calls: list[CallGroup],
    budget: Budget,
    frees: BudgetRelease,
    queue: ToBuy,
    ahead: QueueForecast,
    *,
    eur_per_hit: float,
    stops: str,
) -> None:
    total = sum_calls(calls)
    ratio = total.hits_per_recording_settled
    wasted = cost_eur(total.wasted, eur_per_hit)
    output.console().print(
        output.build_facts(
            {
                "hits per recording settled": "no recording was settled"
                if ratio is None
                else f"{ratio:.2f} (ideal 1.00): {total.settled:,} settled, of which {total.stored:,} stored a history and "
                f"{total.settled - total.stored:,} have none or were rejected",
                "wasted hits": f"{total.wasted:,} (€{wasted:,.2f}): they brought neither a history nor the first word that "
                "there is none",
                "of unknown fate": None
                if not total.unknown
                else f"{total.unknown:,}: they count until the hourly sweep finds that they were not billed; `reclaim` says more",
                "cost nothing": None
                if not total.cost_nothing
                else f"{counted(total.cost_nothing, 'call')}: 429, an answered 5xx, a refused key, never sent, "
                "or not billed by Songstats' own count",
                "budget (all accounts)": output.format_budget(budget),
                "frees": _frees(budget, frees),
                "queue": _queue(queue, ahead, budget, stops=stops),
            }
        )
    )


def _frees(budget: Budget, frees: BudgetRelease) -> str | None:
    if budget.next_hit_frees_at is None:
        return None
    return (
        f"the next hit {output.format_value(budget.next_hit_frees_at)}; "
        f"{frees.in_a_day:,} within a day, {frees.in_a_week:,} within a week"
    )


def _queue(queue: ToBuy, ahead: QueueForecast, budget: Budget, *, stops: str) -> str:
    unpaid = f"; {queue.unpaid:,} wait for somebody with a card on file" if queue.unpaid else ""
    paid_for = queue.to_buy - queue.unpaid
    if not paid_for:
        return f"nothing is to be bought{unpaid}"
    if ahead.held_by == "breaker":
        return f"{paid_for:,} to buy{unpaid}. {stops}"
    if ahead.empty_at is None:
        return (
            f"{paid_for:,} to buy: not within a hundred years, with {counted(budget.allowed, 'hit')} in 30 days{unpaid}"
        )
    held = "as the budget frees" if ahead.held_by == "budget" else f"the budget suffices; at {ahead.pace}"
    but = f". {stops}" if stops else ""
    return f"{paid_for:,} to buy: empty about {output.format_value(ahead.empty_at)}, {held}{unpaid}{but}"
