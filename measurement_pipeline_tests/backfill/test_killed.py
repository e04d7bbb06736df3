"""A run whose process is killed: nothing is bought twice that was kept, and no hit is forgotten.

The run is a process (`killed_run`) on the test's database and doubles, and dies of SIGKILL: it cleans nothing up. Hits are
counted at the vendor's end.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from measurement_pipeline.backfill.report import Kind, Recording
from measurement_pipeline.backfill.run import Coverage
from measurement_pipeline.backfill.terms import Terms
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.songstats.answer import Answer
from measurement_pipeline.songstats.historic_stats import judge
from measurement_pipeline_tests.backfill.killed_run import BEFORE_THE_CALL, NEVER, WHEN_TOLD, Orders
from measurement_pipeline_tests.workbench import Workbench, isrcs

HISTORY = "/enterprise/v1/tracks/historic_stats"
CLAIM_TIMEOUT_SECONDS = 1.0
UNKNOWN = "crashed: unknown"


@contextmanager
def running(
    bench: Workbench,
    songs: Sequence[str],
    *,
    run: str = "killed",
    dies: str = NEVER,
    claim_timeout_seconds: float = CLAIM_TIMEOUT_SECONDS,
    max_attempts: int = 5,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A run in its own process, which is dead at the end in any case."""
    orders = Orders(
        bench.database_url,
        bench.sandbox.songstats_url,
        list(songs),
        run,
        claim_timeout_seconds,
        max_attempts,
        dies,
    )
    with subprocess.Popen(
        [sys.executable, "-m", "measurement_pipeline_tests.backfill.killed_run", orders.json()],
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], Any], *, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.005)


def dies_by_itself(process: "subprocess.Popen[bytes]") -> None:
    assert process.wait(15) == -signal.SIGKILL


def kill(process: "subprocess.Popen[bytes]") -> None:
    assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    process.wait(15)


def forget_its_connections(bench: Workbench, busy: Connection) -> None:
    """The machine is gone, and not just the process: what the server was doing for it, `busy` apart, ends undone."""
    others = (
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> all(%s)"
    )
    until(lambda: not bench.sql(f"{others} and pid <> pg_backend_pid()", [busy.info.backend_pid]))


def wait_for_the_claim_timeout(bench: Workbench) -> None:
    """As a patient operator would: nobody helps the clock."""
    held = "select 1 from songstats_backfill_queue where heartbeat_at >= clock_timestamp() - make_interval(secs => %s)"
    until(lambda: not bench.sql(held, CLAIM_TIMEOUT_SECONDS))


def with_timeout(bench: Workbench, seconds: float, **more: Any) -> Terms:
    rules = replace(bench.terms.rules, claim_timeout_seconds=seconds)
    return replace(bench.terms, rules=rules, beat_seconds=seconds / 4, **more)


def take_over(bench: Workbench, songs: Sequence[str], **more: Any) -> tuple[Coverage, list[Recording]]:
    """The next run, once the dead one's claim is over."""
    wait_for_the_claim_timeout(bench)
    return bench.cover(songs, run="next", terms=with_timeout(bench, CLAIM_TIMEOUT_SECONDS, **more))


def hits_of(bench: Workbench) -> Counter[str]:
    return Counter(request["isrc"] for request in bench.sandbox.requests(HISTORY))


def reasons(bench: Workbench, song: str) -> list[tuple[str | None, bool | None]]:
    return [(hit["reason"], hit["billable"]) for hit in bench.ledger() if hit["song"] == song]


def measurements_are_whole(bench: Workbench) -> None:
    """Each kept answer is stored, every point of it, and once."""
    kept = {row["song"]: row for row in bench.sql("select * from songstats_responses order by id")}
    stored = bench.sql("select song, raw_ref, count(*) n from song_measurements group by 1, 2")
    expected = set()
    for song, row in kept.items():
        history = judge(Answer(row["status_code"], row["headers"], row["body"]), key_works=True).history
        assert history is not None
        assert history.play_counts
        expected.add((song, f"songstats_responses/{row['id']}", len(history.play_counts) + len(history.popularity)))
    assert {(r["song"], r["raw_ref"], r["n"]) for r in stored} == expected
    assert len(stored) == len(kept), "a recording has one history, from one answer"


