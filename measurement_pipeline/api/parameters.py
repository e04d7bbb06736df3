"""A query parameter that a route does not describe is refused: one that is misspelt would be answered with something else."""

import reprlib

from fastapi import Request

from measurement_pipeline.api.auth import AuthenticatedCaller
from measurement_pipeline.api.errors import ApiError, ErrorCode


def reject_unknown_query_parameters(request: Request, _caller: AuthenticatedCaller) -> None:
    """Raises `Problem` (400). After the question who it is: to nobody is anything said of a route."""
    described = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    expected = [one["name"] for one in described.get("parameters", ()) if one["in"] == "query"]
    for name in request.query_params:
        if name not in expected:
            raise ApiError(
                400,
                ErrorCode.INVALID_REQUEST,
                f"Unknown in the query: {reprlib.repr(name)}; expected {', '.join(expected) or 'none'}",
            )
        if len(request.query_params.getlist(name)) > 1:
            raise ApiError(
                400, ErrorCode.INVALID_REQUEST, f"{name}: expected one, got {len(request.query_params.getlist(name))}"
            )
