"""Opaque cursors: where a page ended, as text that a client hands back. Pure."""

import base64
import json
from datetime import datetime
from uuid import UUID

from measurement_pipeline.api.errors import ApiError, ErrorCode
from measurement_pipeline.domain import isrc

NOT_ONE = "cursor must be what an earlier page gave as next"


def after_job(created_at: datetime, job: UUID) -> str:
    """A page of requests ended with this one."""
    return _written([created_at.isoformat(), str(job)])


def job(cursor: str) -> tuple[datetime, UUID]:
    """Where a page of requests ended. Raises `Problem` (400)."""
    at, identity = _read(cursor, 2)
    try:
        moment, found = datetime.fromisoformat(at), UUID(identity)
    except ValueError as error:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, NOT_ONE) from error
    if moment.tzinfo is None:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, NOT_ONE)
    return moment, found


def after_song(song: str) -> str:
    """A page of recordings ended with this one."""
    return _written([song])


def song(cursor: str) -> str:
    """Where a page of recordings ended. Raises `Problem` (400)."""
    (found,) = _read(cursor, 1)
    if isrc.normalise(found) != found:
        raise ApiError(400, ErrorCode.INVALID_REQUEST, NOT_ONE)
    return found


def _written(parts: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def _read(cursor: str, parts: int) -> list[str]:
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError) as error:  # whichever of base64, UTF-8 and JSON it is not
        raise ApiError(400, ErrorCode.INVALID_REQUEST, NOT_ONE) from error
    if not (isinstance(found, list) and len(found) == parts and all(isinstance(part, str) for part in found)):
        raise ApiError(400, ErrorCode.INVALID_REQUEST, NOT_ONE)
    return found
