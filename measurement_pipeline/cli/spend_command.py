"""`spend`: show hits by cause and account, wasted hits, and when the queue will be empty. Read-only."""

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
from measurement_pipeline.domain.completion import seconds_until_bought
from measurement_pipeline.domain.spend import CallGroup, cost_eur, sum_by_account, sum_by_cause, sum_calls
from measurement_pipeline.domain.text import counted
from measurement_pipeline.domain.vendor_state import Budget
from measurement_pipeline.postgres import account_shares, songstats_ledger, spend
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.spend import BudgetRelease, RemainingRows

_HOUR_SECONDS = 3_600.0
# Fewer hits do not show a pace.
_MIN_HITS_FOR_PACE = 20
_CENTURY_SECONDS = 100 * 365 * 24 * _HOUR_SECONDS


@dataclass(frozen=True, slots=True)
class QueueForecast:
    """When the queue will be empty. `empty_at` is None if that is unknown, or not within a hundred years.

    `held_by` is the limit: budget, pace or breaker. `pace` describes the pace.
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
    metavar="N",
    help="Count the calls of the last N days.",
)
@output.json_option
@click.pass_obj
def command(state: Path | None, *, account: str | None, days: int, as_json: bool) -> None:
    """Show hits and cost by cause and account, wasted hits, the budget, and when the queue will be empty."""
    with open_database(state) as (environment, connection):
        owner = None if account is None else lookup.find_known_account(connection, account)
        window = spend.read_window(connection, days=days)
        calls = spend.list_calls(connection, days=days, account=owner)
        budget = songstats_ledger.budget(connection, hits_allowed=environment.settings.hits_allowed)
        frees = spend.read_budget_release(connection)
        queue = spend.read_remaining(
            connection, services.backfill_config(environment.settings, environment.database_url).rules
        )
        ahead = forecast(
            connection, queue, budget, pace=environment.settings.songstats_requests_per_second, now=window[1]
        )
        held = songstats_ledger.vendor_state(connection)
        shares = [one for one in account_shares.read_statuses(connection) if owner in (None, one.account)]
        if held.operator_pause is not None:
            ahead = replace(ahead, empty_at=None, held_by="pause")
        elif held.breaker == "open":
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
                **_to_json(calls, eur_per_hit),
                "budget": {**asdict(budget), "left": budget.left, "frees": asdict(frees)},
                "queue": {**asdict(queue), **asdict(ahead)},
                "shares": [asdict(one) for one in shares],
            }
        )
        return
    whose = "all accounts" if owner is None else f"account {owner}"
    output.print_line(f"{environment.kind.upper()}: {environment.database_location}")
    output.print_line(f"{whose}, {output.format_value(window[0])} to {output.format_value(window[1])}\n")
    _print_tables(calls, eur_per_hit)
    if shares:
        output.console().print(spend_tables.build_share_table(shares))
        output.print_line("")
    _print_facts(
        calls, budget, frees, queue, ahead, eur_per_hit=eur_per_hit, blockers=describe_all(vendor_blockers(held))
    )


def forecast(
    connection: Connection, queue: RemainingRows, budget: Budget, *, pace: float, now: datetime
) -> QueueForecast:
    """Forecast when the last recording with a paying account is bought, limited by the budget and the pace.

    The pace is measured from the purchases of the last hour, or is the configured one if there were too few.
    """
    hits = queue.to_buy - queue.unpaid
    by_budget = seconds_until_bought(
        hits,
        allowed=budget.allowed,
        counted=budget.hits,
        frees_in=lambda place: songstats_ledger.frees_in(connection, place),
    )
    if queue.recent_hits >= _MIN_HITS_FOR_PACE:
        by_pace = hits / queue.recent_hits * queue.recent_seconds
        per_hour = queue.recent_hits / queue.recent_seconds * _HOUR_SECONDS
        description = f"{counted(round(per_hour), 'hit')} an hour, as in the last hour"
    else:
        by_pace = hits / pace if pace else 0.0
        description = (
            f"{counted(int(pace) if pace == int(pace) else pace, 'call')} a second, as configured"
            if pace
            else "no pace is configured"
        )
    held_by = "budget" if by_budget is None or by_budget > by_pace else "pace"
    if by_budget is None or max(by_budget, by_pace) > _CENTURY_SECONDS:
        return QueueForecast(None, held_by, description)
    return QueueForecast(now + timedelta(seconds=max(by_budget, by_pace)), held_by, description)


def _to_json(calls: list[CallGroup], eur_per_hit: float) -> dict[str, Any]:
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
    return {group.account: group.name for group in calls}


def _print_tables(calls: list[CallGroup], eur_per_hit: float) -> None:
    if not calls:
        output.print_line("no calls\n")
        return
    total, names = sum_calls(calls), _names(calls)
    console = output.console()
    console.print(
        spend_tables.build_spend_table(sum_by_cause(calls), key_name="cause", total=total, eur_per_hit=eur_per_hit)
    )
    output.print_line("")
    named = {f"{names[key] or ''} {key}".strip(): row for key, row in sum_by_account(calls).items()}
    console.print(spend_tables.build_spend_table(named, key_name="account", total=total, eur_per_hit=eur_per_hit))
    output.print_line("")


def _print_facts(
    calls: list[CallGroup],
    budget: Budget,
    frees: BudgetRelease,
    queue: RemainingRows,
    ahead: QueueForecast,
    *,
    eur_per_hit: float,
    blockers: str,
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
                "wasted hits": f"{total.wasted:,} (€{wasted:,.2f}): calls without a history and without the first "
                "response that there is none",
                "of unknown outcome": None
                if not total.unknown
                else f"{total.unknown:,}: counted unless the hourly reclaim finds that they were not billed; see `reclaim`",
                "free": None
                if not total.cost_nothing
                else f"{counted(total.cost_nothing, 'call')}: 429, 5xx, a rejected key, not sent, "
                "or not billed by Songstats' own count",
                "budget (all accounts)": output.format_budget(budget),
                "next hits": _frees(budget, frees),
                "queue": _queue(queue, ahead, budget, blockers=blockers),
            }
        )
    )


def _frees(budget: Budget, frees: BudgetRelease) -> str | None:
    if budget.next_hit_frees_at is None:
        return None
    return (
        f"next hit available {output.format_value(budget.next_hit_frees_at)}; "
        f"{frees.in_a_day:,} within a day, {frees.in_a_week:,} within a week"
    )


def _queue(queue: RemainingRows, ahead: QueueForecast, budget: Budget, *, blockers: str) -> str:
    unpaid = f"; {queue.unpaid:,} wait for an account with a card on file" if queue.unpaid else ""
    paid_for = queue.to_buy - queue.unpaid
    if not paid_for:
        return f"nothing to buy{unpaid}"
    if ahead.held_by == "breaker":
        return f"{paid_for:,} to buy{unpaid}. {blockers}"
    if ahead.empty_at is None:
        return (
            f"{paid_for:,} to buy: not within a hundred years, with {counted(budget.allowed, 'hit')} in 30 days{unpaid}"
        )
    limit = "limited by the budget" if ahead.held_by == "budget" else f"limited by the pace of {ahead.pace}"
    blockers_note = f". {blockers}" if blockers else ""
    return f"{paid_for:,} to buy: empty about {output.format_value(ahead.empty_at)}, {limit}{unpaid}{blockers_note}"
