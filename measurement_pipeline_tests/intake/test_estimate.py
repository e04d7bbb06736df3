"""Days until a request is bought, compared with a model that spends hit by hit."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.completion import seconds_until_bought

WINDOW = 30 * 86_400.0


def spent_one_by_one(hits: int, allowed: int, ages: list[float]) -> float | None:
    """When the last hit is spent if each is spent as soon as fewer than `allowed` are in the window."""
    frees = deque(sorted(WINDOW - age for age in ages))
    now = 0.0
    for _ in range(hits):
        while len(frees) >= allowed:
            if not frees:
                return None
            now = max(now, frees.popleft())
        frees.append(now + WINDOW)
    return now


@given(
    hits=st.integers(0, 60),
    allowed=st.integers(0, 12),
    ages=st.lists(st.floats(0, WINDOW, allow_nan=False), max_size=20),
)
def test_the_estimate_equals_a_model_that_spends_hit_by_hit(hits, allowed, ages):
    frees = sorted(WINDOW - age for age in ages)
    result = seconds_until_bought(
        hits,
        allowed=allowed,
        counted=len(ages),
        frees_in=lambda place: frees[place - 1] if place <= len(frees) else None,
    )
    expected = spent_one_by_one(hits, allowed, ages)
    assert (result is None) == (expected is None)
    if result is not None and expected is not None:
        assert abs(result - expected) < 1e-3


def test_a_catalogue_larger_than_the_budget_takes_several_periods_of_thirty_days():
    assert seconds_until_bought(2_299, allowed=900, counted=0, frees_in=lambda _: None) == 2 * WINDOW
    assert seconds_until_bought(900, allowed=900, counted=0, frees_in=lambda _: None) == 0
