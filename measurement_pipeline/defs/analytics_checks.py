"""The checks of the analysts' views: whether they can be believed. What each finds is `health/answers`.

Those that block keep a catalogue's totals and charts from being told while what they rest on is wrong.
"""

from typing import Any

import dagster as dg

from measurement_pipeline.defs.analytics import key_of
from measurement_pipeline.defs.asset_checks import check
from measurement_pipeline.health import analytics_checks
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres import analytics, views
from measurement_pipeline.postgres.database import Connection


@check(
    "The views are those that this version was tested with: names and types are PostgreSQL's to keep. Each column says its unit, "
    "meaning and source.",
    key_of("latest_play_counts"),
    blocking=True,
)
def views_are_current(_instance: dg.DagsterInstance, connection: Connection, _resources: Any) -> HealthResult:
    """Whether the schema is the one that was promised."""
    undescribed = [
        f"{row['view_name']}.{row['column_name']}"
        for row in analytics.dictionary(connection)
        if not (row["unit"] and row["meaning"] and row["source"])
    ]
    return analytics_checks.views_are_current(views.stamped(connection), views.version(), undescribed)


@check("No recording has a figure for a day that has not been.", key_of("latest_play_counts"), blocking=True)
def no_future_dates(_instance: dg.DagsterInstance, connection: Connection, _resources: Any) -> HealthResult:
    """Whether a clock or a vendor is ahead."""
    return analytics_checks.no_future_dates(analytics.in_the_future(connection))


@check(
    f"Of the {analytics.MOST_SERIES} recordings that the last day bought or captured last, no cumulative count falls. Platforms "
    "do restate: a person should know.",
    key_of("daily_play_counts"),
)
def counts_are_monotonic(_instance: dg.DagsterInstance, connection: Connection, _resources: Any) -> HealthResult:
    """Whether series fall."""
    return analytics_checks.counts_are_monotonic(analytics.series_of_late(connection))


@check(
    f"Of the {analytics.MOST_SERIES} recordings that the last day bought or captured last, no series lacks more than a tenth of "
    "its days.",
    key_of("daily_play_counts"),
)
def series_have_no_gaps(_instance: dg.DagsterInstance, connection: Connection, _resources: Any) -> HealthResult:
    """Whether series have gaps."""
    return analytics_checks.series_have_no_gaps(analytics.series_of_late(connection))


@check(
    "Where a capture of the last week and a bought history have the same day, they are less than a tenth, or 1,000 plays, apart.",
    key_of("latest_play_counts"),
)
def sources_agree(_instance: dg.DagsterInstance, connection: Connection, _resources: Any) -> HealthResult:
    """Whether two sources tell of the same recording."""
    both, apart = analytics.sources_apart(
        connection, share=analytics_checks.MAX_DIFFERENCE_SHARE, plays=analytics_checks.MAX_DIFFERENCE_PLAYS
    )
    return analytics_checks.sources_agree(both, apart)


@check(
    "Each catalogue's total is what its recordings add up to, counted from the bare tables; each latest count is the last of its "
    "series.",
    key_of("catalog_totals"),
    blocking=True,
)
def totals_add_up(_instance: dg.DagsterInstance, connection: Connection, _resources: Any) -> HealthResult:
    """Whether the views agree with one another."""
    return analytics_checks.totals_add_up(
        list(analytics.totals_apart(connection).values()), analytics.series_of_late(connection)
    )


analytics_asset_checks: list[dg.AssetChecksDefinition] = [
    views_are_current,
    no_future_dates,
    counts_are_monotonic,
    series_have_no_gaps,
    sources_agree,
    totals_add_up,
]
