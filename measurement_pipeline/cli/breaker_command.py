"""`breaker`: show and close the circuit breaker and the pause of calls to Songstats."""

import getpass
from pathlib import Path

import click

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.groups import Group
from measurement_pipeline.health import incidents
from measurement_pipeline.postgres import songstats_ledger

NEXT_STEP = {
    "key": (
        "correct SONGSTATS_API_KEY; the hourly `reclaim_schedule`, or `measurement-pipeline reclaim`, then tests the key and "
        "closes the breaker"
    ),
    "streak": (
        "find out what changed, then run `measurement-pipeline breaker close`. For recordings settled on suspect responses, run "
        "`measurement-pipeline requeue --suspect`: it parses stored malformed responses again; if the vendor was at fault, "
        "--rebuy buys them again"
    ),
}


@click.group("breaker", cls=Group)
def command() -> None:
    """Show and close the circuit breaker. While it is open, Songstats is not called."""


@command.command("show")
@output.json_option
@click.pass_obj
def show(state: Path | None, *, as_json: bool) -> None:
    """Show whether the breaker is open, since when, why, the next step, and any pause."""
    with open_database(state) as (_, connection):
        vendor = songstats_ledger.vendor_state(connection)
    if as_json:
        output.print_json(
            {key: getattr(vendor, key) for key in ("breaker", "breaker_kind", "reason", "opened_at", "paused_until")}
        )
        return
    if vendor.breaker == "open":
        output.print_line(f"open since {output.format_value(vendor.opened_at)}: {vendor.reason}")
        output.print_line(f"next step: {NEXT_STEP[vendor.breaker_kind or 'streak']}")
    elif vendor.paused_until is None:
        output.print_line("closed: calls go out")
    else:
        output.print_line("closed, but no call goes out during the pause")
    if vendor.paused_until is not None:
        output.print_line(f"{vendor.pause_description}; `measurement-pipeline breaker close` lifts it now")


@command.command("close")
@output.json_option
@click.pass_obj
def close(state: Path | None, *, as_json: bool) -> None:
    """Close the breaker and end a pause. Streaks restart at zero. The action is recorded."""
    with open_database(state) as (_, connection):
        done = operator_actions.close_breaker(connection, actor=getpass.getuser())
        incidents.end_songstats_incidents(connection)
    if as_json:
        output.print_json(
            {"closed": "breaker closed" in done, "pause_lifted": "pause lifted" in done, "breaker": "closed"}
        )
    else:
        output.print_line("; ".join(done) or "already closed, and no pause is active")
