"""`callbacks`: list callbacks of requests, send one again, and show the secret that an account verifies them with."""

import getpass
from pathlib import Path
from uuid import UUID

import click

from measurement_pipeline import services
from measurement_pipeline.cli import lookup, output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.groups import Group
from measurement_pipeline.domain.callback import account_secret
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import job_callbacks, operator_acts


@click.group("callbacks", cls=Group)
def command() -> None:
    """Show and resend callbacks. `submit --callback-url` requests them."""


@command.command("list")
@click.option("--account", metavar="ACCOUNT", help="List only those of this account. Give its UUID or its name.")
@click.option("--undelivered", is_flag=True, help="List only those that no receiver has accepted.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="List this many of the latest."
)
@output.json_option
@click.pass_obj
def list_(state: Path | None, *, account: str | None, undelivered: bool, limit: int, as_json: bool) -> None:
    """List the latest callbacks, newest first."""
    with open_database(state) as (_, connection):
        owner = lookup.find_optional_account(connection, account)
        found = job_callbacks.list_recent(connection, account=owner, undelivered=undelivered, limit=limit)
    if as_json:
        output.print_json(found)
    elif not found:
        output.print_line("there is no callback")
    else:
        columns = ("callback", "request", "state", "created at", "attempts", "delivered", "next attempt", "last error")
        rows = [
            (
                one["id"],
                one["job"],
                one["state"],
                one["created_at"],
                one["attempts"],
                one["delivered_at"],
                "none: abandoned" if one["abandoned_at"] else None if one["delivered_at"] else one["next_attempt_at"],
                one["last_error"],
            )
            for one in found
        ]
        output.console().print(output.build_table(columns, rows, right=("attempts",)))


@command.command("resend")
@click.argument("callback", type=click.UUID)
@click.pass_obj
def resend(state: Path | None, *, callback: UUID) -> None:
    """Send the callback CALLBACK again, delivered or not, for up to three days. The action is recorded."""
    with open_database(state) as (_, connection), connection.transaction():
        if not job_callbacks.resend(connection, callback):
            raise CommandError(f"there is no callback {callback}: see `measurement-pipeline callbacks list`")
        operator_acts.record(
            connection, actor=getpass.getuser(), act="callback sent again", detail={"callback": str(callback)}
        )
    output.print_line(f"callback {callback} is due; `callback_sensor` sends it within a minute")


@command.command("secret")
@lookup.account_option
@click.pass_obj
def secret(state: Path | None, *, account: str) -> None:
    """Print the secret with which an account verifies its callbacks. Pass it on like a password."""
    with open_database(state) as (environment, connection):
        owner = lookup.find_known_account(connection, account)
        output.print_line(account_secret(services.callback_secret(environment.settings, environment.kind), owner))
