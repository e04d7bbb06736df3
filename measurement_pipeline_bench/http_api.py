"""The HTTP API on large data: requests a second and latency of a POST and of each read.

Each is compared with a bare route that runs the same statements and answers with the same bytes. Client, servers and PostgreSQL
share the machine's cores, on both sides of every comparison.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request as UrlRequest
from urllib.request import urlopen
from uuid import UUID

from measurement_pipeline import services as composition
from measurement_pipeline.api import cursors, keys
from measurement_pipeline.local import supervisor
from measurement_pipeline.local.supervisor import Service
from measurement_pipeline.postgres import api_keys
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.http_load import Load, Request, send
from measurement_pipeline_bench.lab import Deployment, Lab, doubles, isrcs
from measurement_pipeline_bench.sql import statements

_SQL = statements("http_api")

_POINTS = 100
_AT_ONCE = 8
# Recordings whose points are inserted at once: PostgreSQL hands the new rows to a trigger.
_BATCH = 5_000
_JOBS = "/api/research/measurement-jobs"
_BARE = "a bare route: same statements, same bytes"
_WITH_TOTALS = "catalogue, first page of 100 with totals"
_POST = "POST of one recording"


def measure(lab: Lab) -> Findings:
    """Measure reads of single objects, pages and a whole catalogue, and POSTs: of one recording, and 200 equal ones at once."""
    recordings, requests = lab.size(100_000, 1_000), lab.size(1_000, 40)
    songs = isrcs(recordings)
    with doubles(points=1) as sandbox:
        deployment = lab.deployment(sandbox, API_REQUESTS_PER_MINUTE="0")
        lab.say(f"http: {recordings:,} recordings of {_POINTS} points")
        catalog = _fill(deployment, recordings)
        with _running(deployment) as (port, bare_port, key):
            headers = {"x-api-key": key}
            some = [songs[(at * 7919) % recordings] for at in range(requests)]
            others = [songs[(at * 7919 + 1) % recordings] for at in range(requests)]
            page = f"/api/catalogs/{catalog}/measurements"
            kinds: dict[str, list[Request]] = {
                "series of a track": [("GET", f"/api/research/tracks/{s}/measurements", None) for s in some],
                "run rate of a track": [
                    ("GET", f"/api/research/tracks/{s}/measurements?aggregate=run_rate&window=28d", None) for s in some
                ],
                "album of 12": [
                    ("GET", f"/api/research/albums/album{at % (recordings // 12)}/measurements", None)
                    for at in range(1, requests)
                ],
                "list of jobs": [("GET", _JOBS, None)] * requests,
                _WITH_TOTALS: [("GET", page, None)] * lab.size(40, 4),
                "catalogue, a later page of 100": [
                    ("GET", f"{page}?cursor={cursors.encode_song_cursor(song)}", None) for song in some
                ],
            }
            _load(port, [("POST", _JOBS, _of([some[0]]))], headers)  # so that the payment check has run
            found: dict[str, tuple[Load, Load]] = {}
            lab.say("http: POSTs and reads")
            # Each side queues recordings that the other has not queued.
            found[_POST] = (
                _load(port, [("POST", _JOBS, _of([song])) for song in some], headers),
                _load(bare_port, [("POST", _JOBS, _of([song])) for song in others], headers),
            )
            for name, made in kinds.items():
                _require_equal_answers(port, bare_port, made[0][1], headers)
                warm = made[: 4 * _AT_ONCE] if name != _WITH_TOTALS else []
                for each in (port, bare_port) if warm else ():
                    _load(each, warm, headers)
                found[name] = (_load(port, made, headers), _load(bare_port, made, headers))
            lab.say("http: 200 POSTs of the same job at once")
            wanted = ["GBUM72501895", "USSM19902991", "GBUM72501896"]
            burst = send(port, [("POST", _JOBS, _of(wanted))] * 200, at_once=200, headers=headers)
        with deployment.connect() as connection:
            rows = connection.execute(_SQL["burst"], {"songs": wanted}).fetchone()
    refused = sum(count for status, count in burst.statuses.items() if status != 202)
    if refused or rows != {"queue_rows": len(wanted), "recordings": len(wanted)}:
        raise RuntimeError(f"expected a row a recording and 202 alone, got {rows} and {dict(burst.statuses)}")
    note = f"http: {_AT_ONCE} connections, {recordings:,} recordings, {recordings * _POINTS:,} points"
    figures = [
        Figure(
            f"HTTP {name}",
            "req/s",
            ours.per_second,
            _BARE,
            bare.per_second,
            # The bare route computes the totals for each request, and the API once a minute: its target is the time.
            None if name == _WITH_TOTALS else Target("ratio", at_least=0.6 if name == _POST else 0.7),
            note,
        )
        for name, (ours, bare) in found.items()
    ]
    first = found[_WITH_TOTALS][0]
    figures.append(Figure("HTTP first page with totals, p99", "ms", first.p99, "", None, Target("ours", at_most=150)))
    figures.append(Figure("HTTP 200 POSTs of the same job at once", "req/s", burst.per_second, "", None))
    latency = {name: ours for name, (ours, _) in found.items()} | {"200 POSTs at once": burst}
    latency |= {f"{name}, bare": bare for name, (_, bare) in found.items()}
    return Findings(
        figures,
        {"HTTP: p50 and p99, in ms": {name: f"{one.p50:,.1f}  {one.p99:,.1f}" for name, one in latency.items()}},
    )


def _load(port: int, made: list[Request], headers: dict[str, str]) -> Load:
    found = send(port, made, at_once=_AT_ONCE, headers=headers)
    if found.statuses.keys() - {200, 202}:
        raise RuntimeError(f"expected 200 and 202, got {dict(found.statuses)} for {made[0]}")
    return found


def _require_equal_answers(port: int, bare_port: int, path: str, headers: dict[str, str]) -> None:
    ours, bare = (
        urlopen(UrlRequest(f"http://127.0.0.1:{each}{path}", headers=headers)).read()  # our own servers
        for each in (port, bare_port)
    )
    if ours != bare:
        raise RuntimeError(f"the bare route answers {path} with {bare[:200]!r}, the API with {ours[:200]!r}")


def _of(songs: list[str]) -> dict[str, object]:
    return {"source": "historical", "scope": {"isrcs": songs}}


def _fill(deployment: Deployment, recordings: int) -> UUID:
    with deployment.connect() as connection:
        deployment.know_account(connection)
        connection.execute(_SQL["recordings"], {"recordings": recordings})
        made = connection.execute(_SQL["catalog"], {"account": deployment.account}).fetchone()
        if made is None:
            raise LookupError("no catalogue was made")
        connection.execute(_SQL["list_them"], {"catalog": made["id"]})
        connection.execute(_SQL["on_albums"])
        for offset in range(0, recordings, _BATCH):
            connection.execute(_SQL["points"], {"days": _POINTS, "taken": _BATCH, "skipped": offset})
        for statement in ("vacuum", "vacuum_songs", "vacuum_latest"):
            connection.execute(_SQL[statement])
    return UUID(str(made["id"]))


@contextmanager
def _running(deployment: Deployment) -> Iterator[tuple[int, int, str]]:
    """Start both servers, each in its own process; yield their ports and a key."""
    key, prefix = keys.generate_key()
    with deployment.connect() as connection:
        digest = keys.hash_key(key, secret=composition.SANDBOX_KEY_SECRET)
        api_keys.add(connection, account=deployment.account, name="bench", prefix=prefix, digest=digest)
    port, bare_port = supervisor.free_port(), supervisor.free_port()
    logs = deployment.processes / "logs"
    started = [
        Service(
            "api",
            ["measurement-pipeline", "api", "--port", str(port)],
            deployment.environment,
            log=logs / "api.log",
            ready=supervisor.http_ready(f"http://127.0.0.1:{port}/readyz"),
        ),
        Service(
            "bare",
            [
                sys.executable,
                "-m",
                "measurement_pipeline_bench.bare_route",
                str(bare_port),
                str(deployment.account),
                prefix,
            ],
            deployment.environment,
            log=logs / "bare.log",
            ready=supervisor.http_ready(f"http://127.0.0.1:{bare_port}/bare"),
        ),
    ]
    with supervisor.supervised(started):
        yield port, bare_port, key
