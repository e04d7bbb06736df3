"""Map errors to HTTP responses: `{"status": "error", "code": …, "error": …}`, with `Retry-After` where a retry can succeed.

Other modules raise `ApiError` for expected errors. The handlers here map all others.
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

DATABASE_UNAVAILABLE = (
    "The database did not complete the request. A POST may or may not have been accepted: repeat it with the same "
    "Idempotency-Key, and it is accepted only once."
)
DATABASE_RETRY_SECONDS = 5
READ_TIMEOUT = "The query took too long, and nothing was changed: request fewer items, or retry later"
READ_RETRY_SECONDS = 30
BODY_NOT_JSON = "The body is not valid JSON"
_MAX_ERRORS_LISTED = 5


class ErrorCode(StrEnum):
    """Stable error codes for programs. The text in `error` is for people and may change."""

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
    """An error response. `fields` are added to the body beside `error`."""

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        error: str,
        *,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"status": "error", "code": code.value, "error": error, **fields}
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))


def error_response(error: ApiError) -> Response:
    """Return the response for an error."""
    # ASCII, because a quoted value can contain what UTF-8 cannot encode, such as a lone surrogate.
    body = json.dumps(error.body, ensure_ascii=True, allow_nan=False)
    return Response(body, error.status, error.headers, media_type="application/json")


def add_error_handlers(app: FastAPI) -> None:
    """Register a handler for each expected kind of error."""

    @app.exception_handler(ApiError)
    async def _(_request: Request, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def _(_request: Request, error: HTTPException) -> Response:
        known = {
            # FastAPI raises 400 for JSON that Python's parser rejects: nested too deeply, or a number of 5,000 digits.
            400: (ErrorCode.INVALID_REQUEST, BODY_NOT_JSON),
            404: (ErrorCode.NOT_FOUND, "This address does not exist: see / for the available addresses"),
            405: (ErrorCode.METHOD_NOT_ALLOWED, "This address does not support this method: see the Allow header"),
        }
        code, text = known.get(error.status_code, (ErrorCode.INVALID_REQUEST, str(error.detail)))
        return error_response(ApiError(error.status_code, code, text, headers=dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def _(_request: Request, error: RequestValidationError) -> Response:
        return error_response(ApiError(400, ErrorCode.INVALID_REQUEST, describe_validation_error(error)))

    @app.exception_handler(DatabaseError)
    async def _(_request: Request, error: Exception) -> Response:
        if not is_transient(error):
            raise error  # a defect: `ServerErrorMiddleware` handles it
        logger.warning("503: %s", first_line(error))
        return error_response(
            ApiError(503, ErrorCode.DATABASE_UNAVAILABLE, DATABASE_UNAVAILABLE, retry_after=DATABASE_RETRY_SECONDS)
        )

    @app.exception_handler(StatementTimeout)
    async def _(_request: Request, error: Exception) -> Response:
        logger.warning("503: %s", first_line(error))
        return error_response(ApiError(503, ErrorCode.TIMEOUT, READ_TIMEOUT, retry_after=READ_RETRY_SECONDS))


class ServerErrorMiddleware:
    """Answer 500 to unexpected errors, and log the traceback with the request id. The response contains no details.

    Not Starlette's handler for `Exception`: that one runs outside all other middleware, without CORS headers and request id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 500 if the application raises before the response started."""
        has_started = False

        async def send_and_record(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        except Exception:
            if scope["type"] != "http" or has_started:
                raise
            identifier = request_id(scope)
            logger.exception("500, request %s", identifier)
            message = f"Internal error. Report it with this request id: {identifier}"
            await error_response(ApiError(500, ErrorCode.INTERNAL_ERROR, message))(scope, receive, send)


def describe_validation_error(error: RequestValidationError) -> str:
    """Describe in one line which values are invalid and what was expected."""
    problems = []
    for detail in error.errors()[:_MAX_ERRORS_LISTED]:
        name = ".".join(str(part) for part in detail["loc"] if part not in ("body", "query", "path", "header"))
        if detail["type"] == "json_invalid":
            return BODY_NOT_JSON
        if detail["type"] == "extra_forbidden":
            problems.append(f"Unknown field in the body: {reprlib.repr(name)}")
            continue
        if detail["type"] in ("model_attributes_type", "missing") and not name:
            return "The body must be a JSON object, sent as application/json"
        value = "" if detail["type"] == "missing" else f" (got {reprlib.repr(detail['input'])})"
        problems.append(f"{name}: {detail['msg']}{value}")
    return "; ".join(problems)
