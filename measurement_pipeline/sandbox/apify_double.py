"""Double of the Apify API: routes, token, and responses in Apify's envelope; items have none, and their counts are in headers.

It serves both path styles: `acts` as in the documentation, `actors` as in Apify's client. Runs are in `apify_runs`.
"""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from measurement_pipeline.sandbox.apify_runs import ApifyRuns, Object, SandboxActorRun
from measurement_pipeline.sandbox.scenarios import Behaviour

ACTOR = "beatanalytics~spotify-play-count-scraper"

_LONGEST_WAIT = 60.0
_MOST_RUNS = 1000
_NO_LIMIT = 999_999_999_999

Handler = Callable[[Request], Awaitable[Response]]


class ApifyDouble:
    """The API of one account that may run one actor."""

    def __init__(self, behaviour: Behaviour, runs: ApifyRuns, clock: Callable[[], datetime]) -> None:
        self._token = behaviour.apify_token
        self._runs = runs
        self._clock = clock

    def routes(self) -> list[BaseRoute]:
        """The routes of the API, each behind the token."""
        served: list[tuple[str, str, Handler]] = [
            ("GET", "/v2/actor-runs/{id}", self._look),
            ("GET", "/v2/key-value-stores/{id}/records/INPUT", self._input),
            ("GET", "/v2/datasets/{id}", self._dataset),
            ("GET", "/v2/datasets/{id}/items", self._items),
        ]
        for style in ("acts", "actors"):
            served += [
                ("POST", f"/v2/{style}/{{actor}}/runs", self._start),
                ("GET", f"/v2/{style}/{{actor}}/runs", self._list),
            ]
        return [Route(path, self._behind_token(handler), methods=[method]) for method, path, handler in served]

    def _behind_token(self, handler: Handler) -> Handler:
        @wraps(handler)
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.query_params.get(
                "token"
            )
            if not given:
                return _error(401, "token-not-provided", "Authentication token was not provided")
            if given != self._token:
                words = "User was not found or authentication token is not valid"
                return _error(401, "user-or-token-not-found", words)
            if request.path_params.get("actor", ACTOR) != ACTOR:
                return _error(404, "record-not-found", "Actor was not found")
            return await handler(request)

        return guarded

    async def _start(self, request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        try:
            urls = [entry["url"] for entry in json.loads(body)["urls"]]
        except (ValueError, KeyError, TypeError):
            urls = []
        if not urls or not all(isinstance(url, str) for url in urls):
            return _error(400, "invalid-input", "Input is not valid: Field input.urls is required")
        run = self._runs.start(urls, body, request.headers.get("content-type", "application/json"))
        # A new run always has this status, however soon it ends.
        return _data({**self._described(run), "status": "READY", "finishedAt": None, "statusMessage": None}, 201)

    async def _look(self, request: Request) -> Response:
        run = self._runs.run(request.path_params["id"])
        if run is None:
            return _error(404, "record-not-found", "Actor run was not found")
        wait = request.query_params.get("waitForFinish", "0")
        if not wait.isdecimal():
            return _error(400, "invalid-parameter", "waitForFinish is to be a number of seconds")
        # Slightly longer than the rest, because timers can fire early.
        left = (run.ends_at - self._clock()).total_seconds() + 0.01
        await asyncio.sleep(max(0.0, min(float(wait), _LONGEST_WAIT, left)))
        return _data(self._described(run))

    async def _list(self, request: Request) -> Response:
        try:
            offset, limit = _page(request, _MOST_RUNS)
        except ValueError:
            return _error(400, "invalid-parameter", "offset and limit are to be numbers")
        runs = self._runs.newest_first()
        desc = request.query_params.get("desc") in {"1", "true"}
        page = (runs if desc else runs[::-1])[offset:][:limit]
        return _data(
            {
                "total": len(runs),
                "offset": offset,
                "limit": limit,
                "desc": desc,
                "count": len(page),
                "items": [_short(self._described(run)) for run in page],
            }
        )

    async def _input(self, request: Request) -> Response:
        run = self._runs.run(request.path_params["id"])
        if run is None:
            return _error(404, "record-not-found", "Key-value Store was not found")
        return Response(run.input_body, media_type=run.input_type)

    async def _dataset(self, request: Request) -> Response:
        run = self._runs.run(request.path_params["id"])
        if run is None:
            return _error(404, "record-not-found", "Dataset was not found")
        found = self._runs.found(run)
        at = _moment(run.started_at)
        return _data(
            {
                "id": run.dataset_id,
                "name": None,
                "userId": "sandbox",
                "createdAt": at,
                "modifiedAt": at,
                "accessedAt": at,
                "itemCount": found,
                "cleanItemCount": found,
                "actId": ACTOR,
                "actRunId": run.id,
                "consoleUrl": "https://console.apify.com/storage/datasets/sandbox",
            }
        )

    async def _items(self, request: Request) -> Response:
        run = self._runs.run(request.path_params["id"])
        if run is None:
            return _error(404, "record-not-found", "Dataset was not found")
        try:
            offset, limit = _page(request, _NO_LIMIT)
        except ValueError:
            return _error(400, "invalid-parameter", "offset and limit are to be numbers")
        if request.query_params.get("format", "json") != "json":
            return _error(400, "invalid-parameter", "The double writes JSON only")
        items = self._runs.items(run)
        page = items[offset:][:limit]
        numbers = {"total": len(items), "offset": offset, "count": len(page), "limit": limit, "desc": "false"}
        headers = {f"x-apify-pagination-{name}": str(number) for name, number in numbers.items()}
        return _json(page, headers=headers)

    def _described(self, run: SandboxActorRun) -> Object:
        """The run object, with the fields that Apify's client requires."""
        status = run.status(self._clock())
        over = status == run.ends
        return {
            "id": run.id,
            "actId": "sandboxActor",
            "userId": "sandboxUser",
            "startedAt": _moment(run.started_at),
            "finishedAt": _moment(run.ends_at) if over else None,
            "status": status,
            "statusMessage": run.message if over else "Capturing albums",
            "isStatusMessageTerminal": over,
            "meta": {"origin": "API"},
            "stats": {"inputBodyLen": len(run.input_body), "restartCount": 0, "computeUnits": 0.01},
            "options": {"build": "latest", "timeoutSecs": 3600, "memoryMbytes": 1024, "diskMbytes": 2048},
            "buildId": "sandboxBuild",
            "buildNumber": "0.1.1",
            "exitCode": (0 if run.ends == "SUCCEEDED" else 1) if over else None,
            "defaultKeyValueStoreId": run.store_id,
            "defaultDatasetId": run.dataset_id,
            "defaultRequestQueueId": f"rq{run.id[2:]}",
            "usageTotalUsd": 0.003 * len(run.albums),
        }


def _page(request: Request, most: int) -> tuple[int, int]:
    """Offset and limit. Raises ValueError if one is not a number."""
    offset, limit = (int(request.query_params.get(name) or 0) for name in ("offset", "limit"))
    return max(0, offset), min(limit, most) if limit > 0 else most


def _short(run: Object) -> Object:
    """The run as in a list: without the status message and other fields."""
    left_out = {"statusMessage", "isStatusMessageTerminal", "stats", "options", "exitCode"}
    return {name: value for name, value in run.items() if name not in left_out}


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _data(content: object, status: int = 200) -> Response:
    return _json({"data": content}, status)


def _error(status: int, kind: str, message: str) -> Response:
    return _json({"error": {"type": kind, "message": message}}, status)


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, "application/json; charset=utf-8")
