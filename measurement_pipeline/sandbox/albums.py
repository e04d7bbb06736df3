"""Albums and tracks on Spotify, derived from the known recordings, for the Apify and the Spotify double. Pure.

Ids derive from names, so they are the same in every process. One recording on two albums is two tracks with one ISRC.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b

from measurement_pipeline.sandbox.catalogue import KnownRecording
from measurement_pipeline.sandbox.scenarios import Behaviour
from measurement_pipeline.sandbox.series import history

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ID_LENGTH = 22


def album_id(artist: str, album: str) -> str:
    """Spotify's id of an album."""
    return _base62(f"album:{artist}:{album}")


def track_id(isrc: str, artist: str, album: str) -> str:
    """Spotify's id of a recording as a track of one album."""
    return _base62(f"track:{isrc}:{artist}:{album}")


@dataclass(frozen=True, slots=True)
class AlbumTrack:
    """A recording as a track of one album."""

    id: str
    isrc: str
    title: str


@dataclass(slots=True)
class SandboxAlbum:
    """An album and its tracks by ISRC."""

    id: str
    artist: str
    name: str
    by_isrc: dict[str, AlbumTrack] = field(default_factory=dict)

    @property
    def tracks(self) -> list[AlbumTrack]:
        """In the order of their ISRCs."""
        return [self.by_isrc[isrc] for isrc in sorted(self.by_isrc)]


class Discography:
    """The albums of a catalogue. New facts about a recording replace the old ones."""

    def __init__(self, behaviour: Behaviour, catalogue: Mapping[str, KnownRecording]) -> None:
        self._behaviour = behaviour
        self._known: dict[str, KnownRecording] = {}
        self._albums: dict[str, SandboxAlbum] = {}
        self._album_of: dict[str, SandboxAlbum] = {}
        self._track_of: dict[str, AlbumTrack] = {}
        self.learn(catalogue)

    def learn(self, catalogue: Mapping[str, KnownRecording]) -> None:
        """Adds or replaces facts about recordings."""
        for isrc, known in catalogue.items():
            for artist, name in _albums_of(self._known.get(isrc)):
                self._album_of[track_id(isrc, artist, name)].by_isrc.pop(isrc, None)
            self._known[isrc] = known
            for artist, name in _albums_of(known):
                identity = album_id(artist, name)
                album = self._albums.setdefault(identity, SandboxAlbum(identity, artist, name))
                track = AlbumTrack(track_id(isrc, artist, name), isrc, known.title or f"Recording {isrc}")
                album.by_isrc[isrc] = track
                self._album_of[track.id], self._track_of[track.id] = album, track

    def album(self, identity: str) -> SandboxAlbum | None:
        """The album with this id, or None."""
        return self._albums.get(identity)

    def track(self, identity: str) -> tuple[AlbumTrack, SandboxAlbum] | None:
        """The track with this id and its album, or None."""
        track, album = self._track_of.get(identity), self._album_of.get(identity)
        return None if track is None or album is None or track.isrc not in album.by_isrc else (track, album)

    def known(self, isrc: str) -> KnownRecording:
        """The facts about a recording that is on an album."""
        return self._known[isrc]

    def play_count(self, isrc: str, now: datetime) -> int | None:
        """The count displayed at `now`, a point of the recording's history; None before its release."""
        known, day = self._known[isrc], self._behaviour.displayed_on(now)
        if known.play_count is not None and day == self._behaviour.counted_on:
            return known.play_count
        _, counts = history(isrc, known, self._behaviour, day)
        return counts[-1] if counts else None


def _albums_of(known: KnownRecording | None) -> Iterator[tuple[str, str]]:
    if known is not None and known.artist and known.album:
        for name in dict.fromkeys((known.album, *known.reissued_on)):
            yield known.artist, name


def _base62(of: str) -> str:
    number = int.from_bytes(blake2b(of.encode(), digest_size=16).digest())
    digits = []
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
