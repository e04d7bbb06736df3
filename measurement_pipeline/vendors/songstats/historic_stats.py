"""What an answer of `/tracks/historic_stats` means: a pure function from bytes to a judgement.

The outcome table of one call lives here and nowhere else. Nothing raises for what an answer holds.
What becomes of the row, the budget and the breaker is decided elsewhere.

Raise PARSER_VERSION when a body that was malformed becomes readable: kept responses are then read
again, for free.
"""

import hashlib
import json
from http import HTTPStatus
from typing import Any

from measurement_pipeline.domain.outcome import Cause, Judgement, Outcome
from measurement_pipeline.domain.text import counted
from measurement_pipeline.vendors.songstats.points import read_points
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

PARSER_VERSION = 2

# The `source` values that the vendor documents. An answer that names none of them is of another shape, not "no history".
PLATFORMS = frozenset({
    "spotify", "apple_music", "amazon", "deezer", "tiktok", "youtube", "tracklist", "1001tracklists", "beatport", "traxsource",
    "itunes", "shazam", "soundcloud", "tidal", "radio",
})  # fmt: skip

_LONGEST_DETAIL = 300

# The rows of the outcome table: what is known of the recording, whether the hit was billed, and why it was spent.
_Row = tuple[Outcome | None, bool | None, Cause]
_STORED: _Row = (Outcome.STORED, True, Cause.STORED)
_NO_HISTORY: _Row = (Outcome.NO_HISTORY, True, Cause.NO_HISTORY)
_REJECTED: _Row = (Outcome.REJECTED, True, Cause.REJECTED)
_MALFORMED: _Row = (Outcome.MALFORMED, True, Cause.MALFORMED)
_BUSY: _Row = (Outcome.TRANSIENT, False, Cause.TRANSIENT)
# No whole answer: whether the request was counted is known to the vendor alone.
_LOST: _Row = (Outcome.TRANSIENT, None, Cause.TRANSIENT)
# Nothing was sent, so nothing was counted: an outage of our own network must not spend the budget.
_UNREACHED: _Row = (Outcome.TRANSIENT, False, Cause.TRANSIENT)
_TIMED_OUT: _Row = (Outcome.TRANSIENT, None, Cause.TIMEOUT)
_THROTTLED: _Row = (None, False, Cause.THROTTLED)
_REFUSED_KEY: _Row = (None, False, Cause.REFUSED_KEY)
# Nothing is known of the recording, and a CDN or proxy may have passed the call on: the hit counts until it is known to be free.
_UNSURE: _Row = (None, None, Cause.TRANSIENT)

_BY_STATUS = {
    401: _REFUSED_KEY,
    402: _REFUSED_KEY,
    404: _NO_HISTORY,
    408: _BUSY,
    425: _BUSY,
    429: _THROTTLED,
}
# Any other status, by its first digit; from 500 up: busy.
_BY_CLASS = {
    # A success that is not 200 (204, 206 …) holds no whole history, yet may have been billed: not bought again.
    2: _MALFORMED,
    # A redirect is not followed, since the key is not carried to another address, and asked again it would say
    # the same. Five in a row open the breaker: then it is the vendor that moved, not the recordings.
    3: _REJECTED,
    4: _REJECTED,
}


class _OddShapeError(Exception):
    """A body of another shape than the vendor's; the message says where."""


def judge(response: SongstatsResponse, *, is_key_valid: bool | None = None, platform: str = "spotify") -> Judgement:
    """Say what one answer comes to, by the outcome table.

    `key_works` is what `/status` said of the key, for the one answer that needs it (see
    `needs_key_check`). A status counts only with Songstats' own body. Exceptions are 408, 425, 429
    and 5xx, which mean "try again later" from a CDN or a proxy too.
    """
    status = response.status_code
    if response.failure is not None and (status is None or not _means_later(status)):
        return _unanswered(response)
    if status is None:
        raise ValueError("an answer without a status code needs a failure")
    if status == HTTPStatus.OK:
        return _read(response.body, platform)
    message = _message(response.body) if response.failure is None else f"{response.failure}: {response.detail}"
    return _refused(status, message, key=is_key_valid)


def needs_key_check(answer: SongstatsResponse) -> bool:
    """Whether `/status` must be asked first: Songstats' own 403 may speak of the key or of the recording."""
    return answer.status_code == HTTPStatus.FORBIDDEN and answer.failure is None


def read_key_validity(status_answer: SongstatsResponse) -> bool | None:
    """What an answer of `/status` says of the key: True, False, or None where it says nothing."""
    if status_answer.failure is not None:
        return None
    if status_answer.status_code in (401, 402, 403):
        return False
    if status_answer.status_code != HTTPStatus.OK:
        return None
    payload = _parsed(status_answer.body)
    return True if isinstance(payload, dict) and _is_success(payload) else None


