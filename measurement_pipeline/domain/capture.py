"""What was seen of albums and tracks on one day, as plain records, whichever vendor said it."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class CapturedTrack:
    """One track of a captured album. `stream_count` is None where it was missing, 0 or unusable: never a 0."""

    track_id: str
    name: str | None
    stream_count: int | None


@dataclass(frozen=True, slots=True)
class CapturedAlbum:
    """One album as it was captured. `album_id` is None where the item did not say which album it is."""

    album_id: str | None
    name: str | None
    tracks: tuple[CapturedTrack, ...]


@dataclass(frozen=True, slots=True)
class Track:
    """What Spotify says of a track. `isrc` is in normal form, or None where it has none that can be one."""

    track_id: str
    isrc: str | None
    name: str | None
    artist: str | None
    album_id: str | None
    album: str | None
    release_date: date | None
