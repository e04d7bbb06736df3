"""Opaque cursors: where a page ended, as text that a client hands back. Pure."""

import base64
import binascii
import json
from datetime import datetime
from uuid import UUID

from measurement_pipeline.api.problems import Problem
from measurement_pipeline.domain import isrc

NOT_ONE = "cursor must be what an earlier page gave as next"


def after_job(created_at: datetime, job: UUID) -> str:
    """A page of requests ended with this one."""
    return _written([created_at.isoformat(), str(job)])


def job(cursor: str) -> tuple[datetime, UUID]:
    """Where a page of requests ended. Raises `Problem` (400)."""
    try:
        at, identity = _read(cursor)
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError("without a zone")
        return moment, UUID(identity)
    except (ValueError, TypeError, AttributeError) as error:
        raise Problem(400, NOT_ONE) from error


def after_song(song: str) -> str:
    """A page of recordings ended with this one."""
    return _written([song])


def song(cursor: str) -> str:
    """Where a page of recordings ended. Raises `Problem` (400)."""
    try:
        (found,) = _read(cursor)
        if not isinstance(found, str) or isrc.normalise(found) != found:
            raise ValueError("not an ISRC")
    except (ValueError, TypeError) as error:
        raise Problem(400, NOT_ONE) from error
    return found


def _written(parts: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def _read(cursor: str) -> list[str]:
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, UnicodeError, RecursionError) as error:
        raise ValueError("not written here") from error
    if not isinstance(found, list):
        raise TypeError("not written here")
    return found
