"""Findings about what analysts are told: whether the views can be believed today. Pure.

By plain statements and not by a data frame's schema: names and types are the database's to keep, and what can go wrong beyond
them is a question of two lines to it, not millions of rows to be read here.
"""

from collections.abc import Sequence

from measurement_pipeline.domain.text import counted
from measurement_pipeline.health.finding import Finding, examples
from measurement_pipeline.postgres.analytics import MOST_SERIES, Apart, SeriesOfLate

# Of a recording's days, so many without a figure are worth a look.
MOST_MISSING_SHARE = 0.1

# Two sources of one day that differ by more, and by more than so many plays, are far apart.
FAR_APART_SHARE = 0.1
FAR_APART_PLAYS = 1_000


def views_are_of_this_version(stamped: str | None, expected: str, undescribed: Sequence[str]) -> Finding:
    """The views are those that this version was tested with, and each of their columns says what it is."""
    if stamped != expected:
        words = f"the views are of version {stamped}, this code is of {expected}: run `measurement-pipeline db upgrade`"
        return Finding(False, words, serious=True, reason="other views")
    if undescribed:
        words = f"{counted(len(undescribed), 'column')} without unit, meaning or source: {examples(undescribed)}"
        return Finding(False, words, reason="undescribed")
    return Finding(True, f"the views are of version {expected}, and each column is described")


def no_day_is_to_come(found: Sequence[str]) -> Finding:
    """No figure is for a day that has not been."""
    figures = {"recordings with a day to come": len(found)}
    if not found:
        return Finding(True, "no recording has a figure for a day to come", figures=figures)
    words = f"{counted(len(found), 'recording')} with figures for days to come: {examples(found)}"
    return Finding(False, words, serious=True, reason="days to come", figures=figures)


def counts_do_not_fall(lately: Sequence[SeriesOfLate]) -> Finding:
    """Cumulative counts that fall do so for a reason of the platform's; a person should know of which recordings."""
    falling = [f"{series.song} ({series.falls} ×)" for series in lately if series.falls]
    figures = {"recordings looked at": len(lately), "with falls": len(falling)}
    if not falling:
        return Finding(True, f"{_looked_at(lately)}, none falls", figures=figures)
    words = f"of {_looked_at(lately)} {len(falling)} fall: {examples(falling)}"
    return Finding(False, words + "; see is_negative in daily_play_counts", reason="falls", figures=figures)


def series_are_whole(lately: Sequence[SeriesOfLate]) -> Finding:
    """No more than a tenth of a recording's days are missing."""
    gappy = [
        f"{series.song} ({series.days_missing} of {series.days} days)"
        for series in lately
        if series.days_missing > MOST_MISSING_SHARE * series.days
    ]
    figures: dict[str, int | float | str] = {
        "recordings looked at": len(lately),
        "with gaps": len(gappy),
        "days missing": sum(series.days_missing for series in lately),
    }
    if not gappy:
        words = f"{_looked_at(lately)}, none lacks more than a tenth of its days"
        return Finding(True, words, figures=figures)
    words = f"of {_looked_at(lately)} {len(gappy)} lack more than a tenth: {examples(gappy)}"
    return Finding(False, words, reason="gaps", figures=figures)


def sources_agree(both: int, apart: Sequence[Apart]) -> Finding:
    """Where a capture and a bought history have the same day they say about the same. `both`: days that have two sources."""
    far = [f"{one.song} on {one.day}: {one.displayed:,} displayed, {one.bought:,} bought" for one in apart]
    figures = {"days with both sources": both, "far apart": len(far)}
    if not far:
        return Finding(True, f"{counted(both, 'day')} with both sources, none far apart", figures=figures)
    words = f"{len(far)} are far apart, which may be two recordings under one ISRC: {examples(far)}"
    return Finding(False, words, reason="far apart", figures=figures)


def totals_add_up(apart: Sequence[str], lately: Sequence[SeriesOfLate]) -> Finding:
    """A total is the sum of its recordings, and a recording's latest count is the last of its series."""
    torn = [
        f"{series.song}: latest {series.latest_count}, last of the series {series.last_count}"
        for series in lately
        if series.latest_count != series.last_count
    ]
    found = [*apart, *torn]
    figures = {"recordings looked at": len(lately), "that do not add up": len(found)}
    if not found:
        words = (
            f"every catalogue's total is what its recordings add up to; {_looked_at(lately)} end at their latest count"
        )
        return Finding(True, words, figures=figures)
    words = f"{len(found)} do not add up: {examples(found)}"
    return Finding(False, words, serious=True, reason="do not add up", figures=figures)


def _looked_at(lately: Sequence[SeriesOfLate]) -> str:
    """What a sample says of all is said of the sample alone."""
    if len(lately) < MOST_SERIES:
        return f"{counted(len(lately), 'recording')} of the last day"
    return f"the {len(lately)} recordings bought or captured last (no more are looked at)"
