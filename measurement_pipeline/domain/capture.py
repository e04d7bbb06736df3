"""A capture of what is displayed today: its records, whichever vendor said them, its price, and what its tracks come to.

Pure. How a capture is asked for is `postgres/captures`, how it is made `capture/`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

USD_PER_ALBUM = Decimal("0.003")

# Of one run of the actor: enough that starting it does not matter, few enough that one that fails does not either.
ALBUMS_A_CHUNK = 100

# So long a capture of the same albums is handed back instead of being paid again.
REUSE_FOR = timedelta(minutes=60)

SERIES_EVERY = timedelta(days=30)

# What a request, a tick and a run say in a deployment that captures nothing.
NO_CAPTURES = "captures are not set up here: APIFY_TOKEN is not set"


class Schedule(StrEnum):
    """How often what is asked for is captured."""

    ONCE = "once"
    MONTHLY = "monthly"


class SnapshotState(StrEnum):
    """Where a capture stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


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
class SpotifyTrack:
    """What Spotify says of a track. `isrc` is in normal form, or None where it has none that can be one.

    `has_external_ids` is False if the track object lacks the field in which Spotify gives ISRCs.
    """

    track_id: str
    isrc: str | None
    name: str | None
    artist: str | None
    album_id: str | None
    album: str | None
    release_date: date | None
    has_external_ids: bool = True


@dataclass(frozen=True, slots=True)
class UnmappedTrack:
    """A captured track of which no ISRC is known, and why. `is_deferred`: Spotify could not be asked, and may yet know."""

    track_id: str
    name: str | None
    stream_count: int
    why: str
    is_deferred: bool = False


@dataclass(frozen=True, slots=True)
class CaptureCounts:
    """What captured tracks come to: a count a recording, the albums each is on, and the tracks that could not be mapped.

    `tracks` counts all; `without_count` those that the actor had no usable count of; `albums_with_tracks` albums, not items.
    """

    albums_with_tracks: int
    tracks: int
    counts: Mapping[str, int]
    albums: frozenset[tuple[str, str]]
    unmapped: tuple[UnmappedTrack, ...]
    without_count: int


def cost_usd(albums: int) -> Decimal:
    """What it costs to capture so many albums."""
    return albums * USD_PER_ALBUM


def describe_over_cap(*, cap: Decimal, spent: Decimal, cost: Decimal) -> str:
    """Why a capture is refused that the month does not allow."""
    said = (
        f"The monthly cap of captures is reached: ${cap:,.2f} a calendar month (UTC), ${spent:,.3f} of it spent, and this one "
        f"would cost ${cost:,.3f}"
    )
    return said if cost <= cap else f"{said}: more than a whole month allows, so ask for fewer albums"


def chunks(album_ids: Sequence[str]) -> list[tuple[str, ...]]:
    """The parts in which a capture is bought: the same parts in the same order for the same albums."""
    return [tuple(album_ids[at : at + ALBUMS_A_CHUNK]) for at in range(0, len(album_ids), ALBUMS_A_CHUNK)]


def infer_missing_album_id(albums: Sequence[CapturedAlbum], asked: Sequence[str]) -> tuple[CapturedAlbum, ...]:
    """The albums with the one id filled in that is missing, where only one album asked for is left that it can be."""
    nameless = [album for album in albums if album.album_id is None]
    left = set(asked) - {album.album_id for album in albums}
    if len(nameless) != 1 or len(left) != 1:
        return tuple(albums)
    (missing,) = left
    return tuple(replace(album, album_id=missing) if album.album_id is None else album for album in albums)


def count_plays(
    albums: Sequence[CapturedAlbum],
    songs_of: Mapping[str, Sequence[str]],
    why_not: Mapping[str, str],
    deferred: Collection[str] = (),
) -> CaptureCounts:
    """What `albums` come to, with the recordings of each track id, why a track has none, and of which ones Spotify may yet know.

    A recording on several albums has several tracks: its count is the highest of theirs. A platform shows one count for all of
    them, and where it does not, the lower ones have not caught up.
    """
    counts: dict[str, int] = {}
    on_albums: set[tuple[str, str]] = set()
    unmapped: dict[str, UnmappedTrack] = {}
    tracks = [(album, track) for album in albums for track in album.tracks]
    for album, track in tracks:
        songs = songs_of.get(track.track_id, ())
        if album.album_id is not None:
            on_albums.update((song, album.album_id) for song in songs)
        if track.stream_count is None:
            continue
        for song in songs:
            counts[song] = max(track.stream_count, counts.get(song, 0))
        if not songs:
            why = why_not.get(track.track_id, "not looked up")
            is_deferred = track.track_id in deferred
            unmapped[track.track_id] = UnmappedTrack(track.track_id, track.name, track.stream_count, why, is_deferred)
    # The same album twice is one; those that do not say which they are count each.
    with_tracks = [album.album_id or object() for album in albums if album.tracks]
    return CaptureCounts(
        albums_with_tracks=len(set(with_tracks)),
        tracks=len(tracks),
        counts=counts,
        albums=frozenset(on_albums),
        unmapped=tuple(unmapped.values()),
        without_count=sum(track.stream_count is None for _, track in tracks),
    )


@dataclass(frozen=True, slots=True)
class CaptureSpec:
    """What is to be captured, and for whom. `album_ids` are sorted, each once."""

    account: UUID
    album_ids: tuple[str, ...]
    catalog: UUID | None = None
    isrcs: tuple[str, ...] | None = None
    platforms: tuple[str, ...] = ("spotify",)
    schedule: Schedule = Schedule.ONCE


@dataclass(frozen=True, slots=True)
class CaptureTicket:
    """The capture that answers a request; `reused`: it was there, and costs nothing more."""

    snapshot: UUID
    albums: int
    cost_usd: Decimal
    reused: bool


@dataclass(frozen=True, slots=True)
class OverCap:
    """The month does not allow it. In US dollars."""

    cap: Decimal
    spent: Decimal
    asked: Decimal