def digest(body: bytes) -> str:
    """SHA-256 of a body, in hex."""
    return hashlib.sha256(body).hexdigest()


def _means_later(status: int) -> bool:
    return status in (408, 425, 429) or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _unanswered(answer: SongstatsResponse) -> Judgement:
    rows = {Failure.TIMEOUT: _TIMED_OUT, Failure.UNREACHED: _UNREACHED, Failure.FOREIGN: _UNSURE}
    row = rows.get(answer.failure or Failure.CONNECTION, _LOST)
    return Judgement(*row, _line(f"{answer.failure}: {answer.detail}"))


def _refused(status: int, message: str, *, key: bool | None) -> Judgement:
    said = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if status == HTTPStatus.FORBIDDEN:
        if key is None:
            return Judgement(*_UNSURE, _line(f"{said}; whether the key works could not be checked"))
        row = _REJECTED if key else _REFUSED_KEY
    else:
        row = _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, _BUSY)
    return Judgement(*row, _line(said))


def _read(body: bytes, platform: str) -> Judgement:
    try:
        points = _history(body, platform)
        if not points:
            lacks = "no entry" if points is None else "an empty history"
            return Judgement(*_NO_HISTORY, f"{lacks} for {platform}")
        history = read_points(points)
    # What could just be parsed can still be nested too deeply to be compared.
    except (_OddShapeError, RecursionError) as odd:
        return Judgement(*_MALFORMED, _line(str(odd)))
    dropped = ", ".join(f"{count} {reason}" for reason, count in history.dropped.items())
    if not history.play_counts:
        return Judgement(*_MALFORMED, f"none of {counted(len(points), 'point')} is usable: {dropped}")
    first, last = history.play_counts[0].day, history.play_counts[-1].day
    detail = f"{counted(len(history.play_counts), 'point')} from {first} to {last}"
    if dropped:
        detail = f"{detail}; left out: {dropped}"
    return Judgement(*_STORED, detail, history)


def _history(body: bytes, platform: str) -> list[Any] | None:
    """The platform's points as they came; None where the answer has no entry for it.

    Raises _OddShapeError.
    """
    payload = _parsed(body)
    if not isinstance(payload, dict):
        raise _OddShapeError(f"{len(body)} bytes that are no JSON object: {_message(body)}")
    if not _is_success(payload):
        raise _OddShapeError(f"a 200 whose result is not success: {_message(body) or 'no message'}")
    stats = payload.get("stats")
    if not isinstance(stats, list):
        raise _OddShapeError("stats is not a list")
    named = [
        e | {"source": _name(e["source"])} for e in stats if isinstance(e, dict) and isinstance(e.get("source"), str)
    ]
    entries = [entry for entry in named if entry["source"] == platform]
    if not entries:
        if len(named) < len(stats):  # one of them could be the platform's own
            raise _OddShapeError(f"no entry for {platform}, and one that does not name its source")
        if named and not any(entry["source"] in PLATFORMS for entry in named):
            names = ", ".join(entry["source"] for entry in named)
            raise _OddShapeError(f"no entry for {platform}, and none of a platform that is known: {names}")
        return None
    # The same entry twice is harmless; two that differ could be two recordings' counts in one.
    if any(other != entries[0] for other in entries[1:]):
        raise _OddShapeError(f"{len(entries)} entries for {platform} that differ")
    data = entries[0].get("data")
    history = data.get("history") if isinstance(data, dict) else None
    if not isinstance(history, list):
        raise _OddShapeError(f"the entry for {platform} has no list data.history")
    return history


def _is_success(payload: dict[str, Any]) -> bool:
    result = payload.get("result")
    return isinstance(result, str) and _name(result) == "success"


def _name(text: str) -> str:
    """A name as the vendor documents it: "Apple Music" is apple_music."""
    return "_".join(text.lower().replace("-", " ").split())


def _parsed(body: bytes) -> object:
    """The JSON value of a body; None where it is no JSON.

    Numbers with a point or an exponent stay text, so that none of their digits is lost.
    """
    try:
        return json.loads(body, parse_float=str)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
    except ValueError:
        # An integer of thousands of digits, which Python refuses to read: a bad point, not a body.
        try:
            return json.loads(body, parse_float=str, parse_int=str)
        except (ValueError, RecursionError):
            return None


def _message(body: bytes) -> str:
    """The vendor's own words about an error, or else how the body begins."""
    payload = _parsed(body)
    if isinstance(payload, dict) and isinstance(payload.get("message"), str):
        return _line(payload["message"])
    return _line(body[:_LONGEST_DETAIL].decode("utf-8", "replace"))


def _line(text: str) -> str:
    """One printable line of at most 300 characters: what a text column and a terminal both take."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 2 * _LONGEST_DETAIL])
    return " ".join(printable.split())[:_LONGEST_DETAIL]
