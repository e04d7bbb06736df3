"""How fast a recording is being played: the plays of a trailing window, and what they would come to in a year. Pure.

For any window and one recording what `analytics.run_rates` says for three windows and all of them; a test holds the two together.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

DAYS_A_YEAR = 365

# Where a window's first day has no figure, one of so many days before it will do.
_SLACK = timedelta(days=7)
# What a file claims is no part of a series.
_NO_SERIES = "import"


@dataclass(frozen=True, slots=True)
class Point:
    """A cumulative count, when it was displayed, and who says so."""

    captured_at: datetime
    value: int
    data_source: str

    @property
    def day(self) -> date:
        """The day in UTC."""
        return self.captured_at.astimezone(UTC).date()


@dataclass(frozen=True, slots=True)
class RunRate:
    """From the window's first day, or the last figure of the week before it, to the latest figure. `plays` may be negative.

    `reason`: why there is no rate; `days` is then how much of the window is covered. `first` and `last` are the two counts that
    were compared, as far as there are any.
    """

    days: int | None = None
    plays: int | None = None
    plays_a_year: int | None = None
    first: Point | None = None
    last: Point | None = None
    reason: str | None = None


def run_rate(points: Iterable[Point], *, window: timedelta) -> RunRate:
    """The run rate of the latest `window`, of the newest word on each moment and source."""
    by_source = sorted((p for p in points if p.data_source != _NO_SERIES), key=lambda p: p.data_source, reverse=True)
    # Of one moment the displayed figure wins, whose source sorts before songstats: it comes last.
    ordered = sorted(by_source, key=lambda p: p.captured_at)
    if not ordered:
        return RunRate(reason="no count was measured")
    last = ordered[-1]
    begins = last.day - window
    before = [point for point in ordered if point.day <= begins]
    first = before[-1] if before else None
    if first is None or first.day < begins - _SLACK:
        inside = next(point for point in ordered if point.day > begins)
        why = (
            f"the history begins on {inside.day}"
            if first is None
            else f"no figure between {first.day} and {inside.day}"
        )
        return RunRate(days=(last.day - inside.day).days, first=inside, last=last, reason=why)
    plays, days = last.value - first.value, (last.day - first.day).days
    a_year = (Decimal(plays * DAYS_A_YEAR) / days).quantize(Decimal(1), ROUND_HALF_UP)
    return RunRate(days, plays, int(a_year), first, last)