def test_killed_between_claim_and_reservation_costs_nothing(bench: Workbench):
    songs = isrcs(3)
    bench.ask_for(songs)
    with connect(bench.database_url) as busy, busy.transaction(), running(bench, songs) as process:
        busy.execute("select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0))")
        until(lambda: bench.statuses() == {"in_progress": 3})
        # It cannot get further than asking for the lock that each reservation takes.
        until(lambda: bench.sql("select 1 from pg_locks where locktype = 'advisory' and not granted"))
        kill(process)
        forget_its_connections(bench, busy)
    assert (bench.ledger(), bench.sandbox.hits()) == ([], 0)
    _, told = take_over(bench, songs)
    assert {(r.song, r.kind, r.hit) for r in told} == {(song, Kind.SETTLED, True) for song in songs}
    assert hits_of(bench) == dict.fromkeys(songs, 1)
    assert [reasons(bench, song) for song in songs] == [[("stored", True)]] * 3
    assert [bench.row(song)["attempts"] for song in songs] == [1, 1, 1]
    measurements_are_whole(bench)


def test_killed_between_reservation_and_call_the_hit_counts_as_unknown_and_each_is_bought_once(bench: Workbench):
    songs = isrcs(3)
    bench.ask_for(songs)
    with running(bench, songs, dies=BEFORE_THE_CALL) as process:
        dies_by_itself(process)
    assert bench.sandbox.hits() == 0
    assert [hit["settled_at"] for hit in bench.ledger()] == [None, None, None]

    # While it might still live, nothing of it is touched.
    _, told = bench.cover(songs, run="too early", terms=with_timeout(bench, 600.0))
    assert told == []
    assert bench.statuses() == {"in_progress": 3}
    assert [hit["settled_at"] for hit in bench.ledger()] == [None, None, None]

    # Nobody knows that no call went out, so the reservations weigh on the budget.
    coverage, told = take_over(bench, songs, hits_allowed=3)
    assert (told, coverage.summary.stopped) == ([], "the budget is spent")
    assert bench.sandbox.hits() == 0
    assert {(hit["reason"], hit["billable"], hit["settled_at"] is None) for hit in bench.ledger()} == {
        (UNKNOWN, None, False)
    }

    _, told = take_over(bench, songs)
    assert {(r.song, r.kind, r.hit) for r in told} == {(song, Kind.SETTLED, True) for song in songs}
    assert hits_of(bench) == dict.fromkeys(songs, 1)
    assert [reasons(bench, song) for song in songs] == [[(UNKNOWN, None), ("stored", True)]] * 3
    measurements_are_whole(bench)


def test_killed_while_the_call_is_in_the_air_both_hits_are_in_the_ledger(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=1.0, count=1)
    with running(bench, songs) as process:
        until(bench.sandbox.hits)
        kill(process)
    assert (bench.row(song)["status"], reasons(bench, song)) == ("in_progress", [(None, None)])
    coverage, told = take_over(bench, songs, hits_allowed=1)
    assert (told, coverage.summary.stopped, bench.sandbox.hits()) == ([], "the budget is spent", 1)
    _, told = take_over(bench, songs)
    assert [(r.kind, r.hit) for r in told] == [(Kind.SETTLED, True)]
    assert bench.sandbox.hits() == 2
    assert reasons(bench, song) == [(UNKNOWN, None), ("stored", True)]
    assert bench.row(song)["attempts"] == 2
    assert len(bench.sql("select 1 from songstats_responses")) == 1
    measurements_are_whole(bench)


