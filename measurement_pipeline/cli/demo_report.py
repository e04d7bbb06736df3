"""What a demo prints at its end. Reads; decides nothing."""

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
    """Print what came of the requests, what it cost, and the most played recordings."""
    console = output.console()
    console.print("\n[bold]The account with a card asked for what is displayed today[/]")
    console.print(
        output.build_facts(
            {
                "state": f"{current['state']} ({current['status_code']})",
                "why": current["error"],
                "albums captured": current["album_count"],
                "cost": "$0: a capture of the same albums within the hour answers it"
                if current["reused"]
                else f"${current['estimated_cost_usd'] or 0:,.3f}",
                "recordings measured": f"{current['recordings'] or 0:,}, and ranked by it",
                "without a count": current["without_count"] or None,
                "without an ISRC": current["unmapped"] or None,
            }
        )
    )
    eur = spend.cost_eur(ledger_hits, environment.settings.songstats_eur_per_hit)
    console.print("\n[bold]Then it asked for the histories of the sample catalogue[/]")
    console.print(
        output.build_facts(
            {
                "recordings asked for": paid["asked"],
                "recordings stored": paid["stored"],
                "no history": paid["no_history"],
                "rejected": paid["rejected"] or None,
                "failed": paid["failed"] or None,
                "skipped": f"{paid['skipped'] or 0:,} (bought or settled before)",
                "waiting": waits,
                "points": songs.count_points(connection),
                "hits spent this time": f"{ledger_hits:,} by the ledger (€{eur:,.2f}), {vendor_hits:,} at the vendor's",
            }
        )
    )
    if not vendor_hits:
        console.print(
            "[bold]0 hits were spent:[/] every recording had been bought before, and nothing is bought twice."
        )
    console.print("\n[bold]The account without a card asked for the same[/]")
    console.print(
        output.build_facts(
            {
                "state": f"{unpaid['state']} ({unpaid['status_code']})",
                "why": unpaid["error"],
                "checkout link": unpaid["checkout_url"],
            }
        )
    )
    most = songs.list_most_played(connection, limit=_MOST_PLAYED)
    if most:
        console.print(f"\n[bold]The {len(most)} most played[/]")
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
            for row in most
        ]
        console.print(output.build_table(columns, rows, right=("plays", "points")))
