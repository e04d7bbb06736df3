"""The analysts' views as assets: what each holds, how many rows it has, and what it is made of. The SQL is `postgres/views/`.

A view is right at every moment, so that its materialization makes nothing: it says how the view stands after a drain. What is
drawn of a catalogue is `catalog_charts`.
"""

import re
from collections.abc import Iterator, Sequence

import dagster as dg

from measurement_pipeline.defs.captures import CURRENT_PLAY_COUNTS
from measurement_pipeline.defs.catalog_charts import ANALYTICS, catalog_charts, emit_latest_charts
from measurement_pipeline.defs.materializations import SONGSTATS_HISTORY
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.resources import own_database
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.postgres import analytics, views
from measurement_pipeline.postgres.analytics import Column
from measurement_pipeline.postgres.database import connect

# Which assets write the tables that the views read.
_WRITTEN_BY = {
    "song_measurements": (SONGSTATS_HISTORY, CURRENT_PLAY_COUNTS),
    "latest_counts": (SONGSTATS_HISTORY, CURRENT_PLAY_COUNTS),
    "songstats_backfill_queue": (SONGSTATS_HISTORY,),
    "songstats_quota_ledger": (SONGSTATS_HISTORY,),
    "playcount_snapshots": (CURRENT_PLAY_COUNTS,),
    "apify_runs": (CURRENT_PLAY_COUNTS,),
}

_DESCRIPTION = """{about}

A view of the schema `analytics`, made by `postgres/views/{view}.sql`; docs/analysts.md shows what to ask of it. Always up
to date: materializing it counts its rows and notes its columns, which is done by itself after each drain.
"""


def key_of(view: str) -> dg.AssetKey:
    """The asset of a view."""
    return dg.AssetKey([ANALYTICS, view])


def _asset(view: str) -> dg.AssetsDefinition:
    """An asset that says how a view stands; that of the totals draws its catalogues too."""

    @dg.asset(
        key=key_of(view),
        deps=_upstream(view),
        group_name=ANALYTICS,
        kinds={"postgres", "sql"},
        code_version=views.version(view),
        owners=OWNERS,
        description=_DESCRIPTION.format(about=views.about(view), view=view),
        metadata={
            "dagster/table_name": f"analytics.{view}",
            "read by": "members of measurement_analyst",
            "made by": dg.MetadataValue.path(f"measurement_pipeline/postgres/views/{view}.sql"),
        },
        required_resource_keys={"measurement_database"},
    )
    @stops_in_one_line
    def made(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        with connect(own_database(context.resources)) as connection:
            columns = analytics.columns(connection, view)
            rows = analytics.row_count(connection, view)
        yield dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows,
                "dagster/column_schema": schema(columns),
                "dagster/column_lineage": lineage(columns),
            }
        )
        # Behind it, so that the pictures are not older than what they show.
        if view == "catalog_totals":
            emit_latest_charts(context)

    return made


def schema(columns: Sequence[Column]) -> dg.TableSchema:
    """A view's columns as Dagster shows them."""
    return dg.TableSchema(
        [dg.TableColumn(one.column_name, one.type, f"{one.meaning} In: {one.unit}.") for one in columns]
    )


def lineage(columns: Sequence[Column]) -> dg.TableColumnLineage:
    """Where each column comes from, as far as that is a column of another view or of a table that an asset writes."""
    return dg.TableColumnLineage(
        {
            one.column_name: [
                dg.TableColumnDep(asset, column)
                for table, column in re.findall(r"\b(\w+)\.(\w+)\b", one.source)
                for asset in _assets_of(table)
            ]
            for one in columns
        }
    )


def _assets_of(table: str) -> Sequence[dg.AssetKey]:
    return (key_of(table),) if table in views.VIEWS else _WRITTEN_BY.get(table, ())


def _upstream(view: str) -> list[dg.AssetKey]:
    # `data_dictionary` has none: it reads the database's own catalogue, and no figure of it depends on another view's.
    return sorted({asset for table in views.reads(view) for asset in _assets_of(table.removeprefix("analytics."))})


analytics_assets: list[dg.AssetsDefinition] = [*(_asset(view) for view in views.VIEWS), catalog_charts]
