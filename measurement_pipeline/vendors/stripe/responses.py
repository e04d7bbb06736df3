"""What Stripe's answers must hold, read at the door: a field that is not there is never taken for a no.

Each reader raises OddAnswerError, save `replayed`.
"""

from datetime import UTC, datetime
from typing import Any

import stripe

from measurement_pipeline.domain.payment import SavedCard


class OddAnswerError(Exception):
    """Stripe answered, but not in the shape that its documentation gives; the message says what."""


def read_list(found: object, what: str) -> list[Any]:
    """The objects of a list or a search. `what` names it for a person."""
    data = getattr(found, "data", None)
    if not isinstance(data, list):
        raise OddAnswerError(f"{what} holds no list")
    return data


def read_text(found: object, name: str) -> str:
    """A text that every object of the kind has."""
    value = getattr(found, name, None)
    if not isinstance(value, str) or not value:
        raise OddAnswerError(f"{name} of {getattr(found, 'object', 'an object')} is not there")
    return value


def read_time(found: object, name: str) -> datetime:
    """A Unix time that every object of the kind has."""
    value = getattr(found, name, None)
    if not isinstance(value, int):
        raise OddAnswerError(f"{name} of {getattr(found, 'object', 'an object')} is not there")
    return datetime.fromtimestamp(value, UTC)


def read_card(method: object) -> SavedCard:
    """A payment method of type card. Its id is required, like its date of expiry."""
    read_text(method, "id")
    card = getattr(method, "card", None)
    year, month = getattr(card, "exp_year", None), getattr(card, "exp_month", None)
    if not isinstance(year, int) or not isinstance(month, int):
        raise OddAnswerError(f"the date of expiry of {getattr(method, 'object', 'an object')} is not there")
    return SavedCard(year, month)


def is_replayed(answered: stripe.StripeObject) -> bool:
    """Whether Stripe repeated what it had answered to the same idempotency key before."""
    headers = getattr(answered.last_response, "headers", None) or {}
    return str(headers.get("idempotent-replayed", "")).lower() == "true"
