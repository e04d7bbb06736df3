"""SIGKILL at named points and at random moments: nothing is lost, no stored response is bought twice, every hit is accounted
for.

The victim is a process (`child`) on the test's database and doubles; the database blocks it at the point (`crash_points`). The
next process finishes the work without help. The vendor's double counts the hits.
"""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen

import pytest

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.reclaim import reclaim_backfill
from measurement_pipeline.backfill.results import ResultKind
from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.intake import process as intake
from measurement_pipeline.postgres.audit import audit
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.conftest import Server
from measurement_pipeline_tests.faults import crash_points
from measurement_pipeline_tests.faults.child import DAGSTER_RUN, INTAKE, RECLAIM, RUN, ChildTask, child
from measurement_pipeline_tests.faults.crash_points import CrashPoint, arm
from measurement_pipeline_tests.faults.dagster_instance import shared_instance
from measurement_pipeline_tests.faults.invariants import (
    HISTORY,
    UNKNOWN,
    assert_all_stored_and_accounted_for,
    assert_invariants_hold,
    count_hits,
    recordings_with_response,
)
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, isrcs

CLAIM_TIMEOUT_SECONDS = 0.5

# The number of recordings for each repetition in the long form.
LONG = [20, 30, 40, 50, 60]


@contextmanager
def killed_at(
    point: CrashPoint, url: str, task: ChildTask, *, occurrence: int = 1, undone: bool = True
) -> Iterator[None]:
    """Run the child up to the point and kill it with SIGKILL; yield the dead process."""
    with arm(url, point, occurrence=occurrence) as held:
        with child(task) as victim:
            assert held.wait_for_victim() == victim.pid
            kill(victim)
        held.finish_statement(undone=undone)
    yield


def kill(process: Popen[str]) -> None:
    assert process.poll() is None, "the process ended before it could be killed"
    process.kill()
    assert process.wait(120) == -signal.SIGKILL


def task_for(bench: Workbench, does: str, songs: Sequence[str] = (), **more: object) -> ChildTask:
    config = {"claim_timeout_seconds": CLAIM_TIMEOUT_SECONDS, **more}
    return ChildTask(does, bench.database_url, bench.sandbox.songstats_url, list(songs), **config)


def with_timeout(bench: Workbench, seconds: float, **more: object) -> BackfillConfig:
    rules = replace(bench.config.rules, claim_timeout_seconds=seconds)
    return replace(bench.config, rules=rules, heartbeat_seconds=seconds / 4, **more)


def wait_for_the_claim_timeout(bench: Workbench) -> None:
    """Wait in real time, as an operator would; the test does not move the clock."""
    held = "select 1 from songstats_backfill_queue where heartbeat_at >= clock_timestamp() - make_interval(secs => %s)"
    wait_until(lambda: not bench.sql(held, CLAIM_TIMEOUT_SECONDS))


# The least number of arrivals at a point, for a number of recordings.
TIMES_MET = {
    crash_points.AFTER_THE_RESERVATION: lambda _songs: 2,  # once a batch
    crash_points.WHILE_STORING: lambda songs: 100 * songs,  # once a figure
}


@dataclass(frozen=True)
class RunState:
    """The state that a run leaves behind: open hits, stored responses, and where each recording is."""

    claimed: set[str]
    done: set[str]
    asked: set[str]
    open_hits: set[int]
    kept: set[str]
    counted: int
    hits: Counter[str]


def load_run_state(bench: Workbench) -> RunState:
    rows, ledger = bench.sql("select song, status from songstats_backfill_queue"), bench.ledger()
    return RunState(
        claimed={row["song"] for row in rows if row["status"] == "in_progress"},
        done={row["song"] for row in rows if row["status"] == "done"},
        asked={hit["song"] for hit in ledger},
        open_hits={hit["id"] for hit in ledger if hit["settled_at"] is None},
        kept=recordings_with_response(bench),
        counted=sum(hit["billable"] is not False for hit in ledger),
        hits=count_hits(bench),
    )


