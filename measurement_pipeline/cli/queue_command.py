"""`queue`: show the state of the backfill queue, and what it waits for."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.spend_tables import build_share_table
from measurement_pipeline.domain.blockers import backfill_blockers, describe, describe_all
from measurement_pipeline.postgres import account_shares, backfill_queue, health

_OUTCOMES = {"done": ("stored", "no_history", "rejected"), "failed": ("malformed", "exhausted", "transient")}


@click.command("queue")
@click.option(
    "--limit",
    type=click.IntRange(0, 10_000),
    default=10,
    show_default=True,
    help="Show this many of the next recordings.",
)
@output.json_option
@click.pass_obj
def command(state_directory: Path | None, *, limit: int, as_json: bool) -> None:
    """Show rows by status and outcome, the breaker, the pause, the budget, each account's share, and the next by rank."""
    with open_database(state_directory) as (environment, connection):
        counts = backfill_queue.counts(connection) | {"unwanted": backfill_queue.unwanted(connection)}
        state = health.read_backfill_state(
            connection,
            hits_allowed=environment.settings.hits_allowed,
            operators_account=environment.settings.backfill_account_id,
        )
        upcoming = backfill_queue.upcoming(connection, limit=limit)
        accounts = account_shares.read_statuses(connection)
    vendor, blockers = state.vendor, backfill_blockers(state)
    if as_json:
        output.print_json(
            {
                "kind": environment.kind,
                "counts": counts,
                "breaker": {key: getattr(vendor, key) for key in ("breaker", "breaker_kind", "reason", "opened_at")},
                "paused_until": vendor.paused_until,
                "budget": {**asdict(state.budget), "left": state.budget.left},
                "blockers": [{"kind": one.kind, "text": describe(one), "ends_at": one.ends_at} for one in blockers],
                "accounts": [asdict(one) for one in accounts],
                "next": upcoming,
            }
        )
        return
    output.print_line(f"{environment.kind.upper()}: {environment.database_location}")
    output.console().print(
        output.build_facts(
            {
                **{status: _with_outcomes(counts, status) for status in ("pending", "in_progress", "done", "failed")},
                "suspect": counts["suspect"] or None,
                "waiting": _waiting(counts),
                "unwanted": _unwanted(counts),
                "buying": describe_all(blockers) or "yes: recordings are due, and calls are allowed",
                "breaker": state.vendor.breaker,
                "budget": output.format_budget(state.budget),
            }
        )
    )
    if accounts:
        output.print_line("\nby account:")
        output.console().print(build_share_table(accounts))
    if upcoming:
        columns = ("ISRC", "title", "artist", "rank", "status", "not before", "last error")
        rows = [
            (
                r["song"],
                r["name"],
                r["artist"],
                r["rank_score"],
                r["status"],
                _future_or_none(r["not_before"], vendor.now),
                r["last_error"],
            )
            for r in upcoming
        ]
        output.print_line("\nnext by rank:")
        output.console().print(output.build_table(columns, rows, right=("rank",)))


def _with_outcomes(counts: dict[str, Any], status: str) -> str:
    parts = [f"{counts[o]:,} {o.replace('_', ' ')}" for o in _OUTCOMES.get(status, ()) if counts[o]]
    return f"{counts[status]:,}" + (f" ({', '.join(parts)})" if parts else "")


def _waiting(counts: dict[str, Any]) -> str | None:
    if not counts["waiting"]:
        return None
    return f"{counts['waiting']:,} pending recordings wait for a retry, the next {output.format_value(counts['next_retry_at'])}"


def _unwanted(counts: dict[str, Any]) -> str | None:
    if not counts["unwanted"]:
        return None
    return f"{counts['unwanted']:,} of these are not bought: their requests were withdrawn, and no other request wants them"


def _future_or_none(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment is not None and moment > now else None
