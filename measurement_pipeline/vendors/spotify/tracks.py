"""Parses a track object of the Web API. Pure."""

from collections.abc import Collection

from measurement_pipeline.domain.capture import SpotifyTrack
from measurement_pipeline.domain.dates import parse_date
from measurement_pipeline.domain.isrc import normalise_isrc
from measurement_pipeline.domain.text import storable_text
from measurement_pipeline.vendors.spotify.responses import unexpected


def read_track(value: object) -> SpotifyTrack:
    """The track that a JSON object describes. Raises UnexpectedResponseError if it has no id; every other field is optional."""
    track_id = _read_text(value, "id")
    if not isinstance(value, dict) or track_id is None:
        raise unexpected("expected a track with an `id`")
    album = value.get("album")
    artists = value.get("artists")
    names = [name for artist in artists if (name := _read_text(artist, "name"))] if isinstance(artists, list) else []
    return SpotifyTrack(
        track_id=track_id.strip(),
        isrc=normalise_isrc(_read_text(value.get("external_ids"), "isrc") or ""),
        name=_read_text(value, "name"),
        artist=", ".join(names) or None,
        album_id=_read_text(album, "id"),
        album=_read_text(album, "name"),
        # For some albums Spotify knows only the year or the month, which is not a date.
        release_date=parse_date(_read_text(album, "release_date")),
        has_external_ids=isinstance(value.get("external_ids"), dict),
    )


def read_requested_track(value: object, track_id: str, *, others: Collection[str]) -> SpotifyTrack:
    """The track returned for `track_id`. It may be a replacement under another id, but not one of the other requested tracks.

    Raises UnexpectedResponseError.
    """
    track = read_track(value)
    replaced_id = _read_text(value.get("linked_from"), "id") if isinstance(value, dict) else None
    if track_id not in (track.track_id, replaced_id) and track.track_id in others:
        raise unexpected(f"expected track {track_id}, not {track.track_id}")
    return track


def _read_text(record: object, name: str) -> str | None:
    return storable_text(record.get(name)) if isinstance(record, dict) else None
