"""Stripe's form-encoded parameters: read into nested dictionaries, and refused as Stripe does."""

import re
from typing import Any
from urllib.parse import parse_qsl

from measurement_pipeline.sandbox.stripe_objects import StripeError

Params = dict[str, Any]

_KEY_PART = re.compile(r"\[([^\[\]]*)\]")


def nested(text: str) -> Params:
    """Form parameters as nested dictionaries: `a[b][0]=c` is `{"a": {"b": {"0": "c"}}}`.

    Raises `StripeError` where one name is both a value and a group of values.
    """
    params: Params = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        root, bracket, rest = name.partition("[")
        *groups, leaf = [root, *_KEY_PART.findall(bracket + rest)]
        place = params
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise StripeError(400, f"Invalid parameter: {root}", param=root)
        place[leaf] = value
    return params


def only(params: Params, allowed: set[str]) -> None:
    """Raises `StripeError` for the first parameter that is not allowed."""
    if unknown := sorted(params.keys() - allowed):
        raise StripeError(
            400,
            f"Received unknown parameter: {unknown[0]}",
            code="parameter_unknown",
            param=unknown[0],
        )


def required(params: Params, name: str) -> str:
    """A parameter that has to be there. Raises `StripeError` where it is missing or empty."""
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise StripeError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return value


def page_size(params: Params) -> int:
    """How many objects a list is to hold. Raises `StripeError` for anything but 1 to 100."""
    text = params.get("limit", "10")
    if not isinstance(text, str) or not text.isdecimal() or not 1 <= int(text) <= 100:
        raise StripeError(
            400,
            "limit is to be between 1 and 100.",
            code="parameter_invalid_integer",
            param="limit",
        )
    return int(text)
