"""What hits are worth: the share of known plays that the most played recordings of a request cover. Pure.

A recording without a known play count weighs nothing and comes last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate

VALUE_AT_HITS = (100, 300, 900)


@dataclass(frozen=True, slots=True)
class Aim:
    """How much of its scope a request wants: the `limit` most played recordings, or those that cover a share of the known plays.

    Both None: everything. A share is above 0 and at most 1.
    """

    limit: int | None = None
    coverage: Decimal | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self.limit is None and self.coverage is None


EVERYTHING = Aim()


@dataclass(frozen=True, slots=True)
class RankedRecording:
    """A recording with its known plays. `is_owned`: stored or settled, so that it costs no hit."""

    song: str
    plays: int
    is_owned: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """The recordings that reach an aim. `covered`: their share of the known plays; None if no play count is known."""

    songs: tuple[str, ...]
    left_out: int
    covered: float | None


@dataclass(frozen=True, slots=True)
class ValuePoint:
    """The share of the known plays that is stored once so many hits are spent, most played first. Owned recordings count."""

    hits: int
    coverage: float


def select_recordings(ranked: Sequence[RankedRecording], aim: Aim) -> Selection:
    """The recordings of a request, `ranked` most played first, that reach `aim`.

    If no play count is known, a share selects everything: nothing says what matters.
    """
    total = sum(one.plays for one in ranked)
    count = len(ranked)
    if aim.limit is not None:
        count = min(aim.limit, count)
    elif aim.coverage is not None and total:
        sums = accumulate(one.plays for one in ranked)
        count = next(place for place, plays in enumerate(sums, start=1) if plays >= aim.coverage * total)
    chosen = ranked[:count]
    covered = sum(one.plays for one in chosen) / total if total else None
    return Selection(tuple(one.song for one in chosen), len(ranked) - count, covered)


def value_per_hit(ranked: Sequence[RankedRecording], *, share: float = 1.0) -> tuple[ValuePoint, ...]:
    """What the first 100, 300 and 900 hits cover, and all that are needed. Empty if no play count is known.

    `share`: the part of the scope's known plays that `ranked` have, where an aim has left recordings out.
    """
    total = sum(one.plays for one in ranked)
    if not total:
        return ()
    owned = sum(one.plays for one in ranked if one.is_owned)
    sums = list(accumulate((one.plays for one in ranked if not one.is_owned), initial=owned))
    needed = len(sums) - 1
    return tuple(
        ValuePoint(hits, share * sums[hits] / total) for hits in (*(n for n in VALUE_AT_HITS if n < needed), needed)
    )


def describe_value(points: Sequence[ValuePoint]) -> str | None:
    """`100 hits: 62.1 %; 300 hits: 81.0 %`: the share of known plays. None if no play count is known."""
    return "; ".join(f"{one.hits:,} hits: {one.coverage:.1%}" for one in points) or None


def describe_left_out(left_out: int, *, of: int, covered: float | None) -> str | None:
    """`3,990 of 4,290 recordings, with 10.2% of the known plays`. None if nothing is left out."""
    if not left_out:
        return None
    plays = "" if covered is None else f", with {1 - covered:.1%} of the known plays"
    return f"{left_out:,} of {of:,} recordings{plays}"
