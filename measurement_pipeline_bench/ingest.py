"""Ingest: rows a second and bytes for each row of `song_measurements`, through the statement that settles rows.

The comparison is the same statement and rows on a table with a uuid key, a unique constraint and a second index.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from measurement_pipeline.domain.backfill_queue import Claim, SettledRow, Settlement, Status
from measurement_pipeline.domain.outcome import Cause, DailyCount, Outcome
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres.database import ReconnectingConnection
from measurement_pipeline_bench.figures import Figure, Findings
from measurement_pipeline_bench.lab import Deployment, Lab, doubles, isrcs
from measurement_pipeline_bench.sql import statements

_SQL = statements("ingest")

_POINTS = 365
_FIRST_DAY = date(2025, 1, 1)
_RUN = "bench"
# About as many as the backfill settles at once when the database is the slower side.
_BATCH = 20


@dataclass(frozen=True, slots=True)
class _Ingested:
    rows_per_second: float
    bytes_per_row: float


def measure(lab: Lab) -> Findings:
    """Insert the same recordings into both tables."""
    songs = isrcs(lab.size(1_000, 40))
    with doubles(points=1) as sandbox:
        lab.say(f"ingest: {len(songs) * _POINTS * 2:,} rows into song_measurements as it is")
        ours = _ingest(lab.deployment(sandbox), songs, widened=False)
        lab.say("ingest: the same with a uuid key, a unique constraint and a second index")
        wide = _ingest(lab.deployment(sandbox), songs, widened=True)
    beside = "uuid key, unique constraint, second index"
    note = f"ingest: the project's own statement for both, {_BATCH} recordings of 2 × {_POINTS} points at once"
    return Findings(
        [
            Figure(
                "ingest of song_measurements", "rows/s", ours.rows_per_second, beside, wide.rows_per_second, note=note
            ),
            Figure(
                "size of song_measurements, indexes included",
                "bytes/row",
                ours.bytes_per_row,
                beside,
                wide.bytes_per_row,
            ),
        ]
    )


def _ingest(deployment: Deployment, songs: Sequence[str], *, widened: bool) -> _Ingested:
    deployment.submit(songs)
    deployment.process_requests()
    with deployment.connect() as connection:
        if widened:
            connection.execute(_SQL["widen"])
        claims = backfill_queue.claim(
            connection, songs, run=_RUN, limit=len(songs), rules=deployment.services().backfill_config.rules
        )
        batches = list(_batches(claims))
        seconds = asyncio.run(_settle(deployment.database_url, batches))
        found = connection.execute(_SQL["size"]).fetchone()
    if found is None or found["row_count"] != len(songs) * _POINTS * 2:
        raise RuntimeError(f"expected {len(songs) * _POINTS * 2} rows, found {found}")
    return _Ingested(found["row_count"] / seconds, found["bytes"] / found["row_count"])


def _batches(claims: Sequence[Claim]) -> Iterator[list[SettledRow]]:
    days = [_FIRST_DAY + timedelta(n) for n in range(_POINTS)]
    levels = tuple(DailyCount(day, n % 100) for n, day in enumerate(days))
    for start in range(0, len(claims), _BATCH):
        yield [
            SettledRow(
                claim,
                Settlement(Status.DONE, Outcome.STORED),
                cause=Cause.STORED,
                status_code=200,
                response_id=1_000_000 + start + place,
                play_counts=tuple(DailyCount(day, (start + place) * 1_000 + n * 4_321) for n, day in enumerate(days)),
                popularity=levels,
            )
            for place, claim in enumerate(claims[start : start + _BATCH])
        ]


async def _settle(database_url: str, batches: Sequence[Sequence[SettledRow]]) -> float:
    line = ReconnectingConnection(database_url, patience_seconds=10)
    since = time.monotonic()
    for batch in batches:
        await line.execute(lambda c, b=batch: backfill_queue.settle(c, b, run=_RUN, parser_version=1))  # type: ignore[misc]
    seconds = time.monotonic() - since
    await line.close()
    return seconds
