"""Errors → status and body: `{"status": "error", "code": …, "error": …}`, with `Retry-After` where waiting helps.

Other modules raise `Problem` for a refusal that they decide on. The handlers here answer all other errors.
"""

import json
import logging
import math
import reprlib
from enum import StrEnum
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from measurement_pipeline.api.log import request_id
from measurement_pipeline.postgres.database import DatabaseError, StatementTimeout
from measurement_pipeline.postgres.errors import first_line, is_transient

logger = logging.getLogger(__name__)

DATABASE_AWAY = (
    "The database did not complete the request. Whether a request sent with POST was accepted is not known: send it again with "
    "the same Idempotency-Key, and it is accepted once."
)
DATABASE_AWAY_SECONDS = 5
TOO_LONG = "The answer took too long to find, and nothing was changed: ask for less, or again later"
TOO_LONG_SECONDS = 30
NOT_JSON = "The body is not JSON"
_PROBLEMS_NAMED = 5


class ErrorCode(StrEnum):
    """What went wrong, for programs: `error` is for people and may be reworded, a code keeps its meaning."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    CARD_REQUIRED = "card_required"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    JOB_WITHDRAWN = "job_withdrawn"
    JOB_FINISHED = "job_finished"
    BODY_TOO_LARGE = "body_too_large"
    RATE_LIMITED = "rate_limited"
    CAPTURE_CAP_REACHED = "capture_cap_reached"
    JOB_FAILED = "job_failed"
    INTERNAL_ERROR = "internal_error"
    DATABASE_UNAVAILABLE = "database_unavailable"
    TIMEOUT = "timeout"
    JOB_LOCKED = "job_locked"
    PAYMENT_UNKNOWN = "payment_unknown"
    TOKEN_KEYS_UNAVAILABLE = "token_keys_unavailable"  # noqa: S105 - a name, not a secret
    CAPTURES_DISABLED = "captures_disabled"


class ApiError(Exception):
    """An answer other than success. `more` goes into the body beside `error`."""

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        error: str,
        *,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"status": "error", "code": code.value, "error": error, **more}
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))


def answer(problem: ApiError) -> Response:
    """The problem as it goes out."""
    # ASCII: a value that is told back may hold what no UTF-8 can, such as half a surrogate.
    body = json.dumps(problem.body, ensure_ascii=True, allow_nan=False)
    return Response(body, problem.status, problem.headers, media_type="application/json")


def handle(app: FastAPI) -> None:
    """Word every error of `app` that is expected."""

    @app.exception_handler(ApiError)
    async def _(_request: Request, problem: ApiError) -> Response:
        return answer(problem)

    @app.exception_handler(HTTPException)
    async def _(_request: Request, error: HTTPException) -> Response:
        known = {
            # FastAPI raises 400 for JSON that Python's parser cannot read: nested too deep, a number of 5,000 digits.
            400: (ErrorCode.INVALID_REQUEST, NOT_JSON),
            404: (ErrorCode.NOT_FOUND, "There is nothing at this address; / lists what there is"),
            405: (ErrorCode.METHOD_NOT_ALLOWED, "This address does not accept that method"),
        }
        code, text = known.get(error.status_code, (ErrorCode.INVALID_REQUEST, str(error.detail)))
        return answer(ApiError(error.status_code, code, text, headers=dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def _(_request: Request, error: RequestValidationError) -> Response:
        return answer(ApiError(400, ErrorCode.INVALID_REQUEST, in_words(error)))

    @app.exception_handler(DatabaseError)
    async def _(_request: Request, error: Exception) -> Response:
        if not is_transient(error):
            raise error  # a defect: `Defects` answers it
        logger.warning("503: %s", first_line(error))
        return answer(ApiError(503, ErrorCode.DATABASE_UNAVAILABLE, DATABASE_AWAY, retry_after=DATABASE_AWAY_SECONDS))

    @app.exception_handler(StatementTimeout)
    async def _(_request: Request, error: Exception) -> Response:
        logger.warning("503: %s", first_line(error))
        return answer(ApiError(503, ErrorCode.TIMEOUT, TOO_LONG, retry_after=TOO_LONG_SECONDS))


class ServerErrorMiddleware:
    """The layer that words what nobody expected. Its traceback is in the log, under the request's id; nothing of it goes out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 500 where the layers within raise, unless an answer has begun."""
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            if scope["type"] != "http" or has_begun:
                raise
            found = request_id(scope)
            logger.exception("500, request %s", found)
            said = f"Something went wrong here, not with the request. Tell us its id: {found}"
            await answer(ApiError(500, ErrorCode.INTERNAL_ERROR, said))(scope, receive, send)


def in_words(error: RequestValidationError) -> str:
    """What was wrong with a request, in one line, naming each value and what was expected."""
    found = []
    for one in error.errors()[:_PROBLEMS_NAMED]:
        where = ".".join(str(part) for part in one["loc"] if part not in ("body", "query", "path", "header"))
        if one["type"] == "json_invalid":
            return NOT_JSON
        if one["type"] == "extra_forbidden":
            found.append(f"Unknown in the body: {reprlib.repr(where)}")
            continue
        if one["type"] in ("model_attributes_type", "missing") and not where:
            return "The body must be a JSON object, sent as application/json"
        given = "" if one["type"] == "missing" else f" (got {reprlib.repr(one['input'])})"
        found.append(f"{where}: {one['msg']}{given}")
    return "; ".join(found)
