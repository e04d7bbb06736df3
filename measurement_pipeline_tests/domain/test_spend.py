"""Totals of any set of calls are equal by every grouping."""

from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain import spend
from measurement_pipeline.domain.spend import CAUSES, CallGroup, HitTotals

ACCOUNTS = [UUID(int=number) for number in range(4)]


@st.composite
def lines(draw: st.DrawFn) -> CallGroup:
    calls = draw(st.integers(1, 50))
    return CallGroup(
        account=draw(st.sampled_from(ACCOUNTS)),
        name=None,
        cause=draw(st.sampled_from(CAUSES)),
        counted=draw(st.sampled_from(HitTotals)),
        calls=calls,
        wasted=draw(st.integers(0, calls)),
        stored=draw(st.integers(0, calls)),
        settled=draw(st.integers(0, calls)),
    )


@given(st.lists(lines(), max_size=40))
def test_causes_and_accounts_each_add_up_to_the_total(calls):
    total = spend.sum_calls(calls)
    assert total.calls == sum(line.calls for line in calls) == total.hits + total.cost_nothing
    for groups in (spend.sum_by_cause(calls), spend.sum_by_account(calls)):
        for name in ("calls", "counted", "unknown", "cost_nothing", "wasted", "stored", "settled", "hits", "undecided"):
            assert sum(getattr(group, name) for group in groups.values()) == getattr(total, name)


@given(st.lists(st.integers(0, 5_000), max_size=12), st.integers(0, 50_000).map(lambda n: n / 10_000))
def test_a_column_of_euros_sums_to_its_total_exact_to_the_cent(hits, price):
    result = spend.split_cost_eur(dict(enumerate(hits)), price)
    assert sum(result.values()) == spend.cost_eur(sum(hits), price)
    for place, count in enumerate(hits):
        assert abs(result[place] - count * Decimal(str(price))) < Decimal("0.01")


def test_hits_without_a_cause_are_excluded_from_the_ratio():
    def line(cause: str, calls: int, counted: HitTotals = HitTotals.YES, settled: int = 0) -> CallGroup:
        return CallGroup(ACCOUNTS[0], None, cause, counted, calls, settled=settled)

    drain = [
        line("stored", 8, settled=8),
        line("no history", 2, settled=2),
        line("in flight", 5, HitTotals.UNKNOWN),
        line("throttled", 100, HitTotals.NO),
        line("timeout: unknown", 1, HitTotals.UNKNOWN),
    ]
    assert spend.sum_calls(drain).hits_per_recording_settled == 1.1
    assert spend.sum_calls(drain[2:3]).hits_per_recording_settled is None
