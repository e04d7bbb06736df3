"""A capture as a plain script would make it, for comparison.

It makes the same calls at the same concurrency and stores the counts in the same table, in one transaction. With `is_new` it also
stores songs and identifiers, as a capture of new tracks does. It writes no row before a start, keeps no response, never waits.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_bench.sql import statements

_SQL = statements("bare_capture")

_ACTOR = "/v2/actors/beatanalytics~spotify-play-count-scraper/runs"
_ALBUMS_A_RUN = 100
_TRACKS_A_REQUEST = 50
_AT_A_TIME = 8


def capture(sandbox: SandboxClient, database_url: str, album_ids: Sequence[str], *, batches: bool, is_new: bool) -> int:
    """Capture the albums; return the number of stored counts."""
    counts: dict[str, int] = {}
    albums: dict[str, str] = {}
    parts = [album_ids[at : at + _ALBUMS_A_RUN] for at in range(0, len(album_ids), _ALBUMS_A_RUN)]
    with httpx.Client(base_url=sandbox.apify_url, trust_env=False, timeout=60) as client:
        apify = {"authorization": f"Bearer {sandbox.apify_token}"}
        runs = [_data(client.post(_ACTOR, json=_urls(part), headers=apify)) for part in parts]
        for run in runs:
            _data(client.get(f"/v2/actor-runs/{run['id']}", params={"waitForFinish": 20}, headers=apify))
            answer = client.get(f"/v2/datasets/{run['defaultDatasetId']}/items", headers=apify).raise_for_status()
            for album in answer.json():
                counts |= {track["id"]: track["streamCount"] for track in album["tracks"]}
                albums |= {track["id"]: album["id"] for track in album["tracks"]}
        login = (sandbox.spotify_client_id, sandbox.spotify_client_secret)
        token = client.post("/api/token", data={"grant_type": "client_credentials"}, auth=login).json()["access_token"]
        isrcs = _isrcs(client, {"authorization": f"Bearer {token}"}, list(counts), batches=batches)
    songs = [isrcs[track] for track in counts]
    with psycopg.connect(database_url) as connection:
        if is_new:
            connection.execute(_SQL["songs"], {"songs": songs})
            for kind, values in (("track_id", list(counts)), ("album_id", [albums[track] for track in counts])):
                connection.execute(_SQL["identifiers"], {"songs": songs, "type": kind, "values": values})
        connection.execute(_SQL["store"], {"songs": songs, "counts": list(counts.values())})
    return len(songs)


def _urls(album_ids: Sequence[str]) -> dict[str, Any]:
    return {"urls": [{"url": f"https://open.spotify.com/album/{album}"} for album in album_ids]}


def _data(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.raise_for_status().json()["data"]
    return found


def _isrcs(client: httpx.Client, headers: dict[str, str], tracks: Sequence[str], *, batches: bool) -> dict[str, str]:
    def ask_for_fifty(at: int) -> list[dict[str, Any]]:
        ids = ",".join(tracks[at : at + _TRACKS_A_REQUEST])
        found: list[dict[str, Any]] = client.get("/v1/tracks", params={"ids": ids}, headers=headers).json()["tracks"]
        return found

    def ask_for_one(track: str) -> dict[str, Any]:
        found: dict[str, Any] = client.get(f"/v1/tracks/{track}", headers=headers).json()
        return found

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        if batches:
            fifties = pool.map(ask_for_fifty, range(0, len(tracks), _TRACKS_A_REQUEST))
            described = [track for fifty in fifties for track in fifty]
        else:
            described = list(pool.map(ask_for_one, tracks))
    return {track["id"]: track["external_ids"]["isrc"] for track in described}
