"""Runs that all want the same last hits: a process whose threads reserve at once, each with a loop and connection of its own.

Takes one argument: `Orders` as JSON. Prints a line once every thread is connected; for each line that it then reads, every
thread asks for a hit for each of its rows, one after the other, and what they were told is printed as JSON.
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

READY, STRIKE = "ready", "strike"


@dataclass(frozen=True)
class Orders:
    """A run for each thread: its id, and the rows it has claimed, as (song, lease)."""

    database_url: str
    hits_allowed: int
    runs: dict[str, list[tuple[str, int]]]


@contextmanager
def hammers(orders: Sequence[Orders]) -> Iterator[list["subprocess.Popen[str]"]]:
    """The processes, all connected; dead at the end in any case."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "measurement_pipeline_tests.faults.hammer", json.dumps(asdict(one))],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for one in orders
    ]
    try:
        for process in processes:
            assert hears(process) == READY
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def says(process: "subprocess.Popen[str]", line: str) -> None:
    """Send a line to the process."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def hears(process: "subprocess.Popen[str]") -> str:
    """The next line from the process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Thread:
    """One run, in one thread at a time."""

    def __init__(self, orders: Orders, run: str) -> None:
        self._run, self._hits_allowed = run, orders.hits_allowed
        self._claims = [Claim(song, lease, 0, None, has_history=False) for song, lease in orders.runs[run]]
        self._loop = asyncio.Runner()
        self._connection = self._loop.run(
            psycopg.AsyncConnection.connect(
                orders.database_url, autocommit=True, prepare_threshold=None, row_factory=dict_row
            )
        )

    def strike(self) -> Counter[str]:
        """Ask for a hit for each row; how often each verdict was given."""
        return self._loop.run(self._ask())

    async def _ask(self) -> Counter[str]:
        told: Counter[str] = Counter()
        for claim in self._claims:
            (reservation,) = await ledger.reserve(
                self._connection, [claim], run=self._run, hits_allowed=self._hits_allowed, operators_account=None
            )
            told[reservation.verdict] += 1
        return told


def main(orders: Orders) -> None:
    """Strike at every line read, all threads at once."""
    with ThreadPoolExecutor(len(orders.runs)) as pool:
        threads = list(pool.map(lambda run: Thread(orders, run), orders.runs))
        _say(READY)
        for _ in sys.stdin:
            _say(json.dumps(sum(pool.map(Thread.strike, threads), Counter[str]())))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
