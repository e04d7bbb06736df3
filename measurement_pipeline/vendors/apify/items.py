"""Parses the result of an actor run into albums and tracks. Pure.

A count that is missing, 0 or unusable is no count: the actor writes 0 if it saw none.
"""

import json
from typing import Any

from measurement_pipeline.domain.capture import CapturedAlbum, CapturedTrack
from measurement_pipeline.domain.play_count import UnusableCountError, read_count
from measurement_pipeline.domain.text import storable_text
from measurement_pipeline.vendors.apify.runs import unexpected

# Python refuses to parse integers of thousands of digits. No count has as many as this.
_MAX_INTEGER_DIGITS = 64


def read_items(body: bytes) -> tuple[CapturedAlbum, ...]:
    """The captured albums, in the order of the items. Raises UnexpectedResponseError, and nothing else.

    A track without an id cannot be matched and is left out. An album without an id keeps its tracks.
    """
    try:
        items = json.loads(body, parse_float=str, parse_int=_parse_integer)
    except (ValueError, RecursionError) as error:
        raise unexpected(f"expected a list of items, not {len(body)} bytes that are not JSON") from error
    if not isinstance(items, list):
        raise unexpected(f"expected a list of items, not {_describe_type(items)}")
    for position, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise unexpected(f"item {position} of {len(items)}: expected an album, not {_describe_type(item)}")
    return tuple(_read_album(item) for item in items)


def _read_album(item: dict[str, Any]) -> CapturedAlbum:
    tracks = item.get("tracks")
    captured = (_read_track(track) for track in tracks if isinstance(track, dict)) if isinstance(tracks, list) else ()
    return CapturedAlbum(
        album_id=_read_id(item),
        name=storable_text(item.get("name")),
        tracks=tuple(track for track in captured if track is not None),
    )


def _read_track(track: dict[str, Any]) -> CapturedTrack | None:
    track_id = _read_id(track)
    if track_id is None:
        return None
    try:
        count = read_count(track.get("streamCount"))
    except UnusableCountError:
        count = 0
    return CapturedTrack(track_id, storable_text(track.get("name")), count or None)


def _read_id(record: dict[str, Any]) -> str | None:
    value = storable_text(record.get("id"))
    return None if value is None else value.strip()


def _parse_integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else digits


def _describe_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
