"""OpenAPI description: its texts, and the error responses of each route."""

from typing import Any, Literal
from uuid import UUID

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from measurement_pipeline.api.auth import SECURITY_SCHEMES
from measurement_pipeline.api.errors import ErrorCode
from measurement_pipeline.domain.payment import NO_CARD

TITLE = "Measurement jobs"
VERSION = "1"
DESCRIPTION = (
    "Request play counts of recordings, and read them. A job is a row of the table `measurement_jobs`, as for every other "
    'client. Each JSON response has a `status`. Errors are `{"status": "error", "code": …, "error": …}`: `code` is stable, for '
    "programs; `error` states what was expected, for people, and may change."
)

STATUS_DESCRIPTIONS = {
    400: "The request is invalid; `error` states what was expected.",
    401: "Missing, duplicate or invalid credentials.",
    402: "No card that can be charged is on file. Save one at `checkoutUrl`; the job then continues by itself.",
    404: "The account has no such resource.",
    408: "The body did not arrive in time.",
    409: "The job's state does not allow this, the Idempotency-Key was used with another body, or its job was withdrawn.",
    413: "The body is too large.",
    429: "Too many requests, or the monthly cap for captures is reached. Wait as stated in `Retry-After`.",
    500: "Internal error; `error` contains the request id.",
    503: (
        "Stripe, the database or the token's issuer did not answer, or not in time, so the request was neither accepted nor "
        "rejected. Wait as stated in `Retry-After`."
    ),
}
_JOB = "00000000-0000-4000-8000-00000000000b"
# An example body for each status.
_EXAMPLES: dict[int, dict[str, str]] = {
    400: {"error": "source must be current or historical"},
    401: {"error": "Send exactly one of the headers x-api-key and Authorization: Bearer"},
    402: {
        "error": NO_CARD,
        "id": _JOB,
        "state": "payment_required",
        "checkoutUrl": "https://checkout.stripe.com/c/pay/cs_example",
    },
    404: {"error": "This account has no such measurement job"},
    408: {"error": "The body did not arrive within 20 s"},
    409: {
        "error": "The Idempotency-Key was used with another body: send the same body, or a new key",
        "id": _JOB,
    },
    413: {"error": "The body is larger than 1,048,576 bytes: use a catalogue, or send several requests"},
    429: {"error": "Too many requests: this account may send 600 per minute"},
    500: {"error": "Internal error. Report it with this request id: 0b1f…"},
    503: {"error": "Stripe could not be reached. The request was not accepted: send it again later."},
}
# The code of each example. A status can have other codes.
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
_SERVER = {"url": "/", "description": "The server that sent this description."}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
# Errors of every route that requires authentication.
_COMMON_STATUSES = (401, 408, 413, 429, 500, 503)


class ErrorResponse(BaseModel):
    """An error. `id`: the job, if there is one. `checkoutUrl`: the page where a card can be saved (402)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"status": "error", "code": "invalid_request", "error": "source must be current or historical"}
            ]
        }
    )

    status: Literal["error"] = "error"
    code: ErrorCode = Field(description="Stable, for programs. `error` is for people and may change.")
    error: str
    id: UUID | None = None
    state: str | None = None
    checkoutUrl: str | None = None  # noqa: N815 - the contract's name


def error_responses(*statuses: int, is_public: bool = False) -> dict[int | str, dict[str, Any]]:
    """Describe the error responses of a route: `statuses`, and if it is not public those of authenticated routes."""
    all_statuses = {*statuses, *(() if is_public else _COMMON_STATUSES)}
    return {
        status: {
            "model": ErrorResponse,
            "description": STATUS_DESCRIPTIONS[status],
            "content": {
                "application/json": {"example": {"status": "error", "code": _CODES[status], **_EXAMPLES[status]}}
            },
            **({"headers": _RETRY_AFTER} if status in (429, 503) else {}),
        }
        for status in sorted(all_statuses)
    }


def customize_openapi(app: FastAPI) -> None:
    """Correct the generated description: invalid requests get 400, where FastAPI describes 422."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=TITLE, version=VERSION, description=DESCRIPTION, routes=app.routes, servers=[dict(_SERVER)]
            )
            for address, path in schema["paths"].items():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    if address.startswith("/api/"):
                        operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
            schema["components"]["securitySchemes"] = {
                name: scheme.model_dump(mode="json", by_alias=True, exclude_none=True)
                for name, scheme in SECURITY_SCHEMES.items()
            }
            _name_scopes(schema["components"]["schemas"])
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
            app.openapi_schema = schema
        return app.openapi_schema

    def _name_scopes(schemas: dict[str, Any]) -> None:
        # Client generators name classes after top-level schemas, and number nested ones.
        scope = schemas["MeasurementJobRequest"]["properties"]["scope"]
        for number, form in enumerate(scope["oneOf"]):
            schemas[form["title"]] = form
            scope["oneOf"][number] = {"$ref": f"#/components/schemas/{form['title']}"}

    app.openapi = openapi  # type: ignore[method-assign]
