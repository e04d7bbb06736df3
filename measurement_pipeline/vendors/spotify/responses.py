"""Parses Spotify's responses: JSON, a token, a list of tracks, an error message. Pure."""

import json
from http import HTTPStatus
from typing import Any

import httpx

from measurement_pipeline.domain.text import is_visible_ascii
from measurement_pipeline.vendors.errors import UnexpectedResponseError
from measurement_pipeline.vendors.http import describe_foreign_response

_MAX_MESSAGE_LENGTH = 200


def unexpected(problem: str) -> UnexpectedResponseError:
    """The error for a response of Spotify in another shape than documented."""
    return UnexpectedResponseError("Spotify", problem)


def is_web_api_error(value: object) -> bool:
    """Errors of the Web API are `{"error": {"status": …, "message": "…"}}`."""
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and isinstance(error.get("message"), str)


def is_own_error(response: httpx.Response) -> bool:
    """Whether an error of the Web API comes from Spotify itself."""
    foreign = describe_foreign_response(
        response.status_code, response.headers, response.content, is_vendor_error=is_web_api_error
    )
    return foreign is None


def is_token_error(value: object) -> bool:
    """Errors of the accounts service are `{"error": "…", "error_description": "…"}`."""
    return isinstance(value, dict) and isinstance(value.get("error"), str)


def read_json(response: httpx.Response) -> Any:
    """The JSON of a 200 response. Raises UnexpectedResponseError for anything else."""
    if response.status_code != HTTPStatus.OK:
        raise unexpected(f"expected a 200, not HTTP {response.status_code}{describe_message(response)}")
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        raise unexpected("expected JSON") from None


def read_token(response: httpx.Response) -> str:
    """The access token. Raises UnexpectedResponseError if there is none that an HTTP header can carry."""
    payload = read_json(response)
    token = payload.get("access_token") if isinstance(payload, dict) else None
    if not isinstance(token, str) or not is_visible_ascii(token):
        raise unexpected("expected a token")
    return token


def read_track_list(response: httpx.Response, size: int) -> list[Any]:
    """The values of a batch, one for each id in request order. Raises UnexpectedResponseError."""
    payload = read_json(response)
    tracks = payload.get("tracks") if isinstance(payload, dict) else None
    if not isinstance(tracks, list) or len(tracks) != size:
        raise unexpected(f"expected {size} tracks")
    return tracks


def describe_message(response: httpx.Response) -> str:
    """Spotify's error message as `: message`, to append to a status; empty if there is none."""
    try:
        payload = json.loads(response.content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(payload, dict):
        return ""
    error = payload.get("error")
    # The Web API nests the message, the accounts service does not.
    message = error.get("message") if isinstance(error, dict) else payload.get("error_description") or error
    return f": {' '.join(message.split())[:_MAX_MESSAGE_LENGTH]}" if isinstance(message, str) and message else ""
