"""Classifies responses of `/tracks/historic_stats`: a pure function from bytes to a judgement.

The outcome table of one call is defined here only. Nothing raises for the content of a response. The caller updates the queue
row, the budget and the circuit breaker.

Increase PARSER_VERSION when a malformed body becomes readable: stored responses are then parsed again, for free.
"""

import hashlib
import json
from http import HTTPStatus
from typing import Any

from measurement_pipeline.domain.outcome import Cause, Judgement, Outcome
from measurement_pipeline.domain.text import counted, one_line
from measurement_pipeline.vendors.errors import UnexpectedResponseError, is_retryable_status
from measurement_pipeline.vendors.songstats.points import read_points
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

PARSER_VERSION = 2

# The `source` values that the vendor documents. A response with none of them has another shape; it does not mean "no history".
PLATFORMS = frozenset({
    "spotify", "apple_music", "amazon", "deezer", "tiktok", "youtube", "tracklist", "1001tracklists", "beatport", "traxsource",
    "itunes", "shazam", "soundcloud", "tidal", "radio",
})  # fmt: skip

_MAX_DETAIL_LENGTH = 300

# The rows of the outcome table: what is known of the recording, whether the hit was billed, and why it was spent.
_Row = tuple[Outcome | None, bool | None, Cause]
_STORED: _Row = (Outcome.STORED, True, Cause.STORED)
_NO_HISTORY: _Row = (Outcome.NO_HISTORY, True, Cause.NO_HISTORY)
_REJECTED: _Row = (Outcome.REJECTED, True, Cause.REJECTED)
_MALFORMED: _Row = (Outcome.MALFORMED, True, Cause.MALFORMED)
_BUSY: _Row = (Outcome.TRANSIENT, False, Cause.TRANSIENT)
# No complete response: only the vendor knows whether it counted the request.
_LOST: _Row = (Outcome.TRANSIENT, None, Cause.TRANSIENT)
# Nothing was sent, so nothing was counted: an outage of our own network must not spend the budget.
_UNREACHED: _Row = (Outcome.TRANSIENT, False, Cause.TRANSIENT)
_TIMED_OUT: _Row = (Outcome.TRANSIENT, None, Cause.TIMEOUT)
_THROTTLED: _Row = (None, False, Cause.THROTTLED)
_KEY_REJECTED: _Row = (None, False, Cause.REFUSED_KEY)
# Nothing is known of the recording, and a CDN or proxy may have forwarded the call: the hit counts until it is known to be free.
_UNSURE: _Row = (None, None, Cause.TRANSIENT)

_BY_STATUS = {
    401: _KEY_REJECTED,
    402: _KEY_REJECTED,
    404: _NO_HISTORY,
    408: _BUSY,
    425: _BUSY,
    429: _THROTTLED,
}
# Any other status, by its first digit; from 500 up: busy.
_BY_CLASS = {
    # A success other than 200 (204, 206 …) holds no complete history, but may have been billed: it is not bought again.
    2: _MALFORMED,
    # A redirect is not followed, because the key is not sent to another host, and a second request would get the same
    # redirect. Five in a row open the circuit breaker: then the vendor has moved, and the recordings are fine.
    3: _REJECTED,
    4: _REJECTED,
}


def judge(response: SongstatsResponse, *, is_key_valid: bool | None = None, platform: str = "spotify") -> Judgement:
    """Classify one response by the outcome table.

    `is_key_valid` is the result of `/status`, for the one response that needs it (see `needs_key_check`). A status counts only
    with Songstats' own body. Exceptions are 408, 425, 429 and 5xx, which mean "try again later" from a CDN or a proxy too.
    """
    status = response.status_code
    if response.failure is not None and (status is None or not is_retryable_status(status)):
        return _judge_failure(response)
    if status is None:
        raise ValueError("a response without a status code needs a failure")
    if status == HTTPStatus.OK:
        return _judge_body(response.body, platform)
    message = _error_message(response.body) if response.failure is None else f"{response.failure}: {response.detail}"
    return _judge_status(status, message, is_key_valid=is_key_valid)


def needs_key_check(response: SongstatsResponse) -> bool:
    """Whether `/status` must be called first: Songstats' own 403 can be about the key or about the recording."""
    return response.status_code == HTTPStatus.FORBIDDEN and response.failure is None


def read_key_validity(status_response: SongstatsResponse) -> bool | None:
    """Whether the key works, from a response of `/status`; None if the response does not say."""
    if status_response.failure is not None:
        return None
    if status_response.status_code in (401, 402, 403):
        return False
    if status_response.status_code != HTTPStatus.OK:
        return None
    payload = _parse_json(status_response.body)
    return True if isinstance(payload, dict) and _is_success(payload) else None


def digest(body: bytes) -> str:
    """SHA-256 of a body, in hex."""
    return hashlib.sha256(body).hexdigest()


