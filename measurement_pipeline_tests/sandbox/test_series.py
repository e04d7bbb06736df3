"""Invented histories: what holds of every one of them, and what some of them show."""

import itertools
from dataclasses import replace
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.sandbox import PLAIN, Known
from measurement_pipeline.sandbox.series import history

FALLING = replace(PLAIN, falls=1)


@given(
    total=st.integers(0, 5 * 10**9),
    release=st.dates(date(1950, 1, 1), PLAIN.last_day),
    seed=st.text(max_size=5),
)
def test_a_history_ends_at_the_known_count_and_is_never_negative(total: int, release: date, seed: str) -> None:
    known = Known(play_count=total, release_date=release)
    first, counts = history("AA6Q72500001", known, replace(FALLING, seed=seed))

    assert counts[-1] == total
    assert first + timedelta(days=len(counts) - 1) == PLAIN.last_day
    assert min(counts) >= 0


@given(total=st.integers(0, 10**9), points=st.integers(1, 400), seed=st.text(max_size=5))
def test_without_falls_a_history_never_falls(total: int, points: int, seed: str) -> None:
    behaviour = replace(PLAIN, seed=seed, points=points)
    _, counts = history("AA6Q72500001", Known(play_count=total), behaviour)

    assert len(counts) == points
    assert counts == sorted(counts)


def test_with_falls_a_history_falls_once() -> None:
    for n in range(20):
        _, counts = history(f"AA6Q725{n:05d}", Known(play_count=10**6), FALLING)
        assert sum(b < a for a, b in itertools.pairwise(counts)) == 1


def test_a_history_stands_still_and_then_jumps() -> None:
    _, counts = history("AA6Q72500001", Known(play_count=10**8), replace(PLAIN, points=365))
    gains = [b - a for a, b in itertools.pairwise(counts)]

    assert 0 in gains[10:]
    assert max(gains) > 2 * sum(gains) / len(gains)


def test_a_recording_that_is_not_out_yet_has_no_history() -> None:
    future = Known(play_count=5, release_date=PLAIN.last_day + timedelta(days=9))

    assert history("AA6Q72600001", future, PLAIN)[1] == []
