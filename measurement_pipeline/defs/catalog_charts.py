"""The asset `catalog_charts`: a catalogue's total over time, its coverage and its top recordings, as pictures in Dagster's UI.

One partition a catalogue, and none a recording: a hundred thousand pictures would only swell the event log. A recording is a row
of the catalogue's page (`measurement-pipeline report`).
"""

from collections.abc import Iterator
from uuid import UUID

import dagster as dg

from measurement_pipeline.analytics import charts
from measurement_pipeline.analytics.catalog import CatalogReport, draw_charts, load_catalog_report, report_version
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import catalog_partitions, register
from measurement_pipeline.defs.resources import own_database
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.domain import text
from measurement_pipeline.postgres import analytics, partition_keys
from measurement_pipeline.postgres.database import Connection, connect

# The group of the analysts' assets, and what their keys begin with.
ANALYTICS = "analytics"
CATALOG_CHARTS = dg.AssetKey([ANALYTICS, "catalog_charts"])

# Drawn after a drain, those imported last first; any other by launching its partition.
_MOST_DRAWN = 100

_DESCRIPTION = """A catalogue at a glance: its total over time, how its recordings stand, and the most played ones.

One partition a catalogue, named after it, its account and its id (`catalogs.partition_key`). Drawn anew after each drain, for
the hundred catalogues imported last; launching a partition draws it now. For a page to hand on: `measurement-pipeline report
--catalog …`.
"""


@dg.asset(
    key=CATALOG_CHARTS,
    deps=[dg.AssetKey([ANALYTICS, name]) for name in ("catalog_play_counts", "catalog_totals", "measurement_coverage")],
    partitions_def=catalog_partitions,
    group_name=ANALYTICS,
    kinds={"python", "postgres"},
    owners=OWNERS,
    description=_DESCRIPTION,
    code_version=report_version(),
    output_required=False,
    required_resource_keys={"measurement_database"},
)
@stops_in_one_line
def catalog_charts(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
    """Yields no output: each catalogue is said by its materialization."""
    with connect(own_database(context.resources)) as connection:
        for key in context.partition_keys:
            if not _emit_charts(context, connection, _catalog(connection, key), key):
                raise dg.Failure(f"the catalogue {key} holds no recording", allow_retries=False)
    yield from ()


def emit_latest_charts(context: dg.AssetExecutionContext) -> None:
    """Draw the catalogues imported last, but those whose totals are wrong: the check that says so comes too late to keep them."""
    with connect(own_database(context.resources)) as connection:
        apart = analytics.totals_apart(connection)
        found = [one for one in analytics.catalogs(connection, most=_MOST_DRAWN) if one not in apart]
        keys = partition_keys.ensure_for_catalogs(connection, found)
        register(context.instance, catalog_partitions, list(keys.values()))
        for catalog, key in keys.items():
            _emit_charts(context, connection, catalog, key)


def _emit_charts(context: dg.AssetExecutionContext, connection: Connection, catalog: UUID, key: str) -> bool:
    facts = load_catalog_report(connection, catalog)
    if facts is None:
        return False
    context.log_event(
        dg.AssetMaterialization(
            CATALOG_CHARTS,
            partition=key,
            description=f"{facts.totals['catalog_name']}: {text.number(facts.totals['play_count'])} plays",
            metadata=_metadata(facts),
        )
    )
    return True


def _metadata(facts: CatalogReport) -> dict[str, dg.MetadataValue]:
    totals = facts.totals
    pictures = {
        title: dg.MetadataValue.md(charts.markdown_image(title, svg))
        for title, svg in draw_charts(facts, charts.LIGHT_OR_DARK).items()
    }
    return {
        "catalogue": dg.MetadataValue.text(totals["catalog_name"]),
        "plays": _plays(totals["play_count"]),
        "recordings": dg.MetadataValue.int(totals["recordings"]),
        "recordings measured": dg.MetadataValue.int(totals["recordings_measured"]),
        "recordings left out": dg.MetadataValue.int(totals["recordings_not_measured"]),
        **_cohort(facts),
        **pictures,
        "its page": dg.MetadataValue.md(f"`measurement-pipeline report --catalog {totals['catalog']}`"),
    }


def _cohort(facts: CatalogReport) -> dict[str, dg.MetadataValue]:
    """The figures that may be compared, and of which recordings they are."""
    cohort = facts.cohort
    if cohort is None:
        return {"cohort": dg.MetadataValue.text("none: no recording with a current figure covers 28, 90 or 365 days")}
    size = f"{text.counted(cohort.recordings, 'recording')} that cover the last {cohort.days}"
    rates = {f"cohort: plays a year, by {days} days": _plays(a_year) for days, _, a_year in cohort.windows}
    return {"cohort": dg.MetadataValue.text(size), **rates}


def _plays(count: int | None) -> dg.MetadataValue:
    return dg.MetadataValue.null() if count is None else dg.MetadataValue.int(count)


def _catalog(connection: Connection, key: str) -> UUID:
    found = partition_keys.find_catalog(connection, key)
    if found is None:
        raise dg.Failure(
            f"{key!r} is no catalogue: choose a partition that analytics_refresh has made (catalogs.partition_key)",
            allow_retries=False,
        )
    return found
