"""Captures of displayed play counts: records, price, and the counts that captured tracks give. Pure.

`postgres/captures` stores captures, `capture/` buys and maps them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

# Albums of one actor run: enough to make the start cheap, few enough to make a failure cheap.
ALBUMS_PER_CHUNK = 100

# A capture of the same albums that is younger than this is reused instead of bought again.
REUSE_PERIOD = timedelta(minutes=60)

SERIES_INTERVAL = timedelta(days=30)

# Message of requests, ticks and runs in a deployment without captures.
NO_CAPTURES = "captures are not set up here: APIFY_TOKEN is not set"


class Schedule(StrEnum):
    """How often the requested albums are captured."""

    ONCE = "once"
    MONTHLY = "monthly"


class SnapshotState(StrEnum):
    """State of a capture."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CaptureLimits:
    """Price and limits of captures, in US dollars of a calendar month (UTC): of one account, and of the whole deployment."""

    cap_usd: Decimal
    usd_per_album: Decimal
    deployment_cap_usd: Decimal

    def cost_usd(self, albums: int) -> Decimal:
        """Price of capturing `albums` albums."""
        return albums * self.usd_per_album


@dataclass(frozen=True, slots=True)
class CapturedTrack:
    """One track of a captured album. `stream_count` is None if it was missing, 0 or unusable; it is never 0."""

    track_id: str
    name: str | None
    stream_count: int | None


@dataclass(frozen=True, slots=True)
class CapturedAlbum:
    """One captured album. `album_id` is None if the item does not name its album."""

    album_id: str | None
    name: str | None
    tracks: tuple[CapturedTrack, ...]


@dataclass(frozen=True, slots=True)
class SpotifyTrack:
    """A track as Spotify describes it. `isrc` is normalised, or None if Spotify gives none that is valid.

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
    """A captured track without a known ISRC, with the reason. `is_deferred`: the lookup at Spotify was deferred."""

    track_id: str
    name: str | None
    stream_count: int
    why: str
    is_deferred: bool = False


@dataclass(frozen=True, slots=True)
class CaptureCounts:
    """Counts of a capture: one per recording, the albums of each recording, and the unmapped tracks.

    `tracks` counts all tracks; `without_count` those without a usable count; `albums_with_tracks` counts albums, not items.
    """

    albums_with_tracks: int
    tracks: int
    counts: Mapping[str, int]
    albums: frozenset[tuple[str, str]]
    unmapped: tuple[UnmappedTrack, ...]
    without_count: int


def describe_over_cap(over: "OverCap") -> str:
    """Message for a capture that exceeds a monthly cap. What other accounts spend is not stated."""
    if over.is_of_deployment:
        return (
            f"The monthly cap of this deployment's captures is reached, and this one would cost ${over.asked:,.3f}: try again in "
            "the next calendar month (UTC), or ask the operator to raise SNAPSHOT_DEPLOYMENT_CAP_USD"
        )
    message = (
        f"The monthly cap of captures is reached: ${over.cap:,.2f} a calendar month (UTC), ${over.spent:,.3f} of it spent, and "
        f"this one would cost ${over.asked:,.3f}"
    )
    return message if over.asked <= over.cap else f"{message}: more than a whole month allows, so ask for fewer albums"


def split_into_chunks(album_ids: Sequence[str]) -> list[tuple[str, ...]]:
    """Split a capture into the parts of its actor runs; the same albums give the same parts in the same order."""
    return [tuple(album_ids[at : at + ALBUMS_PER_CHUNK]) for at in range(0, len(album_ids), ALBUMS_PER_CHUNK)]


def infer_missing_album_id(albums: Sequence[CapturedAlbum], asked: Sequence[str]) -> tuple[CapturedAlbum, ...]:
    """Fill in the missing album id if exactly one item lacks one and exactly one requested album is left."""
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
    """Count the plays of each recording in `albums`.

    `songs_of`: recordings of a track id; `why_not`: why a track has none; `deferred`: tracks to look up later.
    A recording on several albums has several tracks; its count is the highest of theirs. The platform shows one count for all of
    them; where they differ, the lower ones are not updated yet.
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
    # The same album twice counts once; items without an album id count once each.
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
    """The albums to capture and the account. `album_ids` are sorted, without duplicates."""

    account: UUID
    album_ids: tuple[str, ...]
    catalog: UUID | None = None
    isrcs: tuple[str, ...] | None = None
    platforms: tuple[str, ...] = ("spotify",)
    schedule: Schedule = Schedule.ONCE


@dataclass(frozen=True, slots=True)
class CaptureTicket:
    """The capture that answers a request; `reused`: it existed already and costs nothing more."""

    snapshot: UUID
    albums: int
    cost_usd: Decimal
    reused: bool


@dataclass(frozen=True, slots=True)
class OverCap:
    """The capture exceeds a monthly cap: the account's, or the deployment's. Amounts in US dollars."""

    cap: Decimal
    spent: Decimal
    asked: Decimal
    is_of_deployment: bool = False
