"""Estimated completions, against the same planner run to the end."""

from collections import deque
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain import completion
from measurement_pipeline.domain.completion import LastPlace, Quota, complete, hits_until
from measurement_pipeline.domain.fair_share import FairShare

NOW = datetime(2026, 12, 1, tzinfo=UTC)
MONTH_SECONDS = 30 * 86_400.0


def queue(accounts: dict[str, tuple[int, int]]) -> FairShare[str]:
    """Accounts with their weight and recordings to buy."""
    fair = FairShare[str]()
    for account, (weight, waiting) in accounts.items():
        fair.add(account, weight=weight, waiting=waiting)
    return fair


QUEUES = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.integers(1, 5), st.integers(1, 200)), min_size=1, max_size=6
)


@given(QUEUES, st.data())
def test_the_hits_until_a_place_are_those_that_the_planner_spends(accounts, data):
    account = data.draw(st.sampled_from(sorted(accounts)))
    places = data.draw(st.sets(st.integers(1, accounts[account][1]), min_size=1, max_size=3))
    order = list(queue(accounts).take(10_000))
    own = [number for number, one in enumerate(order, 1) if one == account]
    found = hits_until(queue(accounts), {(account, place) for place in places})
    assert found == {(account, place): own[place - 1] for place in places}


@given(QUEUES, st.data())
def test_far_ahead_the_ideal_shares_are_within_two_hits_of_each_account(accounts, data):
    account = data.draw(st.sampled_from(sorted(accounts)))
    place = data.draw(st.integers(1, accounts[account][1]))
    planned = hits_until(queue(accounts), {(account, place)})
    assert abs(queue(accounts).ideal_hits(account, place) - planned[account, place]) <= 2 * len(accounts)


def test_a_small_request_beside_a_large_one_is_complete_as_soon_as_the_quota_is_available_again():
    """A's 4,290 recordings took all 900 hits yesterday. B's 50 take every second hit once they return, A's the rest."""
    fair = queue({"A": (1, 3390), "B": (1, 50)})
    frees = deque(MONTH_SECONDS - 86_400 + second for second in range(900))
    quota = Quota(900, 900, lambda place: frees[place - 1] if place <= 900 else None)
    hits = hits_until(fair, {("B", 50), ("A", 3390)})
    assert hits["B", 50] == 100
    small = complete(quota, now=NOW, own_hits=50, hits=hits["B", 50])
    assert small is not None
    assert small.expected == NOW + timedelta(days=29, seconds=99)
    assert small.earliest == NOW + timedelta(days=29, seconds=49)
    large = complete(quota, now=NOW, own_hits=3390, hits=hits["A", 3390])
    assert large is not None
    assert (large.expected - NOW).days == 29 + 3 * 30


def test_a_limit_of_the_account_delays_its_completion():
    quota, cap = Quota(900, 0, lambda _: None), Quota(10, 0, lambda _: None)
    done = complete(quota, now=NOW, own_hits=25, hits=25, cap=cap)
    assert done is not None
    assert done.expected == NOW + timedelta(days=60)


def test_there_is_no_date_without_hits():
    assert complete(Quota(0, 0, lambda _: None), now=NOW, own_hits=1, hits=1) is None
    assert completion.completion_fields(None) == {
        "estimated_completion": None, "earliest_completion": None, "latest_completion": None,
    }  # fmt: skip


def test_the_last_place_is_that_by_rank_or_ten_times_that_by_age_whichever_comes_first():
    assert LastPlace(waiting=5, by_rank=90, by_age=1000).place == 100
    assert LastPlace(waiting=5, by_rank=90, by_age=5).place == 50
