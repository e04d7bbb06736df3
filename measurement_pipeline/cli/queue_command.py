"""`queue`: where the backfill stands, and why it waits where it does."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.postgres import backfill_queue, songstats_ledger
from measurement_pipeline.postgres.songstats_ledger import VendorState

_OUTCOMES_OF = {"done": ("stored", "no_history", "rejected"), "failed": ("malformed", "exhausted", "transient")}


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
def command(state: Path | None, *, limit: int, as_json: bool) -> None:
    """Show rows by status and outcome, the breaker, the pause, the budget, and the next recordings by rank."""
    with open_database(state) as (environment, connection):
        counts = backfill_queue.counts(connection) | {"unwanted": backfill_queue.unwanted(connection)}
        vendor = songstats_ledger.vendor_state(connection)
        budget = songstats_ledger.budget(connection, hits_allowed=environment.settings.hits_allowed)
        upcoming = backfill_queue.upcoming(connection, limit=limit)
    if as_json:
        output.print_json(
            {
                "kind": environment.kind,
                "counts": counts,
                "breaker": {key: getattr(vendor, key) for key in ("breaker", "breaker_kind", "reason", "opened_at")},
                "paused_until": vendor.paused_until,
                "budget": {**asdict(budget), "left": budget.left},
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
                "breaker": _breaker(vendor),
                "pause": vendor.pause_description or "none",
                "budget": output.format_budget(budget),
            }
        )
    )
    if upcoming:
        columns = ("ISRC", "title", "artist", "rank", "status", "not before", "last error")
        rows = [
            (
                r["song"],
                r["name"],
                r["artist"],
                r["rank_score"],
                r["status"],
                _ahead(r["not_before"], vendor.now),
                r["last_error"],
            )
            for r in upcoming
        ]
        output.print_line("\nnext by rank:")
        output.console().print(output.build_table(columns, rows, right=("rank",)))


def _with_outcomes(counts: dict[str, Any], status: str) -> str:
    parts = [f"{counts[o]:,} {o.replace('_', ' ')}" for o in _OUTCOMES_OF.get(status, ()) if counts[o]]
    return f"{counts[status]:,}" + (f" ({', '.join(parts)})" if parts else "")


def _waiting(counts: dict[str, Any]) -> str | None:
    if not counts["waiting"]:
        return None
    return f"{counts['waiting']:,} of the pending wait to be retried, the next {output.format_value(counts['next_retry_at'])}"


def _unwanted(counts: dict[str, Any]) -> str | None:
    if not counts["unwanted"]:
        return None
    return f"{counts['unwanted']:,} of these are not bought: their requests were withdrawn, and nobody else wants them"


def _breaker(vendor: VendorState) -> str:
    if vendor.breaker != "open":
        return "closed: calls go out" if vendor.paused_until is None else "closed"
    return f"OPEN since {output.format_value(vendor.opened_at)}: {vendor.reason}"


def _ahead(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment is not None and moment > now else None
