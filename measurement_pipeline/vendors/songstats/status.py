"""What an answer of `GET /status` says was counted this month: a pure function from bytes to a record.

Whether the key works is read by `historic_stats.key_works`. Nothing raises for what an answer holds, and what cannot be read is
not known: it never becomes a 0.
"""

import json
from decimal import Decimal, InvalidOperation
from http import HTTPStatus

from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.vendors.songstats.response import SongstatsResponse

_LARGEST = 10**12


def read_usage(answer: SongstatsResponse) -> VendorMonth:
    """The current month's requests, objects and bill, and the previous month's requests, each as far as it can be read."""
    if answer.status_code is None or answer.failure is not None:
        return VendorMonth(detail=f"{answer.failure}: {answer.detail}")
    if answer.status_code != HTTPStatus.OK:
        return VendorMonth(detail=f"HTTP {answer.status_code}")
    try:
        payload = json.loads(answer.body)
    except (ValueError, RecursionError):
        return VendorMonth(detail="its answer is no JSON")
    status = payload.get("status") if isinstance(payload, dict) else None
    if not isinstance(status, dict):
        return VendorMonth(detail="its answer holds no `status`")
    found = {name: status.get(f"current_month_total_{name}") for name in ("requests", "requested_objects", "bill")}
    requests, objects = _count(found["requests"]), _count(found["requested_objects"])
    bill = _amount(found["bill"])
    unread = [name for name, value in zip(found, (requests, objects, bill), strict=True) if value is None]
    detail = f"`current_month_total_{unread[0]}` cannot be read" if unread else ""
    return VendorMonth(requests, objects, bill, detail, _count(status.get("previous_month_total_requests")))


def _count(value: object) -> int | None:
    """A count, as a number or as text."""
    amount = _amount(value)
    return None if amount is None or amount != amount.to_integral_value() else int(amount)


def _amount(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):  # a number of more digits than Python turns into text
        return None
    return amount if amount.is_finite() and 0 <= amount <= _LARGEST else None
