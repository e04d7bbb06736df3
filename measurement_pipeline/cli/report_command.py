"""`report`: write a catalogue's report for its valuation. Read-only."""

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
    help="The account that owns the catalogue. Needed if two catalogues have the same name.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file. Default: report-<catalogue>.html in the current directory.",
)
@click.pass_obj
def command(state: Path | None, *, catalog: str, account: str | None, out: Path | None) -> None:
    """Write one self-contained HTML page with totals, run rates, top recordings, coverage, spend and caveats."""
    with open_database(state) as (environment, connection):
        owner = lookup.find_optional_account(connection, account)
        found = lookup.find_catalog(connection, catalog, owner=owner)
        facts = load_catalog_report(connection, found, most=MAX_LISTED)
        if facts is None:
            raise CommandError(f"the catalogue {catalog!r} has no recordings: import some with `catalog import`")
    path = out or Path(f"report-{found}.html")
    eur_per_hit = environment.settings.songstats_eur_per_hit
    written = render_page(facts, eur_per_hit=eur_per_hit, is_sandbox=environment.kind == "sandbox")
    try:
        path.write_text(written, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{str(path)!r} cannot be written: {error.strerror}: choose another --out") from error
    output.print_line(
        f"{path}: {facts.totals['recordings_measured']:,} of {facts.totals['recordings']:,} recordings measured"
    )
