"""`/status` is read as far as possible. An unreadable value is unknown, never 0."""

import asyncio
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.vendors.songstats import status
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

# As the vendor sends it.
REAL = {
    "result": "success",
    "message": "Data Retrieved.",
    "status": {
        "current_month_total_requests": 5678,
        "current_month_total_requested_objects": 343,
        "current_month_total_bill": "34.30",
        "previous_month_total_requests": 0,
        "previous_month_total_requested_objects": 0,
        "previous_month_total_bill": "0.00",
    },
}


def read(payload: object, *, code: int = 200) -> VendorMonth:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return status.read_usage(SongstatsResponse(code, {}, body))


def without(**changes: object) -> dict[str, object]:
    return {**REAL, "status": {**REAL["status"], **changes}}


def test_the_documented_response_is_read():
    assert read(REAL) == VendorMonth(5678, 343, Decimal("34.30"), previous_requests=0)


def test_a_month_without_requests_is_a_known_zero():
    assert read(without(current_month_total_requests=0)).requests == 0


@pytest.mark.parametrize("odd", [None, True, -1, 1.5, "many", "", "NaN", "Infinity", "-3", [], {}, "1e400", 10**30])
def test_an_unreadable_count_is_unknown_and_the_others_are_read(odd):
    result = read(without(current_month_total_requests=odd))
    assert result.requests is None
    assert "current_month_total_requests" in result.detail
    assert (result.objects, result.bill) == (343, Decimal("34.30"))


@pytest.mark.parametrize(("text", "count"), [("5678", 5678), ("5678.0", 5678), (5678.0, 5678)])
def test_a_count_may_be_text(text, count):
    assert read(without(current_month_total_requests=text)).requests == count


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"status": 3}', b"\xff", b"[" * 100_000, b"null"])
def test_another_shape_is_unknown_with_a_detail(body):
    result = read(body)
    assert (result.requests, result.objects, result.bill) == (None, None, None)
    assert result.detail


@pytest.mark.parametrize("code", [401, 429, 500])
def test_an_error_status_is_unknown_with_any_body(code):
    assert read(REAL, code=code) == VendorMonth(detail=f"HTTP {code}")


def test_a_lost_response_is_unknown():
    result = status.read_usage(SongstatsResponse(200, {}, b"", Failure.INCOMPLETE, "cut short"))
    assert result == VendorMonth(detail="incomplete: cut short")


@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(
    lambda value: json.dumps({"status": {"current_month_total_requests": value}}).encode()
))  # fmt: skip
def test_no_response_content_raises(body):
    result = read(body)
    assert result.requests is None or result.requests >= 0


def test_the_doubles_count_is_read(sandbox):
    async def fetch_status() -> VendorMonth:
        async with SongstatsClient(
            api_key=sandbox.songstats_key, base_url=sandbox.songstats_url, sources=["spotify"], timeout_seconds=60
        ) as client:
            await client.fetch_history("AA6Q72000000")
            await client.fetch_history("AA6Q72000000")
            return status.read_usage(await client.fetch_status())

    assert asyncio.run(fetch_status()) == VendorMonth(2, 1, Decimal("0.10"), previous_requests=0)
