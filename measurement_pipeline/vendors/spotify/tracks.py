"""What a track object of the Web API says: a pure function from JSON to a record."""

from collections.abc import Collection
from datetime import date

from measurement_pipeline.domain import isrc as isrcs
from measurement_pipeline.domain.capture import SpotifyTrack
from measurement_pipeline.vendors.spotify.responses import OddAnswerError

_DATE_LENGTH = len("YYYY-MM-DD")


def read_track(value: object) -> SpotifyTrack:
    """The track that a JSON object describes. Raises OddAnswerError where it has no id; all else may be missing."""
    identity = _text(value, "id")
    if not isinstance(value, dict) or identity is None:
        raise OddAnswerError("expected a track with an `id`")
    identity = identity.strip()
    album = value.get("album")
    artists = value.get("artists")
    names = [name for artist in artists if (name := _text(artist, "name"))] if isinstance(artists, list) else []
    return SpotifyTrack(
        track_id=identity,
        isrc=isrcs.normalise_isrc(_text(value.get("external_ids"), "isrc") or ""),
        name=_text(value, "name"),
        artist=", ".join(names) or None,
        album_id=_text(album, "id"),
        album=_text(album, "name"),
        release_date=_day(_text(album, "release_date")),
        has_external_ids=isinstance(value.get("external_ids"), dict),
    )


def read_requested_track(value: object, asked: str, *, others: Collection[str]) -> SpotifyTrack:
    """The track that answers for the id `asked`, which may be another that replaces it, but none of the `others` asked for.

    Raises OddAnswerError.
    """
    track = read_track(value)
    replaced = _text(value.get("linked_from"), "id") if isinstance(value, dict) else None
    if asked not in (track.track_id, replaced) and track.track_id in others:
        raise OddAnswerError(f"expected track {asked}, not {track.track_id}")
    return track


def _text(of: object, name: str) -> str | None:
    """A text of an object that a database can hold; None for anything else, and for a blank one."""
    value = of.get(name) if isinstance(of, dict) else None
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return None
    return None if any("\ud800" <= letter <= "\udfff" for letter in value) else value


def _day(text: str | None) -> date | None:
    """A whole date. Spotify knows of some albums the year or the month alone, and that names no day."""
    # fromisoformat alone would also read 20250510 and 2025-W19-6.
    if text is None or len(text) != _DATE_LENGTH or text[4] != "-" or text[7] != "-":
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
