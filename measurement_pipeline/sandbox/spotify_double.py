"""Double of Spotify's accounts service and of the Web API's tracks: tokens that expire, and batches that may be rejected.

The tracks are in `albums`. Error texts are Spotify's where known.
"""

import base64
import json
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import wraps
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from measurement_pipeline.sandbox.albums import AlbumTrack, Discography, SandboxAlbum
from measurement_pipeline.sandbox.scenarios import Behaviour

Object = dict[str, object]
Handler = Callable[[Request], Awaitable[Response]]

_ID = re.compile(r"[0-9A-Za-z]{22}")
_BATCH = 50


class SpotifyDouble:
    """The API as one client sees it."""

    def __init__(self, behaviour: Behaviour, discography: Discography, clock: Callable[[], datetime]) -> None:
        self._behaviour = behaviour
        self._discography = discography
        self._clock = clock
        login = f"{behaviour.spotify_client_id}:{behaviour.spotify_client_secret}"
        self._login = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._tokens: dict[str, datetime] = {}

    def routes(self) -> list[BaseRoute]:
        """The routes of both services."""
        return [
            Route("/api/token", self._token, methods=["POST"]),
            Route("/v1/tracks", self._behind_token(self._tracks), methods=["GET"]),
            Route("/v1/tracks/{id}", self._behind_token(self._track), methods=["GET"]),
        ]

    async def _token(self, request: Request) -> Response:
        if request.headers.get("authorization") != self._login:
            return _json({"error": "invalid_client", "error_description": "Invalid client"}, 400)
        grant = parse_qs((await request.body()).decode("latin-1")).get("grant_type", [""])
        if grant != ["client_credentials"]:
            words = "grant_type parameter is missing or unknown"
            return _json({"error": "unsupported_grant_type", "error_description": words}, 400)
        token = f"sandbox-spotify-token-{len(self._tokens) + 1}"
        seconds = self._behaviour.spotify_token_seconds
        self._tokens[token] = self._clock() + timedelta(seconds=seconds)
        return _json({"access_token": token, "token_type": "Bearer", "expires_in": seconds})

    def _behind_token(self, handler: Handler) -> Handler:
        @wraps(handler)
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            if not given:
                return _error(401, "No token provided")
            until = self._tokens.get(given.removeprefix("Bearer "))
            if until is None:
                return _error(401, "Invalid access token")
            if until <= self._clock():
                return _error(401, "The access token expired")
            return await handler(request)

        return guarded

    async def _tracks(self, request: Request) -> Response:
        if not self._behaviour.spotify_batches:
            return _error(403, "Forbidden")
        ids = request.query_params.get("ids", "").split(",")
        if len(ids) > _BATCH:
            return _error(400, "Too many ids requested")
        if not all(_ID.fullmatch(identity) for identity in ids):
            return _error(400, "Invalid base62 id")
        return _json({"tracks": [self._found(identity) for identity in ids]})

    async def _track(self, request: Request) -> Response:
        identity = request.path_params["id"]
        if not _ID.fullmatch(identity):
            return _error(400, "Invalid base62 id")
        found = self._found(identity)
        return _error(404, "Resource not found") if found is None else _json(found)

    def _found(self, identity: str) -> Object | None:
        found = self._discography.track(identity)
        return None if found is None else self._described(*found)

    def _described(self, track: AlbumTrack, album: SandboxAlbum) -> Object:
        artist = {"id": track.id[::-1], "name": album.artist, "type": "artist"}
        released = self._discography.known(track.isrc).release_date
        bare = self._behaviour.draw(track.id, "isrc") < self._behaviour.tracks_without_isrc
        return {
            "album": {
                "album_type": "album",
                "artists": [artist],
                "id": album.id,
                "name": album.name,
                "release_date": None if released is None else released.isoformat(),
                "release_date_precision": "day",
                "total_tracks": len(album.by_isrc),
                "type": "album",
                "uri": f"spotify:album:{album.id}",
            },
            "artists": [artist],
            "external_ids": {} if bare else {"isrc": track.isrc},
            "id": track.id,
            "is_local": False,
            "name": track.title,
            "type": "track",
            "uri": f"spotify:track:{track.id}",
        }


def _error(status: int, message: str) -> Response:
    return _json({"error": {"status": status, "message": message}}, status)


def _json(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json; charset=utf-8")
