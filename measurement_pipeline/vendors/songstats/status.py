"""Parses a response of `GET /status`: what Songstats counted this month. Pure.

`historic_stats.read_key_validity` reads whether the key works. Nothing here raises for a response. An unreadable value stays
unknown and never becomes 0.
"""

import json
from decimal import Decimal, InvalidOperation
from http import HTTPStatus

from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.vendors.songstats.response import SongstatsResponse

_MAX_AMOUNT = 10**12


def read_usage(response: SongstatsResponse) -> VendorMonth:
    """The current month's requests, objects and bill, and the previous month's requests, as far as they are readable."""
    if response.status_code is None or response.failure is not None:
        return VendorMonth(detail=f"{response.failure}: {response.detail}")
    if response.status_code != HTTPStatus.OK:
        return VendorMonth(detail=f"HTTP {response.status_code}")
    try:
        payload = json.loads(response.body)
    except (ValueError, RecursionError):
        return VendorMonth(detail="the response is not JSON")
    status = payload.get("status") if isinstance(payload, dict) else None
    if not isinstance(status, dict):
        return VendorMonth(detail="the response has no `status`")
    values = {name: status.get(f"current_month_total_{name}") for name in ("requests", "requested_objects", "bill")}
    requests, objects = _read_count(values["requests"]), _read_count(values["requested_objects"])
    bill = _read_amount(values["bill"])
    unreadable = [name for name, value in zip(values, (requests, objects, bill), strict=True) if value is None]
    detail = f"`current_month_total_{unreadable[0]}` is not readable" if unreadable else ""
    return VendorMonth(requests, objects, bill, detail, _read_count(status.get("previous_month_total_requests")))


def _read_count(value: object) -> int | None:
    """A count, as a number or as text."""
    amount = _read_amount(value)
    return None if amount is None or amount != amount.to_integral_value() else int(amount)


def _read_amount(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):  # a number of more digits than Python converts to text
        return None
    return amount if amount.is_finite() and 0 <= amount <= _MAX_AMOUNT else None
