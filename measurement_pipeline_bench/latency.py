"""Seconds from a request's insert to its acceptance and to its first stored measurement, and the cost of an idle deployment.

Everything runs as `dev` runs it: code server, daemon, webserver and API. Each request comes from another account, so Stripe is
asked each time, and arrives at another moment of the sensors' intervals.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import mean, median, quantiles
from uuid import uuid4

import psutil

from measurement_pipeline.local import supervisor
from measurement_pipeline.local.dagster_processes import DagsterProcesses
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.local.supervisor import Service, Supervisor
from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Deployment, Lab, doubles, isrcs
from measurement_pipeline_bench.sql import statements

_SQL = statements("latency")

_API_KEY_SECRET = "the secret of the benchmark, for no one"  # noqa: S105
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 240.0
# After its start a deployment runs each schedule and loads what the first tick needs.
_WARM_UP_SECONDS = 20.0
# Between two requests: the runs have ended, and the next one arrives at another moment of the sensors' loop of 5 s.
_PAUSE_SECONDS = (6.0, 11.0)
_SEED = 7

_SERVICES = ("code-server", "dagster-daemon", "dagster-webserver", "api")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One request. Times are seconds since its insert; `cpu_seconds` of the services and their runs, until all had ended."""

    accepted: float
    planned: float
    started: float
    first_call: float
    stored: float
    cpu_seconds: float


def measure(lab: Lab) -> Findings:
    """Measure the idle deployment, then one request after the other."""
    tries, idle_seconds = lab.size(20, 2), float(lab.size(60, 5))
    with doubles(points=365, latency=0.05) as sandbox:
        deployment = lab.deployment(sandbox, API_KEY_SECRET=_API_KEY_SECRET)
        lab.say("latency: starting code server, daemon, webserver and API")
        with _deployed(deployment) as services, deployment.connect() as connection:
            time.sleep(lab.size(int(_WARM_UP_SECONDS), 5))
            lab.say(f"latency: {idle_seconds:g} s without a request")
            idle = _idle(services, idle_seconds)
            lab.say(f"latency: {tries} requests, one after the other")
            attempts = list(_attempts(lab, deployment, sandbox, connection, services, isrcs(tries)))
    accepted = [one.accepted for one in attempts]
    stored = [one.stored for one in attempts]
    what = f"of {tries} requests on an idle system"
    return Findings(
        [
            Figure(f"insert to first measurement stored, p50 {what}", "s", median(stored), "", None, _at_most(4)),
            Figure("the same, p95", "s", _p95(stored), "", None, _at_most(6)),
            Figure("insert to accepted, p95", "s", _p95(accepted), "", None, _at_most(2)),
            Figure(
                f"idle code server, daemon, webserver and API over {idle_seconds:g} s",
                "% of a core",
                100 * sum(idle.values()) / idle_seconds,
                "",
                None,
                _at_most(8),
            ),
        ],
        {
            "latency: seconds since the insert, mean (worst)": {
                name: f"{mean(values):.2f} ({max(values):.2f})"
                for name, values in {
                    "accepted": accepted,
                    "run created": [one.planned for one in attempts],
                    "run started": [one.started for one in attempts],
                    "first call": [one.first_call for one in attempts],
                    "first measurement stored": stored,
                }.items()
            },
            "latency: CPU of the services and their runs, in seconds": {
                "per request, until all runs have ended": round(mean(one.cpu_seconds for one in attempts), 2)
            },
            "idle: % of a core": {name: round(100 * used / idle_seconds, 2) for name, used in idle.items()},
        },
    )


@contextmanager
def _deployed(deployment: Deployment) -> Iterator[Mapping[str, psutil.Process]]:
    processes = DagsterProcesses(deployment.processes, deployment.environment)
    api = f"http://127.0.0.1:{supervisor.free_port()}"
    services = [
        processes.code_server(),
        processes.daemon(),
        processes.webserver(supervisor.free_port()),
        Service(
            "api",
            ["measurement-pipeline", "api", "--host", "127.0.0.1", "--port", api.rpartition(":")[2]],
            deployment.environment,
            log=processes.logs / "api.log",
            ready=supervisor.http_ready(f"{api}/readyz"),
        ),
    ]
    with supervisor.supervised(services) as running:
        yield _processes(running)


def _processes(running: Supervisor) -> Mapping[str, psutil.Process]:
    pids = {name: running.pid(name) for name in _SERVICES}
    return {name: psutil.Process(pid) for name, pid in pids.items() if pid is not None}


def _cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process, its ended children and its living ones."""
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _idle(services: Mapping[str, psutil.Process], seconds: float) -> dict[str, float]:
    before = {name: _cpu_seconds(process) for name, process in services.items()}
    time.sleep(seconds)
    return {name: _cpu_seconds(process) - before[name] for name, process in services.items()}


def _attempts(
    lab: Lab,
    deployment: Deployment,
    sandbox: SandboxClient,
    connection: Connection,
    services: Mapping[str, psutil.Process],
    songs: Sequence[str],
) -> Iterator[_Attempt]:
    pauses = random.Random(_SEED)  # noqa: S311
    with connect(deployment.dagster_url) as dagster:
        for song in songs:
            time.sleep(pauses.uniform(*_PAUSE_SECONDS))
            account = uuid4()
            sandbox.card(str(account))
            before = sum(map(_cpu_seconds, services.values()))
            job = measurement_jobs.submit(connection, account=account, source="historical", scope={"isrcs": [song]})
            _wait(connection, "stored", {"song": song}, f"{song} has no measurement; log: {deployment.log}")
            _wait(dagster, "all_ended", {}, "a run has not ended")
            after = sum(map(_cpu_seconds, services.values()))
            times = connection.execute(_SQL["times"], {"job": job, "song": song}).fetchone() or {}
            run = dagster.execute(_SQL["run"], {"run": times.pop("run")}).fetchone() or {}
            asked = times.pop("asked")
            attempt = _Attempt(
                **{name: at - asked for name, at in {**times, **run}.items()}, cpu_seconds=after - before
            )
            lab.say(f"latency: accepted after {attempt.accepted:.1f} s, first measurement after {attempt.stored:.1f} s")
            yield attempt


def _wait(connection: Connection, statement: str, parameters: dict[str, object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while connection.execute(_SQL[statement], parameters).fetchone() is None:
        if time.monotonic() > deadline:
            raise CommandError(f"{what} after {_PATIENCE_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)


def _p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]


def _at_most(seconds: float) -> Target:
    return Target("ours", at_most=seconds)
