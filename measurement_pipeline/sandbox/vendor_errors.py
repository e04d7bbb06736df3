"""Errors in the format of the path's vendor, for unknown paths and for faults with only a status."""

import json

_APIFY = "/v2/"
_SPOTIFY = ("/v1/tracks",)
_SPOTIFY_TOKEN = "/api/token"  # noqa: S105  # a path
_STRIPE = "/v1/"


def requested_error(path: str, status: int) -> bytes:
    """Body of an error that a fault requested."""
    return error(path, status, f"A fault of the double requested status {status}.")


def error(path: str, status: int, message: str) -> bytes:
    """The body of an error."""
    return json.dumps(_error(path, status, message)).encode()


def _error(path: str, status: int, message: str) -> dict[str, object]:
    if path.startswith(_APIFY):
        return {"error": {"type": "rate-limit-exceeded" if status == 429 else "double-error", "message": message}}
    if path.startswith(_SPOTIFY):
        return {"error": {"status": status, "message": message}}
    if path.startswith(_SPOTIFY_TOKEN):
        return {"error": "double_error", "error_description": message}
    if path.startswith(_STRIPE):
        kind = "invalid_request_error" if status < 500 else "api_error"
        code = {"code": "rate_limit"} if status == 429 else {}
        return {"error": {"type": kind, "message": message, **code}}
    return {"result": "error", "message": message}
