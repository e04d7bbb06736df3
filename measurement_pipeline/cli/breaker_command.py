"""`breaker`: whether calls to Songstats go out, and a person's word that they may again."""

import getpass
from pathlib import Path

import click

from measurement_pipeline.backfill import overrides
from measurement_pipeline.cli import output
from measurement_pipeline.cli.target import database
from measurement_pipeline.postgres import songstats_ledger

_WHAT_TO_DO = {
    "key": (
        "put SONGSTATS_API_KEY right; the hourly sweep, or `measurement-pipeline reclaim`, asks whether it works, and "
        "closes the breaker"
    ),
    "streak": (
        "find out what changed, then `measurement-pipeline breaker close`, and "
        "`measurement-pipeline requeue --suspect` for what was settled on doubtful answers"
    ),
}


@click.group("breaker")
def command() -> None:
    """The breaker: open, it keeps every call to Songstats back."""


@command.command("show")
@output.json_option
@click.pass_obj
def show(state: Path | None, *, as_json: bool) -> None:
    """Say whether it is open, since when, why, and what to do."""
    with database(state) as (_, connection):
        vendor = songstats_ledger.deployment(connection)
    if as_json:
        output.as_json(
            {key: getattr(vendor, key) for key in ("breaker", "breaker_kind", "reason", "opened_at", "paused_until")}
        )
    elif vendor.breaker == "open":
        output.say(f"open since {output.shown(vendor.opened_at)}: {vendor.reason}")
        output.say(f"what to do: {_WHAT_TO_DO[vendor.breaker_kind or 'streak']}")
    else:
        output.say("closed: calls go out")


@command.command("close")
@output.json_option
@click.pass_obj
def close(state: Path | None, *, as_json: bool) -> None:
    """Let calls go out again; streaks are counted afresh from here. It is recorded who did it."""
    with database(state) as (_, connection):
        closed = overrides.close_breaker(connection, actor=getpass.getuser())
    if as_json:
        output.as_json({"closed": closed, "breaker": "closed"})
    else:
        output.say("closed" if closed else "it was closed already")
