"""SIGKILL at named points and at random moments: nothing is lost, nothing that was kept is bought twice, no hit is forgotten.

The victim is a process (`child`) on the test's database and doubles, held at the point by the database (`crash_points`); whoever
comes after it finishes by itself. Hits are counted at the vendor's end.
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
from measurement_pipeline_tests.faults.child import DAGSTER_RUN, INTAKE, RUN, SWEEP, Orders, child
from measurement_pipeline_tests.faults.crash_points import CrashPoint, armed
from measurement_pipeline_tests.faults.dagster_stage import stage
from measurement_pipeline_tests.faults.matrix import Proves
from measurement_pipeline_tests.faults.reckoning import (
    HISTORY,
    UNKNOWN,
    everything_is_stored_and_each_hit_accounted_for,
    hits_of,
    kept,
    nothing_breaks,
)
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.workbench import Workbench, isrcs

CLAIM_TIMEOUT_SECONDS = 0.5

# How many recordings there are each time, in the long form.
LONG = [20, 30, 40, 50, 60]


@contextmanager
def killed_at(
    point: CrashPoint, url: str, orders: Orders, *, occurrence: int = 1, undone: bool = True
) -> Iterator[None]:
    """The process that does as ordered, dead of SIGKILL at the point when the block begins."""
    with armed(url, point, occurrence=occurrence) as held:
        with child(orders) as victim:
            assert held.wait_for_victim() == victim.pid
            kill(victim)
        held.bury(undone=undone)
    yield


def kill(process: Popen[str]) -> None:
    assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    assert process.wait(120) == -signal.SIGKILL


def orders_for(bench: Workbench, does: str, songs: Sequence[str] = (), **more: object) -> Orders:
    terms = {"claim_timeout_seconds": CLAIM_TIMEOUT_SECONDS, **more}
    return Orders(does, bench.database_url, bench.sandbox.songstats_url, list(songs), **terms)


def with_timeout(bench: Workbench, seconds: float, **more: object) -> BackfillConfig:
    rules = replace(bench.terms.rules, claim_timeout_seconds=seconds)
    return replace(bench.terms, rules=rules, heartbeat_seconds=seconds / 4, **more)


def wait_for_the_claim_timeout(bench: Workbench) -> None:
    """As a patient operator would: nobody helps the clock."""
    held = "select 1 from songstats_backfill_queue where heartbeat_at >= clock_timestamp() - make_interval(secs => %s)"
    until(lambda: not bench.sql(held, CLAIM_TIMEOUT_SECONDS))


# How often a point is met at the least, for so many recordings.
TIMES_MET = {
    crash_points.AFTER_THE_RESERVATION: lambda _songs: 2,  # once a batch
    crash_points.WHILE_STORING: lambda songs: 100 * songs,  # once a figure
}


@dataclass(frozen=True)
class Left:
    """What a run leaves behind: hits that are open, answers that are kept, and whose recording is where."""

    claimed: set[str]
    done: set[str]
    asked: set[str]
    open_hits: set[int]
    kept: set[str]
    counted: int
    hits: Counter[str]


def left(bench: Workbench) -> Left:
    rows, ledger = bench.sql("select song, status from songstats_backfill_queue"), bench.ledger()
    return Left(
        claimed={row["song"] for row in rows if row["status"] == "in_progress"},
        done={row["song"] for row in rows if row["status"] == "done"},
        asked={hit["song"] for hit in ledger},
        open_hits={hit["id"] for hit in ledger if hit["settled_at"] is None},
        kept=kept(bench),
        counted=sum(hit["billable"] is not False for hit in ledger),
        hits=hits_of(bench),
    )


# What the victim had come to when it died there, or the test would prove nothing.
SEEN_AT = {
    crash_points.AFTER_THE_CLAIM: lambda found: found.claimed - found.asked,
    crash_points.AFTER_THE_RESERVATION: lambda found: found.open_hits,
    crash_points.AFTER_THE_ANSWER: lambda found: found.open_hits and found.hits.total() > len(found.kept),
    crash_points.AFTER_KEEPING: lambda found: found.kept - found.done,
    crash_points.WHILE_STORING: lambda found: found.kept - found.done,
}


@pytest.mark.parametrize("point", crash_points.BACKFILL, ids=lambda point: point.name)
def test_a_run_killed_at_a_named_point_is_taken_over_and_nothing_is_bought_twice(
    bench: Workbench, point: CrashPoint, long_form: bool, proves: Proves
):
    moments = random.Random(point.name)
    everything: list[str] = []
    open_hits: set[int] = set()
    for number, count in enumerate(LONG if long_form else [6]):
        songs = isrcs(count, start=len(everything))
        everything += songs
        met = TIMES_MET.get(point, lambda songs: songs)(count)
        occurrence = moments.randint(1, met) if long_form else 2
        bench.ask_for(songs)
        victim = orders_for(bench, RUN, songs, run=f"victim-{number}", requests_per_second=50.0)
        # The machine dies, or, every other time, the process alone, whose last statement the server does to its end.
        undone = number % 2 == 0
        with killed_at(point, bench.database_url, victim, occurrence=occurrence, undone=undone):
            at_death = left(bench)
        assert SEEN_AT[point](at_death) or not undone
        open_hits |= at_death.open_hits
        nothing_breaks(bench, at_rest=False)

        # While it might still live, nothing of it is touched.
        _, told = bench.cover(songs, run=f"too early-{number}", terms=with_timeout(bench, 600.0))
        assert {recording.kind for recording in told} <= {ResultKind.ALREADY_STORED}
        assert left(bench) == at_death

        # Nobody knows whether the calls of its open reservations went out, so they weigh on the budget.
        wait_for_the_claim_timeout(bench)
        spent = with_timeout(bench, CLAIM_TIMEOUT_SECONDS, hits_allowed=at_death.counted)
        coverage, _ = bench.cover(songs, run=f"poor-{number}", terms=spent)
        assert (coverage.summary.calls, str(coverage.summary.stop_reason)[:20]) == (0, "Songstats quota used")
        assert unknown_hits(bench) == open_hits

        bench.cover(songs, run=f"next-{number}", terms=with_timeout(bench, CLAIM_TIMEOUT_SECONDS))
        hits = hits_of(bench)
        assert {
            song: hits[song] - at_death.hits[song] for song in at_death.kept if hits[song] > at_death.hits[song]
        } == {}
        everything_is_stored_and_each_hit_accounted_for(bench, everything)
        assert unknown_hits(bench) == open_hits, "whoever came after it lost none of its own"
    proves(f"SIGKILL of a run {point.name}", ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14"], times=number + 1)


def unknown_hits(bench: Workbench) -> set[int]:
    return {hit["id"] for hit in bench.ledger() if (hit["reason"], hit["billable"]) == (UNKNOWN, None)}


def test_a_run_killed_between_storing_and_showing_is_shown_by_the_sweep(
    bench: Workbench, server: Server, tmp_path: Path, long_form: bool, proves: Proves
):
    point = crash_points.AFTER_STORING
    dagster_url = server.url(server.make())
    where = {"dagster_url": dagster_url, "directory": str(tmp_path)}
    bench.sandbox.card(str(bench.account))
    everything: list[str] = []
    with stage(orders_for(bench, DAGSTER_RUN, **where)) as found:
        for number, count in enumerate(LONG if long_form else [5]):
            songs = isrcs(count, start=len(everything))
            everything += songs
            bench.ask_for(songs)
            found.register(songs)
            victim = orders_for(bench, DAGSTER_RUN, songs, **where)
            # Materializations are written in batches, so the last one of the first batch is not known beforehand.
            with killed_at(point, dagster_url, victim, occurrence=1 + number % 2):
                stored = {
                    row["song"] for row in bench.sql("select song from songstats_backfill_queue where status = 'done'")
                }
                shown = found.instance.get_materialized_partitions(SONGSTATS_HISTORY)
                assert stored - shown, "something is stored and not shown"
            wait_for_the_claim_timeout(bench)
            # What is due is planned again; what is done is not, and only the sweep is left to show it.
            due = [song for song in songs if song not in stored]
            if due:
                assert found.backfill([due[0], due[-1]]).success
            assert found.reclaim().success
            with connect(bench.database_url) as connection:
                shown = found.instance.get_materialized_partitions(SONGSTATS_HISTORY)
                breaches = [
                    f"{one.invariant}: {what}"
                    for one in audit(connection, max_attempts=5, at_rest=True, materialized=shown)
                    for what in one.breaches
                ]
            assert breaches == []
            assert shown == set(everything)
            everything_is_stored_and_each_hit_accounted_for(bench, everything)
    proves(f"SIGKILL of a run {point.name}", ["I1", "I2", "I4", "I5", "I6", "I10", "I13", "I14"], times=number + 1)


@pytest.mark.parametrize(
    "point", [crash_points.WHILE_PUTTING_BACK, crash_points.WHILE_SETTLING_HITS], ids=lambda point: point.name
)
def test_a_killed_sweep_has_done_nothing_and_the_next_does_all(
    bench: Workbench, point: CrashPoint, long_form: bool, proves: Proves
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
            point, bench.database_url, orders_for(bench, SWEEP), occurrence=occurrence, undone=number % 2 == 0
        ):
            # Its transaction is open when it dies: whichever way, nobody commits it.
            assert state_of(bench) == before
        swept = reclaim_backfill(with_timeout(bench, CLAIM_TIMEOUT_SECONDS), bench.means)
        assert (swept.transient, swept.exhausted, swept.reservations) == (count, count, count)
        bench.cover(open_songs, run=f"next-{number}", terms=with_timeout(bench, CLAIM_TIMEOUT_SECONDS))
        assert bench.statuses() == {"stored": len(open_songs), "exhausted": len(spent_songs)}
        assert hits_of(bench) == dict.fromkeys(open_songs, 1)
        nothing_breaks(bench)
    proves("SIGKILL during the reclaim", ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14"], times=number + 1)


def left_behind(bench: Workbench, transient: Sequence[str], spent: Sequence[str], orphaned: Sequence[str]) -> None:
    """What failed for now, what is out of attempts, and what a dead run holds, as the tables show it."""
    songs = [*transient, *spent, *orphaned]
    job = bench.ask_for(songs)
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
def test_a_request_whose_intake_is_killed_is_neither_lost_nor_half_enqueued(
    bench: Workbench, point: CrashPoint, long_form: bool, proves: Proves
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
            point, bench.database_url, orders_for(bench, INTAKE), occurrence=occurrence, undone=number % 2 == 0
        ):
            (row,) = bench.sql("select state, asked, attempts from measurement_jobs where id = %s", request)
            assert (row["state"], row["asked"], row["attempts"]) == ("queued", None, 1)
            assert bench.sql("select song from songstats_backfill_queue where song = any(%s)", songs) == []
            assert bench.sql("select song from measurement_job_songs where job = %s", request) == []
        taken = take_in(bench)
        assert [(one.id, one.receipt.asked, one.receipt.enqueued) for one in taken] == [(request, count, count)]
        bench.cover(songs, run=f"next-{number}")
        found = everything_is_stored_and_each_hit_accounted_for(bench, everything)
        assert (found.in_vain, found.unknown) == (0, 0)
    proves("SIGKILL during the enqueue", ["I1", "I2", "I4", "I5", "I6", "I10", "I14"], times=number + 1)


def take_in(bench: Workbench) -> list[intake.RequestResult]:
    opened = intake.load_batch(bench.database_url)
    bench.allow(bench.account)
    yes = Decision(PaymentVerdict.ALLOWED, "a card")
    return intake.process_batch(bench.database_url, opened, dict.fromkeys(opened.accounts, yes), run="next")


@pytest.mark.long
def test_killed_at_any_moment_again_and_again_nothing_is_stored_twice_and_no_hit_forgotten(
    bench: Workbench, proves: Proves
):
    moments = random.Random(1)
    songs = isrcs(300)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.05)
    # Shorter than the next process takes to start, and only one lives at a time: nobody waits, nobody is robbed.
    attempts, deaths = 1000, 0
    bench.terms = replace(bench.terms, rules=replace(bench.terms.rules, max_attempts=attempts))
    while bench.statuses() != {"stored": len(songs)}:
        wanted = bench.sandbox.hits() + moments.randint(1, 20)
        orders = orders_for(bench, RUN, songs, run=f"run-{deaths}", claim_timeout_seconds=0.3, max_attempts=attempts)
        with child(orders) as process:
            until(lambda: bench.sandbox.hits() >= wanted or process.poll() is not None)  # noqa: B023 - called at once
            time.sleep(moments.uniform(0.0, 0.12))
            deaths += process.poll() is None
        assert process.returncode in {0, -signal.SIGKILL}
    assert deaths >= 10, "it was hardly killed at all"
    # The last one may have died before it looked after its predecessors' reservations.
    wait_for_the_claim_timeout(bench)
    bench.cover(songs, run="last", terms=with_timeout(bench, CLAIM_TIMEOUT_SECONDS))
    found = everything_is_stored_and_each_hit_accounted_for(bench, songs)
    assert found.unknown > 0, "no kill ever met a call in the air"
    proves("SIGKILL of a run at random moments", ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14"], times=deaths)
