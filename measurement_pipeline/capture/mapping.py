"""Maps a stored result to measurements: matches its tracks with recordings, by stored track ids or else through Spotify.

Mapping can be repeated at any time and costs nothing, because the result stays stored as received.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

from measurement_pipeline.capture.config import CaptureDependencies
from measurement_pipeline.domain.capture import (
    CapturedAlbum,
    SpotifyTrack,
    count_plays,
    infer_missing_album_id,
)
from measurement_pipeline.domain.text import counted, utc
from measurement_pipeline.postgres import apify_runs, incidents, vendor_state
from measurement_pipeline.postgres.apify_runs import ActorRunRow
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.vendors.apify.items import read_items
from measurement_pipeline.vendors.errors import CredentialsRejectedError, UnexpectedResponseError

if TYPE_CHECKING:
    from measurement_pipeline.vendors.spotify.client import SpotifyClient

SPOTIFY = "spotify"

_NO_ISRC = "Spotify names no ISRC"
_INCIDENT_SOURCE = "Spotify: "
_MISSING_ISRCS = f"{_INCIDENT_SOURCE}tracks come without ISRCs"


@dataclass(frozen=True, slots=True)
class TrackLookup:
    """Tracks by the requested id, the reason for each track without an ISRC, and the tracks whose lookup was deferred."""

    found: dict[str, SpotifyTrack]
    why_not: dict[str, str]
    deferred: frozenset[str] = frozenset()


class SpotifyLookup:
    """Looks tracks up through one client per run, because the client remembers which form of request Spotify allows."""

    def __init__(self, dependencies: CaptureDependencies) -> None:
        self._new_client = dependencies.new_spotify
        self._client: SpotifyClient | None = None

    def look_up(self, connection: Connection, track_ids: Sequence[str]) -> TrackLookup:
        """Look these tracks up. A failure becomes the reason for each track, and is never raised."""
        if not track_ids:
            return TrackLookup({}, {})
        if self._new_client is None:
            return _defer_all(track_ids, "Spotify is not configured: SPOTIFY_CLIENT_ID is not set")
        pause = vendor_state.get_pause(connection, SPOTIFY)
        if pause is not None:
            return _defer_all(track_ids, f"{pause.reason}, until {utc(pause.until)}")
        self._client = self._client or self._new_client()
        try:
            result = self._client.look_up(track_ids)
        except CredentialsRejectedError as error:
            return _defer_all(track_ids, str(error))
        if result.deferred and result.retry_after_seconds:
            reason = result.reason or "Spotify asks to wait"
            vendor_state.pause(connection, SPOTIFY, seconds=result.retry_after_seconds, reason=reason)
        why_not = dict.fromkeys(result.unknown, "Spotify knows no such track")
        why_not |= dict.fromkeys(result.deferred, result.reason or "Spotify gave no response")
        why_not |= {track_id: _NO_ISRC for track_id, track in result.found.items() if track.isrc is None}
        return TrackLookup(result.found, why_not, result.deferred)

    def close(self) -> None:
        """Close the client if it was opened."""
        if self._client is not None:
            self._client.close()


def map_result(
    connection: Connection, actor_run: ActorRunRow, spotify: SpotifyLookup, *, snapshot: UUID, run_id: str
) -> None:
    """Map the stored result of one chunk. An unreadable result is recorded on its row.

    Raises `CaptureLostError` if another run owns the capture now.
    """
    try:
        items = read_items(apify_runs.get_result(connection, actor_run.id))
    except UnexpectedResponseError as error:
        apify_runs.record_malformed(connection, actor_run.id, message=error.problem)
        return
    albums = infer_missing_album_id(items, actor_run.album_ids)
    track_ids = list(dict.fromkeys(track.track_id for album in albums for track in album.tracks))
    songs = apify_runs.songs_of_tracks(connection, track_ids)
    # An item that does not name its album is identified by its first track.
    witnesses = [album.tracks[0].track_id for album in albums if album.album_id is None and album.tracks]
    unknown = [track_id for track_id in track_ids if track_id not in songs]
    lookup = spotify.look_up(connection, list(dict.fromkeys([*unknown, *witnesses])))
    new_tracks = {track_id: lookup.found[track_id] for track_id in unknown if track_id in lookup.found}
    apify_runs.store_tracks(connection, new_tracks)
    songs = apify_runs.songs_of_tracks(connection, track_ids)
    _check_isrcs(connection, lookup.found.values(), is_any_mapped=bool(songs))
    albums = _identify_by_first_track(albums, lookup.found, actor_run.album_ids)
    counts = count_plays(albums, songs, lookup.why_not, lookup.deferred)
    apify_runs.store_measurements(connection, actor_run.id, counts, snapshot=snapshot, run=run_id)


def _check_isrcs(connection: Connection, tracks: Collection[SpotifyTrack], *, is_any_mapped: bool) -> None:
    """Open an incident if Spotify no longer gives ISRCs, and end it when it does again.

    The condition: no track object has `external_ids`, or no track of the whole chunk could be mapped without an ISRC.
    """
    if any(track.isrc is not None for track in tracks):
        incidents.end_by_source(connection, source=_INCIDENT_SOURCE)
    elif tracks and (not is_any_mapped or not any(track.has_external_ids for track in tracks)):
        incidents.record(
            connection,
            key=_MISSING_ISRCS,
            what=(
                f"Spotify gave no ISRC for any of {counted(len(tracks), 'track')} of one chunk (field `external_ids`). Their "
                "counts are kept in the stored result, but not stored as measurements. Compare "
                "https://developer.spotify.com/documentation/web-api/reference/get-track. Once Spotify gives ISRCs again, launch "
                "the capture's partition of current_play_counts, which costs nothing."
            ),
        )


def _identify_by_first_track(
    albums: Sequence[CapturedAlbum], tracks: Mapping[str, SpotifyTrack], requested_albums: Collection[str]
) -> tuple[CapturedAlbum, ...]:
    """Fill in missing album ids from Spotify's album of the first track, if that album was requested."""

    def identify(album: CapturedAlbum) -> CapturedAlbum:
        track = tracks.get(album.tracks[0].track_id) if album.album_id is None and album.tracks else None
        return replace(album, album_id=track.album_id) if track and track.album_id in requested_albums else album

    return tuple(identify(album) for album in albums)


def _defer_all(track_ids: Sequence[str], reason: str) -> TrackLookup:
    return TrackLookup({}, dict.fromkeys(track_ids, reason), frozenset(track_ids))
