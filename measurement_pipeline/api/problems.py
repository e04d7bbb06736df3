"""Errors → status and body: every refusal is `{"status": "error", "error": …}`, with `Retry-After` where to wait helps.

What is raised elsewhere as `Problem` is a refusal that somebody decided on; the handlers here word the rest.
"""

import json
import logging
import math
import reprlib
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from measurement_pipeline.api.log import request_id
from measurement_pipeline.postgres.database import DatabaseUnavailable, TooLong

logger = logging.getLogger(__name__)

DATABASE_AWAY = (
    "The database gave no answer. Whether a request sent with POST was taken is not known: send it again with the same "
    "Idempotency-Key, and it is taken once."
)
DATABASE_AWAY_SECONDS = 5
TOO_LONG = "The answer took too long to find, and nothing was changed: ask for less, or again later"
TOO_LONG_SECONDS = 30
NOT_JSON = "The body is not JSON"
_PROBLEMS_NAMED = 5


class Problem(Exception):  # noqa: N818 - it is no error of ours: an answer
    """An answer other than success. `more` goes into the body beside `error`."""

    def __init__(
        self,
        status: int,
        error: str,
        *,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"status": "error", "error": error, **more}
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))


def answer(problem: Problem) -> Response:
    """The problem as it goes out."""
    # ASCII: a value that is told back may hold what no UTF-8 can, such as half a surrogate.
    body = json.dumps(problem.body, ensure_ascii=True, allow_nan=False)
    return Response(body, problem.status, problem.headers, media_type="application/json")


def handle(app: FastAPI) -> None:
    """Word every error of `app` that is expected."""

    @app.exception_handler(Problem)
    async def _(_request: Request, problem: Problem) -> Response:
        return answer(problem)

    @app.exception_handler(HTTPException)
    async def _(_request: Request, error: HTTPException) -> Response:
        words = {
            # FastAPI's, for JSON that no parser of Python's reads: nested too deep, a number of 5,000 digits.
            400: NOT_JSON,
            404: "There is nothing at this address",
            405: "This address does not take that method",
        }
        said = words.get(error.status_code) or str(error.detail)
        return answer(Problem(error.status_code, said, headers=dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def _(_request: Request, error: RequestValidationError) -> Response:
        return answer(Problem(400, in_words(error)))

    @app.exception_handler(DatabaseUnavailable)
    async def _(_request: Request, error: Exception) -> Response:
        logger.warning("503: %s", str(error).strip().partition("\n")[0])
        return answer(Problem(503, DATABASE_AWAY, retry_after=DATABASE_AWAY_SECONDS))

    @app.exception_handler(TooLong)
    async def _(_request: Request, error: Exception) -> Response:
        logger.warning("503: %s", str(error).strip().partition("\n")[0])
        return answer(Problem(503, TOO_LONG, retry_after=TOO_LONG_SECONDS))


class Defects:
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
            await answer(Problem(500, said))(scope, receive, send)


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
