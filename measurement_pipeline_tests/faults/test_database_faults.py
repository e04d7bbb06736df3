"""While a run backfills, the database disappears, turns read-only, ends its sessions, or another session holds its locks.

The run's process survives, so it loses no call: each recording costs one hit, unless the database stays away longer than the
run holds a response.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.results import RunSummary
from measurement_pipeline.local.embedded_postgres import EmbeddedServer
from measurement_pipeline.postgres import migrate
from measurement_pipeline.postgres.database import DatabaseUnavailable, connect
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_tests.faults.invariants import (
    HISTORY,
    assert_all_stored_and_accounted_for,
    assert_invariants_hold,
    count_hits,
    recordings_with_response,
)
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, create_workbench, isrcs

# The invariants that the final assertions show.
HELD = ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14"]

_TERMINATE = (
    "select count(*) filter (where pg_terminate_backend(pid)) as ended from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid()"
)
# Skips locked rows: an update that waits would wait for the session that the test ends last.
_EXPIRE_HEARTBEATS = (
    "update songstats_backfill_queue set heartbeat_at = now() - interval '1 hour' where song in"
    " (select song from songstats_backfill_queue where status = 'in_progress' for update skip locked)"
)
_SILENT = "select 1 from songstats_backfill_queue where heartbeat_at < now() - interval '30 minutes'"
_BLOCKED_BY = "select 1 from pg_stat_activity where %s = any(pg_blocking_pids(pid))"


def config_with_timeout(bench: Workbench, *, claim_timeout_seconds: float, **more: Any) -> BackfillConfig:
    rules = replace(bench.config.rules, claim_timeout_seconds=claim_timeout_seconds, max_attempts=1000)
    return replace(bench.config, rules=rules, **{"heartbeat_seconds": claim_timeout_seconds / 4, **more})


@contextmanager
def draining(bench: Workbench, songs: Sequence[str], *, run: str) -> Iterator[Future[RunSummary]]:
    """Run a backfill over `songs` beside the block; the future holds its summary or its exception."""
    ended: Future[RunSummary] = Future()

    def drain() -> None:
        try:
            ended.set_result(bench.run_backfill(songs, run=run)[0].summary)
        except BaseException as error:  # noqa: BLE001 - passed on to the caller of `result()`
            ended.set_exception(error)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield ended
    finally:
        thread.join()


@contextmanager
def terminating(bench: Workbench, *, times_a_second: float) -> Iterator[list[int]]:
    """End all other sessions of the database at random moments until the block ends; yields how many ended each time.

    It does so at most once between two calls to the vendor, so that the run makes progress on a slow machine too.
    """
    ended: list[int] = []
    is_finished = threading.Event()

    def terminate() -> None:
        with connect(bench.database_url) as tester:
            moments, hits = random.Random(1), 0
            while not is_finished.wait(moments.expovariate(times_a_second)):
                if bench.sandbox.hits() > hits:
                    hits = bench.sandbox.hits()
                    ended.append(tester.execute(_TERMINATE).fetchone()["ended"])

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        yield ended
    finally:
        is_finished.set()
        thread.join()


def test_ended_sessions_slow_a_backfill_and_lose_no_hit(bench: Workbench, long_form: bool, record_proof: ProofRecorder):
    songs = isrcs(300 if long_form else 25)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.1)
    # Few concurrent calls leave many moments between two of them.
    bench.config = config_with_timeout(
        bench, claim_timeout_seconds=1.0, patience_with_database_seconds=60.0, concurrency=3
    )
    done, runs = False, 0
    with terminating(bench, times_a_second=4) as ended:
        while not done:
            runs += 1
            # The planner replaces a run that could not start or end.
            with suppress(DatabaseUnavailable):
                bench.run_backfill(songs, run=f"run-{runs}")
            with suppress(DatabaseUnavailable):
                done = bench.statuses() == {"stored": len(songs)}
    assert sum(ended) >= 10, "too few sessions ended"
    bench.run_backfill(songs, run="last")
    assert_all_stored_and_accounted_for(bench, songs)
    record_proof(
        "all sessions ended four times a second during a backfill",
        HELD,
        times=sum(ended),
    )


@contextmanager
def stop_server(bench: Workbench, directory: Path, *, seconds: float, how: signal.Signals) -> Iterator[None]:
    """Stop the server of `directory` suddenly, and start it again on the same data after `seconds`."""
    os.kill(int((directory / "data" / "postmaster.pid").read_text().split()[0]), how)
    wait_until(lambda: not is_there(bench), what="the server's end")
    gone = time.monotonic()
    yield
    time.sleep(max(0.0, gone + seconds - time.monotonic()))
    # A second owner beside the fixture's, which then owns the restarted server.
    with EmbeddedServer(directory):
        assert is_there(bench)


def is_there(bench: Workbench) -> bool:
    try:
        return bench.sql("select 1") != []
    except DatabaseUnavailable:
        return False


@dataclass(frozen=True)
class OwnServer:
    """A server that a test may kill, and a workbench on one of its databases."""

    directory: Path
    bench: Workbench


@pytest.fixture(scope="module")
def own_directory() -> Iterator[Path]:
    # Not pytest's directory: pytest hides its parent from the user that PostgreSQL runs as under root.
    with TemporaryDirectory(prefix="mp_own") as directory, EmbeddedServer(Path(directory) / "postgres"):
        yield Path(directory) / "postgres"


@pytest.fixture
def own(own_directory: Path, sandbox: SandboxClient) -> Iterator[OwnServer]:
    name = f"measurements_{uuid4().hex}"
    with EmbeddedServer(own_directory) as server:
        server.create_database(name)
        migrate.upgrade(server.url(name), kind="sandbox")
        yield OwnServer(own_directory, create_workbench(server.url(name), sandbox))


# An immediate shutdown tears current work, as a crash does. SIGKILL leaves no shutdown at all.
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGQUIT, id="immediate stop"),
        pytest.param(signal.SIGKILL, id="SIGKILL", marks=pytest.mark.long),
    ],
)
def test_a_database_outage_during_a_backfill_loses_no_response_in_flight(
    own: OwnServer, how: signal.Signals, long_form: bool, record_proof: ProofRecorder
):
    bench = own.bench
    seconds = 30.0 if long_form else 2.0
    songs = isrcs(100)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.5)
    bench.config = config_with_timeout(bench, claim_timeout_seconds=100.0, patience_with_database_seconds=60.0)
    with draining(bench, songs, run="patient") as run:
        wait_until(lambda: bench.sandbox.hits() >= 20)
        with stop_server(bench, own.directory, seconds=seconds, how=how):
            assert not run.done()
        run.result(300)
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert counts.in_vain == 0, "each response was held until the database stored it"
    record_proof(f"PostgreSQL unreachable for {seconds:.0f} s during a backfill", HELD)


def test_a_long_database_outage_loses_only_the_calls_in_flight(
    own: OwnServer, long_form: bool, record_proof: ProofRecorder
):
    bench = own.bench
    songs = isrcs(60)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.3)
    bench.config = config_with_timeout(bench, claim_timeout_seconds=1.0, patience_with_database_seconds=0.5)
    with draining(bench, songs, run="impatient") as run:
        wait_until(lambda: bench.sandbox.hits() >= 20)
        with (
            stop_server(bench, own.directory, seconds=10.0 if long_form else 1.0, how=signal.SIGQUIT),
            pytest.raises(DatabaseUnavailable),
        ):
            run.result(300)
    assert_invariants_hold(bench, at_rest=False)
    in_flight = bench.sandbox.hits() - len(recordings_with_response(bench))
    held = "select 1 from songstats_backfill_queue where heartbeat_at >= clock_timestamp() - interval '1 second'"
    wait_until(lambda: not bench.sql(held))
    bench.run_backfill(songs, run="next")
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert counts.in_vain == in_flight > 0
    record_proof("PostgreSQL unreachable for longer than a run holds a response", HELD)


@contextmanager
def read_only(database_url: str) -> Iterator[None]:
    """Refuse every write with SQLSTATE 25006, as a server that became a standby does; end its old sessions."""
    with connect(database_url) as tester:
        name = sql.Identifier(tester.info.dbname)
        tester.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
        tester.execute(_TERMINATE)
        try:
            yield
        finally:
            tester.execute(sql.SQL("alter database {} reset default_transaction_read_only").format(name))


def test_a_read_only_database_during_a_backfill_loses_no_response(
    bench: Workbench, long_form: bool, record_proof: ProofRecorder
):
    seconds = 30.0 if long_form else 1.5
    songs = isrcs(100 if long_form else 40)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.5)
    # Several heartbeats fail meanwhile.
    limits = config_with_timeout(bench, claim_timeout_seconds=100.0, patience_with_database_seconds=60.0)
    bench.config = replace(limits, heartbeat_seconds=0.1, concurrency=8)
    with draining(bench, songs, run="patient") as run:
        wait_until(lambda: bench.sandbox.hits() >= 12)
        with read_only(bench.database_url):
            time.sleep(seconds)
            assert not run.done()
        run.result(60)
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert counts.in_vain == 0, "each response was held until the database stored it"
    record_proof(f"PostgreSQL read-only for {seconds:.1f} s during a backfill", HELD)


# A trigger raises the error for a table's rows until it is dropped.
_RAISE = """
create function refuse() returns trigger language plpgsql as $$
begin raise exception 'refused' using errcode = '{sqlstate}'; end $$;
create trigger refuse before {event} on {table} for each row when ({when}) execute function refuse();
"""
_HEARTBEATS = (
    "update of heartbeat_at",
    "songstats_backfill_queue",
    "old.status = 'in_progress' and new.lease = old.lease and new.status = old.status",
)


def refuse(bench: Workbench, sqlstate: str, event: str, table: str, when: str) -> None:
    bench.sql(_RAISE.format(sqlstate=sqlstate, event=event, table=table, when=when))


def stop_refusing(bench: Workbench) -> None:
    bench.sql("drop function refuse cascade")


@pytest.mark.parametrize("sqlstate", ["25006", "40001", "53100", "55P03", "57P01", "58030"])
def test_a_transient_heartbeat_failure_does_not_end_a_run(bench: Workbench, sqlstate: str):
    songs = isrcs(12)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.2)
    refuse(bench, sqlstate, *_HEARTBEATS)
    bench.config = replace(
        config_with_timeout(bench, claim_timeout_seconds=100.0), heartbeat_seconds=0.02, concurrency=4
    )
    backfill_run, _ = bench.run_backfill(songs)
    assert backfill_run.summary.stop_reason is None
    assert assert_all_stored_and_accounted_for(bench, songs).in_vain == 0


def test_a_heartbeat_without_privilege_ends_a_run_after_its_calls_are_stored(
    bench: Workbench, record_proof: ProofRecorder
):
    songs = isrcs(40)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.2)
    refuse(bench, "42501", *_HEARTBEATS)
    bench.config = replace(
        config_with_timeout(bench, claim_timeout_seconds=100.0), heartbeat_seconds=0.1, concurrency=4
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="refused"):
        bench.run_backfill(songs)
    stop_refusing(bench)
    assert 0 < bench.sandbox.hits() < len(songs), "the run started no more calls"
    assert len(recordings_with_response(bench)) == bench.sandbox.hits(), "every call in flight was stored"
    bench.run_backfill(songs, run="next")
    assert assert_all_stored_and_accounted_for(bench, songs).in_vain == 0
    record_proof("heartbeats refused for a missing privilege", HELD)


def test_a_run_holds_responses_that_a_defect_refuses_and_then_fails(bench: Workbench, record_proof: ProofRecorder):
    songs = isrcs(20)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.1)
    refuse(bench, "42501", "update of settled_at", "songstats_quota_ledger", "new.settled_at is not null")
    bench.config = replace(
        config_with_timeout(bench, claim_timeout_seconds=100.0, patience_with_database_seconds=60.0), concurrency=4
    )
    with draining(bench, songs, run="held") as run:
        wait_until(lambda: bench.sandbox.hits() >= 4)
        time.sleep(1.0)
        stop_refusing(bench)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="refused"):
            run.result(60)
    assert len(recordings_with_response(bench)) == bench.sandbox.hits() < len(songs)
    bench.run_backfill(songs, run="next")
    assert assert_all_stored_and_accounted_for(bench, songs).in_vain == 0
    record_proof("responses refused for a missing privilege", HELD)


def test_a_row_that_cannot_be_settled_ends_the_run_without_affecting_others(
    bench: Workbench, record_proof: ProofRecorder
):
    songs = isrcs(6)
    unlucky = songs[0]
    bench.submit_request(songs)
    refuse(
        bench,
        "23514",
        "update of status",
        "songstats_backfill_queue",
        f"new.song = '{unlucky}' and new.status in ('done', 'failed')",
    )
    with pytest.raises(psycopg.errors.CheckViolation, match="refused"):
        bench.run_backfill(songs)
    assert recordings_with_response(bench) == set(count_hits(bench))
    stop_refusing(bench)
    bench.run_backfill(songs, run="next")
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert (counts.in_vain, bench.sandbox.hits(unlucky)) == (0, 1)
    record_proof("a row that PostgreSQL refuses to settle", HELD)


# The server ends each session that settles a hit of one recording, as during a shutdown.
_REFUSE = """
create function refuse() returns trigger language plpgsql as $$
begin raise exception 'not now' using errcode = 'admin_shutdown'; end $$;
create trigger refuse before update of settled_at on songstats_quota_ledger for each row
when (new.song = 'AA6Q72000000' and new.reason is null) execute function refuse();
"""


def test_a_response_that_cannot_be_stored_is_the_only_loss(bench: Workbench, record_proof: ProofRecorder):
    unlucky, *others = songs = isrcs(5)
    bench.submit_request(songs)
    # The others are in flight before the failing one gets its response.
    bench.sandbox.faults(HISTORY, isrc=unlucky, delay=0.5)
    for song in others:
        bench.sandbox.faults(HISTORY, isrc=song, delay=1.5)
    bench.config = config_with_timeout(bench, claim_timeout_seconds=5.0, patience_with_database_seconds=0.2)
    bench.sql(_REFUSE)
    with pytest.raises(DatabaseUnavailable, match="not now"):
        bench.run_backfill(songs)
    assert recordings_with_response(bench) == set(others), "every call in flight finished and was stored"
    bench.sql("drop function refuse cascade")
    bench.run_backfill(songs, run="next")
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert (counts.in_vain, counts.unknown) == (1, 1)
    assert bench.sandbox.hits(unlucky) == 2
    record_proof("a response that the database does not store in time", HELD)


# The locks of a forgotten session: half of the rows, the hits in flight, or the deployment's pace.
ROWS = "rows of the queue"
LOCKS = {
    ROWS: "select from songstats_backfill_queue where song = any(%s) order by song for update",
    "open hits": "select from songstats_quota_ledger where song = any(%s) and settled_at is null for update",
    "the pace": "select from vendor_state where %s::text[] is not null for update",
}


def has_stopped_calling(bench: Workbench) -> bool:
    """Whether no call was made during ten times the duration of a response."""
    hits = bench.sandbox.hits()
    time.sleep(1)
    return bench.sandbox.hits() == hits


@pytest.mark.parametrize("what", LOCKS)
def test_a_forgotten_session_with_a_lock_delays_a_backfill_and_costs_nothing(
    bench: Workbench, what: str, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(300 if long_form else 60)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.1)
    bench.config = config_with_timeout(
        bench, claim_timeout_seconds=60.0, heartbeat_seconds=0.2, requests_per_second=100.0
    )
    with draining(bench, songs, run="first") as first, connect(bench.database_url) as forgotten:
        wait_until(lambda: bench.sandbox.hits() >= 10)
        forgotten.execute("begin")
        forgotten.execute(LOCKS[what], [songs[::2] if what == ROWS else songs])
        wait_until(lambda: bench.sql(_BLOCKED_BY, forgotten.info.backend_pid), what="a session that waits for the lock")
        if what == ROWS:
            wait_until(lambda: has_stopped_calling(bench), what="the first run to wait for the rows")
        # As if that lasted longer than a claim without a heartbeat.
        bench.sql(_EXPIRE_HEARTBEATS)
        if what != ROWS:
            wait_until(lambda: not bench.sql(_SILENT), what="the next heartbeat")
        else:
            # A response is stored even if another session locks its row.
            wait_until(lambda: not bench.sql("select 1 from songstats_quota_ledger where settled_at is null"))
        with draining(bench, songs, run="second") as second:
            if what == ROWS:
                # The heartbeat was delayed with its rows. The free ones look abandoned and are claimed by the other run.
                wait_until(lambda: bench.sql("select 1 from songstats_backfill_queue where claimed_by = 'second'"))
            else:
                assert second.result(300).claimed == 0, "an owner with heartbeats keeps its rows"
            forgotten.execute("rollback")
            second.result(300)
        first.result(300)
    if what == ROWS:
        assert bench.sql("select 1 from songstats_backfill_queue where lease = 2")
    bench.run_backfill(songs, run="last")
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert (counts.in_vain, counts.unknown) == (0, 0)
    fencing = ["I3"] if what == ROWS else []
    record_proof(f"a session that locks {what} during two runs", [*HELD, *fencing])


def test_a_forgotten_session_with_an_old_snapshot_blocks_no_run(
    bench: Workbench, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(300 if long_form else 60)
    bench.submit_request(songs)
    with connect(bench.database_url) as forgotten:
        forgotten.execute("begin isolation level repeatable read")
        before = "select count(*) as n from songstats_backfill_queue where status = 'pending'"
        assert forgotten.execute(before).fetchone() == {"n": len(songs)}
        bench.run_backfill(songs)
        assert forgotten.execute(before).fetchone() == {"n": len(songs)}, "the session still sees the old rows"
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert (counts.in_vain, counts.unknown) == (0, 0)
    record_proof("a session that keeps an old snapshot", HELD)
