"""Hits are returned to the budget only if the vendor's count proves it, and never more than it allows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.reconciliation import (
    MAX_OFFSET_EAST,
    MAX_OFFSET_WEST,
    LedgerState,
    MonthlyHits,
    Window,
    decide_windows,
)
from measurement_pipeline.domain.spend import VendorMonth

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)

LOOK = LedgerState(
    now=datetime(2026, 11, 15, 12, tzinfo=UTC),
    previous_month_begins=OCTOBER,
    month_begins=NOVEMBER,
    next_month_begins=DECEMBER,
    current=MonthlyHits(billed=100, unknown=37),
    previous=MonthlyHits(billed=0, unknown=0),
    near_month=0,
    near_previous=0,
    open_calls=0,
    last_call_at=datetime(2026, 11, 15, 10, tzinfo=UTC),
    calls_ever=140,
)


def returned(requests: int | None, *, look: LedgerState = LOOK, previous: int | None = None) -> int:
    decision = decide_windows(look, look, VendorMonth(requests, detail="HTTP 503", previous_requests=previous))
    return 0 if isinstance(decision, str) else sum(result.not_billed for result in decision)


@pytest.mark.parametrize(("requests", "not_billed"), [(100, 37), (101, 36), (136, 1), (137, 0)])
def test_unknown_hits_stay_counted_up_to_the_vendors_count(requests: int, not_billed: int):
    assert returned(requests) == not_billed


@pytest.mark.parametrize(
    ("requests", "expected"),
    [(99, "does not bill all"), (138, "Another program uses the key"), (0, "does not bill all")],
)
def test_inconsistent_figures_change_no_hit_and_are_reported(requests: int, expected: str):
    (result,) = decide_windows(LOOK, LOOK, VendorMonth(requests))
    assert not isinstance(result, str)
    assert (result.not_billed, result.kept) == (0, 37)
    assert expected in result.reason
    assert f"Songstats counts {requests}, the ledger 100 billed and 37 unknown" in result.reason


@pytest.mark.parametrize(("requests", "late", "stored"), [(137, 0, 37), (138, 1, 38), (157, 20, 57), (158, 0, 37)])
def test_returned_hits_that_the_vendor_counts_later_count_again(requests: int, late: int, stored: int):
    look = replace(LOOK, current=MonthlyHits(billed=100, unknown=37, returned=20))
    (result,) = decide_windows(look, look, VendorMonth(requests))
    assert not isinstance(result, str)
    assert (result.not_billed, result.late, result.kept) == (0, late, stored)


def test_returned_hits_alone_require_a_reconciliation():
    look = replace(LOOK, current=MonthlyHits(billed=100, unknown=0, returned=20))
    (result,) = decide_windows(look, look, VendorMonth(103))
    assert not isinstance(result, str)
    assert (result.late, result.kept) == (3, 3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"open_calls": 1}, "1 call not settled yet"),
        ({"last_call_at": LOOK.now - timedelta(minutes=59)}, "must be 60 minutes old"),
        (
            {"now": NOVEMBER + MAX_OFFSET_WEST - timedelta(seconds=1), "last_call_at": None},
            "near the turn of the month",
        ),
        ({"now": DECEMBER - MAX_OFFSET_EAST}, "near the turn of the month"),
        ({"current": MonthlyHits(100, 0)}, "no hit of unknown outcome"),
    ],
)
def test_no_hit_changes_while_the_figures_may_change(changes: dict, expected: str):
    look = replace(LOOK, **changes)
    decision = decide_windows(look, look, VendorMonth(100))
    assert isinstance(decision, str)
    assert expected in decision


def test_calls_during_the_vendors_answer_prevent_a_change():
    decision = decide_windows(LOOK, replace(LOOK, calls_ever=141), VendorMonth(100))
    assert str(decision).startswith("waiting: calls were made")


def test_an_unreachable_vendor_is_reported_as_unknown():
    assert decide_windows(LOOK, LOOK, VendorMonth(detail="HTTP 503")) == "unknown: Songstats gave no count (HTTP 503)"


def test_calls_near_the_end_of_a_month_are_reconciled_by_the_sum_of_both_months():
    look = replace(LOOK, near_month=3, previous=MonthlyHits(50, 5))
    assert returned(100, look=look) == 0, "without the other month, the counted calls are unknown"
    (result,) = decide_windows(look, look, VendorMonth(98, previous_requests=52))
    assert not isinstance(result, str)
    assert (result.window, result.vendor_count, result.not_billed) == (Window.BOTH, 150, 42)
    assert returned(98, look=replace(look, near_previous=1), previous=52) == 0, "its own start is ambiguous"


def test_each_month_is_reconciled_by_its_own_count_without_calls_near_its_end():
    look = replace(LOOK, previous=MonthlyHits(50, 5))
    results = decide_windows(look, look, VendorMonth(100, previous_requests=53))
    assert not isinstance(results, str)
    assert [(one.window, one.not_billed) for one in results] == [(Window.CURRENT, 37), (Window.PREVIOUS, 2)]
    assert returned(100, look=look) == 37, "a month without a count changes no hit"
    assert returned(100, look=replace(look, near_previous=1), previous=53) == 37


calls = st.lists(
    st.tuples(st.integers(-31 * 24 - 20, 14 * 24), st.sampled_from(["billed", "unknown, counted", "unknown, lost"])),
    max_size=30,
)


@given(calls, st.integers(-12, 14), st.integers(0, 3), st.integers(0, 3))
def test_the_budget_never_counts_less_than_the_vendor(
    hits: list[tuple[int, str]], zone: int, others_now: int, others_before: int
):
    """Calls at any hour, the vendor's month in any time zone, with or without another program."""
    ours = [(NOVEMBER + timedelta(hours=hours), kind) for hours, kind in hits]
    turn, before_that = NOVEMBER - timedelta(hours=zone), OCTOBER - timedelta(hours=zone)
    counted = [at for at, kind in ours if kind != "unknown, lost"]
    vendor = VendorMonth(
        sum(at >= turn for at in counted) + others_now,
        previous_requests=sum(before_that <= at < turn for at in counted) + others_before,
    )

    def month(since: datetime, until: datetime) -> MonthlyHits:
        kinds = [kind for at, kind in ours if since <= at < until]
        return MonthlyHits(kinds.count("billed"), len(kinds) - kinds.count("billed"))

    def near(edge: datetime) -> int:
        return sum(edge - MAX_OFFSET_EAST <= at < edge + MAX_OFFSET_WEST for at, _ in ours)

    look = replace(
        LOOK,
        current=month(NOVEMBER, DECEMBER),
        previous=month(OCTOBER, NOVEMBER),
        near_month=near(NOVEMBER),
        near_previous=near(OCTOBER),
        last_call_at=None,
    )
    results = decide_windows(look, look, vendor)
    if isinstance(results, str):
        return
    for result in results:
        assert 0 <= result.not_billed <= result.unknown
        if result.not_billed:
            assert result.vendor_count is not None
            assert result.billed + result.kept >= result.vendor_count
    not_billed = sum(result.not_billed for result in results)
    lost = sum(kind == "unknown, lost" and at >= OCTOBER for at, kind in ours)
    assert not_billed <= lost, "no call that the vendor counted is returned"
