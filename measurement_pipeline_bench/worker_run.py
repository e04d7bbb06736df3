"""`python -m measurement_pipeline_bench.worker_run`: run one backfill over the songs on stdin, without Dagster.

Prints as JSON: seconds and CPU seconds of the run, memory in MB before it and at its peak, and the trace of its stages.
"""

import asyncio
import json
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

from measurement_pipeline import services
from measurement_pipeline.backfill.results import ResultKind
from measurement_pipeline.backfill.run import BackfillRun
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline.vendors.songstats.response import SongstatsResponse
from measurement_pipeline_bench.sql import statements

_SQL = statements("worker_run")
_STATUS = Path("/proc/self/status")
_TICK_SECONDS = 0.01


class Trace:
    """When each call began and ended, and how late the event loop ran a timer: two clock reads for each recording."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[float, float]] = {}
        self.loop_delays: list[float] = []

    async def measure_loop(self) -> None:
        """Note how much later than asked for the loop wakes this task."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_TICK_SECONDS)
            self.loop_delays.append(time.monotonic() - before - _TICK_SECONDS)

    def stages(self, database_url: str, seconds: float) -> dict[str, float]:
        """The mean time of each stage in ms, and the mean number of calls in flight."""
        with connect(database_url) as connection:
            rows = connection.execute(_SQL["stages"]).fetchall()
        parts: dict[str, list[float]] = {
            "hit reserved → call begins": [self.calls[row["song"]][0] - row["reserved"] for row in rows],
            "call": [ended - began for began, ended in self.calls.values()],
            "response received → stored": [row["kept"] - self.calls[row["song"]][1] for row in rows],
            "stored → parsed and settled": [row["settled"] - row["kept"] for row in rows],
        }
        found = {f"{name}, ms": 1000 * sum(times) / len(times) for name, times in parts.items()}
        return found | {
            "event loop late by, ms": 1000 * sum(self.loop_delays) / max(1, len(self.loop_delays)),
            "calls in flight": sum(parts["call"]) / seconds,
        }


class _TracedClient:
    """A client that notes the time of each call."""

    def __init__(self, client: SongstatsClient, trace: Trace) -> None:
        self._client = client
        self._trace = trace

    async def fetch_history(self, isrc: str) -> SongstatsResponse:
        began = time.time()
        response = await self._client.fetch_history(isrc)
        self._trace.calls[isrc] = (began, time.time())
        return response

    async def fetch_status(self) -> SongstatsResponse:
        return await self._client.fetch_status()

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.create_task(self._trace.measure_loop())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticking.cancel()
        await self._client.aclose()


def peak_mb() -> float:
    """The peak resident memory so far, in MB.

    From /proc if it exists: on Linux, getrusage starts with the peak of the parent process.
    """
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def cpu_seconds() -> float:
    """The CPU time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the backfill and print its figures."""
    configured = services.load_services(os.environ)
    songs = sys.stdin.read().split()
    trace = Trace()

    new_client = configured.backfill_dependencies.new_client
    traced = replace(
        configured.backfill_dependencies,
        new_client=lambda: cast("SongstatsClient", _TracedClient(new_client(), trace)),
    )
    before = peak_mb()
    since, cpu_before = time.monotonic(), cpu_seconds()
    run = BackfillRun(
        songs,
        run="bench",
        is_operator=False,
        config=configured.backfill_config,
        dependencies=traced,
    )
    settled = sum(recording.kind is ResultKind.SETTLED for recording in run)
    if settled != len(songs):
        raise RuntimeError(f"only {settled} of {len(songs)} recordings were settled: {run.summary}")
    seconds = time.monotonic() - since
    found: dict[str, Any] = {
        "seconds": seconds,
        "cpu": cpu_seconds() - cpu_before,
        "before": before,
        "peak": peak_mb(),
        "stages": trace.stages(configured.backfill_config.database_url, seconds),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
