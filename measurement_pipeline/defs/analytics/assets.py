"""The analysts' views as assets: meaning, number of rows, columns and lineage. The SQL is in `postgres/views/`.

A view is always up to date, so its materialization writes no data: it records the state of the view after a backfill.
"""

import re
from collections.abc import Iterator, Sequence

import dagster as dg

from measurement_pipeline.defs.analytics.catalog_charts import catalog_charts, emit_latest_charts
from measurement_pipeline.defs.asset_keys import ANALYTICS, CURRENT_PLAY_COUNTS, SONGSTATS_HISTORY, view_key
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.postgres import analytics, views
from measurement_pipeline.postgres.analytics import Column
from measurement_pipeline.services import MeasurementDatabase

# The assets that write the tables of the views.
_WRITTEN_BY = {
    "song_measurements": (SONGSTATS_HISTORY, CURRENT_PLAY_COUNTS),
    "latest_counts": (SONGSTATS_HISTORY, CURRENT_PLAY_COUNTS),
    "songstats_backfill_queue": (SONGSTATS_HISTORY,),
    "songstats_quota_ledger": (SONGSTATS_HISTORY,),
    "playcount_snapshots": (CURRENT_PLAY_COUNTS,),
    "apify_runs": (CURRENT_PLAY_COUNTS,),
}

_DESCRIPTION = """{about}

A view of the schema `analytics`, defined in `postgres/views/{view}.sql`; docs/how-to/query-the-views.md has examples. Always
up to date: materializing it only counts its rows and records its columns. `analytics_refresh_sensor` does so after each backfill.
"""


def _asset(view: str) -> dg.AssetsDefinition:
    """The asset of a view. The asset of `catalog_totals` draws the catalogues' charts, too."""

    @dg.asset(
        key=view_key(view),
        deps=_upstream(view),
        group_name=ANALYTICS,
        kinds={"postgres", "sql"},
        code_version=views.version(view),
        owners=OWNERS,
        description=_DESCRIPTION.format(about=views.about(view), view=view),
        metadata={
            "dagster/table_name": f"analytics.{view}",
            "read by": "members of measurement_analyst",
            "defined in": dg.MetadataValue.path(f"measurement_pipeline/postgres/views/{view}.sql"),
        },
    )
    @stops_in_one_line
    def view_asset(
        context: dg.AssetExecutionContext, measurement_database: dg.ResourceParam[MeasurementDatabase]
    ) -> Iterator[dg.MaterializeResult[None]]:
        with measurement_database.connect() as connection:
            columns = analytics.columns(connection, view)
            rows = analytics.count_rows(connection, view)
        yield dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows,
                "dagster/column_schema": schema(columns),
                "dagster/column_lineage": lineage(columns),
            }
        )
        # After it, so that the charts are not older than the totals.
        if view == "catalog_totals":
            emit_latest_charts(context, measurement_database)

    return view_asset


def schema(columns: Sequence[Column]) -> dg.TableSchema:
    """A view's columns in Dagster's terms."""
    return dg.TableSchema(
        [
            dg.TableColumn(column.column_name, column.type, f"{column.meaning} Unit: {column.unit}.")
            for column in columns
        ]
    )


def lineage(columns: Sequence[Column]) -> dg.TableColumnLineage:
    """The source of each column, if it is a column of another view or of a table that an asset writes."""
    return dg.TableColumnLineage(
        {
            column.column_name: [
                dg.TableColumnDep(asset, source_column)
                for table, source_column in re.findall(r"\b(\w+)\.(\w+)\b", column.source)
                for asset in _assets_of(table)
            ]
            for column in columns
        }
    )


def _assets_of(table: str) -> Sequence[dg.AssetKey]:
    return (view_key(table),) if table in views.VIEWS else _WRITTEN_BY.get(table, ())


def _upstream(view: str) -> list[dg.AssetKey]:
    # `data_dictionary` has none: it reads PostgreSQL's catalogue, and none of its values depends on another view's.
    return sorted({asset for table in views.reads(view) for asset in _assets_of(table.removeprefix("analytics."))})


analytics_assets: list[dg.AssetsDefinition] = [*(_asset(view) for view in views.VIEWS), catalog_charts]