# The victim's state at its death. It proves that the victim died at the intended point.
SEEN_AT = {
    crash_points.AFTER_THE_CLAIM: lambda found: found.claimed - found.asked,
    crash_points.AFTER_THE_RESERVATION: lambda found: found.open_hits,
    crash_points.AFTER_THE_ANSWER: lambda found: found.open_hits and found.hits.total() > len(found.kept),
    crash_points.AFTER_KEEPING: lambda found: found.kept - found.done,
    crash_points.WHILE_STORING: lambda found: found.kept - found.done,
}


@pytest.mark.parametrize("point", crash_points.BACKFILL, ids=lambda point: point.name)
def test_the_next_run_finishes_after_a_kill_at_a_named_point_without_buying_twice(
    bench: Workbench, point: CrashPoint, long_form: bool, record_proof: ProofRecorder
):
    moments = random.Random(point.name)
    everything: list[str] = []
    open_hits: set[int] = set()
    for number, count in enumerate(LONG if long_form else [6]):
        songs = isrcs(count, start=len(everything))
        everything += songs
        met = TIMES_MET.get(point, lambda songs: songs)(count)
        occurrence = moments.randint(1, met) if long_form else 2
        bench.submit_request(songs)
        victim = task_for(bench, RUN, songs, run=f"victim-{number}", requests_per_second=50.0)
        # The machine dies, or, every other time, the process alone, so that the server completes its last statement.
        undone = number % 2 == 0
        with killed_at(point, bench.database_url, victim, occurrence=occurrence, undone=undone):
            at_death = load_run_state(bench)
        assert SEEN_AT[point](at_death) or not undone
        open_hits |= at_death.open_hits
        assert_invariants_hold(bench, at_rest=False)

        # The victim might still live until its claim expires, so nothing changes.
        _, results = bench.run_backfill(songs, run=f"too early-{number}", config=with_timeout(bench, 600.0))
        assert {recording.kind for recording in results} <= {ResultKind.ALREADY_STORED}
        assert load_run_state(bench) == at_death

        # Whether the calls of its open reservations went out is unknown, so they count against the budget.
        wait_for_the_claim_timeout(bench)
        spent = with_timeout(bench, CLAIM_TIMEOUT_SECONDS, hits_allowed=at_death.counted)
        backfill_run, _ = bench.run_backfill(songs, run=f"poor-{number}", config=spent)
        # A kill before the first reservation leaves no hit to count, so that the budget of this run is a quota of 0.
        reason = "Songstats quota used" if at_death.counted else "Songstats quota is 0"
        assert (backfill_run.summary.calls, str(backfill_run.summary.stop_reason)[:20]) == (0, reason)
        assert unknown_hits(bench) == open_hits

        bench.run_backfill(songs, run=f"next-{number}", config=with_timeout(bench, CLAIM_TIMEOUT_SECONDS))
        hits = count_hits(bench)
        assert {
            song: hits[song] - at_death.hits[song] for song in at_death.kept if hits[song] > at_death.hits[song]
        } == {}
        assert_all_stored_and_accounted_for(bench, everything)
        assert unknown_hits(bench) == open_hits, "the next run lost none of its own recordings"
    record_proof(
        f"SIGKILL of a run {point.name}", ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14"], times=number + 1
    )


def unknown_hits(bench: Workbench) -> set[int]:
    return {hit["id"] for hit in bench.ledger() if (hit["reason"], hit["billable"]) == (UNKNOWN, None)}


def test_the_reclaim_materializes_the_rows_that_a_killed_run_stored(
    bench: Workbench, server: Server, tmp_path: Path, long_form: bool, record_proof: ProofRecorder
):
    point = crash_points.AFTER_STORING
    dagster_url = server.url(server.create_database())
    where = {"dagster_url": dagster_url, "directory": str(tmp_path)}
    bench.sandbox.card(str(bench.account))
    everything: list[str] = []
    with shared_instance(task_for(bench, DAGSTER_RUN, **where)) as stage:
        for number, count in enumerate(LONG if long_form else [5]):
            songs = isrcs(count, start=len(everything))
            everything += songs
            bench.submit_request(songs)
            stage.register(songs)
            victim = task_for(bench, DAGSTER_RUN, songs, **where)
            # Materializations are written in batches, so the last of the first batch is not known in advance.
            with killed_at(point, dagster_url, victim, occurrence=1 + number % 2):
                stored = {
                    row["song"] for row in bench.sql("select song from songstats_backfill_queue where status = 'done'")
                }
                materialized = stage.instance.get_materialized_partitions(SONGSTATS_HISTORY)
                assert stored - materialized, "a recording is stored and not materialized"
            wait_for_the_claim_timeout(bench)
            # The planner plans due rows again and skips finished ones, so only the reclaim can materialize them.
            due = [song for song in songs if song not in stored]
            if due:
                assert stage.backfill([due[0], due[-1]]).success
            assert stage.reclaim().success
            with connect(bench.database_url) as connection:
                materialized = stage.instance.get_materialized_partitions(SONGSTATS_HISTORY)
                counts = [
                    f"{one.invariant}: {what}"
                    for one in audit(connection, max_attempts=5, at_rest=True, materialized=materialized)
                    for what in one.breaches
                ]
            assert counts == []
            assert materialized == set(everything)
            assert_all_stored_and_accounted_for(bench, everything)
    record_proof(
        f"SIGKILL of a run {point.name}", ["I1", "I2", "I4", "I5", "I6", "I10", "I13", "I14"], times=number + 1
    )