def _judge_failure(response: SongstatsResponse) -> Judgement:
    rows = {Failure.TIMEOUT: _TIMED_OUT, Failure.UNREACHED: _UNREACHED, Failure.FOREIGN: _UNSURE}
    row = rows.get(response.failure or Failure.CONNECTION, _LOST)
    return Judgement(*row, _detail(f"{response.failure}: {response.detail}"))


def _judge_status(status: int, message: str, *, is_key_valid: bool | None) -> Judgement:
    description = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if status == HTTPStatus.FORBIDDEN:
        if is_key_valid is None:
            return Judgement(*_UNSURE, _detail(f"{description}; whether the key works could not be checked"))
        row = _REJECTED if is_key_valid else _KEY_REJECTED
    else:
        row = _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, _BUSY)
    return Judgement(*row, _detail(description))


def _judge_body(body: bytes, platform: str) -> Judgement:
    try:
        points = _read_history(body, platform)
        if not points:
            missing = "no entry" if points is None else "an empty history"
            return Judgement(*_NO_HISTORY, f"{missing} for {platform}")
        history = read_points(points)
    except UnexpectedResponseError as error:
        return Judgement(*_MALFORMED, _detail(error.problem))
    # A value that can just be parsed can still be nested too deeply to be compared.
    except RecursionError as error:
        return Judgement(*_MALFORMED, _detail(str(error)))
    dropped = ", ".join(f"{count} {reason}" for reason, count in history.dropped.items())
    if not history.play_counts:
        return Judgement(*_MALFORMED, f"none of {counted(len(points), 'point')} is usable: {dropped}")
    first, last = history.play_counts[0].day, history.play_counts[-1].day
    detail = f"{counted(len(history.play_counts), 'point')} from {first} to {last}"
    if dropped:
        detail = f"{detail}; left out: {dropped}"
    return Judgement(*_STORED, detail, history)


def _read_history(body: bytes, platform: str) -> list[Any] | None:
    """The platform's points as received; None if the response has no entry for it.

    Raises UnexpectedResponseError.
    """
    payload = _parse_json(body)
    if not isinstance(payload, dict):
        raise _unexpected(f"{len(body)} bytes that are not a JSON object: {_error_message(body)}")
    if not _is_success(payload):
        raise _unexpected(f"a 200 whose result is not success: {_error_message(body) or 'no message'}")
    stats = payload.get("stats")
    if not isinstance(stats, list):
        raise _unexpected("stats is not a list")
    named = [
        entry | {"source": _normalise_name(entry["source"])}
        for entry in stats
        if isinstance(entry, dict) and isinstance(entry.get("source"), str)
    ]
    entries = [entry for entry in named if entry["source"] == platform]
    if not entries:
        if len(named) < len(stats):  # one of them could be the platform's own
            raise _unexpected(f"no entry for {platform}, and one entry without a source")
        if named and not any(entry["source"] in PLATFORMS for entry in named):
            names = ", ".join(entry["source"] for entry in named)
            raise _unexpected(f"no entry for {platform}, and none for another known platform: {names}")
        return None
    # The same entry twice is harmless. Two different entries could mix the counts of two recordings.
    if any(other != entries[0] for other in entries[1:]):
        raise _unexpected(f"{len(entries)} entries for {platform} that differ")
    data = entries[0].get("data")
    history = data.get("history") if isinstance(data, dict) else None
    if not isinstance(history, list):
        raise _unexpected(f"the entry for {platform} has no list data.history")
    return history


def _unexpected(problem: str) -> UnexpectedResponseError:
    return UnexpectedResponseError("Songstats", problem)


def _is_success(payload: dict[str, Any]) -> bool:
    result = payload.get("result")
    return isinstance(result, str) and _normalise_name(result) == "success"


def _normalise_name(text: str) -> str:
    """A name in the vendor's documented form: "Apple Music" becomes apple_music."""
    return "_".join(text.lower().replace("-", " ").split())


def _parse_json(body: bytes) -> object:
    """The JSON value of a body; None if it is not JSON.

    Numbers with a point or an exponent stay text, so that no digit is lost.
    """
    try:
        return json.loads(body, parse_float=str)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
    except ValueError:
        # Python refuses to parse an integer of thousands of digits: one point is unusable, the body is not.
        try:
            return json.loads(body, parse_float=str, parse_int=str)
        except (ValueError, RecursionError):
            return None


def _error_message(body: bytes) -> str:
    """The vendor's error message, or else the beginning of the body."""
    payload = _parse_json(body)
    if isinstance(payload, dict) and isinstance(payload.get("message"), str):
        return _detail(payload["message"])
    return _detail(body[:_MAX_DETAIL_LENGTH].decode("utf-8", "replace"))


def _detail(text: str) -> str:
    return one_line(text, max_length=_MAX_DETAIL_LENGTH)
