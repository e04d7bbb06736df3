"""Double of the Songstats Enterprise API: routes, key, and request counts.

Known facts of the vendor are kept, including the trailing space of "Track not found. ". Other details are guesses that a client
must not rely on: the text of 400s and 403s, and that a month's objects are distinct recordings, billed at 0.10 each. Only ISRCs
identify a recording here. `songstats_body` writes the body of a 200.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache, wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from measurement_pipeline.sandbox.catalogue import KnownRecording
from measurement_pipeline.sandbox.memory import Memory, Table
from measurement_pipeline.sandbox.scenarios import Behaviour, Scenario
from measurement_pipeline.sandbox.series import GBUM72501895
from measurement_pipeline.sandbox.songstats_body import AGGREGATES, OTHER_METRICS, render

PREFIX = "/enterprise/v1"
SOURCES = (
    "spotify", "apple_music", "amazon", "deezer", "tiktok", "youtube", "tracklist", "beatport",
    "traxsource", "itunes", "shazam", "soundcloud", "tidal", "radio",
)  # fmt: skip
"""Accepted values of `source`. Spotify and `OTHER_METRICS` have data."""

_IDENTIFIERS = ("isrc", "songstats_track_id", "spotify_track_id", "apple_music_track_id")
_ISRC = re.compile(r"[A-Z]{2}[A-Z0-9]{3}[0-9]{7}")
_UNKNOWN = KnownRecording()

Handler = Callable[[Request], Awaitable[Response]]


class SongstatsDouble:
    """The API, its recordings, and the month's bill."""

    def __init__(
        self,
        behaviour: Behaviour,
        catalogue: Mapping[str, KnownRecording],
        clock: Callable[[], datetime],
        memory: Memory,
    ) -> None:
        self._behaviour = behaviour
        self._catalogue = dict(catalogue)
        self._clock = clock
        self._memory = memory
        self._requests = memory.table("songstats requests by month")
        self._asked = memory.table("songstats requests by isrc")
        # Limited, because the bodies of a large catalogue are hundreds of megabytes.
        self._body = lru_cache(maxsize=256)(self._render)

    def learn(self, catalogue: Mapping[str, KnownRecording]) -> None:
        """Adds or replaces facts about recordings."""
        self._catalogue.update(catalogue)
        self._body.cache_clear()

    def routes(self) -> list[BaseRoute]:
        """The routes of the API, each behind the key."""
        served: dict[str, Handler] = {
            "/tracks/historic_stats": self._historic_stats,
            "/status": self._status,
            "/sources": _sources,
            "/definitions": _definitions,
            "/uptime_check": _uptime_check,
        }
        return [Route(PREFIX + path, self._behind_key(handler), methods=["GET"]) for path, handler in served.items()]

    def _behind_key(self, handler: Handler) -> Handler:
        @wraps(handler)
        async def guarded(request: Request) -> Response:
            if request.headers.get("apikey") != self._behaviour.songstats_key:
                return _error(401, "Invalid Api Key")
            return await handler(request)

        return guarded

    async def _historic_stats(self, request: Request) -> Response:
        now = self._clock()
        # Counted before the response, like the vendor, so that a kill in between leaves a counted request.
        self._requests.count(_month(now))
        query = request.query_params
        sources = tuple(name for name in query.get("source", "").lower().split(",") if name)
        if not sources:
            return _error(400, "Parameter source is required.")
        if unknown := [name for name in sources if name not in (*SOURCES, "all")]:
            return _error(400, f"Unknown source: {', '.join(unknown)}")
        if not any(query.get(name) for name in _IDENTIFIERS):
            return _error(400, f"One of {', '.join(_IDENTIFIERS)} is required.")
        if self._behaviour.artist_id not in (None, query.get("songstats_artist_id")):
            return _error(403, "This key needs its own songstats_artist_id.")
        try:
            start, end = _day(query.get("start_date")), _day(query.get("end_date"))
        except ValueError:
            return _error(400, "start_date and end_date are to be YYYY-MM-DD.")
        isrc = query.get("isrc", "")
        if not self._found(isrc):
            return _error(404, "Track not found. ")
        self._objects(now)[isrc] = True
        asked_for = SOURCES if "all" in sources else tuple(dict.fromkeys(sources))
        aggregates = query.get("with_aggregates", "").lower() == "true"
        body = self._body(isrc, asked_for, aggregates, start, end, self._behaviour.history_until(now))
        return Response(body, media_type="application/json")

    def _found(self, isrc: str) -> bool:
        if not _ISRC.fullmatch(isrc):
            return False
        asked = self._asked.count(isrc)
        role = self._role(isrc)
        if role is Scenario.LATER:
            return asked > self._behaviour.discovered_after
        return role is not Scenario.ABSENT

    def _role(self, isrc: str) -> Scenario:
        if isrc == GBUM72501895:
            return Scenario.PLAIN
        return self._catalogue.get(isrc, _UNKNOWN).role or self._behaviour.role(isrc)

    def _render(
        self,
        isrc: str,
        sources: tuple[str, ...],
        aggregates: bool,  # noqa: FBT001  # lru_cache distinguishes keyword from positional calls
        start: date | None,
        end: date | None,
        until: date,
    ) -> bytes:
        return render(
            isrc,
            self._catalogue.get(isrc, _UNKNOWN),
            self._role(isrc),
            self._behaviour,
            sources=sources,
            aggregates=aggregates,
            start=start,
            end=end,
            until=until,
        )

    async def _status(self, _: Request) -> Response:
        now = self._clock()
        status: dict[str, int | str] = {}
        for name, month in (("current", now), ("previous", now.replace(day=1) - timedelta(days=1))):
            objects = len(self._objects(month))
            status[f"{name}_month_total_requests"] = self._requests.get(_month(month), 0)
            status[f"{name}_month_total_requested_objects"] = objects
            status[f"{name}_month_total_bill"] = f"{objects / 10:.2f}"
        return _success(status=status)

    def _objects(self, at: datetime) -> Table:
        """The recordings with data in that month."""
        return self._memory.table(f"songstats objects of {_month(at)}")


def _month(at: datetime) -> str:
    return f"{at:%Y-%m}"


async def _sources(_: Request) -> Response:
    return _success(sources=SOURCES)


async def _definitions(_: Request) -> Response:
    metrics = ["streams_total", "popularity_current", *AGGREGATES, *OTHER_METRICS.values()]
    return _success(definitions={name: name.replace("_", " ") for name in metrics})


async def _uptime_check(_: Request) -> Response:
    return _success()


def _day(text: str | None) -> date | None:
    """A YYYY-MM-DD date, or None without the parameter. Raises ValueError otherwise."""
    if text is None:
        return None
    return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007  # a date has no zone


def _success(**more: object) -> Response:
    return _json(200, {"result": "success", "message": "Data Retrieved.", **more})


def _error(status: int, message: str) -> Response:
    return _json(status, {"result": "error", "message": message})


def _json(status: int, content: object) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")
