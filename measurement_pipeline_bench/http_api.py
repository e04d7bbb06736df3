"""The HTTP API on large data: requests a second and latency of a POST and of each read, beside a bare route with one SELECT.

Client, servers and PostgreSQL share the machine's cores, on both sides of every comparison.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from measurement_pipeline import services as composition
from measurement_pipeline.api import cursors, keys
from measurement_pipeline.local import supervisor
from measurement_pipeline.local.supervisor import Service
from measurement_pipeline.postgres import api_keys
from measurement_pipeline_bench.figures import Figure, Findings
from measurement_pipeline_bench.http_load import Load, Request, send
from measurement_pipeline_bench.lab import Deployment, Lab, doubles, isrcs
from measurement_pipeline_bench.sql import statements

_SQL = statements("http_api")

_POINTS = 100
_AT_ONCE = 8
_JOBS = "/api/research/measurement-jobs"
_BARE = "a bare FastAPI route that runs one SELECT"


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

            def load(made: list[Request]) -> Load:
                found = send(port, made, at_once=_AT_ONCE, headers=headers)
                if found.statuses.keys() - {200, 202}:
                    raise RuntimeError(f"expected 200 and 202, got {dict(found.statuses)} for {made[0]}")
                return found

            some = [songs[(at * 7919) % recordings] for at in range(requests)]
            page = f"/api/catalogs/{catalog}/measurements"
            load([("POST", _JOBS, _of([some[0]]))])  # so that the payment check has run
            bare = send(bare_port, [("GET", "/bare", None)] * requests, at_once=_AT_ONCE)
            lab.say("http: POSTs and reads")
            found = {
                "POST of one recording": load([("POST", _JOBS, _of([song])) for song in some]),
                "series of a track": load([("GET", f"/api/research/tracks/{s}/measurements", None) for s in some]),
                "run rate of a track": load(
                    [
                        ("GET", f"/api/research/tracks/{s}/measurements?aggregate=run_rate&window=28d", None)
                        for s in some
                    ]
                ),
                "album of 12": load(
                    [
                        ("GET", f"/api/research/albums/album{at % (recordings // 12)}/measurements", None)
                        for at in range(1, requests)
                    ]
                ),
                "list of jobs": load([("GET", _JOBS, None)] * requests),
                "catalogue, first page of 100 with totals": load([("GET", page, None)] * lab.size(40, 4)),
                "catalogue, a later page of 100": load(
                    [("GET", f"{page}?cursor={cursors.encode_song_cursor(song)}", None) for song in some]
                ),
            }
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
        Figure(f"HTTP {name}", "req/s", one.per_second, _BARE, bare.per_second, note=note)
        for name, one in found.items()
    ]
    figures.append(Figure("HTTP 200 POSTs of the same job at once", "req/s", burst.per_second, _BARE, bare.per_second))
    latency = {"bare": bare, **found, "200 POSTs at once": burst}
    return Findings(
        figures,
        {"HTTP: p50 and p99, in ms": {name: f"{one.p50:,.1f}  {one.p99:,.1f}" for name, one in latency.items()}},
    )


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
        connection.execute(_SQL["points"], {"days": _POINTS})
        for statement in ("vacuum", "vacuum_songs"):
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
            [sys.executable, "-m", "measurement_pipeline_bench.bare_route", str(bare_port)],
            deployment.environment,
            log=logs / "bare.log",
            ready=supervisor.http_ready(f"http://127.0.0.1:{bare_port}/bare"),
        ),
    ]
    with supervisor.supervised(started):
        yield port, bare_port, key
