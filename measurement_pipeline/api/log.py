"""A line of JSON for each request, and the id by which it can be found. Never a header, a body, a query or a key.

The id is the client's own `X-Request-Id`, where it sent a plain one, and goes back in the answer.
"""

import json
import logging
import re
import time
from typing import Any
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

access = logging.getLogger("measurement_pipeline.api.access")

# Of a client that did not wait for an answer; the number is nginx's.
_CLIENT_DISCONNECTED = 499
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def request_id(scope: Scope) -> str:
    """The id of the request that is being answered."""
    return str(scope.get("state", {}).get("request_id", "-"))


def add_log_fields(scope: Scope, **fields: str) -> None:
    """Have the request's line say that too: whose it was, by which key."""
    scope.setdefault("state", {}).setdefault("noted", {}).update(fields)


class AccessLogMiddleware:
    """The outermost layer: whatever the others answer has its line and its id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and write the line once that is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"x-request-id"), "")
        identity = given if _PLAIN_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = identity
        since = time.perf_counter()
        status = _CLIENT_DISCONNECTED

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            line: dict[str, Any] = {
                "request": identity,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "ms": round((time.perf_counter() - since) * 1000, 1),
                **scope["state"].get("noted", {}),
            }
            access.info(json.dumps(line))
