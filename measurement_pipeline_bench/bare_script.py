"""`python -m measurement_pipeline_bench.bare_script`: the backfill as a plain asyncio script, for comparison.

It makes the same calls at the same concurrency and writes the same rows to the same tables. It needs the same three commits for
each recording: the hit before the call, the response with its hit, the measurements with the queue's row. It has no claims,
leases, budget, breaker, heartbeat, pace, retries or Dagster. It reads its input from the environment and prints its duration in
seconds, without its own start.
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from hashlib import sha256
from uuid import UUID

import httpx
import psycopg
from psycopg.types.json import Jsonb

from measurement_pipeline_bench.sql import statements

_SQL = statements("bare_script")

_CONCURRENCY = 20
_CONNECTIONS = 6


async def drain(database_url: str, base_url: str, key: str, account: UUID, job: UUID, songs: list[str]) -> None:
    """Buy and store each of `songs`, whose queue rows exist."""
    pool: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        pool.put_nowait(await psycopg.AsyncConnection.connect(database_url, autocommit=True))
    waiting = deque(songs)
    async with httpx.AsyncClient(
        base_url=base_url,
        headers={"apikey": key, "accept": "application/json"},
        timeout=50,
        limits=httpx.Limits(max_connections=_CONCURRENCY),
        trust_env=False,
    ) as client:

        async def execute(name: str, parameters: dict[str, object]) -> int:
            connection = await pool.get()
            try:
                found = await (await connection.execute(_SQL[name], parameters)).fetchone()
            finally:
                pool.put_nowait(connection)
            assert found is not None
            return int(found[0])

        async def work() -> None:
            while waiting:
                song = waiting.popleft()
                ledger = await execute("reserve", {"song": song, "account": account, "job": job})
                answer = await client.get(
                    "/enterprise/v1/tracks/historic_stats", params={"source": "spotify", "isrc": song}
                )
                answer.raise_for_status()
                body = answer.content
                response = await execute(
                    "keep",
                    {
                        "ledger": ledger,
                        "status_code": answer.status_code,
                        "headers": Jsonb(dict(answer.headers)),
                        "sha256": sha256(body).hexdigest(),
                        "body": body,
                    },
                )
                entry = next(e for e in json.loads(body)["stats"] if e["source"] == "spotify")
                history = entry["data"]["history"]
                await execute(
                    "store",
                    {
                        "song": song,
                        "raw_ref": f"songstats_responses/{response}",
                        "days": [point["date"] for point in history],
                        "counts": [int(point["streams_total"]) for point in history],
                        "levels": [point["popularity_current"] for point in history],
                        "response": response,
                    },
                )

        await asyncio.gather(*(work() for _ in range(_CONCURRENCY)))
    while not pool.empty():
        await pool.get_nowait().close()


def main() -> None:
    """Read the songs from stdin, one for each line."""
    songs = sys.stdin.read().split()
    environment = os.environ
    account, job = (UUID(environment[name]) for name in ("BENCH_ACCOUNT", "BENCH_JOB"))
    since = time.monotonic()
    vendor = environment["SONGSTATS_BASE_URL"], environment["SONGSTATS_API_KEY"]
    asyncio.run(drain(environment["DATABASE_URL"], *vendor, account, job, songs))
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - since}))


if __name__ == "__main__":
    main()
