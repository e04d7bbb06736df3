"""`breaker`: whether calls to Songstats go out, and a person's word that they may again, pause or no pause."""

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
        "put SONGSTATS_API_KEY right; the hourly sweep, or `measurement-pipeline reclaim`, asks whether it works, and "
        "closes the breaker"
    ),
    "streak": (
        "find out what changed, then `measurement-pipeline breaker close`, and for what was settled on doubtful answers "
        "`measurement-pipeline requeue --suspect`: it reads malformed answers again as they were kept; if the vendor was "
        "at fault, --rebuy buys them anew"
    ),
}


@click.group("breaker", cls=Group)
def command() -> None:
    """Show and close the circuit breaker. While it is open, no call to Songstats is made."""


@command.command("show")
@output.json_option
@click.pass_obj
def show(state: Path | None, *, as_json: bool) -> None:
    """Show whether it is open, since when, why, and what to do; and any pause."""
    with open_database(state) as (_, connection):
        vendor = songstats_ledger.vendor_state(connection)
    if as_json:
        output.print_json(
            {key: getattr(vendor, key) for key in ("breaker", "breaker_kind", "reason", "opened_at", "paused_until")}
        )
        return
    if vendor.breaker == "open":
        output.print_line(f"open since {output.format_value(vendor.opened_at)}: {vendor.reason}")
        output.print_line(f"what to do: {NEXT_STEP[vendor.breaker_kind or 'streak']}")
    elif vendor.paused_until is None:
        output.print_line("closed: calls go out")
    else:
        output.print_line("closed, but no call goes out while the pause lasts")
    if vendor.paused_until is not None:
        output.print_line(f"{vendor.pause_description}; `measurement-pipeline breaker close` lifts it now")


@command.command("close")
@output.json_option
@click.pass_obj
def close(state: Path | None, *, as_json: bool) -> None:
    """Close the breaker and end a pause. Streaks are counted from zero. The act is recorded."""
    with open_database(state) as (_, connection):
        done = operator_actions.close_breaker(connection, actor=getpass.getuser())
        incidents.end_songstats_incidents(connection)
    if as_json:
        output.print_json(
            {"closed": "breaker closed" in done, "pause_lifted": "pause lifted" in done, "breaker": "closed"}
        )
    else:
        output.print_line("; ".join(done) or "it was closed already, and no pause lasted")
