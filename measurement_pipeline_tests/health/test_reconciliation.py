"""What is called a drift, and what is allowed for before it is."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.health.reconciliation import ledger_matches_vendor
from measurement_pipeline.postgres.spend import Month

MONTH = Month(
    begins=datetime(2026, 10, 1, tzinfo=UTC),
    calls=130,
    counted=100,
    unknown=10,
    cost_nothing=20,
    early=0,
    late=0,
    answered=95,
    asked=105,
)


def judged(requests: int | None, *, month: Month = MONTH, after: Month | None = None, objects: int | None = 100):
    return ledger_matches_vendor(month, after or month, VendorMonth(requests, objects, Decimal(10), "HTTP 503"))


@pytest.mark.parametrize("requests", [100, 105, 110])
def test_calls_with_an_unknown_result_may_or_may_not_have_been_counted(requests):
    found = judged(requests)
    assert found.passed
    assert "no drift that is not explained" in found.message
    assert found.metadata["Songstats: requests"] == requests
    assert found.metadata["drift: requests"] == requests - 110


@pytest.mark.parametrize("requests", [95, 115])
def test_a_small_drift_passes_and_is_reported(requests):
    found = judged(requests)
    assert found.passed
    assert "within the tolerance of 5" in found.message


def test_a_vendor_that_counts_more_is_a_drift_with_both_figures_and_possible_causes():
    found = judged(131)
    assert not found.passed
    assert not found.should_alert, "it warns"
    assert "Songstats counts 131 requests this month, the ledger 110 hits" in found.message
    assert "+21 requests" in found.message
    assert "the 20 calls held to cost nothing" in found.message
    assert found.metadata["drift: requests, unexplained"] == 21


def test_a_vendor_that_counts_fewer_is_a_drift():
    found = judged(90)
    assert not found.passed
    assert "-10 requests" in found.message
    assert "time zone" in found.message


@pytest.mark.parametrize(("objects", "passes"), [(95, True), (105, True), (110, True), (112, False), (89, False)])
def test_objects_are_compared(objects, passes):
    assert judged(105, objects=objects).passed is passes


def test_unknown_objects_are_reported_as_unknown_and_are_no_drift():
    found = judged(105, objects=None)
    assert found.passed
    assert found.metadata["Songstats: objects"] == "unknown"
    assert "drift: objects" not in found.metadata


def test_an_unavailable_vendor_fails_the_check_as_unknown():
    found = judged(None)
    assert not found.passed
    assert not found.should_alert
    assert "unknown (HTTP 503)" in found.message
    assert found.metadata["Songstats: requests"] == "unknown"
    assert "drift: requests" not in found.metadata


def test_hits_near_the_end_of_the_month_may_belong_to_the_other_month():
    edge = replace(MONTH, early=40, late=30)
    assert judged(60, month=edge, objects=100).passed
    assert judged(140, month=edge, objects=100).passed
    assert not judged(54, month=edge).passed
    assert not judged(146, month=edge).passed


def test_calls_during_the_vendors_answer_are_no_drift():
    assert judged(150, after=replace(MONTH, calls=170, counted=140, answered=135, asked=145)).passed


def test_one_percent_is_tolerated_if_that_is_more():
    busy = replace(MONTH, calls=1000, counted=1000, unknown=0, answered=1000, asked=1000)
    assert judged(1010, month=busy, objects=1000).passed
    assert not judged(1011, month=busy, objects=1000).passed
