"""Access log: one JSON line per request, with its id. It contains no header, body, query or key.

The id is the client's `X-Request-Id` if that is plain, else a new one. The response contains it.
"""

import json
import logging
import re
import time
from typing import Any
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

access = logging.getLogger("measurement_pipeline.api.access")

# Logged if the client disconnected before the response, as nginx does.
_CLIENT_DISCONNECTED = 499
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def request_id(scope: Scope) -> str:
    """Return the id of the current request."""
    return str(scope.get("state", {}).get("request_id", "-"))


def add_log_fields(scope: Scope, **fields: str) -> None:
    """Add fields to the request's log line, such as its account and key prefix."""
    scope.setdefault("state", {}).setdefault("log_fields", {}).update(fields)


class AccessLogMiddleware:
    """Log each request. Outermost middleware, so that responses of all others have a line and an id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request, then write its line."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"x-request-id"), "")
        identifier = sent_id if _PLAIN_ID.fullmatch(sent_id) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = identifier
        started_at = time.perf_counter()
        status = _CLIENT_DISCONNECTED

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identifier.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            line: dict[str, Any] = {
                "request": identifier,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "ms": round((time.perf_counter() - started_at) * 1000, 1),
                **scope["state"].get("log_fields", {}),
            }
            access.info(json.dumps(line))
