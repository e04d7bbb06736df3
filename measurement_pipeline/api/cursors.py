"""Opaque pagination cursors: the last item of a page, encoded as text."""

import base64
import json
from datetime import datetime
from uuid import UUID

from measurement_pipeline.api.errors import ApiError, ErrorCode
from measurement_pipeline.domain import isrc

INVALID_CURSOR = "cursor is invalid: send the value of next from the previous page"


def encode_job_cursor(created_at: datetime, job: UUID) -> str:
    """Return the cursor for the jobs after this one."""
    return _encode([created_at.isoformat(), str(job)])


def decode_job_cursor(cursor: str) -> tuple[datetime, UUID]:
    """Return creation time and id of the last job of the previous page. Raises `ApiError` (400)."""
    created_at, identifier = _decode(cursor, 2)
    try:
        moment, job = datetime.fromisoformat(created_at), UUID(identifier)
    except ValueError as error:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, INVALID_CURSOR) from error
    if moment.tzinfo is None:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, INVALID_CURSOR)
    return moment, job


def encode_song_cursor(song: str) -> str:
    """Return the cursor for the recordings after this one."""
    return _encode([song])


def decode_song_cursor(cursor: str) -> str:
    """Return the ISRC of the last recording of the previous page. Raises `ApiError` (400)."""
    (song,) = _decode(cursor, 1)
    if isrc.normalise_isrc(song) != song:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, INVALID_CURSOR)
    return song


def _encode(parts: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def _decode(cursor: str, count: int) -> list[str]:
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError) as error:  # invalid base64, UTF-8 or JSON
        raise ApiError(400, ErrorCode.INVALID_REQUEST, INVALID_CURSOR) from error
    if not (isinstance(parts, list) and len(parts) == count and all(isinstance(part, str) for part in parts)):
        raise ApiError(400, ErrorCode.INVALID_REQUEST, INVALID_CURSOR)
    return parts
