"""How fast a recording is being played: the plays of a trailing window, and what they would come to in a year. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

DAYS_A_YEAR = 365

# Where two sources have a count for the same day, the displayed one is believed before the bought one, a file's last.
_BELIEVED = {"apify_spotify_playcount": 0, "songstats": 1, "import": 2}


@dataclass(frozen=True, slots=True)
class Point:
    """A cumulative count, when it was displayed, and who says so."""

    captured_at: datetime
    value: int
    data_source: str


@dataclass(frozen=True, slots=True)
class RunRate:
    """From the last count before the window to the latest one. Counts fall and jump: `plays` may be negative.

    `reason`: why there is no rate. `first` and `last` are the two counts that were compared, as far as there are any.
    """

    days: float | None = None
    plays: int | None = None
    plays_a_year: int | None = None
    first: Point | None = None
    last: Point | None = None
    reason: str | None = None


def run_rate(points: Iterable[Point], *, window: timedelta) -> RunRate:
    """The run rate of the latest `window`; a window that the counts do not cover has none."""
    by_day: dict[object, Point] = {}
    for point in sorted(points, key=lambda p: (-_BELIEVED.get(p.data_source, len(_BELIEVED)), p.captured_at)):
        # The most believed, and of one source the latest, comes last and stays.
        by_day[point.captured_at.date()] = point
    ordered = sorted(by_day.values(), key=lambda p: p.captured_at)
    if not ordered:
        return RunRate(reason="there is no count")
    last = ordered[-1]
    before = [point for point in ordered if point.captured_at.date() <= last.captured_at.date() - window]
    if not before:
        covered = (last.captured_at - ordered[0].captured_at).days
        return RunRate(first=ordered[0], last=last, reason=f"the counts cover {covered} of {window.days} days")
    first = before[-1]
    plays = last.value - first.value
    days = (last.captured_at - first.captured_at) / timedelta(days=1)
    return RunRate(round(days, 4), plays, round(plays * DAYS_A_YEAR / days), first, last)
