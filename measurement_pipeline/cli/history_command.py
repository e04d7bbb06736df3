"""`history`: import the daily plays that an artist exported, at no cost, and list what was imported."""

import getpass
from pathlib import Path

import click

from measurement_pipeline.cli import output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.cli.groups import Group
from measurement_pipeline.domain.exported_history import (
    FORMAT,
    MAX_FILE_BYTES,
    UnreadableHistoryError,
    describe_history,
    parse_exported_history,
)
from measurement_pipeline.domain.isrc import normalise_isrc
from measurement_pipeline.domain.text import counted
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import history_imports


def _isrc(_: click.Context, param: click.Parameter, value: str | None) -> str | None:
    isrc = None if value is None else normalise_isrc(value)
    if value is not None and isrc is None:
        raise click.BadParameter(f"{value!r}: an ISRC looks like GBUM72501895", param=param)
    return isrc


@click.group("history", cls=Group)
def command() -> None:
    """Import daily plays that artists export themselves. They cost no hit."""


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "file_format",
    type=click.Choice([FORMAT]),
    required=True,
    help="The file's format: a CSV with the columns date and streams, as Spotify for Artists exports it.",
)
@click.option("--isrc", required=True, callback=_isrc, metavar="ISRC", help="The recording that the file is about.")
@output.json_option
@click.pass_obj
def import_(state: Path | None, *, file: Path, file_format: str, isrc: str, as_json: bool) -> None:
    """Import FILE as the daily plays of one recording. The file is stored; a second import of it changes nothing.

    Daily plays have a metric and a source of their own (daily_streams, spotify_for_artists), and are never mixed with counts.
    """
    body = file.read_bytes()
    if len(body) > MAX_FILE_BYTES:
        raise CommandError(f"{file}: {len(body):,} bytes: expected {MAX_FILE_BYTES:,} at most")
    with open_database(state) as (_, connection):
        try:
            history = parse_exported_history(body.decode("utf-8-sig"), today=history_imports.get_today(connection))
        except UnicodeDecodeError as error:
            raise CommandError(f"{file}: not UTF-8: save it as UTF-8") from error
        except UnreadableHistoryError as error:
            raise CommandError(f"{file}: {error}. Nothing was imported.") from error
        number, changed = history_imports.store(
            connection, isrc, history, file_name=file.name, body=body, actor=getpass.getuser()
        )
    if as_json:
        output.print_json(
            {
                "import": number,
                "isrc": isrc,
                "format": file_format,
                "days": len(history.days),
                "first_day": history.days[0],
                "last_day": history.days[-1],
                "missing_days": history.missing_days,
                "plays": sum(history.plays),
                "changed": changed,
            }
        )
        return
    output.print_line(f"import {number}: {isrc}: {describe_history(history)}")
    output.print_line(f"{counted(changed, 'day is', 'days are')} new or changed")


@command.command("list")
@click.option("--isrc", callback=_isrc, metavar="ISRC", help="List only imports of this recording.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="List this many of the latest."
)
@output.json_option
@click.pass_obj
def list_(state: Path | None, *, isrc: str | None, limit: int, as_json: bool) -> None:
    """List imports, newest first, beside what the bought history counts for the same days."""
    with open_database(state) as (_, connection):
        found = history_imports.list_recent(connection, song=isrc, limit=limit)
    if as_json:
        output.print_json(found)
    elif not found:
        output.print_line("no history was imported")
    else:
        columns = (
            "import",
            "ISRC",
            "title",
            "from",
            "to",
            "days",
            "plays",
            "plays by bought counts",
            "file",
            "at",
            "by",
        )
        rows = [
            (
                one["id"],
                one["song"],
                one["name"],
                one["first_day"],
                one["last_day"],
                one["days"],
                one["plays"],
                one["bought_plays_in_period"],
                one["file_name"],
                one["imported_at"],
                one["imported_by"],
            )
            for one in found
        ]
        output.console().print(output.build_table(columns, rows, right=("days", "plays", "plays by bought counts")))
