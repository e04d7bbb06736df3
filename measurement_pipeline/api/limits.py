"""Limits for clients: size of a body, time to send it, requests per minute.

Rate limits are counted per process. One process is the default; each additional one gives every account another allowance.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from uuid import UUID

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from measurement_pipeline.api.errors import ApiError, ErrorCode, error_response
from measurement_pipeline.domain.measurement_job import MAX_REQUEST_BYTES

# Accounts with a rate limit bucket in memory. The least recently active ones are dropped first: their buckets are full again.
_MAX_BUCKETS = 10_000


class BodyLimitMiddleware:
    """Read the request body completely, within its size and time limit, before the application handles the request.

    Not Starlette's `RequestBodyLimitMiddleware`: that one has no time limit, and answers in plain text without our error code.
    """

    def __init__(self, app: ASGIApp, *, seconds: float, max_bytes: int = MAX_REQUEST_BYTES) -> None:
        self._app = app
        self._seconds = seconds
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or answer 413 or 408."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # After an error the rest of the body is not read, so the connection cannot be used again.
        headers = {"Connection": "close"}
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read_body(receive)
        except TimeoutError:
            message = f"The body did not arrive within {self._seconds:g} s"
            await error_response(ApiError(408, ErrorCode.BODY_TIMEOUT, message, headers=headers))(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if body is None:
            message = f"The body is larger than {self._max_bytes:,} bytes: use a catalogue, or send several requests"
            await error_response(ApiError(413, ErrorCode.BODY_TOO_LARGE, message, headers=headers))(
                scope, receive, send
            )
            return
        is_passed_on = False

        async def replay() -> Message:
            nonlocal is_passed_on
            if is_passed_on:
                return await receive()  # a disconnect
            is_passed_on = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read_body(self, receive: Receive) -> bytes | None:
        """Return the body, or None if it is too large. Raises `ClientDisconnect`: an incomplete body is not a request."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)


class RateLimiter:
    """Token bucket for each account: requests per minute, refilled continuously. Thread-safe."""

    def __init__(self, per_minute: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[UUID, tuple[float, float]] = {}

    def acquire(self, account: UUID) -> float | None:
        """Take one request from the account's bucket. Return None, or the seconds until the next one is available."""
        if self._per_minute == 0:
            return None
        with self._lock:
            now = self._now()
            left, updated_at = self._buckets.pop(account, (float(self._per_minute), now))
            left = min(float(self._per_minute), left + (now - updated_at) * self._per_minute / 60)
            wait = None if left >= 1 else (1 - left) * 60 / self._per_minute
            # Inserted last, so that the first entries are the least recently active accounts.
            self._buckets[account] = (left - 1 if wait is None else left, now)
            while len(self._buckets) > _MAX_BUCKETS:
                del self._buckets[next(iter(self._buckets))]
            return wait
