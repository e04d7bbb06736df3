"""Prints the result of a demo. Read-only."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from measurement_pipeline.backfill.results import sparkline
from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import CliEnvironment
from measurement_pipeline.domain import spend
from measurement_pipeline.postgres import songs
from measurement_pipeline.postgres.database import Connection

_MOST_PLAYED = 10


def print_demo_report(
    connection: Connection,
    environment: CliEnvironment,
    *,
    current: Mapping[str, Any],
    paid: Mapping[str, Any],
    unpaid: Mapping[str, Any],
    vendor_hits: int,
    ledger_hits: int,
    waits: str | None,
) -> None:
    """Print the outcome and cost of the requests, and the most played recordings."""
    console = output.console()
    console.print("\n[bold]The account with a card requested today's counts[/]")
    console.print(
        output.build_facts(
            {
                "state": f"{current['state']} ({current['status_code']})",
                "reason": current["error"],
                "albums captured": current["album_count"],
                "cost": "$0: a capture of the same albums from the last hour is reused"
                if current["reused"]
                else f"${current['estimated_cost_usd'] or 0:,.3f}",
                "recordings measured": f"{current['recordings'] or 0:,}, and ranked by their counts",
                "without a count": current["without_count"] or None,
                "without an ISRC": current["unmapped"] or None,
            }
        )
    )
    eur = spend.cost_eur(ledger_hits, environment.settings.songstats_eur_per_hit)
    console.print("\n[bold]Then it requested the histories of the sample catalogue[/]")
    console.print(
        output.build_facts(
            {
                "recordings requested": paid["asked"],
                "recordings stored": paid["stored"],
                "no history": paid["no_history"],
                "rejected": paid["rejected"] or None,
                "failed": paid["failed"] or None,
                "skipped": f"{paid['skipped'] or 0:,} (bought or settled before)",
                "waiting": waits,
                "points": songs.count_points(connection),
                "hits spent in this demo": f"{ledger_hits:,} in the ledger (€{eur:,.2f}), {vendor_hits:,} at the vendor",
            }
        )
    )
    if not vendor_hits:
        console.print("[bold]0 hits were spent:[/] all recordings were bought before, and none is bought twice.")
    console.print("\n[bold]The account without a card requested the same[/]")
    console.print(
        output.build_facts(
            {
                "state": f"{unpaid['state']} ({unpaid['status_code']})",
                "reason": unpaid["error"],
                "checkout link": unpaid["checkout_url"],
            }
        )
    )
    most_played = songs.list_most_played(connection, limit=_MOST_PLAYED)
    if most_played:
        console.print(f"\n[bold]The {len(most_played)} most played[/]")
        columns = ("ISRC", "title", "artist", "plays", "first date", "last date", "points", "plays a day")
        rows = [
            (
                row["isrc"],
                row["name"],
                row["artist"],
                row["play_count"],
                row["first_day"].astimezone(UTC).date(),
                row["last_day"].astimezone(UTC).date(),
                row["points"],
                sparkline(songs.get_series(connection, row["isrc"])),
            )
            for row in most_played
        ]
        console.print(output.build_table(columns, rows, right=("plays", "points")))
