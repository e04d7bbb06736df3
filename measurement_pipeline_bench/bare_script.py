"""`python -m measurement_pipeline_bench.bare_script`: the backfill as an asyncio script, for comparison.

It is what a good engineer writes in a day for this one task. It makes the same calls at the same concurrency and writes the same
rows to the same tables, with the same three commits for each recording: the hit before the call, the response with its hit, the
measurements with the queue's row. Each stage has its own connection with prepared statements, and writes all that waits for it in
one statement and one commit. A lost connection is opened again and the statement repeated.

It has no claims, leases, payers, budget, breaker, heartbeats, pace, restatements or Dagster. It reads its input from the
environment and prints its duration and CPU time in seconds, without its own start.
"""

import asyncio
import json
import os
import resource
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

import httpx
import psycopg
from psycopg.types.json import Jsonb

from measurement_pipeline_bench.sql import statements

_SQL = statements("bare_script")

_CONCURRENCY = 20
_BATCH = 64
_ATTEMPTS = 5

T = TypeVar("T")
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, until its measurements are stored."""

    song: str
    ledger: int
    headers: Mapping[str, str]
    body: bytes


class Database:
    """One connection, opened again when it is lost. Each statement can be repeated."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.AsyncConnection[Row] | None = None

    async def execute(self, name: str, parameters: dict[str, object]) -> list[Row]:
        """Run a statement in a transaction of its own; its rows."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if self._connection is None:
                    self._connection = await psycopg.AsyncConnection.connect(
                        self._url, autocommit=True, prepare_threshold=0
                    )
                return await (await self._connection.execute(_SQL[name], parameters)).fetchall()
            except psycopg.OperationalError:
                await self.close()
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(0.2 * attempt)
        raise AssertionError("not reached")

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class Script:
    """The stages and the queues between them. A full queue holds the stage before it."""

    def __init__(
        self, database_url: str, new_client: Callable[[], httpx.AsyncClient], account: UUID, job: UUID
    ) -> None:
        self._new_client = new_client
        self._account = account
        self._job = job
        self._databases = [Database(database_url) for _ in range(3)]
        self._to_call: asyncio.Queue[tuple[str, int] | None] = asyncio.Queue(_CONCURRENCY)
        self._to_keep: asyncio.Queue[Answer | None] = asyncio.Queue(_BATCH)
        self._to_store: asyncio.Queue[tuple[Answer, int] | None] = asyncio.Queue(_BATCH)

    async def run(self, songs: Sequence[str]) -> None:
        """Buy and store each of `songs`, whose queue rows exist."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reserve(songs))
            group.create_task(self._keep())
            group.create_task(self._store())
            async with asyncio.TaskGroup() as callers:
                for _ in range(_CONCURRENCY):
                    callers.create_task(self._call())
            await self._to_keep.put(None)
        for database in self._databases:
            await database.close()

    async def _reserve(self, songs: Sequence[str]) -> None:
        for start in range(0, len(songs), _CONCURRENCY):
            batch = songs[start : start + _CONCURRENCY]
            reserved = await self._databases[0].execute(
                "reserve", {"songs": batch, "account": self._account, "job": self._job}
            )
            for song, ledger in reserved:
                await self._to_call.put((song, ledger))
        for _ in range(_CONCURRENCY):
            await self._to_call.put(None)

    async def _call(self) -> None:
        # A client of its own: a shared one searches all its connections for every call.
        async with self._new_client() as client:
            while (reserved := await self._to_call.get()) is not None:
                song, ledger = reserved
                response = await client.get(
                    "/enterprise/v1/tracks/historic_stats", params={"source": "spotify", "isrc": song}
                )
                response.raise_for_status()
                await self._to_keep.put(Answer(song, ledger, dict(response.headers), response.content))

    async def _keep(self) -> None:
        async for batch in _batches(self._to_keep):
            kept = await self._databases[1].execute(
                "keep",
                {
                    "ledgers": [answer.ledger for answer in batch],
                    "headers": [Jsonb(answer.headers) for answer in batch],
                    "digests": [sha256(answer.body).hexdigest() for answer in batch],
                    "bodies": [answer.body for answer in batch],
                },
            )
            responses: dict[int, int] = dict(kept)
            for answer in batch:
                await self._to_store.put((answer, responses[answer.ledger]))
        await self._to_store.put(None)

    async def _store(self) -> None:
        async for batch in _batches(self._to_store):
            histories = []
            for answer, _ in batch:
                histories.append(_read(answer.body))
                await asyncio.sleep(0)
            await self._databases[2].execute(
                "store",
                {
                    "songs": [answer.song for answer, _ in batch],
                    "responses": [response for _, response in batch],
                    "days": [days for days, _, _ in histories],
                    "counts": [counts for _, counts, _ in histories],
                    "levels": [levels for _, _, levels in histories],
                },
            )


def _read(body: bytes) -> tuple[str, str, str]:
    """Days, counts and levels of a response as array literals, which PostgreSQL reads faster than psycopg writes lists."""
    entry = next(e for e in json.loads(body)["stats"] if e["source"] == "spotify")
    history = entry["data"]["history"]
    return (
        "{" + ",".join([point["date"] for point in history]) + "}",
        "{" + ",".join([str(point["streams_total"]) for point in history]) + "}",
        "{" + ",".join([str(point["popularity_current"]) for point in history]) + "}",
    )


async def _batches(waiting: "asyncio.Queue[T | None]") -> AsyncIterator[list[T]]:
    """All that waits, up to a batch, again and again until None arrives."""
    has_ended = False
    while not has_ended:
        batch: list[T] = []
        item = await waiting.get()
        while item is not None:
            batch.append(item)
            if len(batch) == _BATCH or waiting.empty():
                break
            item = waiting.get_nowait()
        has_ended = item is None
        if batch:
            yield batch


async def drain(database_url: str, base_url: str, key: str, account: UUID, job: UUID, songs: Sequence[str]) -> None:
    """Buy and store each of `songs`."""
    new_client = partial(
        httpx.AsyncClient,
        base_url=base_url,
        headers={"apikey": key, "accept": "application/json"},
        timeout=50,
        trust_env=False,
        verify=ssl.create_default_context(),
    )
    await Script(database_url, new_client, account, job).run(songs)


def main() -> None:
    """Read the songs from stdin, one for each line."""
    songs = sys.stdin.read().split()
    environment = os.environ
    account, job = (UUID(environment[name]) for name in ("BENCH_ACCOUNT", "BENCH_JOB"))
    since, cpu_before = time.monotonic(), _cpu_seconds()
    vendor = environment["SONGSTATS_BASE_URL"], environment["SONGSTATS_API_KEY"]
    asyncio.run(drain(environment["DATABASE_URL"], *vendor, account, job, songs))
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - since, "cpu": _cpu_seconds() - cpu_before}))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
