"""When ledger and vendor differ, and which differences are explained."""

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


def compare(requests: int | None, *, month: Month = MONTH, after: Month | None = None, objects: int | None = 100):
    return ledger_matches_vendor(month, after or month, VendorMonth(requests, objects, Decimal(10), "HTTP 503"))


@pytest.mark.parametrize("requests", [100, 105, 110])
def test_calls_with_an_unknown_result_may_or_may_not_have_been_counted(requests):
    result = compare(requests)
    assert result.passed
    assert "no unexplained drift" in result.message
    assert result.metadata["Songstats: requests"] == requests
    assert result.metadata["drift: requests"] == requests - 110


@pytest.mark.parametrize("requests", [95, 115])
def test_a_small_drift_passes_and_is_reported(requests):
    result = compare(requests)
    assert result.passed
    assert "within the tolerance of 5" in result.message


def test_a_vendor_that_counts_more_is_a_drift_with_both_figures_and_possible_causes():
    result = compare(131)
    assert not result.passed
    assert not result.should_alert, "it only warns"
    assert "131 requests" in result.message
    assert "110 hits" in result.message
    assert "+21 requests" in result.message
    assert "20 calls" in result.message
    assert "SONGSTATS_HIT_LIMIT" in result.message
    assert result.metadata["drift: requests, unexplained"] == 21


def test_a_vendor_that_counts_fewer_is_a_drift():
    result = compare(90)
    assert not result.passed
    assert "-10 requests" in result.message
    assert "time zone" in result.message


@pytest.mark.parametrize(("objects", "passes"), [(95, True), (105, True), (110, True), (112, False), (89, False)])
def test_objects_are_compared(objects, passes):
    assert compare(105, objects=objects).passed is passes


def test_unknown_objects_are_reported_as_unknown_and_are_no_drift():
    result = compare(105, objects=None)
    assert result.passed
    assert result.metadata["Songstats: objects"] == "unknown"
    assert "drift: objects" not in result.metadata


def test_an_unavailable_vendor_fails_the_check_as_unknown():
    result = compare(None)
    assert not result.passed
    assert not result.should_alert
    assert "unknown (HTTP 503)" in result.message
    assert result.metadata["Songstats: requests"] == "unknown"
    assert "drift: requests" not in result.metadata


def test_hits_near_the_end_of_the_month_may_belong_to_the_other_month():
    edge = replace(MONTH, early=40, late=30)
    assert compare(60, month=edge, objects=100).passed
    assert compare(140, month=edge, objects=100).passed
    assert not compare(54, month=edge).passed
    assert not compare(146, month=edge).passed


def test_calls_during_the_vendors_answer_are_no_drift():
    assert compare(150, after=replace(MONTH, calls=170, counted=140, answered=135, asked=145)).passed


def test_one_percent_is_tolerated_if_that_is_more():
    busy = replace(MONTH, calls=1000, counted=1000, unknown=0, answered=1000, asked=1000)
    assert compare(1010, month=busy, objects=1000).passed
    assert not compare(1011, month=busy, objects=1000).passed
