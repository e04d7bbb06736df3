"""The hit limit, with more concurrent runs than hits left: exactly the remaining hits are reserved."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from uuid import uuid4

import pytest

from measurement_pipeline.domain.backfill_queue import Claim
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres import songstats_ledger as ledger
from measurement_pipeline.postgres.database import AsyncConnection, ReconnectingConnection, connect
from measurement_pipeline.postgres.songstats_ledger import ReservationVerdict
from measurement_pipeline_tests.faults.invariants import assert_invariants_hold
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.reservation_process import (
    START,
    ReservationTask,
    read_line,
    send_line,
    start_processes,
)
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, isrcs

HITS = 150
CAP = 30
PROCESSES = 4
LOCK = "select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0))"


def claim(bench: Workbench, songs: Sequence[str], *, run: str) -> list[Claim]:
    with connect(bench.database_url) as connection:
        return backfill_queue.claim(connection, songs, run=run, limit=len(songs), rules=bench.config.rules)


def waiting_for_the_lock(bench: Workbench) -> int:
    (row,) = bench.sql(
        "select count(*) as n from pg_locks inner join pg_database on pg_locks.database = pg_database.oid"
        " where datname = current_database() and locktype = 'advisory' and not granted"
    )
    return int(row["n"])


@pytest.mark.fails_without("the budget counts open hits")
@pytest.mark.fails_without("the advisory lock is a separate statement")
@pytest.mark.fails_without("the advisory lock of the reserve")
def test_a_run_that_waited_for_the_last_hit_gets_none(bench: Workbench):
    """A count older than the wait for the lock, or no lock at all, would give the hit to both."""
    songs = isrcs(2)
    bench.submit_request(songs)
    mine, theirs = (claim(bench, [song], run=song) for song in songs)
    line = partial(ReconnectingConnection, bench.database_url, patience_seconds=0)
    reserve_one = partial(ledger.reserve, hits_allowed=1, operators_account=None)

    async def reserve_both() -> list[ReservationVerdict]:
        first, second = line(), line()

        async def and_then_the_other(connection: AsyncConnection) -> list[ReservationVerdict]:
            async with connection.transaction():
                reservations = await reserve_one(connection, mine, run=songs[0])
                other = asyncio.create_task(second.execute(partial(reserve_one, claims=theirs, run=songs[1])))
                while not (other.done() or waiting_for_the_lock(bench)):  # noqa: ASYNC110 - PostgreSQL sets no event
                    await asyncio.sleep(0.005)
            return [one.verdict for one in [*reservations, *await other]]

        try:
            return await first.execute(and_then_the_other)
        finally:
            await first.close()
            await second.close()

    assert asyncio.run(reserve_both()) == [ReservationVerdict.RESERVED, ReservationVerdict.BUDGET]
    assert [hit["song"] for hit in bench.ledger()] == songs[:1]


def test_concurrent_runs_reserve_exactly_the_remaining_hits(
    bench: Workbench, record_proof: ProofRecorder, *, long_form: bool
):
    """The hits of all accounts, and of one account with a cap, whose recordings each run reserves first."""
    threads, rows, rounds = (16, 4, 100) if long_form else (4, 15, 2)
    runs = [f"run-{n}" for n in range(PROCESSES * threads)]
    songs = isrcs(len(runs) * rows)
    capped = songs[: len(songs) // 4]
    account = uuid4()
    bench.submit_request(capped, account=account, ranks=range(10_000 + len(capped), 10_000, -1))
    bench.submit_request(songs[len(capped) :])
    bench.sql("update accounts set monthly_hit_cap = %s where id = %s", CAP, account)
    held = {run: claim(bench, songs[n :: len(runs)], run=run) for n, run in enumerate(runs)}
    task = [
        ReservationTask(
            bench.database_url, HITS, {run: [(c.song, c.lease) for c in held[run]] for run in runs[n::PROCESSES]}
        )
        for n in range(PROCESSES)
    ]
    with connect(bench.database_url) as gate, start_processes(task) as processes:
        for _ in range(rounds):
            bench.sql("truncate songstats_quota_ledger cascade")
            bench.sql("update songstats_backfill_queue set attempts = 0, attempt_run = null")
            bench.allow(bench.account)
            bench.allow(account)
            # All runs wait for the same lock before any of them proceeds.
            with gate.transaction():
                gate.execute(LOCK)
                for process in processes:
                    send_line(process, START)
                wait_until(lambda: waiting_for_the_lock(bench) == len(runs), what="all of them at the lock")
            verdicts = sum((Counter(json.loads(read_line(process))) for process in processes), Counter[str]())
            over_cap = len(capped) - CAP
            assert verdicts == {
                ReservationVerdict.RESERVED: HITS,
                ReservationVerdict.CAPPED: over_cap,
                ReservationVerdict.BUDGET: len(songs) - HITS - over_cap,
            }
            result = bench.sql(
                "select count(*) as hits, count(distinct song) as songs, count(settled_at) as settled,"
                " count(*) filter (where account = %s) as capped,"
                " (select sum(attempts) from songstats_backfill_queue) as attempts from songstats_quota_ledger",
                account,
            )
            assert result == [{"hits": HITS, "songs": HITS, "settled": 0, "capped": CAP, "attempts": HITS}]
            assert_invariants_hold(bench, at_rest=False)
    record_proof("more concurrent runs than hits left", ["I2", "I6", "I11", "I12"], times=rounds)