def test_killed_between_keeping_and_reading_the_kept_answer_is_read_without_a_hit(bench: Workbench):
    songs = isrcs(3)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.4)
    with connect(bench.database_url) as busy, busy.transaction(), running(bench, songs) as process:
        until(lambda: bench.sandbox.hits() == 3)
        # With the rows held here, the run can keep what comes back and then only wait.
        busy.execute("select song from songstats_backfill_queue order by song for update")
        until(lambda: len(bench.sql("select 1 from songstats_responses")) == 3)
        kill(process)
        forget_its_connections(bench, busy)
    assert bench.statuses() == {"in_progress": 3}
    assert bench.sql("select 1 from song_measurements") == []
    coverage, told = take_over(bench, songs)
    assert {(r.song, r.kind, r.hit) for r in told} == {(song, Kind.SETTLED, False) for song in songs}
    assert coverage.summary.calls == 0
    assert bench.statuses() == {"stored": 3}
    assert hits_of(bench) == dict.fromkeys(songs, 1)
    assert [reasons(bench, song) for song in songs] == [[("stored", True)]] * 3
    measurements_are_whole(bench)


def test_killed_between_storing_and_reporting_the_next_run_finds_it_done(bench: Workbench):
    swift, *slow = songs = isrcs(3)
    bench.ask_for(songs)
    for song in slow:
        bench.sandbox.faults(HISTORY, isrc=song, delay=1.0, count=1)
    with running(bench, songs, dies=WHEN_TOLD) as process:
        dies_by_itself(process)
    assert (bench.row(swift)["outcome"], bench.sandbox.hits(swift)) == ("stored", 1)
    assert bench.statuses() == {"stored": 1, "in_progress": 2}
    _, told = take_over(bench, songs)
    assert {(r.song, r.kind, r.hit) for r in told} == {
        (swift, Kind.ALREADY_STORED, False),
        *((song, Kind.SETTLED, True) for song in slow),
    }
    assert hits_of(bench) == {swift: 1} | dict.fromkeys(slow, 2)
    assert reasons(bench, swift) == [("stored", True)]
    assert [reasons(bench, song) for song in slow] == [[(UNKNOWN, None), ("stored", True)]] * 2
    measurements_are_whole(bench)


@pytest.mark.parametrize("seed", [1])
def test_killed_at_any_moment_again_and_again_nothing_is_stored_twice_and_no_hit_forgotten(bench: Workbench, seed: int):
    moments = random.Random(seed)
    songs = isrcs(60)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.05)
    # Shorter than the next process takes to start, and only one lives at a time: nobody waits, nobody is robbed.
    claim_timeout, deaths = 0.3, 0
    for number in range(40):
        before = bench.sandbox.hits()
        with running(
            bench, songs, run=f"run-{number}", claim_timeout_seconds=claim_timeout, max_attempts=100
        ) as process:
            wanted = before + moments.randint(1, 20)
            until(lambda: bench.sandbox.hits() >= wanted or process.poll() is not None)  # noqa: B023 - called at once
            time.sleep(moments.uniform(0.0, 0.12))
            deaths += process.poll() is None
        assert process.returncode in {0, -signal.SIGKILL}
        if bench.statuses() == {"stored": 60}:
            break
    assert deaths >= 3, "it was hardly killed at all"
    # The last one may have died before it looked after its predecessors' reservations.
    bench.cover(songs, run="last")

    assert bench.statuses() == {"stored": 60}
    ledger = bench.ledger()
    assert [hit for hit in ledger if hit["settled_at"] is None] == []
    stored = Counter(hit["song"] for hit in ledger if (hit["reason"], hit["billable"]) == ("stored", True))
    unknown = Counter(hit["song"] for hit in ledger if hit["billable"] is None and hit["reason"] is not None)
    assert stored == dict.fromkeys(songs, 1), "an answer that was kept is never bought again"
    assert len(ledger) == stored.total() + unknown.total()
    for song, hits in hits_of(bench).items():
        # A reservation of unknown fate may have been a hit or not; beyond those, each hit brought what is stored.
        assert 1 <= hits <= 1 + unknown[song]
    assert unknown.total() > 0, "no kill ever met a call in the air"
    kept = bench.sql("select song from songstats_responses order by song")
    assert [row["song"] for row in kept] == songs
    measurements_are_whole(bench)
