"""Properties of invented histories."""

import itertools
from dataclasses import replace
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.sandbox import PLAIN, Behaviour, KnownRecording
from measurement_pipeline.sandbox.series import GBUM72501895, history

FALLING = replace(PLAIN, falls=1)
COUNTED = PLAIN.counted_on


@given(
    total=st.integers(0, 5 * 10**9),
    release=st.dates(date(1950, 1, 1), COUNTED),
    seed=st.text(max_size=5),
)
def test_a_history_ends_at_the_known_count_and_is_never_negative(total: int, release: date, seed: str) -> None:
    known = KnownRecording(play_count=total, release_date=release)
    first, counts = history("AA6Q72500001", known, replace(FALLING, seed=seed), COUNTED)

    assert counts[-1] == total
    assert first + timedelta(days=len(counts) - 1) == COUNTED
    assert min(counts) >= 0


@given(total=st.integers(0, 10**9), points=st.integers(1, 400), seed=st.text(max_size=5))
def test_without_falls_a_history_never_falls(total: int, points: int, seed: str) -> None:
    behaviour = replace(PLAIN, seed=seed, points=points)
    _, counts = history("AA6Q72500001", KnownRecording(play_count=total), behaviour, COUNTED)

    assert len(counts) == points
    assert counts == sorted(counts)


def test_with_falls_a_history_falls_once() -> None:
    for n in range(20):
        _, counts = history(f"AA6Q725{n:05d}", KnownRecording(play_count=10**6), FALLING, COUNTED)
        assert sum(b < a for a, b in itertools.pairwise(counts)) == 1


def test_a_history_has_a_standstill_and_then_a_jump() -> None:
    _, counts = history("AA6Q72500001", KnownRecording(play_count=10**8), replace(PLAIN, points=365), COUNTED)
    gains = [b - a for a, b in itertools.pairwise(counts)]

    assert 0 in gains[10:]
    assert max(gains) > 2 * sum(gains) / len(gains)


def test_an_unreleased_recording_has_no_history() -> None:
    future = KnownRecording(play_count=5, release_date=COUNTED + timedelta(days=9))

    assert history("AA6Q72600001", future, PLAIN, COUNTED)[1] == []


@given(
    isrc=st.sampled_from([f"AA6Q725{n:05d}" for n in range(50)] + [GBUM72501895]),
    total=st.none() | st.integers(0, 10**9),
    release=st.none() | st.dates(date(2023, 6, 1), date(2027, 6, 1)),
    points=st.none() | st.integers(1, 400),
    until=st.dates(date(2025, 1, 1), date(2027, 12, 31)),
    later=st.integers(1, 400),
)
def test_a_later_day_extends_a_history_and_contradicts_nothing(
    isrc: str, total: int | None, release: date | None, points: int | None, until: date, later: int
) -> None:
    known = KnownRecording(play_count=total, release_date=release)
    behaviour = Behaviour(points=points, falls=0.5)
    first, counts = history(isrc, known, behaviour, until)
    first_later, counts_later = history(isrc, known, behaviour, until + timedelta(days=later))

    assert first_later == first
    assert counts_later[: len(counts)] == counts
    assert len(counts_later) == max(0, (until - first).days + 1 + later)


@given(total=st.integers(0, 5 * 10**9), release=st.dates(date(2020, 1, 1), date(2027, 1, 1)))
def test_a_history_continues_after_the_day_of_the_known_count_and_never_falls(total: int, release: date) -> None:
    known = KnownRecording(play_count=total, release_date=release)
    _, counts = history("AA6Q72500001", known, PLAIN, date(2027, 12, 31))

    assert counts == sorted(counts)
    assert total <= counts[-1]


def test_a_history_keeps_its_pace_after_the_day_of_the_known_count() -> None:
    known = KnownRecording(play_count=10**6, release_date=date(2025, 1, 1))
    _, counts = history("AA6Q72500001", known, PLAIN, COUNTED + timedelta(days=100))

    before, after = counts[-101] - counts[-201], counts[-1] - counts[-101]
    assert 0.5 < after / before < 1.2
