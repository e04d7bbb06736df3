"""How fast a recording is being played: the plays of a trailing window, and what they come to in a year. Pure.

Computes for any window of one recording what `analytics.run_rates` computes for three windows of every recording. A test holds
the two equal.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

DAYS_A_YEAR = 365

# A count is interpolated between two figures at most this far apart: captures run every 30 days, and some run late.
_MOST_APART = timedelta(days=35)
# A count that only a catalogue file claims is not part of a series.
_NO_SERIES = "import"


@dataclass(frozen=True, slots=True)
class Point:
    """A cumulative count, when it was displayed, and its source."""

    captured_at: datetime
    value: int
    data_source: str

    @property
    def day(self) -> date:
        """The day in UTC."""
        return self.captured_at.astimezone(UTC).date()


@dataclass(frozen=True, slots=True)
class RunRate:
    """Plays from the window's first day to the latest figure. `plays` may be negative.

    `first` is the figure of the window's first day, or the last one before it: the count on that day then `is_interpolated`, on a
    straight line from `first` to `first_after`. `reason`: why there is no rate; `days` is then how much of the window is covered,
    and `first` the first figure inside it.
    """

    days: int | None = None
    plays: int | None = None
    plays_a_year: int | None = None
    first: Point | None = None
    last: Point | None = None
    reason: str | None = None
    is_interpolated: bool = False
    first_after: Point | None = None
    is_source_changed: bool = False


def run_rate(points: Iterable[Point], *, window: timedelta) -> RunRate:
    """The run rate of the latest `window`. Expects one value for each moment and source: the one learnt last."""
    by_source = sorted((p for p in points if p.data_source != _NO_SERIES), key=lambda p: p.data_source)
    if not by_source:
        return RunRate(reason="no count was measured")
    # Of one moment the displayed figure wins, whose source sorts before songstats.
    ordered = sorted({point.captured_at: point for point in reversed(by_source)}.values(), key=lambda p: p.captured_at)
    last = ordered[-1]
    begins = last.day - window
    before = [point for point in ordered if point.day <= begins]
    inside = ordered[len(before) :]
    if not before:
        return _not_covered(f"the history begins on {inside[0].day}", inside[0], last)
    first = before[-1]
    after = inside[0] if first.day < begins else None
    if after is not None and after.day - first.day > _MOST_APART:
        return _not_covered(f"no figure between {first.day} and {after.day}", after, last)
    plays = last.value - _count_on(begins, first, after)
    a_year = _rounded(Decimal(plays * DAYS_A_YEAR) / window.days)
    sources = {point.data_source for point in (first, after, last) if point is not None}
    return RunRate(
        window.days, plays, a_year, first, last,
        is_interpolated=after is not None, first_after=after, is_source_changed=len(sources) > 1,
    )  # fmt: skip


def _not_covered(reason: str, inside: Point, last: Point) -> RunRate:
    """`inside`: the first figure inside the window."""
    return RunRate(days=(last.day - inside.day).days, first=inside, last=last, reason=reason)


def _count_on(day: date, before: Point, after: Point | None) -> int:
    """The count on `day`: that of `before`, or on the straight line from `before` to `after`."""
    if after is None:
        return before.value
    share = Decimal((after.value - before.value) * (day - before.day).days) / (after.day - before.day).days
    return _rounded(before.value + share)


def _rounded(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_UP))
