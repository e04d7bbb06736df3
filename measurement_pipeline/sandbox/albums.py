"""Which albums and tracks Spotify has, made of what is known of recordings: for both doubles, and for whoever asks them.

Pure. An id derives from names, so it is the same in any process; one recording on two albums is two tracks with one ISRC.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b

from measurement_pipeline.sandbox.catalogue import Known
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
    """An album, and what is on it by ISRC."""

    id: str
    artist: str
    name: str
    by_isrc: dict[str, AlbumTrack] = field(default_factory=dict)

    @property
    def tracks(self) -> list[AlbumTrack]:
        """In the order of their ISRCs."""
        return [self.by_isrc[isrc] for isrc in sorted(self.by_isrc)]


class Discography:
    """The albums of a catalogue. What is learnt of a recording replaces what was known of it."""

    def __init__(self, behaviour: Behaviour, catalogue: Mapping[str, Known]) -> None:
        self._behaviour = behaviour
        self._known: dict[str, Known] = {}
        self._albums: dict[str, SandboxAlbum] = {}
        self._album_of: dict[str, SandboxAlbum] = {}
        self._track_of: dict[str, AlbumTrack] = {}
        self.learn(catalogue)

    def learn(self, catalogue: Mapping[str, Known]) -> None:
        """Adds to what is known of recordings, or replaces it."""
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
        """The album of that id, if there is one."""
        return self._albums.get(identity)

    def track(self, identity: str) -> tuple[AlbumTrack, SandboxAlbum] | None:
        """The track of that id and its album, if there is one."""
        track, album = self._track_of.get(identity), self._album_of.get(identity)
        return None if track is None or album is None or track.isrc not in album.by_isrc else (track, album)

    def known(self, isrc: str) -> Known:
        """What is known of a recording on one of the albums."""
        return self._known[isrc]

    def play_count(self, isrc: str, now: datetime) -> int | None:
        """What is displayed at `now`: a point of the series of the recording's history. None where it is not out yet."""
        known, day = self._known[isrc], self._behaviour.displayed_on(now)
        if known.play_count is not None and day == self._behaviour.counted_on:
            return known.play_count
        _, counts = history(isrc, known, self._behaviour, day)
        return counts[-1] if counts else None


def _albums_of(known: Known | None) -> Iterator[tuple[str, str]]:
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
