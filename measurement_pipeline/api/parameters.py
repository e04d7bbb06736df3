"""Reject unknown query parameters: a misspelt one would otherwise be ignored and change the result."""

import reprlib

from fastapi import Request

from measurement_pipeline.api.auth import AuthenticatedCaller
from measurement_pipeline.api.errors import ApiError, ErrorCode


# `async`, as it does not wait: a dependency that is not would take another thread.
async def reject_unknown_query_parameters(request: Request, _caller: AuthenticatedCaller) -> None:
    """Raise `ApiError` (400) for an unknown or repeated parameter. Only after authentication, so as not to describe routes."""
    operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    expected = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    for name in request.query_params:
        if name not in expected:
            message = f"Unknown query parameter {reprlib.repr(name)}: expected {', '.join(expected) or 'none'}"
            raise ApiError(400, ErrorCode.INVALID_REQUEST, message)
        values = request.query_params.getlist(name)
        if len(values) > 1:
            raise ApiError(400, ErrorCode.INVALID_REQUEST, f"{name}: expected one value, got {len(values)}")
