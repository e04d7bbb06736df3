"""Runs that compete for the last hits: one process whose threads reserve at once, each with its own event loop and connection.

Takes one argument: `ReservationTask` as JSON. Prints a line once every thread is connected. For each line of input, every thread
reserves a hit for each of its rows in turn; the process prints the verdicts as JSON.
"""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from measurement_pipeline.domain.backfill_queue import Claim
from measurement_pipeline.postgres import songstats_ledger as ledger

READY, START = "ready", "strike"


@dataclass(frozen=True)
class ReservationTask:
    """The runs, one for each thread: the run's id, and the rows it has claimed as (song, lease)."""

    database_url: str
    hits_allowed: int
    runs: dict[str, list[tuple[str, int]]]


@contextmanager
def start_processes(task: Sequence[ReservationTask]) -> Iterator[list["subprocess.Popen[str]"]]:
    """Start the processes and wait until they are connected; kill them when the block ends."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "measurement_pipeline_tests.faults.reservation_process", json.dumps(asdict(one))],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for one in task
    ]
    try:
        for process in processes:
            assert read_line(process) == READY
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def send_line(process: "subprocess.Popen[str]", line: str) -> None:
    """Send a line to the process."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def read_line(process: "subprocess.Popen[str]") -> str:
    """The next line from the process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


class RunThread:
    """One run, in one thread at a time."""

    def __init__(self, task: ReservationTask, run: str) -> None:
        self._run, self._hits_allowed = run, task.hits_allowed
        self._claims = [Claim(song, lease, 0, None, has_history=False) for song, lease in task.runs[run]]
        self._loop = asyncio.Runner()
        self._connection = self._loop.run(
            psycopg.AsyncConnection.connect(
                task.database_url, autocommit=True, prepare_threshold=None, row_factory=dict_row
            )
        )

    def strike(self) -> Counter[str]:
        """Reserve a hit for each row; count the verdicts."""
        return self._loop.run(self._reserve())

    async def _reserve(self) -> Counter[str]:
        verdicts: Counter[str] = Counter()
        for claim in self._claims:
            (reservation,) = await ledger.reserve(
                self._connection, [claim], run=self._run, hits_allowed=self._hits_allowed, operators_account=None
            )
            verdicts[reservation.verdict] += 1
        return verdicts


def main(task: ReservationTask) -> None:
    """Reserve in all threads at once, for every line read."""
    with ThreadPoolExecutor(len(task.runs)) as pool:
        threads = list(pool.map(lambda run: RunThread(task, run), task.runs))
        _print(READY)
        for _ in sys.stdin:
            _print(json.dumps(sum(pool.map(RunThread.strike, threads), Counter[str]())))


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(ReservationTask(**json.loads(sys.argv[1])))
