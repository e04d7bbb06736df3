"""Checks of the analysts' views. Pure.

Short SQL statements read the facts. A data frame schema would read millions of rows here to check names and types, which the
database guarantees.
"""

from collections.abc import Sequence

from measurement_pipeline.domain.text import counted
from measurement_pipeline.health.result import HealthResult, format_examples
from measurement_pipeline.postgres.analytics import MOST_SERIES, RecentSeries, SourceDifference

# Share of a recording's days without a count above which the check fails.
MAX_MISSING_SHARE = 0.1

# Two sources of one day differ if they differ by more than both.
MAX_DIFFERENCE_SHARE = 0.1
MAX_DIFFERENCE_PLAYS = 1_000


def views_are_current(installed: str | None, expected: str, undescribed: Sequence[str]) -> HealthResult:
    """Fail if the installed views are of another version, or columns have no description."""
    if installed != expected:
        message = f"the views have version {installed}, expected {expected}: run `measurement-pipeline db upgrade`"
        return HealthResult(False, message, should_alert=True, reason="other views")
    if undescribed:
        columns = counted(len(undescribed), "column")
        message = f"{columns} without unit, meaning or source in the data dictionary: {format_examples(undescribed)}"
        return HealthResult(False, message, reason="undescribed")
    return HealthResult(True, f"the views have version {expected}, and all columns are described")


def no_future_dates(songs: Sequence[str]) -> HealthResult:
    """Fail if recordings have counts for future days."""
    metadata = {"recordings with future dates": len(songs)}
    if not songs:
        return HealthResult(True, "no recording has a count for a future day", metadata=metadata)
    message = f"{counted(len(songs), 'recording')} with counts for future days: {format_examples(songs)}"
    return HealthResult(False, message, should_alert=True, reason="future dates", metadata=metadata)


def counts_are_monotonic(recent: Sequence[RecentSeries]) -> HealthResult:
    """Fail if cumulative counts decrease. The platform causes this; an analyst should know which recordings are affected."""
    decreasing = [f"{series.song} ({series.falls} ×)" for series in recent if series.falls]
    metadata = {"recordings checked": len(recent), "with decreases": len(decreasing)}
    if not decreasing:
        return HealthResult(True, f"{_describe_sample(recent)}: no count decreases", metadata=metadata)
    message = (
        f"{_describe_sample(recent)}: the counts of {len(decreasing)} decrease: {format_examples(decreasing)}; "
        "see is_negative in daily_play_counts"
    )
    return HealthResult(False, message, reason="decreases", metadata=metadata)


def series_have_no_gaps(recent: Sequence[RecentSeries]) -> HealthResult:
    """Fail if more than a tenth of a recording's days have no count."""
    incomplete = [
        f"{series.song} ({series.days_missing} of {series.days} days)"
        for series in recent
        if series.days_missing > MAX_MISSING_SHARE * series.days
    ]
    metadata: dict[str, int | float | str] = {
        "recordings checked": len(recent),
        "with gaps": len(incomplete),
        "days missing": sum(series.days_missing for series in recent),
    }
    if not incomplete:
        message = f"{_describe_sample(recent)}: each has counts for at least nine tenths of its days"
        return HealthResult(True, message, metadata=metadata)
    message = (
        f"{_describe_sample(recent)}: more than a tenth of the days of {len(incomplete)} are missing: "
        f"{format_examples(incomplete)}"
    )
    return HealthResult(False, message, reason="gaps", metadata=metadata)


def sources_agree(both: int, apart: Sequence[SourceDifference]) -> HealthResult:
    """Fail if a capture and a bought history differ on the same day. `both`: number of days with both sources."""
    different = [f"{one.song} on {one.day}: {one.displayed:,} displayed, {one.bought:,} bought" for one in apart]
    metadata = {"days with both sources": both, "days that differ": len(different)}
    if not different:
        return HealthResult(True, f"{counted(both, 'day')} with both sources, none differs", metadata=metadata)
    days = counted(len(different), "day differs", "days differ")
    message = f"{days} between the sources, perhaps two recordings with one ISRC: {format_examples(different)}"
    return HealthResult(False, message, reason="sources differ", metadata=metadata)


def totals_add_up(apart: Sequence[str], recent: Sequence[RecentSeries]) -> HealthResult:
    """Fail if a total is not the sum of its recordings, or a latest count is not the last of its series."""
    inconsistent = [
        f"{series.song}: latest count {series.latest_count}, last of the series {series.last_count}"
        for series in recent
        if series.latest_count != series.last_count
    ]
    differences = [*apart, *inconsistent]
    metadata = {"recordings checked": len(recent), "differences": len(differences)}
    if not differences:
        message = f"all catalogue totals equal the sum of their recordings; {_describe_sample(recent)}: all latest counts match"
        return HealthResult(True, message, metadata=metadata)
    message = f"{counted(len(differences), 'total or latest count differs', 'totals or latest counts differ')}: "
    message += format_examples(differences)
    return HealthResult(False, message, should_alert=True, reason="totals differ", metadata=metadata)


def _describe_sample(recent: Sequence[RecentSeries]) -> str:
    """Name the sample, so that the message does not claim more than was checked."""
    if len(recent) < MOST_SERIES:
        return f"{counted(len(recent), 'recording')} of the last day"
    return f"the {len(recent)} recordings bought or captured last (the check reads no more)"
