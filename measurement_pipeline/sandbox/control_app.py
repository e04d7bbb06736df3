"""ASGI application in front of all doubles: logs each request, passes it to the vendor, and applies faults to the response.

Control routes below `/_` set faults, cards and catalogues and read the request log; they are not logged.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qsl
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from measurement_pipeline.sandbox import vendor_errors
from measurement_pipeline.sandbox.albums import Discography
from measurement_pipeline.sandbox.apify_double import ApifyDouble
from measurement_pipeline.sandbox.apify_runs import ApifyRuns, PlannedEnd
from measurement_pipeline.sandbox.broken_responses import deliver
from measurement_pipeline.sandbox.catalogue import CATALOGUE, KnownRecording
from measurement_pipeline.sandbox.checkout_page import CheckoutPage
from measurement_pipeline.sandbox.faults import FAULTS, Fault, FaultResponse, Faults
from measurement_pipeline.sandbox.memory import Memory
from measurement_pipeline.sandbox.request_log import RequestLog
from measurement_pipeline.sandbox.scenarios import Behaviour
from measurement_pipeline.sandbox.songstats_double import SongstatsDouble
from measurement_pipeline.sandbox.spotify_double import SpotifyDouble
from measurement_pipeline.sandbox.stripe_double import StripeDouble, unrecognized
from measurement_pipeline.sandbox.stripe_objects import StripeObjects

_API_PATHS = ("/enterprise/", "/v1/", "/v2/", "/api/")


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    card: bool


class _PaymentMethod(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["card", "link", "us_bank_account"] = "card"
    expires: tuple[int, int] | None = None
    wallet: str | None = None
    default: bool = False


class _Deployment(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: str = Field(min_length=1)


class ControlApp:
    """All doubles behind one address.

    `base_url` is a function, because the port is known only after the socket is bound.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        catalogue: Mapping[str, KnownRecording],
        base_url: Callable[[], str],
        clock: Callable[[], datetime],
        memory: Memory,
    ) -> None:
        self._memory = memory
        self._latency = behaviour.latency
        self._faults = Faults()
        self._log = RequestLog(clock)
        self._songstats = SongstatsDouble(behaviour, catalogue, clock, memory)
        self._objects = StripeObjects(behaviour, base_url, clock, memory)
        self._discography = Discography(behaviour, catalogue)
        self._runs = ApifyRuns(behaviour, self._discography, clock, memory)
        self._vendors = Starlette(
            routes=[
                *self._songstats.routes(),
                *StripeDouble(behaviour, self._objects, clock, memory).routes(),
                *CheckoutPage(self._objects, memory).routes(),
                *ApifyDouble(behaviour, self._runs, clock).routes(),
                *SpotifyDouble(behaviour, self._discography, clock).routes(),
            ],
            exception_handlers={HTTPException: _not_served},
        )
        self._admin = Starlette(
            routes=[
                Route("/_faults", self._set_faults, methods=["POST"]),
                Route("/_faults", self._list_faults, methods=["GET"]),
                Route("/_faults", self._clear_faults, methods=["DELETE"]),
                Route("/_requests", self._list_requests, methods=["GET"]),
                Route("/_requests", self._forget_requests, methods=["DELETE"]),
                Route("/_requests/count", self._count_requests, methods=["GET"]),
                Route("/_catalogue", self._learn, methods=["POST"]),
                Route("/_actor", self._order_runs, methods=["POST"]),
                Route("/_actor", self._actor_usage, methods=["GET"]),
                Route("/_accounts/{id}/card", self._set_card, methods=["POST"]),
                Route("/_accounts/{id}/payment_methods", self._give_payment_method, methods=["POST"]),
                Route("/_deployment", self._belong_to, methods=["POST"]),
            ],
            exception_handlers={ValidationError: _malformed},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        path: str = scope["path"]
        if path.startswith("/_"):
            await self._admin(scope, receive, send)
            return
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        entry = self._log.add(scope["method"], path, query)
        met = self._faults.take(entry.method, path, entry.isrc)
        fault, draw = met or (None, 0.0)
        answer = fault.answer(path) if fault else None
        if answer is None:
            answer = await _whole_answer(self._vendors, scope, receive)
        delay = self._latency if path.startswith(_API_PATHS) else 0.0
        if fault:
            entry.fault = True
            answer = fault.spoil(answer)
            delay += fault.delay
        if delay:
            await asyncio.sleep(delay)
        if not fault or fault.sends_a_status:
            entry.status = answer.status
        await deliver(answer, fault, scope, receive, send, draw=draw)

    async def _set_faults(self, request: Request) -> Response:
        faults = FAULTS.validate_json(await request.body())
        self._faults.add([faults] if isinstance(faults, Fault) else faults)
        return JSONResponse(self._faults.listed(), 201)

    async def _list_faults(self, _: Request) -> Response:
        return JSONResponse(self._faults.listed())

    async def _clear_faults(self, _: Request) -> Response:
        self._faults.clear()
        return Response(status_code=204)

    async def _list_requests(self, request: Request) -> Response:
        return JSONResponse(self._log.find(*_filters(request)))

    async def _count_requests(self, request: Request) -> Response:
        return JSONResponse({"count": self._log.count(*_filters(request))})

    async def _forget_requests(self, _: Request) -> Response:
        self._log.clear()
        return Response(status_code=204)

    async def _learn(self, request: Request) -> Response:
        catalogue = CATALOGUE.validate_json(await request.body())
        self._songstats.learn(catalogue)
        self._discography.learn(catalogue)
        return JSONResponse({"recordings": len(catalogue)}, 201)

    async def _order_runs(self, request: Request) -> Response:
        self._runs.order(PlannedEnd.model_validate_json(await request.body()))
        return JSONResponse(self._runs.usage(), 201)

    async def _actor_usage(self, _: Request) -> Response:
        return JSONResponse(self._runs.usage())

    async def _set_card(self, request: Request) -> Response:
        wanted = _Card.model_validate_json(await request.body())
        with self._memory.transaction():
            return JSONResponse(self._objects.set_card(_account(request), card=wanted.card))

    async def _give_payment_method(self, request: Request) -> Response:
        wanted = _PaymentMethod.model_validate_json(await request.body())
        with self._memory.transaction():
            given = self._objects.give_payment_method(
                _account(request), wanted.type, expires=wanted.expires, wallet=wanted.wallet, default=wanted.default
            )
        return JSONResponse(given, 201)

    async def _belong_to(self, request: Request) -> Response:
        deployment = _Deployment.model_validate_json(await request.body())
        return JSONResponse({"known": self._memory.belong_to(deployment.id)})


def _account(request: Request) -> str:
    """The account in the path. Raises `HTTPException` if it is not a UUID."""
    try:
        return str(UUID(request.path_params["id"]))
    except ValueError:
        raise HTTPException(400, "an account is a UUID") from None


async def _whole_answer(app: ASGIApp, scope: Scope, receive: Receive) -> FaultResponse:
    """The complete response of an application, buffered."""
    status, headers, body = 0, {}, b""

    async def keep(message: Message) -> None:
        nonlocal status, headers, body
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            body += message.get("body", b"")

    await app(scope, receive, keep)
    return FaultResponse(status, body, headers)


def _filters(request: Request) -> tuple[str, str | None, int]:
    query = request.query_params
    since = query.get("since", "0")
    if not since.isdecimal():
        raise HTTPException(400, f"since is to be a number, not {since}")
    return query.get("path", ""), query.get("isrc"), int(since)


async def _not_served(request: Request, error: Exception) -> Response:
    """The vendor's own error for an unknown path or method."""
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
    path = request.url.path
    if path.startswith("/v1/") and not path.startswith("/v1/tracks"):
        return unrecognized(request.method, path)
    return Response(vendor_errors.error(path, status, HTTPStatus(status).phrase), status, media_type="application/json")


async def _malformed(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)
