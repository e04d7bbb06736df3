"""`breaker`: show and close the circuit breaker and the pause of calls to Songstats."""

import getpass
from pathlib import Path

import click

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.groups import Group
from measurement_pipeline.domain.blockers import describe, vendor_blockers
from measurement_pipeline.health import incidents
from measurement_pipeline.postgres import songstats_ledger


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
    if vendor.breaker != "open":
        output.print_line("Circuit breaker closed.")
    for blocker in vendor_blockers(vendor):
        output.print_line(describe(blocker))


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
