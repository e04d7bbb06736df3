"""Invented histories: cumulative counts that grow, stay flat, jump and sometimes fall. Pure.

The same seed gives the same series in every process, and a later day only adds points. `songstats_body` writes the response.
"""

from datetime import date, timedelta
from itertools import accumulate
from random import Random

from measurement_pipeline.sandbox.catalogue import KnownRecording
from measurement_pipeline.sandbox.scenarios import Behaviour

GBUM72501895 = "GBUM72501895"
"""A recording with a partly known history: its first and last days and their counts are real."""

_GBUM72501895_FIRST_DAY = date(2025, 5, 8)
_GBUM72501895_DAYS = 503
_GBUM72501895_FROM, _GBUM72501895_TO = 3069, 3067097

# A recording released after the day of its count reaches that count this many days after its release.
_GROWN_UP = 90
_BLOCK = 120


def history(isrc: str, known: KnownRecording, behaviour: Behaviour, until: date) -> tuple[date, list[int]]:
    """The first day, and the cumulative Spotify count of each day until `until`, without gaps.

    Empty if the release is later.
    """
    if isrc == GBUM72501895:
        days = (until - _GBUM72501895_FIRST_DAY).days + 1
        return _GBUM72501895_FIRST_DAY, _gbum72501895(days)
    rng = Random(f"{behaviour.seed}:{isrc}")  # noqa: S311  # invented counts, not secrets
    invented_release = behaviour.counted_on - timedelta(days=rng.randrange(60, 1500))
    invented_total = int(10 ** rng.uniform(2.5, 8.5))
    released = known.release_date or invented_release
    total = invented_total if known.play_count is None else known.play_count
    if behaviour.points is not None:
        first, from_release = behaviour.counted_on - timedelta(days=behaviour.points - 1), True
    else:
        first, from_release = released - timedelta(days=1), True
        if behaviour.tracked_since is not None and first < behaviour.tracked_since:
            first, from_release = behaviour.tracked_since, False
    days = (until - first).days + 1
    if days < 1:
        return first, []
    counted = (behaviour.counted_on - first).days
    if counted < 0:
        counted = _GROWN_UP - 1
    # Drawn at full length and then cut, so that a later day only adds points.
    counts = _growth(rng, max(days, counted + 1, _GROWN_UP), counted, total, from_release=from_release)
    _stand_still(behaviour, isrc, counts, counted)
    if behaviour.draw(isrc, "falls") < behaviour.falls:
        _fall(behaviour, isrc, counts, counted)
    return first, counts[:days]


def scaled(counts: list[int], share: float) -> list[int]:
    """The same history scaled by a share: the count of another platform."""
    return [int(count * share) for count in counts]


def _growth(rng: Random, days: int, counted: int, total: int, *, from_release: bool) -> list[int]:
    """Cumulative counts that reach `total` at index `counted`, from a base or, at release, from two days of 0."""
    base = 0 if from_release else int(total * rng.uniform(0.3, 0.9))
    fade = rng.uniform(0.3, 6) / (counted + 1)
    gains = [(0.2 + rng.random()) / (1 + fade * day) for day in range(days)]
    if from_release:
        gains[:2] = [0.0, 0.0]
    sums = list(accumulate(gains))
    rise = (total - base) / (sums[counted] or sums[_GROWN_UP - 1])
    counts = [base + int(rise * so_far) for so_far in sums]
    before = [min(count, total) for count in counts[:counted]]
    return [*before, total, *(max(count, total) for count in counts[counted + 1 :])]


def _stand_still(behaviour: Behaviour, isrc: str, counts: list[int], counted: int) -> None:
    """Add a plateau and a jump to each block of days: platforms stop counting for days and then catch up."""
    for block in range(0, len(counts), _BLOCK):
        start = block + int(behaviour.draw(isrc, f"plateau {block}") * (_BLOCK - 10))
        end = start + 2 + int(behaviour.draw(isrc, f"length {block}") * 8)
        if start <= counted < end:  # the count of that day is known
            end = counted
        end = min(end, len(counts))
        if start < end:
            counts[start:end] = [counts[start]] * (end - start)


def _fall(behaviour: Behaviour, isrc: str, counts: list[int], counted: int) -> None:
    """Add restatements: a few days too high, then back to the path."""
    if counted < 20:
        return
    end = 12 + int(behaviour.draw(isrc, "fall") * (counted - 12))
    start = end - 3 - int(behaviour.draw(isrc, "days too high") * 6)
    too_high = counts[end] + max(1, counts[end] // 50)
    counts[start:end] = [too_high] * (end - start)


def _gbum72501895(days: int) -> list[int]:
    """0, 0, 3069 and, 500 days later, 3067097, as recorded. Between them and afterwards the path never falls."""
    steps = _GBUM72501895_DAYS - 3
    rise = _GBUM72501895_TO - _GBUM72501895_FROM
    counts = [0, 0] + [_GBUM72501895_FROM + rise * step // steps for step in range(days - 2)]
    return counts[: max(0, days)]
