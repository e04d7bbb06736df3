"""A request through the real daemon: start it, insert a request, wait until all rows are settled, and read the times.

The times come from the databases: the request, the queue, the ledger, and Dagster's runs and events.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from measurement_pipeline.local import supervisor
from measurement_pipeline.local.dagster_processes import DagsterProcesses
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_bench import processes
from measurement_pipeline_bench.lab import Deployment, Lab
from measurement_pipeline_bench.sql import statements

_SQL = statements("daemon")

_POLL_SECONDS = 0.2
# How often Dagster's daemon evaluates sensors, whatever their own intervals say.
_SENSOR_LOOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of `songstats_backfill`: the number of rows it settled, and when (Unix time, seconds)."""

    created: float
    started: float
    first_call: float
    last_settled: float
    ended: float
    recordings: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """A finished request. All times are Unix times in seconds."""

    asked: float
    accepted: float
    first_settled: float
    last_settled: float
    last_reported: float
    runs: Sequence[Run]
    peak_mb: float

    @property
    def seconds(self) -> float:
        """From the request's insert until the last row is settled and its materialization is in Dagster's database."""
        return max(self.last_settled, self.last_reported) - self.asked

    @property
    def calling_seconds(self) -> float:
        """The time in which runs called and settled: from each run's first call to its last settled row."""
        return sum(run.last_settled - run.first_call for run in self.runs)


@contextmanager
def running(deployment: Deployment, *, sensor: str, code: Sequence[str] = ()) -> Iterator[supervisor.Supervisor]:
    """The real daemon with the project's dagster.yaml, once `sensor` has ticked. `code` replaces the project's definitions."""
    started_by = DagsterProcesses(
        deployment.processes, deployment.environment, **({"code_arguments": code} if code else {})
    )
    daemon = replace(started_by.daemon(), ready=supervisor.log_contains(f"Checking for new runs for sensor: {sensor}"))
    with supervisor.supervised([started_by.code_server(), daemon]) as started:
        # A request arrives half way between two ticks of the sensors on average, so this one does exactly that.
        time.sleep(_SENSOR_LOOP_SECONDS / 2)
        yield started


def drain(
    lab: Lab,
    deployment: Deployment,
    songs: Sequence[str],
    running: supervisor.Supervisor,
    *,
    patience_seconds: float,
) -> Timeline:
    """Submit `songs` as a client does and wait until each is settled. Raises `CommandError` after `patience_seconds`."""
    columns = (TextColumn("         "), BarColumn(), MofNCompleteColumn(), TextColumn("settled"), TimeElapsedColumn())
    with deployment.connect() as connection, Progress(*columns, console=lab.console, transient=True) as bar:
        task = bar.add_task("", total=len(songs))
        deployment.submit(songs)
        deadline = time.monotonic() + patience_seconds
        settled, peak_mb = 0, 0.0
        code_server = running.pid("code-server")
        while settled < len(songs):
            if time.monotonic() > deadline:
                tail = deployment.log.read_text(errors="replace")[-3000:]
                raise CommandError(f"{settled} of {len(songs)} settled after {patience_seconds:g} s\n{tail}")
            time.sleep(_POLL_SECONDS)
            running.check()
            if code_server is not None:
                peak_mb = max(peak_mb, processes.largest_run_mb(code_server))
            counts = backfill_queue.counts(connection)
            settled = counts["done"] + counts["failed"]
            bar.update(task, completed=settled)
        if counts["stored"] < len(songs):
            raise CommandError(f"only {counts['stored']} of {len(songs)} recordings were stored")
    _until_runs_ended(deployment)
    return _timeline(deployment, len(songs), peak_mb)


def _until_runs_ended(deployment: Deployment) -> None:
    with connect(deployment.dagster_url) as connection:
        deadline = time.monotonic() + 30
        while connection.execute(_SQL["unfinished"]).fetchone() is not None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _timeline(deployment: Deployment, recordings: int, peak_mb: float) -> Timeline:
    with deployment.connect() as connection, connect(deployment.dagster_url) as dagster:
        times = connection.execute(_SQL["times"]).fetchone() or {}
        ended = {row.pop("run"): row for row in dagster.execute(_SQL["runs"])}
        reported = dagster.execute(_SQL["reported"]).fetchone() or {}
        if reported.pop("recordings") != recordings:
            raise CommandError(f"Dagster does not show a materialization of each of {recordings} recordings")
        runs = [Run(**ended[row.pop("run")], **row) for row in connection.execute(_SQL["work"])]
    return Timeline(**times, **reported, runs=runs, peak_mb=peak_mb)
