"""What one client may take of the server: the size of a body, the time to send it, and requests a minute.

Counted in this process: there is one of it by default, and a second one gives each account a second allowance.
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

# Of accounts that have been quiet, nothing has to be remembered.
_MAX_BUCKETS = 10_000


class BodyLimitMiddleware:
    """Takes a request's body whole, within its size and time, before anything else looks at the request."""

    def __init__(self, app: ASGIApp, *, seconds: float, max_bytes: int = MAX_REQUEST_BYTES) -> None:
        self._app = app
        self._seconds = seconds
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on with its body, or answer 413 or 408."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read_body(receive)
        except TimeoutError:
            problem = ApiError(
                408,
                ErrorCode.BODY_TIMEOUT,
                f"The body did not come within {self._seconds:g} s",
                headers={"Connection": "close"},
            )
            await error_response(problem)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if body is None:
            said = f"The body is longer than {self._max_bytes:,} bytes: ask for a catalogue, or in several requests"
            await error_response(ApiError(413, ErrorCode.BODY_TOO_LARGE, said, headers={"Connection": "close"}))(
                scope, receive, send
            )
            return
        handed_on = False

        async def replay() -> Message:
            nonlocal handed_on
            if handed_on:
                return await receive()  # a disconnect
            handed_on = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read_body(self, receive: Receive) -> bytes | None:
        """The body; None: it is too long. Raises `ClientDisconnect`: what came of it is no request."""
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
    """So many requests a minute for each account, as a bucket that fills steadily. For any thread."""

    def __init__(self, per_minute: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[UUID, tuple[float, float]] = {}

    def acquire(self, account: UUID) -> float | None:
        """Take one request off the account's allowance: None, or in how many seconds there is one again."""
        if self._per_minute == 0:
            return None
        with self._lock:
            now = self._now()
            left, at = self._buckets.pop(account, (float(self._per_minute), now))
            left = min(float(self._per_minute), left + (now - at) * self._per_minute / 60)
            wait = None if left >= 1 else (1 - left) * 60 / self._per_minute
            # Put back last: the first are those that have been quiet for longest.
            self._buckets[account] = (left - 1 if wait is None else left, now)
            while len(self._buckets) > _MAX_BUCKETS:
                del self._buckets[next(iter(self._buckets))]
            return wait
