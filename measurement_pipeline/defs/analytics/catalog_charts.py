"""The asset `catalog_charts`: a catalogue's total over time, its coverage and its top recordings, as images in Dagster's UI.

One partition for each catalogue, none for a recording: 100,000 images would only fill the event log. A recording is a row of the
catalogue's page (`measurement-pipeline report`).
"""

from collections.abc import Iterator
from uuid import UUID

import dagster as dg

from measurement_pipeline.analytics import charts
from measurement_pipeline.analytics.catalog import CatalogReport, draw_charts, load_catalog_report, report_version
from measurement_pipeline.defs.asset_keys import ANALYTICS, CATALOG_CHARTS, view_key
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import catalog_partitions, register
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.domain import text
from measurement_pipeline.postgres import analytics, partition_keys
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.services import MeasurementDatabase

# Drawn after a backfill, the catalogues imported last first. Any other is drawn by launching its partition.
_MOST_DRAWN = 100

_DESCRIPTION = """A catalogue at a glance: its total over time, the status of its recordings, and the most played ones.

One partition for each catalogue, named after the catalogue, its account and its id (`catalogs.partition_key`). Drawn again after
each backfill, for the 100 catalogues imported last. Launching a partition draws it at once. `measurement-pipeline report
--catalog …` writes the same as a page to share.
"""


@dg.asset(
    key=CATALOG_CHARTS,
    deps=[view_key(view) for view in ("catalog_play_counts", "catalog_totals", "measurement_coverage")],
    partitions_def=catalog_partitions,
    group_name=ANALYTICS,
    kinds={"python", "postgres"},
    owners=OWNERS,
    description=_DESCRIPTION,
    code_version=report_version(),
    output_required=False,
)
@stops_in_one_line
def catalog_charts(
    context: dg.AssetExecutionContext, measurement_database: dg.ResourceParam[MeasurementDatabase]
) -> Iterator[dg.Output[None]]:
    """Yields no output: each catalogue has a materialization."""
    with measurement_database.connect() as connection:
        for key in context.partition_keys:
            if not _emit_charts(context, connection, _catalog(connection, key), key):
                raise dg.Failure(f"the catalogue {key} holds no recording", allow_retries=False)
    yield from ()


def emit_latest_charts(context: dg.AssetExecutionContext, database: MeasurementDatabase) -> None:
    """Draw the catalogues imported last, except those with wrong totals: the check that reports these runs too late."""
    with database.connect() as connection:
        wrong = analytics.list_total_mismatches(connection)
        correct = [catalog for catalog in analytics.catalogs(connection, most=_MOST_DRAWN) if catalog not in wrong]
        keys = partition_keys.ensure_for_catalogs(connection, correct)
        register(context.instance, catalog_partitions, list(keys.values()))
        for catalog, key in keys.items():
            _emit_charts(context, connection, catalog, key)


def _emit_charts(context: dg.AssetExecutionContext, connection: Connection, catalog: UUID, key: str) -> bool:
    report = load_catalog_report(connection, catalog)
    if report is None:
        return False
    context.log_event(
        dg.AssetMaterialization(
            CATALOG_CHARTS,
            partition=key,
            description=f"{report.totals['catalog_name']}: {text.number(report.totals['play_count'])} plays",
            metadata=_metadata(report),
        )
    )
    return True


def _metadata(report: CatalogReport) -> dict[str, dg.MetadataValue]:
    totals = report.totals
    images = {
        title: dg.MetadataValue.md(charts.markdown_image(title, svg))
        for title, svg in draw_charts(report, charts.LIGHT_OR_DARK).items()
    }
    return {
        "catalogue": dg.MetadataValue.text(totals["catalog_name"]),
        "plays": _plays(totals["play_count"]),
        "recordings": dg.MetadataValue.int(totals["recordings"]),
        "recordings measured": dg.MetadataValue.int(totals["recordings_measured"]),
        "recordings not measured": dg.MetadataValue.int(totals["recordings_not_measured"]),
        **_cohort(report),
        **images,
        "report": dg.MetadataValue.md(f"`measurement-pipeline report --catalog {totals['catalog']}`"),
    }


def _cohort(report: CatalogReport) -> dict[str, dg.MetadataValue]:
    """The comparable figures, and the recordings that they cover."""
    cohort = report.cohort
    if cohort is None:
        return {"cohort": dg.MetadataValue.text("none: no recording with a current figure covers 28, 90 or 365 days")}
    size = f"{text.counted(cohort.recordings, 'recording')} that cover the last {cohort.days}"
    rates = {f"cohort: plays a year, by {days} days": _plays(a_year) for days, _, a_year in cohort.windows}
    return {"cohort": dg.MetadataValue.text(size), **rates}


def _plays(count: int | None) -> dg.MetadataValue:
    return dg.MetadataValue.null() if count is None else dg.MetadataValue.int(count)


def _catalog(connection: Connection, key: str) -> UUID:
    catalog = partition_keys.find_catalog(connection, key)
    if catalog is None:
        raise dg.Failure(
            f"{key!r} is no catalogue: select a partition that analytics_refresh registered (catalogs.partition_key)",
            allow_retries=False,
        )
    return catalog
