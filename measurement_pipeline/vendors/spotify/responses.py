"""What an answer of Spotify holds, whatever was asked: its JSON, a token, a list of tracks, the words of an error. Pure."""

import json
import re
from http import HTTPStatus
from typing import Any

import httpx

from measurement_pipeline.vendors.http import describe_foreign_response

_TOKEN = re.compile(r"[!-~]+")
_LONGEST_WORDS = 200


class OddAnswerError(ValueError):
    """Spotify answered, but not in the shape that its documentation gives; the message says what was expected."""

    def __str__(self) -> str:
        return f"an answer of Spotify cannot be read: {super().__str__()}"


def is_web_api_error(value: object) -> bool:
    """Errors of the Web API are `{"error": {"status": …, "message": "…"}}`."""
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and isinstance(error.get("message"), str)


def is_own_error(answer: httpx.Response) -> bool:
    """Whether an error of the Web API is Spotify's own."""
    return (
        describe_foreign_response(answer.status_code, answer.headers, answer.content, is_vendor_error=is_web_api_error)
        is None
    )


def is_token_error(value: object) -> bool:
    """Errors of the accounts service are `{"error": "…", "error_description": "…"}`."""
    return isinstance(value, dict) and isinstance(value.get("error"), str)


def read_json(answer: httpx.Response) -> Any:
    """The JSON of a 200. Raises OddAnswerError for anything else."""
    if answer.status_code != HTTPStatus.OK:
        raise OddAnswerError(f"expected a 200, not HTTP {answer.status_code}{said(answer)}")
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):
        raise OddAnswerError("expected JSON") from None


def read_token(answer: httpx.Response) -> str:
    """The token that was given. Raises OddAnswerError where there is none that a header can carry."""
    found = read_json(answer)
    token = found.get("access_token") if isinstance(found, dict) else None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise OddAnswerError("expected a token")
    return token


def read_list(answer: httpx.Response, size: int) -> list[Any]:
    """The values of a batch, one for each id in the order they were asked for. Raises OddAnswerError."""
    found = read_json(answer)
    tracks = found.get("tracks") if isinstance(found, dict) else None
    if not isinstance(tracks, list) or len(tracks) != size:
        raise OddAnswerError(f"expected {size} tracks")
    return tracks


def said(answer: httpx.Response) -> str:
    """Spotify's own words about an error, to put behind its status; empty where there are none."""
    try:
        found = json.loads(answer.content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    error = found.get("error")
    # The Web API nests its words, the token endpoint does not.
    words = error.get("message") if isinstance(error, dict) else found.get("error_description") or error
    return f": {' '.join(words.split())[:_LONGEST_WORDS]}" if isinstance(words, str) and words else ""
