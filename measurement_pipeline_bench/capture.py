"""A capture: tracks a second from its claim to its end, beside a bare script that makes the same calls.

One Spotify serves fifty tracks in a batch, the other refuses batches. Each captures new tracks, then the same ones again, as in
the next month.
"""

import time
from uuid import UUID, uuid4

from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.capture.run import make_capture
from measurement_pipeline.domain.capture import CaptureLimits, CaptureSpec, CaptureTicket, OverCap
from measurement_pipeline.postgres import captures
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.sandbox.albums import album_id
from measurement_pipeline.sandbox.catalogue import KnownRecording
from measurement_pipeline_bench import bare_capture
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Deployment, Lab, doubles, isrcs

_TRACKS_AN_ALBUM = 15
_ARTIST = "The Bench"
# Only batches: an app in development mode may not request them.
_BATCHES = "/v1/track[s]"


def measure(lab: Lab) -> Findings:
    """Measure the same albums each way."""
    albums = lab.size(1_000, 20)
    tracks = albums * _TRACKS_AN_ALBUM
    figures = []
    with doubles(points=1) as sandbox:
        album_ids = release(sandbox, albums)
        for batches in (True, False):
            if not batches:
                sandbox.faults(_BATCHES, status=403)
            asked = "50 a request" if batches else "one a request"
            deployment = lab.deployment(sandbox, **_settings(sandbox))
            lab.say(f"capture of {albums:,} albums of {_TRACKS_AN_ALBUM} tracks, Spotify asked for {asked}")
            first = _seconds(deployment, album_ids)
            lab.say("capture: the same again, when its tracks are known")
            second = _seconds(deployment, album_ids)
            lab.say("capture: the bare script")
            bare = {
                is_new: _bare_seconds(sandbox, lab.database(), album_ids, batches=batches, is_new=is_new)
                for is_new in (True, False)
            }
            figures += [
                Figure(
                    f"capture of {albums:,} albums of {_TRACKS_AN_ALBUM} tracks, {what}; {asked}",
                    "tracks/s",
                    tracks / seconds,
                    "a bare script, same calls and rows",
                    tracks / bare[is_new],
                    Target("ratio", at_least=at_least),
                    "capture: the bare script keeps no response and stores all in one transaction; for known tracks it stores "
                    "the counts alone, and asks Spotify again",
                )
                for what, seconds, is_new, at_least in (
                    ("all new", first, True, 0.6),
                    ("all known", second, False, 0.95),
                )
            ]
    return Findings(figures)


def _bare_seconds(
    sandbox: SandboxClient, database_url: str, album_ids: list[str], *, batches: bool, is_new: bool
) -> float:
    since = time.monotonic()
    stored = bare_capture.capture(sandbox, database_url, album_ids, batches=batches, is_new=is_new)
    seconds = time.monotonic() - since
    if stored != len(album_ids) * _TRACKS_AN_ALBUM:
        raise RuntimeError(f"expected {_TRACKS_AN_ALBUM} counts an album of the bare script, found {stored} in all")
    return seconds


def release(sandbox: SandboxClient, albums: int) -> list[str]:
    """Add so many albums to Spotify; return their ids, sorted."""
    songs = isrcs(albums * _TRACKS_AN_ALBUM)
    names = [f"Album {number // _TRACKS_AN_ALBUM}" for number in range(len(songs))]
    known = [KnownRecording(play_count=number + 1, artist=_ARTIST, album=name) for number, name in enumerate(names)]
    sandbox.know(dict(zip(songs, known, strict=True)))
    return sorted({album_id(_ARTIST, name) for name in names})


def _seconds(deployment: Deployment, album_ids: list[str]) -> float:
    captures = deployment.services().captures
    if captures is None:
        raise RuntimeError("expected a deployment that captures")
    snapshot = _asked(deployment, album_ids, limits=captures.config.limits)
    since = time.monotonic()
    ended = make_capture(snapshot, captures, run_id="bench")
    seconds = time.monotonic() - since
    if ended.kind is not CaptureResultKind.DONE or ended.unmapped:
        raise RuntimeError(f"expected a capture that is done, with every track mapped: {ended.kind}, {ended.reason}")
    return seconds


def _asked(deployment: Deployment, album_ids: list[str], *, limits: CaptureLimits) -> UUID:
    # Each capture uses another account: the same account would get its capture of the last hour.
    with deployment.connect() as connection, connection.transaction():
        opened = captures.open_capture(connection, CaptureSpec(uuid4(), tuple(album_ids)), limits=limits)
    match opened:
        case CaptureTicket():
            return opened.snapshot
        case OverCap():
            raise RuntimeError(f"expected the month to allow a capture: {opened}")


def _settings(sandbox: SandboxClient) -> dict[str, str]:
    return {
        "APIFY_TOKEN": sandbox.apify_token,
        "APIFY_BASE_URL": sandbox.apify_url,
        "SPOTIFY_CLIENT_ID": sandbox.spotify_client_id,
        "SPOTIFY_CLIENT_SECRET": sandbox.spotify_client_secret,
        "SPOTIFY_API_BASE": sandbox.spotify_url,
        "SPOTIFY_ACCOUNTS_BASE": sandbox.spotify_url,
    }
