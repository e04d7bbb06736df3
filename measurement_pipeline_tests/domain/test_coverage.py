"""What hits are worth: the share of known plays that the most played recordings cover."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.coverage import (
    Aim,
    RankedRecording,
    ValuePoint,
    describe_left_out,
    describe_value,
    select_recordings,
    value_per_hit,
)


def ranked(*plays: int, owned: int = 0) -> list[RankedRecording]:
    """Recordings with these plays, of which the first `owned` are owned."""
    return [RankedRecording(f"S{place}", count, place < owned) for place, count in enumerate(plays)]


@pytest.mark.parametrize(
    ("aim", "count", "covered"),
    [
        (Aim(), 4, 1.0),
        (Aim(limit=1), 1, 0.5),
        (Aim(limit=9), 4, 1.0),
        (Aim(coverage=Decimal("0.5")), 1, 0.5),
        (Aim(coverage=Decimal("0.51")), 2, 0.8),
        (Aim(coverage=Decimal(1)), 3, 1.0),
    ],
)
def test_an_aim_selects_the_most_played_recordings_that_reach_it(aim: Aim, count: int, covered: float):
    selection = select_recordings(ranked(50, 30, 20, 0), aim)
    assert (len(selection.songs), selection.left_out, selection.covered) == (count, 4 - count, pytest.approx(covered))
    assert selection.songs == ("S0", "S1", "S2", "S3")[:count]


def test_without_a_known_play_count_a_share_selects_everything():
    assert select_recordings(ranked(0, 0), Aim(coverage=Decimal("0.1"))).left_out == 0
    assert value_per_hit(ranked(0, 0)) == ()


def test_owned_recordings_cover_their_plays_without_a_hit():
    assert value_per_hit(ranked(50, 30, 20, owned=1)) == (ValuePoint(2, 1.0),)
    assert value_per_hit(ranked(50, 50, owned=2)) == (ValuePoint(0, 1.0),)


def test_the_value_of_hits_is_given_at_100_300_and_900_and_for_all():
    points = value_per_hit(ranked(*([9] * 100), *([1] * 300)))
    assert [(point.hits, point.coverage) for point in points] == [
        (100, 0.75),
        (300, pytest.approx(11 / 12)),
        (400, 1.0),
    ]
    assert describe_value(points) == "100 hits: 75.0%; 300 hits: 91.7%; 400 hits: 100.0%"


def test_what_is_left_out_is_stated_with_its_plays():
    assert describe_left_out(3, of=4, covered=0.5) == "3 of 4 recordings, with 50.0% of the known plays"
    assert describe_left_out(0, of=4, covered=1.0) is None


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50), st.integers(1, 100))
def test_a_selection_reaches_its_share_and_one_recording_less_does_not(plays: list[int], percent: int):
    counts = sorted(plays, reverse=True)
    share = Decimal(percent) / 100
    count = len(select_recordings(ranked(*counts), Aim(coverage=share)).songs)
    if sum(counts):
        assert sum(counts[:count]) >= share * sum(counts) > sum(counts[: count - 1])
