"""`pause`: stop purchases of an account, from a vendor, or of everything, until a moment or until `resume`."""

import getpass
from datetime import datetime
from pathlib import Path

import click

from measurement_pipeline.cli import lookup, output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.domain.dates import parse_moment
from measurement_pipeline.domain.purchase_pause import MAX_REASON_LENGTH, PausableVendor, PauseScope
from measurement_pipeline.domain.text import one_line
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import purchase_pauses
from measurement_pipeline.postgres.database import Connection

_SHOWN = 20


def _moment(_: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    moment = None if value is None else parse_moment(value)
    if value is not None and moment is None:
        raise click.BadParameter(f"{value!r}: expected a date or a time such as 2026-12-24T03:19 (UTC)", param=param)
    return moment


@click.command("pause")
@click.option("--account", metavar="ACCOUNT", help="Pause purchases of this account only. Give its UUID or its name.")
@click.option(
    "--vendor", type=click.Choice([one.value for one in PausableVendor]), help="Pause purchases from this vendor only."
)
@click.option(
    "--until",
    callback=_moment,
    metavar="TIME",
    help="End the pause by itself at this time (ISO 8601; UTC without a zone). Default: it lasts until `resume`.",
)
@click.option("--reason", metavar="TEXT", help="Why. It is shown wherever the pause is, to the account's clients too.")
@click.option("--list", "as_list", is_flag=True, help="Pause nothing. List the latest pauses.")
@output.json_option
@click.pass_obj
def command(
    state: Path | None,
    *,
    account: str | None,
    vendor: str | None,
    until: datetime | None,
    reason: str | None,
    as_list: bool,
    as_json: bool,
) -> None:
    """Stop purchases. Nothing is bought once this returns; calls in flight finish. The action is recorded.

    A second pause of the same account, vendor or everything replaces the first.
    """
    if as_list and (vendor or until or reason):
        raise click.UsageError("--list takes only --account and --json")
    with open_database(state) as (_, connection):
        if as_list:
            _print_list(connection, account=account, as_json=as_json)
            return
        text = one_line(reason or "", max_length=MAX_REASON_LENGTH)
        if not text:
            raise click.UsageError("expected --reason: it is shown wherever the product explains why nothing is bought")
        scope = read_scope(connection, account=account, vendor=vendor)
        try:
            pause = purchase_pauses.begin(connection, scope, until=until, reason=text, actor=getpass.getuser())
        except purchase_pauses.PauseEndsInThePastError as error:
            raise CommandError(str(error)) from error
    if as_json:
        output.print_json({"what": str(scope), "reason": pause.reason, "until": pause.paused_until})
    else:
        output.print_line(f"{pause.cause} {pause.next_step}")


def read_scope(connection: Connection, *, account: str | None, vendor: str | None) -> PauseScope:
    """The scope that the options name. Raises `CommandError`."""
    if account is not None and vendor is not None:
        raise click.UsageError("expected --account or --vendor, not both")
    owner = None if account is None else lookup.find_known_account(connection, account)
    return PauseScope(owner, None if vendor is None else PausableVendor(vendor))


def _print_list(connection: Connection, *, account: str | None, as_json: bool) -> None:
    owner = lookup.find_optional_account(connection, account)
    found = purchase_pauses.list_recent(connection, account=owner, limit=_SHOWN)
    if as_json:
        output.print_json(found)
    elif not found:
        output.print_line("nothing was ever paused")
    else:
        columns = ("what", "since", "until", "by", "reason", "state")
        rows = [
            (
                str(purchase_pauses.to_pause(one).scope),
                one["paused_at"],
                one["paused_until"] or "resumed",
                one["paused_by"],
                one["reason"],
                "active" if one["is_active"] else f"resumed by {one['resumed_by']}" if one["resumed_by"] else "ended",
            )
            for one in found
        ]
        output.console().print(output.build_table(columns, rows))
