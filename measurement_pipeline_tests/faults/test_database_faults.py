"""The database goes away, turns read-only, ends its sessions, or lets somebody else sit on its locks, while a run drains.

The run's process lives, so no call is lost with it: each recording costs one hit, unless the database is away for longer than an
answer is held.
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
from measurement_pipeline_tests.faults.matrix import Proves
from measurement_pipeline_tests.faults.reckoning import (
    HISTORY,
    everything_is_stored_and_each_hit_accounted_for,
    hits_of,
    kept,
    nothing_breaks,
)
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.workbench import Workbench, isrcs, workbench

# What the reckoning at the end of each shows.
HELD = ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14"]

_TERMINATE = (
    "select count(*) filter (where pg_terminate_backend(pid)) as ended from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid()"
)
# Only the rows that no lock is on: an update that waits would wait for the session that the test ends last.
_UNBEATEN = (
    "update songstats_backfill_queue set heartbeat_at = now() - interval '1 hour' where song in"
    " (select song from songstats_backfill_queue where status = 'in_progress' for update skip locked)"
)
_SILENT = "select 1 from songstats_backfill_queue where heartbeat_at < now() - interval '30 minutes'"
_BLOCKED_BY = "select 1 from pg_stat_activity where %s = any(pg_blocking_pids(pid))"


def terms(bench: Workbench, *, claim_timeout_seconds: float, **more: Any) -> BackfillConfig:
    rules = replace(bench.terms.rules, claim_timeout_seconds=claim_timeout_seconds, max_attempts=1000)
    return replace(bench.terms, rules=rules, **{"heartbeat_seconds": claim_timeout_seconds / 4, **more})


@contextmanager
def draining(bench: Workbench, songs: Sequence[str], *, run: str) -> Iterator[Future[RunSummary]]:
    """A run over `songs` beside the block; its summary, or what it raised, is in the future."""
    ended: Future[RunSummary] = Future()

    def drain() -> None:
        try:
            ended.set_result(bench.cover(songs, run=run)[0].summary)
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            ended.set_exception(error)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield ended
    finally:
        thread.join()


@contextmanager
def terminating(bench: Workbench, *, times_a_second: float) -> Iterator[list[int]]:
    """End all other sessions of the database, at random moments, until the block ends; how many it were each time.

    At most once between two calls to the vendor, so that the run gets on, however slow the machine.
    """
    ended: list[int] = []
    over = threading.Event()

    def terminate() -> None:
        with connect(bench.database_url) as tester:
            moments, hits = random.Random(1), 0
            while not over.wait(moments.expovariate(times_a_second)):
                if bench.sandbox.hits() > hits:
                    hits = bench.sandbox.hits()
                    ended.append(tester.execute(_TERMINATE).fetchone()["ended"])

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()


def test_sessions_ended_several_times_a_second_slow_a_drain_and_cost_no_hit_that_is_not_accounted_for(
    bench: Workbench, long_form: bool, proves: Proves
):
    songs = isrcs(300 if long_form else 25)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.1)
    # Few calls at a time, so that there are many moments between two of them.
    bench.terms = terms(bench, claim_timeout_seconds=1.0, patience_with_database_seconds=60.0, concurrency=3)
    done, runs = False, 0
    with terminating(bench, times_a_second=4) as ended:
        while not done:
            runs += 1
            # A run that could not even begin, or end, is one more for the planner to make up for.
            with suppress(DatabaseUnavailable):
                bench.cover(songs, run=f"run-{runs}")
            with suppress(DatabaseUnavailable):
                done = bench.statuses() == {"stored": len(songs)}
    assert sum(ended) >= 10, "hardly a session was ended"
    bench.cover(songs, run="last")
    everything_is_stored_and_each_hit_accounted_for(bench, songs)
    proves(
        "all sessions ended four times a second during a drain",
        HELD,
        times=sum(ended),
    )


@contextmanager
def away(bench: Workbench, directory: Path, *, seconds: float, how: signal.Signals) -> Iterator[None]:
    """The server of `directory` ends suddenly, stays away for so long, and is started again over the same data."""
    os.kill(int((directory / "data" / "postmaster.pid").read_text().split()[0]), how)
    until(lambda: not is_there(bench), what="the server's end")
    gone = time.monotonic()
    yield
    time.sleep(max(0.0, gone + seconds - time.monotonic()))
    # A second owner beside the fixture's, which goes on owning what this one starts.
    with EmbeddedServer(directory):
        assert is_there(bench)


def is_there(bench: Workbench) -> bool:
    try:
        return bench.sql("select 1") != []
    except DatabaseUnavailable:
        return False


@dataclass(frozen=True)
class Own:
    """A server that may be killed, and a deployment on a database of it."""

    directory: Path
    bench: Workbench


@pytest.fixture(scope="module")
def own_directory() -> Iterator[Path]:
    # Not pytest's own: each start of pytest shuts its parent to the user that PostgreSQL runs as below root.
    with TemporaryDirectory(prefix="mp_own") as directory, EmbeddedServer(Path(directory) / "postgres"):
        yield Path(directory) / "postgres"


@pytest.fixture
def own(own_directory: Path, sandbox: SandboxClient) -> Iterator[Own]:
    name = f"measurements_{uuid4().hex}"
    with EmbeddedServer(own_directory) as server:
        server.create_database(name)
        migrate.upgrade(server.url(name), kind="sandbox")
        yield Own(own_directory, workbench(server.url(name), sandbox))


# Immediate: what is under way is torn, as in a crash. Then the same without even a goodbye.
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGQUIT, id="immediate stop"),
        pytest.param(signal.SIGKILL, id="SIGKILL", marks=pytest.mark.long),
    ],
)
def test_a_database_away_in_the_middle_of_a_drain_costs_no_answer_that_was_in_the_air(
    own: Own, how: signal.Signals, long_form: bool, proves: Proves
):
    bench = own.bench
    seconds = 30.0 if long_form else 2.0
    songs = isrcs(100)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.5)
    bench.terms = terms(bench, claim_timeout_seconds=100.0, patience_with_database_seconds=60.0)
    with draining(bench, songs, run="patient") as run:
        until(lambda: bench.sandbox.hits() >= 20)
        with away(bench, own.directory, seconds=seconds, how=how):
            assert not run.done()
        run.result(300)
    found = everything_is_stored_and_each_hit_accounted_for(bench, songs)
    assert found.in_vain == 0, "each answer was held until the database took it"
    proves(f"PostgreSQL away for {seconds:.0f} s during a drain", HELD)


def test_a_database_away_for_longer_than_an_answer_is_held_costs_the_calls_in_the_air_and_no_more(
    own: Own, long_form: bool, proves: Proves
):
    bench = own.bench
    songs = isrcs(60)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.3)
    bench.terms = terms(bench, claim_timeout_seconds=1.0, patience_with_database_seconds=0.5)
    with draining(bench, songs, run="impatient") as run:
        until(lambda: bench.sandbox.hits() >= 20)
        with (
            away(bench, own.directory, seconds=10.0 if long_form else 1.0, how=signal.SIGQUIT),
            pytest.raises(DatabaseUnavailable),
        ):
            run.result(300)
    nothing_breaks(bench, at_rest=False)
    in_the_air = bench.sandbox.hits() - len(kept(bench))
    held = "select 1 from songstats_backfill_queue where heartbeat_at >= clock_timestamp() - interval '1 second'"
    until(lambda: not bench.sql(held))
    bench.cover(songs, run="next")
    found = everything_is_stored_and_each_hit_accounted_for(bench, songs)
    assert found.in_vain == in_the_air > 0
    proves("PostgreSQL away for longer than an answer is held", HELD)


@contextmanager
def read_only(database_url: str) -> Iterator[None]:
    """Refuse every write with SQLSTATE 25006, as a server does that has become a standby; its old sessions are ended."""
    with connect(database_url) as tester:
        name = sql.Identifier(tester.info.dbname)
        tester.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
        tester.execute(_TERMINATE)
        try:
            yield
        finally:
            tester.execute(sql.SQL("alter database {} reset default_transaction_read_only").format(name))


def test_a_database_that_is_read_only_in_the_middle_of_a_drain_costs_no_answer(
    bench: Workbench, long_form: bool, proves: Proves
):
    seconds = 30.0 if long_form else 1.5
    songs = isrcs(100 if long_form else 40)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.5)
    # Several heartbeats fail meanwhile.
    limits = terms(bench, claim_timeout_seconds=100.0, patience_with_database_seconds=60.0)
    bench.terms = replace(limits, heartbeat_seconds=0.1, concurrency=8)
    with draining(bench, songs, run="patient") as run:
        until(lambda: bench.sandbox.hits() >= 12)
        with read_only(bench.database_url):
            time.sleep(seconds)
            assert not run.done()
        run.result(60)
    found = everything_is_stored_and_each_hit_accounted_for(bench, songs)
    assert found.in_vain == 0, "each answer was held until the database took it"
    proves(f"PostgreSQL read-only for {seconds:.1f} s during a drain", HELD)


# Raised by a trigger for a row of a table, until it is dropped.
_RAISE = """
create function refuse() returns trigger language plpgsql as $$
begin raise exception 'refused' using errcode = '{sqlstate}'; end $$;
create trigger refuse before {event} on {table} for each row when ({when}) execute function refuse();
"""
_BEATS = (
    "update of heartbeat_at",
    "songstats_backfill_queue",
    "old.status = 'in_progress' and new.lease = old.lease and new.status = old.status",
)


def refuse(bench: Workbench, sqlstate: str, event: str, table: str, when: str) -> None:
    bench.sql(_RAISE.format(sqlstate=sqlstate, event=event, table=table, when=when))


def stop_refusing(bench: Workbench) -> None:
    bench.sql("drop function refuse cascade")


@pytest.mark.parametrize("sqlstate", ["25006", "40001", "53100", "55P03", "57P01", "58030"])
def test_a_heartbeat_that_fails_for_now_is_no_reason_to_end_a_run(bench: Workbench, sqlstate: str):
    songs = isrcs(12)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.2)
    refuse(bench, sqlstate, *_BEATS)
    bench.terms = replace(terms(bench, claim_timeout_seconds=100.0), heartbeat_seconds=0.02, concurrency=4)
    coverage, _ = bench.cover(songs)
    assert coverage.summary.stop_reason is None
    assert everything_is_stored_and_each_hit_accounted_for(bench, songs).in_vain == 0


def test_a_heartbeat_without_the_privilege_ends_a_run_once_its_calls_are_kept(bench: Workbench, proves: Proves):
    songs = isrcs(40)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.2)
    refuse(bench, "42501", *_BEATS)
    bench.terms = replace(terms(bench, claim_timeout_seconds=100.0), heartbeat_seconds=0.1, concurrency=4)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="refused"):
        bench.cover(songs)
    stop_refusing(bench)
    assert 0 < bench.sandbox.hits() < len(songs), "it started no more calls"
    assert len(kept(bench)) == bench.sandbox.hits(), "every call in flight was kept"
    bench.cover(songs, run="next")
    assert everything_is_stored_and_each_hit_accounted_for(bench, songs).in_vain == 0
    proves("heartbeats refused for a missing privilege", HELD)


def test_answers_are_held_while_keeping_them_is_refused_for_a_defect_and_the_run_ends_loudly(
    bench: Workbench, proves: Proves
):
    songs = isrcs(20)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.1)
    refuse(bench, "42501", "update of settled_at", "songstats_quota_ledger", "new.settled_at is not null")
    bench.terms = replace(terms(bench, claim_timeout_seconds=100.0, patience_with_database_seconds=60.0), concurrency=4)
    with draining(bench, songs, run="held") as run:
        until(lambda: bench.sandbox.hits() >= 4)
        time.sleep(1.0)
        stop_refusing(bench)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="refused"):
            run.result(60)
    assert len(kept(bench)) == bench.sandbox.hits() < len(songs)
    bench.cover(songs, run="next")
    assert everything_is_stored_and_each_hit_accounted_for(bench, songs).in_vain == 0
    proves("answers refused for a missing privilege", HELD)


def test_a_row_that_cannot_be_settled_in_any_way_ends_the_run_and_takes_no_other_with_it(
    bench: Workbench, proves: Proves
):
    songs = isrcs(6)
    unlucky = songs[0]
    bench.ask_for(songs)
    refuse(
        bench,
        "23514",
        "update of status",
        "songstats_backfill_queue",
        f"new.song = '{unlucky}' and new.status in ('done', 'failed')",
    )
    with pytest.raises(psycopg.errors.CheckViolation, match="refused"):
        bench.cover(songs)
    assert kept(bench) == set(hits_of(bench))
    stop_refusing(bench)
    bench.cover(songs, run="next")
    found = everything_is_stored_and_each_hit_accounted_for(bench, songs)
    assert (found.in_vain, bench.sandbox.hits(unlucky)) == (0, 1)
    proves("a row that PostgreSQL refuses to settle", HELD)


# The server gives up on whoever settles a hit of one recording, as it does when it is being shut down.
_REFUSE = """
create function refuse() returns trigger language plpgsql as $$
begin raise exception 'not now' using errcode = 'admin_shutdown'; end $$;
create trigger refuse before update of settled_at on songstats_quota_ledger for each row
when (new.song = 'AA6Q72000000' and new.reason is null) execute function refuse();
"""


def test_an_answer_that_cannot_be_kept_is_lost_alone(bench: Workbench, proves: Proves):
    unlucky, *others = songs = isrcs(5)
    bench.ask_for(songs)
    # The others are in flight before the unlucky one is answered.
    bench.sandbox.faults(HISTORY, isrc=unlucky, delay=0.5)
    for song in others:
        bench.sandbox.faults(HISTORY, isrc=song, delay=1.5)
    bench.terms = terms(bench, claim_timeout_seconds=5.0, patience_with_database_seconds=0.2)
    bench.sql(_REFUSE)
    with pytest.raises(DatabaseUnavailable, match="not now"):
        bench.cover(songs)
    assert kept(bench) == set(others), "what was still in the air came down, and was kept"
    bench.sql("drop function refuse cascade")
    bench.cover(songs, run="next")
    found = everything_is_stored_and_each_hit_accounted_for(bench, songs)
    assert (found.in_vain, found.unknown) == (1, 1)
    assert bench.sandbox.hits(unlucky) == 2
    proves("an answer that the database does not accept in time", HELD)


# What a forgotten session sits on: half of the rows, the hits in the air, the deployment's pace.
ROWS = "rows of the queue"
SAT_ON = {
    ROWS: "select from songstats_backfill_queue where song = any(%s) order by song for update",
    "open hits": "select from songstats_quota_ledger where song = any(%s) and settled_at is null for update",
    "the pace": "select from vendor_state where %s::text[] is not null for update",
}


def makes_no_more_calls(bench: Workbench) -> bool:
    """Whether no call was made for ten times as long as an answer takes."""
    hits = bench.sandbox.hits()
    time.sleep(1)
    return bench.sandbox.hits() == hits


@pytest.mark.parametrize("what", SAT_ON)
def test_a_forgotten_session_that_sits_on_a_lock_delays_a_drain_and_costs_nothing(
    bench: Workbench, what: str, long_form: bool, proves: Proves
):
    songs = isrcs(300 if long_form else 60)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.1)
    bench.terms = terms(bench, claim_timeout_seconds=60.0, heartbeat_seconds=0.2, requests_per_second=100.0)
    with draining(bench, songs, run="first") as first, connect(bench.database_url) as forgotten:
        until(lambda: bench.sandbox.hits() >= 10)
        forgotten.execute("begin")
        forgotten.execute(SAT_ON[what], [songs[::2] if what == ROWS else songs])
        until(lambda: bench.sql(_BLOCKED_BY, forgotten.info.backend_pid), what="somebody who waits for the lock")
        if what == ROWS:
            until(lambda: makes_no_more_calls(bench), what="the first run to wait for the rows")
        # As if that were for longer than a claim lasts without a beat.
        bench.sql(_UNBEATEN)
        if what != ROWS:
            until(lambda: not bench.sql(_SILENT), what="the next beat")
        else:
            # An answer is kept, whoever sits on its row.
            until(lambda: not bench.sql("select 1 from songstats_quota_ledger where settled_at is null"))
        with draining(bench, songs, run="second") as second:
            if what == ROWS:
                # The beat was held up with its rows: the free ones look abandoned, and are taken over.
                until(lambda: bench.sql("select 1 from songstats_backfill_queue where claimed_by = 'second'"))
            else:
                assert second.result(300).claimed == 0, "the owner beats, and keeps its rows"
            forgotten.execute("rollback")
            second.result(300)
        first.result(300)
    if what == ROWS:
        assert bench.sql("select 1 from songstats_backfill_queue where lease = 2")
    bench.cover(songs, run="last")
    found = everything_is_stored_and_each_hit_accounted_for(bench, songs)
    assert (found.in_vain, found.unknown) == (0, 0)
    fencing = ["I3"] if what == ROWS else []
    proves(f"a session that sits on {what} while two runs drain", [*HELD, *fencing])


def test_a_forgotten_session_with_an_old_snapshot_is_in_nobodys_way(bench: Workbench, long_form: bool, proves: Proves):
    songs = isrcs(300 if long_form else 60)
    bench.ask_for(songs)
    with connect(bench.database_url) as forgotten:
        forgotten.execute("begin isolation level repeatable read")
        before = "select count(*) as n from songstats_backfill_queue where status = 'pending'"
        assert forgotten.execute(before).fetchone() == {"n": len(songs)}
        bench.cover(songs)
        assert forgotten.execute(before).fetchone() == {"n": len(songs)}, "it still sees what was"
    found = everything_is_stored_and_each_hit_accounted_for(bench, songs)
    assert (found.in_vain, found.unknown) == (0, 0)
    proves("a session that sits on an old snapshot", HELD)
