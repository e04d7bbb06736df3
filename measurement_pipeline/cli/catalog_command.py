"""`catalog`: import an account's catalogue from a file."""

from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import click

from measurement_pipeline.cli import catalog_file, lookup, output
from measurement_pipeline.cli.catalog_file import CatalogFile, NotACatalogError
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.groups import Group
from measurement_pipeline.domain.text import counted
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import songs
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.payment_decisions import ensure_account
from measurement_pipeline.postgres.songstats_ledger import vendor_state

_SHOWN = 50
# No play counts exist from before this day, so an earlier day is a typing error.
_EARLIEST = date(1900, 1, 1)


@click.group("catalog", cls=Group)
def command() -> None:
    """Import catalogues: named sets of recordings that belong to an account."""


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--name",
    required=True,
    help="The catalogue's name within its account. A second import with the same name adds to it.",
)
@lookup.account_option
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="The day of the counts, YYYY-MM-DD. Default: today in UTC.",
)
@output.json_option
@click.pass_context
def import_(ctx: click.Context, file: Path, *, name: str, account: str, as_of: datetime | None, as_json: bool) -> None:
    """Load FILE: CSV, UTF-8, columns isrc, title, artist, album, release_date, play_count, spotify_album_id.

    Commas, semicolons or tabs separate the columns.

    A count becomes a measurement of source import and ranks the recording; a recording without one has rank 0. Current
    counts are captured by Spotify album; separate several albums by a space, or by a semicolon in files whose
    columns are separated by commas or tabs. A release date that is only a year or a month is not stored. Garbled
    characters in a title, artist or album, and dates without a day, cause a warning; the recording is loaded. Invalid
    lines are listed and skipped, with exit status 1. A file without a valid line creates nothing.
    """
    if not name.strip():
        raise click.BadParameter("the name is blank: give a name", param_hint="--name")
    found = read_file(file)
    with open_database(ctx.obj) as (_, connection):
        owner = lookup.find_account(connection, account)
        day = None if as_of is None else _check_day(connection, as_of.date())
        catalog = None
        if found.lines:
            catalog = load(connection, found, account=owner, name=name.strip(), as_of=day, raw_ref=file.name)
    if as_json:
        output.print_json(
            {
                "catalog": catalog,
                "account": owner,
                "loaded": len(found.lines),
                "repeated": found.repeated,
                "bad": [{"line": bad.number, "problem": bad.problem} for bad in found.bad],
                "warnings": [{"line": one.number, "isrc": one.isrc, "problem": one.problem} for one in found.warnings],
            }
        )
    else:
        _report(found, catalog=catalog, name=name.strip())
    ctx.exit(0 if found.lines and not found.bad else 1)


def read_file(path: Path) -> CatalogFile:
    """Read the catalogue file at `path`. Raises `CommandError`."""
    try:
        return catalog_file.read(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: not UTF-8 (byte {error.object[error.start]:#04x}): save it as UTF-8") from error
    except NotACatalogError as error:
        raise CommandError(f"{path}: {error}") from error


def load(
    connection: Connection,
    found: CatalogFile,
    *,
    account: UUID,
    name: str,
    as_of: date | None,
    raw_ref: str,
    account_name: str | None = None,
) -> UUID:
    """Store the valid lines as a catalogue of `account` in one transaction, and return its id. Creates a missing account."""
    with connection.transaction():
        ensure_account(connection, account, name=account_name)
        return songs.import_catalog(
            connection,
            found.lines.values(),
            account=account,
            name=name,
            as_of=as_of or _today(connection),
            raw_ref=raw_ref,
        )


def _today(connection: Connection) -> date:
    return vendor_state(connection).now.astimezone(UTC).date()


def _check_day(connection: Connection, day: date) -> date:
    today = _today(connection)
    if not _EARLIEST <= day <= today:
        raise click.BadParameter(f"{day}: give a day from {_EARLIEST} to {today} (today in UTC)", param_hint="--as-of")
    return day


def _report(found: CatalogFile, *, catalog: UUID | None, name: str) -> None:
    without = sum(line.play_count is None for line in found.lines.values())
    counts = f", {without:,} of them without a count" if without else ""
    repeated = f"; {counted(found.repeated, 'line')} repeated an earlier one" if found.repeated else ""
    if catalog is not None:
        output.print_line(
            f"catalogue {name} ({catalog}): {counted(len(found.lines), 'recording')} loaded{counts}{repeated}"
        )
    _list([f"line {one.number}: warning: {one.isrc}: {one.problem}" for one in found.warnings])
    _list([f"line {bad.number}: {bad.problem}" for bad in found.bad])
    if catalog is None:
        click.echo("the file has no valid line: nothing was loaded", err=True)
    elif found.bad:
        click.echo(
            f"{counted(len(found.bad), 'invalid line was', 'invalid lines were')} skipped; the valid ones are loaded",
            err=True,
        )


def _list(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        click.echo(line, err=True)
    if len(lines) > _SHOWN:
        click.echo(f"… and {len(lines) - _SHOWN:,} more (--json lists all)", err=True)
