"""A kept result becomes measurements: its tracks are matched with recordings, by what is known and else by Spotify.

May be done again at any time, and costs nothing: the result stays as it was received.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from measurement_pipeline.capture.config import CaptureDependencies
from measurement_pipeline.domain.capture import CapturedAlbum, SpotifyTrack, count_plays, infer_missing_album_id
from measurement_pipeline.domain.text import counted, utc
from measurement_pipeline.postgres import apify_runs, incidents, vendor_state
from measurement_pipeline.postgres.apify_runs import ActorRunRow
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.vendors.apify.items import MalformedItemsError, read_items
from measurement_pipeline.vendors.spotify.client import CredentialsRefusedError, SpotifyClient

SPOTIFY = "spotify"

_NO_ISRC = "Spotify names no ISRC"
_INCIDENT = "Spotify: "
_NO_ISRCS = f"{_INCIDENT}tracks come without ISRCs"


@dataclass(frozen=True, slots=True)
class TrackLookup:
    """What Spotify said: tracks by the id that was asked, why the others have no answer, and which of them may yet have one."""

    found: dict[str, SpotifyTrack]
    why_not: dict[str, str]
    deferred: frozenset[str] = frozenset()


class SpotifyLookup:
    """Spotify, asked through one client for as long as a run lasts: it learns in what form it may ask."""

    def __init__(self, means: CaptureDependencies) -> None:
        self._new = means.new_spotify
        self._client: SpotifyClient | None = None

    def look_up(self, connection: Connection, track_ids: Sequence[str]) -> TrackLookup:
        """What is known there of these tracks. Whatever keeps it from answering is said of each, and never raised."""
        if not track_ids:
            return TrackLookup({}, {})
        if self._new is None:
            return _none(track_ids, "Spotify is not set up here: SPOTIFY_CLIENT_ID is not set")
        pause = vendor_state.get_pause(connection, SPOTIFY)
        if pause is not None:
            return _none(track_ids, f"{pause.reason}, until {utc(pause.until)}")
        self._client = self._client or self._new()
        try:
            answer = self._client.look_up(track_ids)
        except CredentialsRefusedError as error:
            return _none(track_ids, str(error))
        if answer.deferred and answer.retry_after_seconds:
            why = answer.why or "Spotify asks to be left alone"
            vendor_state.pause(connection, SPOTIFY, seconds=answer.retry_after_seconds, reason=why)
        why_not = dict.fromkeys(answer.unknown, "Spotify knows no such track")
        why_not |= dict.fromkeys(answer.deferred, answer.why or "Spotify gave no answer")
        why_not |= {asked: _NO_ISRC for asked, track in answer.found.items() if track.isrc is None}
        return TrackLookup(answer.found, why_not, answer.deferred)

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self._client is not None:
            self._client.close()


def map_result(
    connection: Connection, bought: ActorRunRow, spotify: SpotifyLookup, *, snapshot: UUID, run: str
) -> None:
    """Measure what was kept for one chunk; what cannot be read is said on its row. Raises `NotOursError`: it is another run's."""
    try:
        items = read_items(apify_runs.get_result(connection, bought.id))
    except MalformedItemsError as error:
        apify_runs.record_malformed(connection, bought.id, message=str(error))
        return
    albums = infer_missing_album_id(items, bought.album_ids)
    track_ids = list(dict.fromkeys(track.track_id for album in albums for track in album.tracks))
    songs = apify_runs.songs_of_tracks(connection, track_ids)
    # An item that does not say which album it is: its first track knows.
    witnesses = [album.tracks[0].track_id for album in albums if album.album_id is None and album.tracks]
    unknown = [track_id for track_id in track_ids if track_id not in songs]
    looked = spotify.look_up(connection, list(dict.fromkeys([*unknown, *witnesses])))
    apify_runs.store_tracks(connection, {asked: looked.found[asked] for asked in unknown if asked in looked.found})
    songs = apify_runs.songs_of_tracks(connection, track_ids)
    _watch_for_isrcs(connection, looked.found.values(), is_any_mapped=bool(songs))
    albums = _with_witnesses(albums, looked.found, bought.album_ids)
    measured = count_plays(albums, songs, looked.why_not, looked.deferred)
    apify_runs.store_measurements(connection, bought.id, measured, snapshot=snapshot, run=run)


def _watch_for_isrcs(connection: Connection, found: Collection[SpotifyTrack], *, is_any_mapped: bool) -> None:
    """Open an incident if Spotify no longer names ISRCs, and end it once it does.

    That is so if no track object has `external_ids`, or if no track of the whole chunk could be mapped for want of an ISRC.
    """
    if any(track.isrc is not None for track in found):
        incidents.end_by_source(connection, source=_INCIDENT)
    elif found and (not is_any_mapped or not any(track.has_external_ids for track in found)):
        tracks = counted(len(found), "track")
        incidents.record(
            connection,
            key=_NO_ISRCS,
            what=(
                f"Spotify named no ISRC for any of {tracks} of one chunk (field `external_ids`). Their counts are kept, and not "
                "stored. Compare https://developer.spotify.com/documentation/web-api/reference/get-track. Once Spotify names "
                "ISRCs again, launch the capture's partition of current_play_counts, which costs nothing."
            ),
        )


def _with_witnesses(
    albums: Sequence[CapturedAlbum], found: Mapping[str, SpotifyTrack], asked: Collection[str]
) -> tuple[CapturedAlbum, ...]:
    """Albums that did not say which they are, by their first track: where Spotify names one that was asked for."""

    def named(album: CapturedAlbum) -> CapturedAlbum:
        witness = found.get(album.tracks[0].track_id) if album.album_id is None and album.tracks else None
        return replace(album, album_id=witness.album_id) if witness and witness.album_id in asked else album

    return tuple(named(album) for album in albums)


def _none(track_ids: Sequence[str], why: str) -> TrackLookup:
    return TrackLookup({}, dict.fromkeys(track_ids, why), frozenset(track_ids))
