"""Invented histories: cumulative counts that grow, stand still, jump and now and then fall.

Pure: the same seed gives the same series in any process. How a series is put into an answer is
`songstats_body`.
"""

from datetime import date, timedelta
from itertools import accumulate
from random import Random

from measurement_pipeline.sandbox.behaviour import Behaviour
from measurement_pipeline.sandbox.catalogue import Known

GBUM72501895 = "GBUM72501895"
"""A recording whose history is known in part: its first and last days and their counts are real."""

_GBUM72501895_FIRST_DAY = date(2025, 5, 8)
_GBUM72501895_DAYS = 503
_GBUM72501895_FROM, _GBUM72501895_TO = 3069, 3067097


def history(isrc: str, known: Known, behaviour: Behaviour) -> tuple[date, list[int]]:
    """The first day and the cumulative Spotify count of each day from then on, without a gap.

    Empty where the recording comes out after the last day there is.
    """
    if isrc == GBUM72501895:
        return _GBUM72501895_FIRST_DAY, _gbum72501895()
    rng = Random(f"{behaviour.seed}:{isrc}")  # noqa: S311  # invented counts, not secrets
    last = behaviour.last_day
    invented_release = last - timedelta(days=rng.randrange(60, 1500))
    invented_total = int(10 ** rng.uniform(2.5, 8.5))
    released = known.release_date or invented_release
    total = invented_total if known.play_count is None else known.play_count
    if behaviour.points is not None:
        first, from_release = last - timedelta(days=behaviour.points - 1), True
    else:
        first, from_release = released - timedelta(days=1), True
        if behaviour.tracked_since is not None and first < behaviour.tracked_since:
            first, from_release = behaviour.tracked_since, False
    days = (last - first).days + 1
    if days < 1:
        return first, []
    counts = _growth(rng, days, total, from_release=from_release)
    _stand_still(rng, counts)
    if behaviour.draw(isrc, "falls") < behaviour.falls:
        _fall(rng, counts)
    return first, counts


def scaled(counts: list[int], share: float) -> list[int]:
    """The same history at a share of its height: what another platform counted."""
    return [int(count * share) for count in counts]


def _growth(rng: Random, days: int, total: int, *, from_release: bool) -> list[int]:
    """Cumulative counts up to `total`, from a base or, at release, from two days of 0."""
    base = 0 if from_release else int(total * rng.uniform(0.3, 0.9))
    fade = rng.uniform(0.3, 6) / days
    gains = [(0.2 + rng.random()) / (1 + fade * day) for day in range(days)]
    if from_release:
        gains[:2] = [0.0] * min(2, days)
    sums = list(accumulate(gains))
    rise = (total - base) / (sums[-1] or 1)
    counts = [base + int(rise * so_far) for so_far in sums]
    counts[-1] = total
    return counts


def _stand_still(rng: Random, counts: list[int]) -> None:
    """Platforms stop counting for days and then catch up: a plateau, then a jump."""
    last = len(counts) - 1
    for _ in range(1 + last // 120):
        start = rng.randrange(len(counts))
        end = min(start + rng.randrange(2, 10), last)
        counts[start:end] = [counts[start]] * (end - start)


def _fall(rng: Random, counts: list[int]) -> None:
    """Platforms merge and restate: a few days too high, then back to the path."""
    if len(counts) < 20:
        return
    end = rng.randrange(12, len(counts) - 1)
    start = end - rng.randrange(3, 9)
    too_high = counts[end] + max(1, counts[end] // 50)
    counts[start:end] = [too_high] * (end - start)


def _gbum72501895() -> list[int]:
    """0, 0, 3069 and, 500 days later, 3067097, as recorded; the path between never falls."""
    steps = _GBUM72501895_DAYS - 3
    rise = _GBUM72501895_TO - _GBUM72501895_FROM
    return [0, 0] + [_GBUM72501895_FROM + rise * step // steps for step in range(steps + 1)]
