"""Double of the Stripe API: routes, key, form parameters, idempotency, and Stripe's errors.

It implements `API_VERSION` and later versions of the same name, which only add to it. Objects are in `stripe_objects`, the hosted
page in `checkout_page`. Like Stripe, it rejects unknown parameters, so that a client cannot believe that they took effect.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from measurement_pipeline.sandbox.memory import Memory
from measurement_pipeline.sandbox.scenarios import Behaviour
from measurement_pipeline.sandbox.stripe_objects import (
    PAYMENT_METHOD_TYPES,
    Object,
    StripeError,
    StripeObjects,
    missing,
)
from measurement_pipeline.sandbox.stripe_params import ACCEPTED, Params, nested, only, page_size, required

API_VERSION = "2026-10-28.endive"
"""The version that Stripe's Python library pins; a test compares the two."""

_SEARCH = re.compile(r"""\s*metadata\[(['"])(?P<name>[^'"\\]+)\1\]\s*:\s*(['"])(?P<value>[^'"\\]*)\3\s*""")
_KEYS_KEPT = timedelta(hours=24)


class StripeDouble:
    """The API on top of the objects, with the stored responses of idempotency keys."""

    def __init__(
        self, behaviour: Behaviour, objects: StripeObjects, clock: Callable[[], datetime], memory: Memory
    ) -> None:
        self._key = behaviour.stripe_key
        self._objects = objects
        self._clock = clock
        self._memory = memory
        self._kept = memory.table("stripe idempotency keys")
        self._answered = 0

    def routes(self) -> list[BaseRoute]:
        """The routes of the API. Search comes before the id route, which would match it."""
        served: list[tuple[str, str, Callable[[Params, str], Object]]] = [
            ("GET", "/v1/customers/search", self._search_customers),
            ("GET", "/v1/customers", self._list_customers),
            ("POST", "/v1/customers", self._create_customer),
            ("GET", "/v1/customers/{id}", self._retrieve_customer),
            ("DELETE", "/v1/customers/{id}", self._delete_customer),
            ("GET", "/v1/payment_methods", self._list_payment_methods),
            ("POST", "/v1/checkout/sessions", self._create_session),
            ("GET", "/v1/checkout/sessions/{id}", self._retrieve_session),
            ("POST", "/v1/checkout/sessions/{id}/expire", self._expire_session),
        ]
        return [
            Route(path, self._endpoint(handler, ACCEPTED[f"{method} {path}"]), methods=[method])
            for method, path, handler in served
        ]

    def _endpoint(
        self, handler: Callable[[Params, str], Object], accepted: frozenset[str]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = (await request.body()).decode()
            self._answered += 1
            headers = {"request-id": f"req_{self._answered:014d}", "stripe-version": API_VERSION}
            key = request.headers.get("idempotency-key") if request.method == "POST" else None
            try:
                self._check_key(request.headers.get("authorization", ""))
                _check_version(request.headers.get("stripe-version", API_VERSION))
                if key is not None and (kept := self._kept_answer(key, request.url.path, body)) is not None:
                    return _json(200, kept, headers | {"idempotent-replayed": "true"})
                params = nested(body if request.method == "POST" else request.url.query)
                only(params, accepted)
                with self._memory.transaction():
                    content = json.dumps(handler(params, request.path_params.get("id", "")))
                    if key is not None:
                        self._kept[key] = self._clock().isoformat(), [request.url.path, body], content
            except StripeError as error:
                return _json(error.status, json.dumps({"error": error.error}), headers)
            return _json(200, content, headers if key is None else headers | {"idempotency-key": key})

        return endpoint

    def _check_key(self, authorization: str) -> None:
        if authorization != f"Bearer {self._key}":
            raise StripeError(
                401,
                "Invalid API Key provided." if authorization else "You did not provide an API key.",
            )

    def _kept_answer(self, key: str, path: str, body: str) -> str | None:
        """The stored response of this key. Raises `StripeError` if the parameters differ."""
        if key not in self._kept:
            return None
        at, first_request, content = self._kept[key]
        if datetime.fromisoformat(at) <= self._clock() - _KEYS_KEPT:
            return None
        if first_request != [path, body]:
            raise StripeError(
                400,
                f"The idempotency key '{key}' was first used with other parameters.",
                kind="idempotency_error",
            )
        kept: str = content
        return kept

    def _search_customers(self, params: Params, _: str) -> Object:
        query = required(params, "query")
        match = _SEARCH.fullmatch(query)
        if match is None:
            raise StripeError(
                400,
                "The search query is malformed, or of a form the double does not know.",
                param="query",
            )
        found = self._objects.search_customers(match["name"], match["value"], page_size(params))
        return {
            "object": "search_result",
            "data": found,
            "has_more": False,
            "next_page": None,
            "url": "/v1/customers/search",
        }

    def _list_customers(self, params: Params, _: str) -> Object:
        living, limit = self._objects.living_customers(), page_size(params)
        return {
            "object": "list",
            "data": living[:limit],
            "has_more": len(living) > limit,
            "url": "/v1/customers",
        }

    def _create_customer(self, params: Params, _: str) -> Object:
        return self._objects.create_customer(params)

    def _retrieve_customer(self, _: Params, identity: str) -> Object:
        return self._objects.customer(identity)

    def _delete_customer(self, _: Params, identity: str) -> Object:
        return self._objects.delete_customer(identity)

    def _list_payment_methods(self, params: Params, _: str) -> Object:
        customer = self._objects.living_customer(required(params, "customer"))
        found = self._objects.payment_methods(customer["id"], params.get("type"))
        limit = page_size(params)
        return {
            "object": "list",
            "data": found[:limit],
            "has_more": len(found) > limit,
            "url": "/v1/payment_methods",
        }

    def _create_session(self, params: Params, _: str) -> Object:
        mode = required(params, "mode")
        success_url = required(params, "success_url")
        if not re.match(r"https?://", success_url):
            raise StripeError(400, f"Not a valid URL: {success_url}", code="url_invalid", param="success_url")
        _check_payment_method_types(params.get("allowed_payment_method_types", {}))
        if mode == "setup":
            if "currency" not in params and "allowed_payment_method_types" not in params:
                raise StripeError(400, "Setup mode needs currency or allowed_payment_method_types.", param="currency")
            if "line_items" in params:
                raise StripeError(400, "Setup mode sells nothing: line_items is not allowed.", param="line_items")
        elif mode == "subscription":
            items = params.get("line_items")
            if not isinstance(items, dict) or not items:
                raise StripeError(400, "Subscription mode needs line_items.", param="line_items")
            for place, item in items.items():
                price = item.get("price", "") if isinstance(item, dict) else ""
                if not price.startswith("price_"):
                    raise missing("price", price, f"line_items[{place}][price]")
        else:
            raise StripeError(
                400,
                f"The double knows the modes setup and subscription, not '{mode}'.",
                param="mode",
            )
        return self._objects.create_session(params)

    def _retrieve_session(self, _: Params, identity: str) -> Object:
        return self._objects.session(identity)

    def _expire_session(self, _: Params, identity: str) -> Object:
        return self._objects.expire_session(identity)


def _check_version(asked: str) -> None:
    """Raises `StripeError` for an API version with another name, whose meaning may differ."""
    if asked.rpartition(".")[2] != API_VERSION.rpartition(".")[2]:
        raise StripeError(400, f"This double implements API version {API_VERSION}, not {asked}.")


def _check_payment_method_types(types: Mapping[str, str]) -> None:
    for place, kind in types.items():
        if kind not in PAYMENT_METHOD_TYPES:
            param = f"allowed_payment_method_types[{place}]"
            raise StripeError(400, f"Invalid {param}: must be one of {', '.join(PAYMENT_METHOD_TYPES)}", param=param)


def unrecognized(method: str, path: str) -> Response:
    """Stripe's response to an unknown path."""
    error = {
        "type": "invalid_request_error",
        "message": f"Unrecognized request URL ({method}: {path}).",
    }
    return _json(404, json.dumps({"error": error}), {})


def _json(status: int, content: str, headers: dict[str, str]) -> Response:
    return Response(content, status, headers, "application/json")
