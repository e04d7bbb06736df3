"""`export`: write a catalogue's series and recordings to files, with a data dictionary. Read-only."""

from pathlib import Path

import click

from measurement_pipeline.analytics.export import ParquetMissingError, export_catalog
from measurement_pipeline.cli import lookup, output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.local.errors import CommandError


@click.command("export")
@click.option("--catalog", required=True, metavar="CATALOG", help="The catalogue. Give its id or its name.")
@click.option(
    "--account",
    metavar="ACCOUNT",
    help="The account that owns the catalogue. Needed if two catalogues have the same name.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv"]),
    default="parquet",
    show_default=True,
    help="Write files in this format.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write to this directory. Default: export-<catalogue> in the current directory.",
)
@output.json_option
@click.pass_obj
def command(
    state: Path | None, *, catalog: str, account: str | None, form: str, out: Path | None, as_json: bool
) -> None:
    """Write the daily series and the recordings of a catalogue to files. Files of the same names are replaced."""
    with open_database(state) as (_, connection):
        owner = lookup.find_optional_account(connection, account)
        found = lookup.find_catalog(connection, catalog, owner=owner)
        try:
            written = export_catalog(connection, found, directory=out or Path(f"export-{found}"), file_format=form)
        except ParquetMissingError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(
                f"{error.filename!r} cannot be written: {error.strerror}: choose another --out"
            ) from error
    if as_json:
        output.print_json({str(path): rows for path, rows in written.items()})
        return
    for path, rows in written.items():
        output.print_line(f"{path}: {rows:,} rows")
