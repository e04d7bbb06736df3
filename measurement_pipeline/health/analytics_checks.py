"""Findings about what analysts are told: whether the views can be believed today. Pure.

By plain statements and not by a data frame's schema: names and types are the database's to keep, and what can go wrong beyond
them is a question of two lines to it, not millions of rows to be read here.
"""

from collections.abc import Sequence

from measurement_pipeline.domain.text import counted
from measurement_pipeline.health.result import HealthResult, format_examples
from measurement_pipeline.postgres.analytics import MOST_SERIES, Apart, SeriesOfLate

# Of a recording's days, so many without a figure are worth a look.
MAX_MISSING_SHARE = 0.1

# Two sources of one day that differ by more, and by more than so many plays, are far apart.
MAX_DIFFERENCE_SHARE = 0.1
MAX_DIFFERENCE_PLAYS = 1_000


def views_are_current(installed: str | None, expected: str, undescribed: Sequence[str]) -> HealthResult:
    """The views are those that this version was tested with, and each of their columns says what it is."""
    if installed != expected:
        words = (
            f"the views are of version {installed}, this code is of {expected}: run `measurement-pipeline db upgrade`"
        )
        return HealthResult(False, words, should_alert=True, reason="other views")
    if undescribed:
        words = f"{counted(len(undescribed), 'column')} without unit, meaning or source: {format_examples(undescribed)}"
        return HealthResult(False, words, reason="undescribed")
    return HealthResult(True, f"the views are of version {expected}, and each column is described")


def no_future_dates(found: Sequence[str]) -> HealthResult:
    """No figure is for a day that has not been."""
    figures = {"recordings with a day to come": len(found)}
    if not found:
        return HealthResult(True, "no recording has a figure for a day to come", metadata=figures)
    words = f"{counted(len(found), 'recording')} with figures for days to come: {format_examples(found)}"
    return HealthResult(False, words, should_alert=True, reason="days to come", metadata=figures)


def counts_are_monotonic(recent: Sequence[SeriesOfLate]) -> HealthResult:
    """Cumulative counts that fall do so for a reason of the platform's; a person should know of which recordings."""
    falling = [f"{series.song} ({series.falls} ×)" for series in recent if series.falls]
    figures = {"recordings looked at": len(recent), "with falls": len(falling)}
    if not falling:
        return HealthResult(True, f"{_describe_sample(recent)}, none falls", metadata=figures)
    words = f"of {_describe_sample(recent)} {len(falling)} fall: {format_examples(falling)}"
    return HealthResult(False, words + "; see is_negative in daily_play_counts", reason="falls", metadata=figures)


def series_have_no_gaps(recent: Sequence[SeriesOfLate]) -> HealthResult:
    """No more than a tenth of a recording's days are missing."""
    gappy = [
        f"{series.song} ({series.days_missing} of {series.days} days)"
        for series in recent
        if series.days_missing > MAX_MISSING_SHARE * series.days
    ]
    figures: dict[str, int | float | str] = {
        "recordings looked at": len(recent),
        "with gaps": len(gappy),
        "days missing": sum(series.days_missing for series in recent),
    }
    if not gappy:
        words = f"{_describe_sample(recent)}, none lacks more than a tenth of its days"
        return HealthResult(True, words, metadata=figures)
    words = f"of {_describe_sample(recent)} {len(gappy)} lack more than a tenth: {format_examples(gappy)}"
    return HealthResult(False, words, reason="gaps", metadata=figures)


def sources_agree(both: int, apart: Sequence[Apart]) -> HealthResult:
    """Where a capture and a bought history have the same day they say about the same. `both`: days that have two sources."""
    far = [f"{one.song} on {one.day}: {one.displayed:,} displayed, {one.bought:,} bought" for one in apart]
    figures = {"days with both sources": both, "far apart": len(far)}
    if not far:
        return HealthResult(True, f"{counted(both, 'day')} with both sources, none far apart", metadata=figures)
    words = f"{len(far)} are far apart, which may be two recordings under one ISRC: {format_examples(far)}"
    return HealthResult(False, words, reason="far apart", metadata=figures)


def totals_add_up(apart: Sequence[str], recent: Sequence[SeriesOfLate]) -> HealthResult:
    """A total is the sum of its recordings, and a recording's latest count is the last of its series."""
    torn = [
        f"{series.song}: latest {series.latest_count}, last of the series {series.last_count}"
        for series in recent
        if series.latest_count != series.last_count
    ]
    found = [*apart, *torn]
    figures = {"recordings looked at": len(recent), "that do not add up": len(found)}
    if not found:
        words = f"every catalogue's total is what its recordings add up to; {_describe_sample(recent)} end at their latest count"
        return HealthResult(True, words, metadata=figures)
    words = f"{len(found)} do not add up: {format_examples(found)}"
    return HealthResult(False, words, should_alert=True, reason="do not add up", metadata=figures)


def _describe_sample(recent: Sequence[SeriesOfLate]) -> str:
    """What a sample says of all is said of the sample alone."""
    if len(recent) < MOST_SERIES:
        return f"{counted(len(recent), 'recording')} of the last day"
    return f"the {len(recent)} recordings bought or captured last (no more are looked at)"
