"""Stripe's form-encoded parameters: parse them into nested dictionaries, and reject unknown ones like Stripe."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from measurement_pipeline.sandbox.stripe_objects import StripeError

Params = dict[str, Any]

ACCEPTED: Mapping[str, frozenset[str]] = {
    "GET /v1/customers/search": frozenset({"query", "limit"}),
    "GET /v1/customers": frozenset({"limit"}),
    "POST /v1/customers": frozenset({"metadata[*]", "email", "name", "description"}),
    "GET /v1/customers/{id}": frozenset(),
    "DELETE /v1/customers/{id}": frozenset(),
    "GET /v1/payment_methods": frozenset({"customer", "type", "limit"}),
    "POST /v1/checkout/sessions": frozenset(
        {
            "allowed_payment_method_types[]",
            "cancel_url",
            "client_reference_id",
            "currency",
            "customer",
            "line_items[][price]",
            "line_items[][quantity]",
            "metadata[*]",
            "mode",
            "payment_method_collection",
            "setup_intent_data[metadata][*]",
            "subscription_data[metadata][*]",
            "subscription_data[trial_period_days]",
            "success_url",
        }
    ),
    "GET /v1/checkout/sessions/{id}": frozenset(),
    "POST /v1/checkout/sessions/{id}/expire": frozenset(),
}
"""Accepted parameters of each endpoint, a subset of Stripe's: `[]` is any list index, `[*]` any name."""

_KEY_PART = re.compile(r"\[([^\[\]]*)\]")


def nested(text: str) -> Params:
    """Form parameters as nested dictionaries: `a[b][0]=c` is `{"a": {"b": {"0": "c"}}}`.

    Raises `StripeError` if one name is both a value and a group.
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


def only(params: Params, accepted: Collection[str]) -> None:
    """Raises `StripeError` for the first parameter that is not accepted, at any depth."""
    for path, written in sorted(_paths(params)):
        if path in accepted or re.sub(r"\[[^\[\]]*\]$", "[*]", path) in accepted:
            continue
        root = written.partition("[")[0]
        known = any(one.partition("[")[0] == root for one in accepted)
        param = written if known else root
        raise StripeError(400, f"Received unknown parameter: {param}", code="parameter_unknown", param=param)


def _paths(params: Params, path: str = "", written: str = "") -> Iterator[tuple[str, str]]:
    """The path of each value, with list indexes as `[]`, and the original path."""
    for name, value in params.items():
        part = "[]" if name == "" or name.isdecimal() else f"[{name}]"
        one, as_written = (path + part, f"{written}[{name}]") if path else (name, name)
        if isinstance(value, dict):
            yield from _paths(value, one, as_written)
        else:
            yield one, as_written


def required(params: Params, name: str) -> str:
    """A required parameter. Raises `StripeError` if it is missing or empty."""
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise StripeError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return value


def page_size(params: Params) -> int:
    """The page size of a list. Raises `StripeError` unless it is 1 to 100."""
    text = params.get("limit", "10")
    if not isinstance(text, str) or not text.isdecimal() or not 1 <= int(text) <= 100:
        raise StripeError(
            400,
            "limit is to be between 1 and 100.",
            code="parameter_invalid_integer",
            param="limit",
        )
    return int(text)