@pytest.mark.parametrize(
    "point", [crash_points.WHILE_PUTTING_BACK, crash_points.WHILE_SETTLING_HITS], ids=lambda point: point.name
)
def test_a_killed_reclaim_changes_nothing_and_the_next_one_does_everything(
    bench: Workbench, point: CrashPoint, long_form: bool, record_proof: ProofRecorder
):
    moments = random.Random(point.name)
    open_songs: list[str] = []
    spent_songs: list[str] = []
    for number, count in enumerate(LONG if long_form else [3]):
        start = len(open_songs) + len(spent_songs)
        transient, spent, orphaned = (isrcs(count, start=start + count * part) for part in range(3))
        open_songs += transient + orphaned
        spent_songs += spent
        left_behind(bench, transient, spent, orphaned)
        before = state_of(bench)
        occurrence = moments.randint(1, count) if long_form else 2
        with killed_at(
            point, bench.database_url, task_for(bench, RECLAIM), occurrence=occurrence, undone=number % 2 == 0
        ):
            # Its transaction is open at its death and never commits, however it dies.
            assert state_of(bench) == before
        reclaimed = reclaim_backfill(with_timeout(bench, CLAIM_TIMEOUT_SECONDS), bench.dependencies)
        assert (reclaimed.transient, reclaimed.exhausted, reclaimed.reservations) == (count, count, count)
        bench.run_backfill(open_songs, run=f"next-{number}", config=with_timeout(bench, CLAIM_TIMEOUT_SECONDS))
        assert bench.statuses() == {"stored": len(open_songs), "exhausted": len(spent_songs)}
        assert count_hits(bench) == dict.fromkeys(open_songs, 1)
        assert_invariants_hold(bench)
    record_proof("SIGKILL during the reclaim", ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14"], times=number + 1)


def left_behind(bench: Workbench, transient: Sequence[str], spent: Sequence[str], orphaned: Sequence[str]) -> None:
    """Create transient failures, rows without attempts left and rows of a dead run, as the tables show them."""
    songs = [*transient, *spent, *orphaned]
    job = bench.submit_request(songs)
    call = (
        "insert into songstats_quota_ledger (song, account, job, run_id, lease, settled_at, status_code, billable, reason)"
        " select song, %s, %s, 'dead-' || lease, lease, clock_timestamp(), 503, false, 'transient'"
        " from unnest(%s::text[]) as asked (song), generate_series(1, %s) as lease"
    )
    bench.sql(call, bench.account, job, list(transient), 1)
    bench.sql(call, bench.account, job, list(spent), 5)
    bench.sql(
        "insert into songstats_quota_ledger (song, account, job, run_id, lease)"
        " select song, %s, %s, 'dead-1', 1 from unnest(%s::text[]) as asked (song)",
        bench.account,
        job,
        list(orphaned),
    )
    change = "update songstats_backfill_queue set lease = attempts_made, attempts = attempts_made"
    bench.sql(
        change.replace("attempts_made", "1") + ", status = 'failed', outcome = 'transient' where song = any(%s)",
        list(transient),
    )
    bench.sql(change.replace("attempts_made", "5") + " where song = any(%s)", list(spent))
    bench.sql(
        change.replace("attempts_made", "1")
        + ", status = 'in_progress', claimed_by = 'dead-1', heartbeat_at = now() - interval '1 hour' where song = any(%s)",
        list(orphaned),
    )


def state_of(bench: Workbench) -> list[list[dict[str, object]]]:
    return [
        bench.sql(f"select * from {table} order by {key}")
        for table, key in (
            ("songstats_backfill_queue", "song"),
            ("songstats_quota_ledger", "id"),
            ("measurement_jobs", "id"),
            ("measurement_job_songs", "job, song"),
        )
    ]


@pytest.mark.parametrize(
    "point", [crash_points.WHILE_ENQUEUEING, crash_points.BEFORE_ACCEPTING], ids=lambda point: point.name
)
def test_a_request_with_a_killed_intake_is_neither_lost_nor_partly_enqueued(
    bench: Workbench, point: CrashPoint, long_form: bool, record_proof: ProofRecorder
):
    moments = random.Random(point.name)
    everything: list[str] = []
    for number, count in enumerate(LONG if long_form else [6]):
        songs = isrcs(count, start=len(everything))
        everything += songs
        request = bench.sql(
            "insert into measurement_jobs (account, source, scope) values (%s, 'historical', %s) returning id",
            bench.account,
            json.dumps({"isrcs": songs}),
        )[0]["id"]
        most = count if point is crash_points.WHILE_ENQUEUEING else 1
        occurrence = moments.randint(1, most) if long_form else most
        with killed_at(
            point, bench.database_url, task_for(bench, INTAKE), occurrence=occurrence, undone=number % 2 == 0
        ):
            (row,) = bench.sql("select state, asked, attempts from measurement_jobs where id = %s", request)
            assert (row["state"], row["asked"], row["attempts"]) == ("queued", None, 1)
            assert bench.sql("select song from songstats_backfill_queue where song = any(%s)", songs) == []
            assert bench.sql("select song from measurement_job_songs where job = %s", request) == []
        results = process_requests(bench)
        assert [(one.id, one.receipt.asked, one.receipt.enqueued) for one in results] == [(request, count, count)]
        bench.run_backfill(songs, run=f"next-{number}")
        counts = assert_all_stored_and_accounted_for(bench, everything)
        assert (counts.in_vain, counts.unknown) == (0, 0)
    record_proof("SIGKILL during the enqueue", ["I1", "I2", "I4", "I5", "I6", "I10", "I14"], times=number + 1)


def process_requests(bench: Workbench) -> list[intake.RequestResult]:
    opened = intake.load_batch(bench.database_url)
    bench.allow(bench.account)
    yes = Decision(PaymentVerdict.ALLOWED, "a card")
    return intake.process_batch(bench.database_url, opened, dict.fromkeys(opened.accounts, yes), run="next")


@pytest.mark.long
def test_repeated_kills_at_random_moments_store_nothing_twice_and_lose_no_hit(
    bench: Workbench, record_proof: ProofRecorder
):
    moments = random.Random(1)
    songs = isrcs(300)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.05)
    # The timeout is shorter than a process takes to start. Only one process lives at a time, so none waits or loses its rows.
    attempts, deaths = 1000, 0
    bench.config = replace(bench.config, rules=replace(bench.config.rules, max_attempts=attempts))
    while bench.statuses() != {"stored": len(songs)}:
        wanted = bench.sandbox.hits() + moments.randint(1, 20)
        task = task_for(bench, RUN, songs, run=f"run-{deaths}", claim_timeout_seconds=0.3, max_attempts=attempts)
        with child(task) as process:
            wait_until(lambda: bench.sandbox.hits() >= wanted or process.poll() is not None)  # noqa: B023 - called at once
            time.sleep(moments.uniform(0.0, 0.12))
            deaths += process.poll() is None
        assert process.returncode in {0, -signal.SIGKILL}
    assert deaths >= 10, "too few kills"
    # The last process may have died before it settled its predecessors' reservations.
    wait_for_the_claim_timeout(bench)
    bench.run_backfill(songs, run="last", config=with_timeout(bench, CLAIM_TIMEOUT_SECONDS))
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert counts.unknown > 0, "no kill met a call in flight"
    record_proof(
        "SIGKILL of a run at random moments", ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14"], times=deaths
    )
