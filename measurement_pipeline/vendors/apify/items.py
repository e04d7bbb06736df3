"""What the items of a run say of albums and their tracks: a pure function from bytes to records.

A count that is missing, 0 or unusable is no count: the actor writes 0 where it saw none.
"""

import json
from typing import Any

from measurement_pipeline.domain.capture import CapturedAlbum, CapturedTrack
from measurement_pipeline.domain.play_count import UnusableCountError, read_count

# What Python turns into a number without asking twice; no count needs as many.
_MOST_DIGITS = 64


class MalformedItemsError(ValueError):
    """The items are not what the actor is known to give; the message says what they are."""


def read_items(body: bytes) -> tuple[CapturedAlbum, ...]:
    """The albums that were captured, in the order of the items. Raises MalformedItemsError, and nothing else.

    A track without an id can be nobody's, and is left out; an album without one keeps its tracks.
    """
    try:
        items = json.loads(body, parse_float=str, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise MalformedItemsError(f"expected a list of items, not {len(body)} bytes that are no JSON") from error
    if not isinstance(items, list):
        raise MalformedItemsError(f"expected a list of items, not {_kind(items)}")
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise MalformedItemsError(f"item {place + 1} of {len(items)}: expected an album, not {_kind(item)}")
    return tuple(_album(item) for item in items)


def _album(item: dict[str, Any]) -> CapturedAlbum:
    tracks = item.get("tracks")
    found = tracks if isinstance(tracks, list) else []
    captured = (_track(track) for track in found if isinstance(track, dict))
    return CapturedAlbum(
        album_id=_id(item),
        name=_text(item.get("name")),
        tracks=tuple(track for track in captured if track is not None),
    )


def _track(track: dict[str, Any]) -> CapturedTrack | None:
    identity = _id(track)
    if identity is None:
        return None
    try:
        count = read_count(track.get("streamCount"))
    except UnusableCountError:
        count = 0
    return CapturedTrack(identity, _text(track.get("name")), count or None)


def _id(of: dict[str, Any]) -> str | None:
    identity = _text(of.get("id"))
    return None if identity is None else identity.strip()


def _text(value: object) -> str | None:
    """A text that a database can hold; None for anything else, and for a blank one."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return None
    # Half of a surrogate pair is JSON, and no character.
    return None if any("\ud800" <= letter <= "\udfff" for letter in value) else value


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
