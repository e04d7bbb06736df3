"""How the API is described (OpenAPI): its words, and which errors each route answers with. What is answered is the routes'."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from measurement_pipeline.api.errors import ErrorCode
from measurement_pipeline.api.models import Refused
from measurement_pipeline.domain.payment import NO_CARD

TITLE = "Measurement jobs"
VERSION = "1"
DESCRIPTION = (
    "Ask for the play counts of recordings, and read them. A job is a row of the table that every other way in writes to. "
    'Each answer is JSON with `status`. Each error is `{"status": "error", "code": …, "error": …}`: `code` is stable, for '
    "programs; `error` says what was expected and may be reworded."
)

STATUS_DESCRIPTIONS = {
    400: "The request cannot be read, or means nothing; `error` says what was expected.",
    401: "Not exactly one of the two ways to say who asks, or one that is not good.",
    402: "No card that can be charged is on file: save one at `checkoutUrl`, and the job goes on by itself.",
    404: "There is none such of this account.",
    408: "The body did not come in time.",
    409: "It cannot be done any more, or the Idempotency-Key came with another body before, or its job was withdrawn.",
    413: "The body is too long.",
    429: "Too many requests, or the monthly cap of captures: wait as `Retry-After` says.",
    500: "A defect of ours; the id is in `error`.",
    503: (
        "Stripe, the database or a token's issuer gives no answer, or none in time: neither a yes nor a no. "
        "Wait as `Retry-After` says."
    ),
}
_JOB = "00000000-0000-4000-8000-00000000000b"
# What a client sees of each: the body of one that happens.
_EXAMPLES: dict[int, dict[str, str]] = {
    400: {"error": "source must be current or historical"},
    401: {"error": "Expected exactly one of the headers x-api-key and Authorization: Bearer"},
    402: {
        "error": NO_CARD,
        "id": _JOB,
        "state": "payment_required",
        "checkoutUrl": "https://checkout.stripe.com/c/pay/cs_example",
    },
    404: {"error": "There is no such measurement job of this account"},
    408: {"error": "The body did not come within 20 s"},
    409: {
        "error": "That Idempotency-Key came with another request before: expected the same body, or a new key",
        "id": _JOB,
    },
    413: {"error": "The body is longer than 1,048,576 bytes: ask for a catalogue, or in several requests"},
    429: {"error": "Too many requests of this account: 600 a minute are allowed"},
    500: {"error": "Something went wrong here, not with the request. Tell us its id: 0b1f…"},
    503: {"error": "Stripe could not be reached. Nothing was asked for: send it again later."},
}
# The code of each example; a status can have others.
_CODES = {
    400: ErrorCode.INVALID_REQUEST,
    401: ErrorCode.UNAUTHENTICATED,
    402: ErrorCode.CARD_REQUIRED,
    404: ErrorCode.NOT_FOUND,
    408: ErrorCode.BODY_TIMEOUT,
    409: ErrorCode.IDEMPOTENCY_KEY_REUSED,
    413: ErrorCode.BODY_TOO_LARGE,
    429: ErrorCode.RATE_LIMITED,
    500: ErrorCode.INTERNAL_ERROR,
    503: ErrorCode.PAYMENT_UNKNOWN,
}
_THIS_SERVER = {"url": "/", "description": "The server that this description came from."}
_WAIT = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_ANYWHERE = (401, 408, 413, 429, 500, 503)


def error_responses(*statuses: int, is_public: bool = False) -> dict[int | str, dict[str, Any]]:
    """The errors of a route: these, and unless `anybody` may call it, those that every route has."""
    every = {*statuses, *(() if is_public else _ANYWHERE)}
    return {
        status: {
            "model": Refused,
            "description": STATUS_DESCRIPTIONS[status],
            "content": {
                "application/json": {"example": {"status": "error", "code": _CODES[status], **_EXAMPLES[status]}}
            },
            **({"headers": _WAIT} if status in (429, 503) else {}),
        }
        for status in sorted(every)
    }


def customize_openapi(app: FastAPI) -> None:
    """Have `app` describe itself as it is: it answers 400 where FastAPI would answer 422."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=TITLE, version=VERSION, description=DESCRIPTION, routes=app.routes, servers=[dict(_THIS_SERVER)]
            )
            for path in made["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            _name_scopes(made["components"]["schemas"])
            for unused in ("HTTPValidationError", "ValidationError"):
                made["components"]["schemas"].pop(unused, None)
            app.openapi_schema = made
        return app.openapi_schema

    def _name_scopes(schemas: dict[str, Any]) -> None:
        # A client generator names a class after each schema of its own, and numbers those that stand inside another one.
        scope = schemas["MeasurementJobRequest"]["properties"]["scope"]
        for number, form in enumerate(scope["oneOf"]):
            schemas[form["title"]] = form
            scope["oneOf"][number] = {"$ref": f"#/components/schemas/{form['title']}"}

    app.openapi = described  # type: ignore[method-assign]
