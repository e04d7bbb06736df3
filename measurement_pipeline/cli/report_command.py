"""`report`: a catalogue's page, for a person who values it. Only reads."""

from pathlib import Path

import click

from measurement_pipeline.analytics.catalog import MAX_LISTED, load_catalog_report
from measurement_pipeline.analytics.page import render_page
from measurement_pipeline.cli import lookup, output
from measurement_pipeline.cli.environment import open_database
from measurement_pipeline.local.errors import CommandError


@click.command("report")
@click.option("--catalog", required=True, metavar="CATALOG", help="The catalogue. Give its id or its name.")
@click.option(
    "--account",
    metavar="ACCOUNT",
    help="The account that owns the catalogue. Needed where two catalogues have the same name.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file. Default: report-<catalogue>.html in the current directory.",
)
@click.pass_obj
def command(state: Path | None, *, catalog: str, account: str | None, out: Path | None) -> None:
    """Write one HTML page with totals, run rates, top recordings, coverage, spend and caveats. It is one file."""
    with open_database(state) as (environment, connection):
        owner = lookup.find_optional_account(connection, account)
        found = lookup.find_catalog(connection, catalog, owner=owner)
        facts = load_catalog_report(connection, found, most=MAX_LISTED)
        if facts is None:
            raise CommandError(f"the catalogue {catalog!r} holds no recording: import some with `catalog import`")
    path = out or Path(f"report-{found}.html")
    eur_per_hit = environment.settings.songstats_eur_per_hit
    written = render_page(facts, eur_per_hit=eur_per_hit, is_sandbox=environment.kind == "sandbox")
    try:
        path.write_text(written, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"the page cannot be written to {str(path)!r}: {error.strerror}") from error
    output.print_line(
        f"{path}: {facts.totals['recordings_measured']:,} of {facts.totals['recordings']:,} recordings measured"
    )
