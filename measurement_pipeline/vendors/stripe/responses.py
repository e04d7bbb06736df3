"""Parses Stripe's objects. A missing field raises UnexpectedResponseError, and is never taken for a no."""

from datetime import UTC, datetime
from typing import Any

import stripe

from measurement_pipeline.domain.payment import SavedCard
from measurement_pipeline.vendors.errors import UnexpectedResponseError


def unexpected(problem: str) -> UnexpectedResponseError:
    """The error for a response of Stripe in another shape than documented."""
    return UnexpectedResponseError("Stripe", problem)


def read_list(response: object, description: str) -> list[Any]:
    """The objects of a list or a search. `description` names it in the error."""
    data = getattr(response, "data", None)
    if not isinstance(data, list):
        raise unexpected(f"{description} holds no list")
    return data


def read_text(record: object, name: str) -> str:
    """A required text field."""
    value = getattr(record, name, None)
    if not isinstance(value, str) or not value:
        raise _missing(record, name)
    return value


def read_time(record: object, name: str) -> datetime:
    """A required Unix time."""
    value = getattr(record, name, None)
    if not isinstance(value, int):
        raise _missing(record, name)
    return datetime.fromtimestamp(value, UTC)


def read_card(method: object) -> SavedCard:
    """A payment method of type card. Its id and its expiry date are required."""
    read_text(method, "id")
    card = getattr(method, "card", None)
    year, month = getattr(card, "exp_year", None), getattr(card, "exp_month", None)
    if not isinstance(year, int) or not isinstance(month, int):
        raise _missing(method, "expiry date")
    return SavedCard(year, month)


def is_replayed(response: stripe.StripeObject) -> bool:
    """Whether Stripe repeated an earlier response to the same idempotency key."""
    headers = getattr(response.last_response, "headers", None) or {}
    return str(headers.get("idempotent-replayed", "")).lower() == "true"


def _missing(record: object, name: str) -> UnexpectedResponseError:
    return unexpected(f"{getattr(record, 'object', 'an object')} has no {name}")
