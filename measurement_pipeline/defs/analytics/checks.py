"""The checks of the analysts' views. `health/analytics_checks` judges the facts.

A failed blocking check keeps wrong totals and charts of a catalogue from being shown.
"""

import dagster as dg

from measurement_pipeline.defs.asset_keys import view_key
from measurement_pipeline.defs.health_check import health_check
from measurement_pipeline.health import analytics_checks
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres import analytics, views
from measurement_pipeline.postgres.database import Connection


@health_check(
    "The views are those that this version was tested with, and each column has a unit, a meaning and a source.",
    view_key("latest_play_counts"),
    blocking=True,
)
def views_are_current(connection: Connection) -> HealthResult:
    """Fails if the database has the views of another version."""
    undescribed = [
        f"{row['view_name']}.{row['column_name']}"
        for row in analytics.dictionary(connection)
        if not (row["unit"] and row["meaning"] and row["source"])
    ]
    return analytics_checks.views_are_current(views.stamped(connection), views.version(), undescribed)


@health_check("No recording has a value for a day in the future.", view_key("latest_play_counts"), blocking=True)
def no_future_dates(connection: Connection) -> HealthResult:
    """Fails if the clock of a vendor or of this server is wrong."""
    return analytics_checks.no_future_dates(analytics.list_future_dates(connection))


@health_check(
    f"No cumulative count falls. Checks the {analytics.MOST_SERIES} recordings bought or captured last, within the last day. "
    "Platforms do correct counts, so a person should look at a fall.",
    view_key("daily_play_counts"),
)
def counts_are_monotonic(connection: Connection) -> HealthResult:
    """Warns if series fall."""
    return analytics_checks.counts_are_monotonic(analytics.list_recent_series(connection))


@health_check(
    f"No series lacks more than a tenth of its days. Checks the {analytics.MOST_SERIES} recordings bought or captured last, "
    "within the last day.",
    view_key("daily_play_counts"),
)
def series_have_no_gaps(connection: Connection) -> HealthResult:
    """Warns if series have gaps."""
    return analytics_checks.series_have_no_gaps(analytics.list_recent_series(connection))


@health_check(
    "A capture of the last week and a bought history of the same day differ by less than a tenth, or by less than 1,000 plays.",
    view_key("latest_play_counts"),
)
def sources_agree(connection: Connection) -> HealthResult:
    """Warns if two sources may describe two recordings under one ISRC."""
    both, apart = analytics.compare_sources(
        connection, share=analytics_checks.MAX_DIFFERENCE_SHARE, plays=analytics_checks.MAX_DIFFERENCE_PLAYS
    )
    return analytics_checks.sources_agree(both, apart)


@health_check(
    "Each catalogue's total is the sum of its recordings, counted from the base tables. Each latest count is the last of its "
    "series.",
    view_key("catalog_totals"),
    blocking=True,
)
def totals_add_up(connection: Connection) -> HealthResult:
    """Fails if the views contradict each other."""
    return analytics_checks.totals_add_up(
        list(analytics.list_total_mismatches(connection).values()), analytics.list_recent_series(connection)
    )


view_checks: list[dg.AssetChecksDefinition] = [
    views_are_current,
    no_future_dates,
    counts_are_monotonic,
    series_have_no_gaps,
    sources_agree,
    totals_add_up,
]
