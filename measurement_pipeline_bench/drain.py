"""The backfill: recordings a second, through the real daemon and by the worker alone.

Its comparisons are a bare asyncio script, and one run for each recording through the same daemon. The details show where the
time goes: of the drain, of the worker's stages, and the CPU time for each recording.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_bench import daemon, processes
from measurement_pipeline_bench.daemon import Timeline
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Deployment, Lab, doubles, isrcs
from measurement_pipeline_bench.sql import statements

_SQL = statements("drain")
_POINTS = 365
_LATENCY_SECONDS = 0.05
_SCRIPT = "a bare asyncio script, same calls and rows"
_MAX_MB = 250


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process spent on `recordings`. `printed` is its own account."""

    recordings: int
    printed: dict[str, Any]
    server_cpu: float
    transactions: int

    @property
    def rate(self) -> float:
        """Recordings a second."""
        return self.recordings / float(self.printed["seconds"])

    def details(self, name: str) -> dict[str, float]:
        """CPU time and transactions for each recording."""
        return {
            f"{name}: CPU of the process, ms": 1000 * float(self.printed["cpu"]) / self.recordings,
            f"{name}: CPU of PostgreSQL, ms": 1000 * self.server_cpu / self.recordings,
            f"{name}: transactions": self.transactions / self.recordings,
        }


def measure(lab: Lab) -> Findings:
    """Measure the script, the worker and the daemon, each on fresh databases, then the daemon with five times as many."""
    with doubles(points=_POINTS, latency=_LATENCY_SECONDS) as sandbox:
        songs, many = isrcs(lab.size(2000, 60)), isrcs(lab.size(10_000, 120))
        few = songs[: lab.size(24, 4)]
        # The script runs between the others, so that other load on the machine affects all alike.
        worker = _by_process(lab, sandbox, songs, "worker_run")
        script = _by_process(lab, sandbox, songs, "bare_script")
        ours = _by_daemon(lab, sandbox, songs)
        long = _by_daemon(lab, sandbox, many)
        long_script = _by_process(lab, sandbox, many, "bare_script")
        single = _one_run_each(lab, sandbox, few)
    # From the first settled row to the last: a long backfill's start-up does not matter.
    single_rate = (len(few) - 1) / (single.last_settled - single.first_settled)
    rate, long_rate = len(songs) / ours.seconds, len(many) / long.seconds
    what, longer = (f"drain of {len(one):,} recordings of {_POINTS} points" for one in (songs, many))
    unit = "recordings/s"
    return Findings(
        [
            Figure(
                f"the worker without Dagster, {len(songs):,} recordings",
                unit,
                worker.rate,
                _SCRIPT,
                script.rate,
                Target("ratio", at_least=1.0),
                "worker: the use case in its own process, from its claim to its last settled row",
            ),
            Figure(
                what,
                unit,
                rate,
                _SCRIPT,
                script.rate,
                Target("ratio", at_least=0.8),
                "drain: ours from the request's insert on, half way between two ticks of the sensor, to the last row settled and "
                "reported; the script from its first connection on, the queue being there",
            ),
            Figure(longer, unit, long_rate, _SCRIPT, long_script.rate, Target("ratio", at_least=0.9)),
            Figure(
                "the same while a run calls and settles",
                unit,
                len(many) / long.calling_seconds,
                _SCRIPT,
                long_script.rate,
                note="while a run calls and settles: waiting for ticks, queue and new processes left out",
            ),
            Figure(
                f"memory of the largest run, {len(many):,} recordings",
                "MB",
                long.peak_mb,
                f"of {len(songs):,}",
                ours.peak_mb,
                Target("ours", at_most=_MAX_MB),
            ),
            Figure(
                what,
                unit,
                rate,
                "one run a recording, three at once",
                single_rate,
                Target("ratio", at_least=50),
                f"one run a recording: measured on {len(few)} recordings, from the first settled to the last",
            ),
        ],
        {
            "where the drain's time goes, in seconds": _where_it_goes(ours),
            "runs of the drain": _runs(ours),
            "the worker's stages, means": worker.printed["stages"],
            "for each recording": worker.details("worker") | script.details("script"),
        },
    )


def _by_daemon(lab: Lab, sandbox: SandboxClient, songs: list[str]) -> Timeline:
    deployment = lab.deployment(sandbox)
    lab.say("drain: starting the daemon")
    with daemon.running(deployment, sensor="backfill_queue_sensor") as supervisor:
        lab.say(f"drain: a request for {len(songs):,} recordings")
        found = daemon.drain(lab, deployment, songs, supervisor, patience_seconds=300)
    lab.say(f"drain: {found.seconds:.1f} s, {len(songs) / found.seconds:.1f} recordings/s")
    return found


def _one_run_each(lab: Lab, sandbox: SandboxClient, songs: list[str]) -> Timeline:
    deployment = lab.deployment(sandbox)
    lab.say(f"drain: the same with one run a recording, for {len(songs)}")
    code = ["-m", "measurement_pipeline_bench.one_run_each"]
    with daemon.running(deployment, sensor="one_run_a_recording", code=code) as supervisor:
        return daemon.drain(lab, deployment, songs, supervisor, patience_seconds=300)


def _by_process(lab: Lab, sandbox: SandboxClient, songs: Sequence[str], module: str) -> Cost:
    """Run a module of the benchmark over `songs`, whose rows are on the queue."""
    deployment = lab.deployment(sandbox)
    lab.say(f"drain: {module} for {len(songs):,}")
    job = deployment.submit(songs)
    deployment.process_requests()
    server_cpu, transactions = _server_costs(deployment)
    found = subprocess.run(
        [sys.executable, "-m", f"measurement_pipeline_bench.{module}"],
        env={**os.environ, **deployment.environment, "BENCH_ACCOUNT": str(deployment.account), "BENCH_JOB": str(job)},
        input="\n".join(songs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    # A session counts its transactions in the statistics once it has ended.
    time.sleep(0.5)
    after_cpu, after_transactions = _server_costs(deployment)
    cost = Cost(len(songs), json.loads(found.stdout), after_cpu - server_cpu, after_transactions - transactions)
    lab.say(f"drain: {module}: {cost.rate:.1f} recordings/s")
    return cost


def _server_costs(deployment: Deployment) -> tuple[float, int]:
    """The server's CPU time and the database's transactions so far."""
    with deployment.connect() as connection:
        row = connection.execute(_SQL["transactions"]).fetchone() or {}
    return processes.server_cpu_seconds(row["pid"]), row["transactions"]


def _where_it_goes(found: Timeline) -> dict[str, float]:
    first, gaps = found.runs[0], list(pairwise(found.runs))
    parts = {
        "insert to accepted (sensor tick, intake run)": found.accepted - found.asked,
        "accepted to first run planned (sensor tick)": first.created - found.accepted,
        "planned to started (queue, new process)": first.started - first.created,
        "started to first call (loading, claim)": first.first_call - first.started,
        "calling and settling": found.calling_seconds,
        "between runs: last settled to run's end": sum(one.ended - one.last_settled for one, _ in gaps),
        "between runs: run's end to next one's start": sum(after.started - one.ended for one, after in gaps),
        "between runs: start to first call": sum(after.first_call - after.started for _, after in gaps),
    }
    return {name: round(seconds, 2) for name, seconds in parts.items()} | {"in all": round(found.seconds, 2)}


def _runs(found: Timeline) -> dict[str, str]:
    return {
        f"run {place}": f"{run.recordings} recordings, {run.recordings / (run.last_settled - run.first_call):.0f}/s"
        for place, run in enumerate(found.runs, 1)
    }
