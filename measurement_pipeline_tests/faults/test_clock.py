"""A worker's clock is an hour off, in either direction: no decision and no written time depends on it. Also: the database's
clock is set back, and dates in its future block nothing for that long.

The worker is a process (`child`) whose clock is shifted before it imports anything. Where the result depends on which clock is
used, two cases lie half an hour to either side of the limit; with the wrong clock, one of them fails.
"""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.backfill.reclaim import reclaim_backfill
from measurement_pipeline.domain.backfill_queue import MAX_BACKOFF_SECONDS
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.postgres import clock, run_heartbeats
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.vendors.songstats.historic_stats import judge
from measurement_pipeline.vendors.songstats.response import SongstatsResponse
from measurement_pipeline_tests.faults.child import RUN, UNPAID_INTAKE, ChildTask, child, read_result
from measurement_pipeline_tests.faults.invariants import (
    HISTORY,
    assert_all_stored_and_accounted_for,
    assert_invariants_hold,
)
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, isrcs

HOUR = 3600.0
OFF = pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])


def fault(off: float, where: str) -> str:
    return f"a worker's clock an hour {'ahead' if off > 0 else 'behind'}: {where}"


def worker(bench: Workbench, does: str, songs: list[str], *, off: float, **more: object) -> ChildTask:
    return ChildTask(does, bench.database_url, bench.sandbox.songstats_url, songs, clock_off_seconds=off, **more)


def assert_clock_was_off(result: dict[str, object], off: float) -> bool:
    return abs(float(str(result["clock"])) - time.time() - off) < HOUR / 4


@OFF
def test_a_worker_with_a_wrong_clock_works_beside_one_with_the_right_clock(
    bench: Workbench, off: float, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(100 if long_form else 25)
    bench.submit_request(songs)
    began = bench.sql("select clock_timestamp() as at")[0]["at"]
    # An hour is far longer than a claim lasts without a heartbeat.
    task = worker(bench, RUN, songs, off=off, claim_timeout_seconds=60.0, requests_per_second=10.0, run="wrong clock")
    looks = 0
    with child(task) as process:
        wait_until(lambda: bench.statuses().get("in_progress"))
        while process.poll() is None:
            looks += 1
            backfill_run, _ = bench.run_backfill(songs, run=f"right clock {looks}")
            assert (backfill_run.summary.claimed, backfill_run.summary.calls) == (0, 0), (
                "an owner with heartbeats keeps its rows"
            )
        result = read_result(process)
    assert assert_clock_was_off(result, off)
    assert looks > 1
    assert result["results"] == dict.fromkeys(songs, "settled")
    counts = assert_all_stored_and_accounted_for(bench, songs)
    assert (counts.in_vain, counts.unknown) == (0, 0)
    ended = bench.sql("select clock_timestamp() as at")[0]["at"]
    for column, (first, last) in times_written(bench).items():
        assert began - timedelta(minutes=1) <= first <= last <= ended + timedelta(minutes=1), column
    assert points_stored(bench) == points_received(bench)
    record_proof(fault(off, "beside another worker"), ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14", "I15"])


def times_written(bench: Workbench) -> dict[str, tuple[datetime, datetime]]:
    """The earliest and latest value in each timestamp column, except dates of the recordings' past."""
    columns = bench.sql(
        "select table_name, column_name from information_schema.columns inner join information_schema.tables"
        " using (table_schema, table_name) where table_schema = 'public' and table_type = 'BASE TABLE'"
        " and data_type = 'timestamp with time zone' and column_name <> 'captured_at'"
    )
    result = {}
    for column in columns:
        table, name = column["table_name"], column["column_name"]
        (row,) = bench.sql(f'select min("{name}") as first, max("{name}") as last from "{table}"')
        # Set before the test began: the template's stamp.
        if row["first"] is not None and table != "deployment":
            result[f"{table}.{name}"] = (row["first"], row["last"])
    assert {"songstats_quota_ledger.reserved_at", "songstats_backfill_queue.updated_at"} <= result.keys()
    assert {"song_measurements.learnt_at", "run_heartbeats.beat_at", "vendor_state.next_call_at"} <= result.keys()
    return result


def points_stored(bench: Workbench) -> set[tuple[str, datetime, int]]:
    rows = bench.sql("select song, captured_at, value from song_measurements where metric <> 'popularity'")
    return {(row["song"], row["captured_at"], row["value"]) for row in rows}


def points_received(bench: Workbench) -> set[tuple[str, datetime, int]]:
    result = set()
    for row in bench.sql("select * from songstats_responses"):
        history = judge(SongstatsResponse(row["status_code"], row["headers"], row["body"]), is_key_valid=True).history
        assert history is not None
        for point in history.play_counts:
            result.add((row["song"], datetime(point.day.year, point.day.month, point.day.day, tzinfo=UTC), point.value))
    return result


@OFF
def test_the_databases_clock_decides_due_rows_and_payment(bench: Workbench, off: float, record_proof: ProofRecorder):
    backed_off, waiting, abandoned, held, fresh, stale = songs = isrcs(6)
    bench.submit_request([backed_off, waiting, abandoned, held])
    paid_lately, paid_long_ago = uuid4(), uuid4()
    bench.submit_request([fresh], account=paid_lately)
    bench.submit_request([stale], account=paid_long_ago)
    postpone(bench, backed_off, "-30 minutes")
    postpone(bench, waiting, "30 minutes")
    claim_as_dead_run(bench, abandoned, since="90 minutes")
    claim_as_dead_run(bench, held, since="30 minutes")
    # A positive payment decision is valid for ten minutes.
    checked(bench, paid_lately, ago="5 minutes")
    checked(bench, paid_long_ago, ago="40 minutes")
    with child(worker(bench, RUN, songs, off=off, claim_timeout_seconds=HOUR)) as process:
        result = read_result(process)
    assert assert_clock_was_off(result, off)
    assert result["results"] == dict.fromkeys([backed_off, abandoned, fresh, stale], "settled")
    assert result["payment checks"] == [str(paid_long_ago)]
    assert bench.row(waiting)["status"] == "pending"
    assert (bench.row(held)["claimed_by"], bench.row(held)["lease"]) == ("owner", 1)
    assert_invariants_hold(bench, at_rest=False)
    record_proof(
        fault(off, "leases, waits and payment"), ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I12", "I14", "I15"]
    )


def postpone(bench: Workbench, song: str, by: str) -> None:
    bench.sql("update songstats_backfill_queue set not_before = now() + %s::interval where song = %s", by, song)


def claim_as_dead_run(bench: Workbench, song: str, *, since: str) -> None:
    bench.sql(
        "update songstats_backfill_queue set status = 'in_progress', lease = 1, claimed_by = 'owner',"
        " heartbeat_at = now() - %s::interval where song = %s",
        since,
        song,
    )


def checked(bench: Workbench, account: UUID, *, ago: str) -> None:
    bench.sql("update payment_decisions set checked_at = now() - %s::interval where account = %s", ago, account)


@OFF
def test_the_databases_clock_decides_pause_and_budget(bench: Workbench, off: float, record_proof: ProofRecorder):
    songs = isrcs(12)
    job = bench.submit_request(songs)
    bench.sql("update vendor_state set paused_until = now() + interval '30 minutes'")
    with child(worker(bench, RUN, songs, off=off, run="in the pause")) as process:
        assert read_result(process)["calls"] == 0

    # The pause has ended, and five of ten hits are just within the 30 days.
    bench.sql("update vendor_state set paused_until = now() - interval '30 minutes'")
    for age in ("30 days 30 minutes", "29 days 23 hours 30 minutes"):
        bench.sql(
            "insert into songstats_quota_ledger (song, account, job, run_id, lease, reserved_at, settled_at, billable, reason)"
            " select %s, %s, %s, 'then', 0, now() - %s::interval, now() - %s::interval, null, 'crashed: unknown'"
            " from generate_series(1, 5)",
            songs[0],
            bench.account,
            job,
            age,
            age,
        )
    with child(worker(bench, RUN, songs, off=off, run="with little left", hits_allowed=5 + 3)) as process:
        result = read_result(process)
    assert assert_clock_was_off(result, off)
    assert (result["calls"], len(result["results"])) == (3, 3)

    bench.sandbox.faults(HISTORY, status=429, retry_after=1800, count=1)
    with child(worker(bench, RUN, songs, off=off, run="throttled", hits_allowed=5 + 3 + 1)) as process:
        assert read_result(process)["calls"] == 1
    (pause,) = bench.sql("select extract(epoch from paused_until - clock_timestamp())::float as left from vendor_state")
    assert HOUR / 4 < pause["left"] <= 1800
    assert_invariants_hold(bench, at_rest=False)
    record_proof(fault(off, "pause and budget"), ["I1", "I2", "I4", "I5", "I6", "I9", "I10", "I11", "I14", "I15"])


@OFF
def test_the_databases_clock_decides_how_long_a_request_has_waited(
    bench: Workbench, off: float, record_proof: ProofRecorder
):
    patient, too_late, postponed = (
        bench.sql(
            "insert into measurement_jobs (account, source, scope, state, status_code, created_at, not_before)"
            " values (%s, 'historical', %s, 'payment_required', 402, now() - %s::interval, now() + %s::interval)"
            " returning id",
            bench.account,
            json.dumps({"isrcs": isrcs(1)}),
            age,
            not_before,
        )[0]["id"]
        for age, not_before in (
            ("6 days 23 hours 30 minutes", None),
            ("7 days 30 minutes", "-30 minutes"),
            ("1 day", "30 minutes"),
        )
    )
    with child(worker(bench, UNPAID_INTAKE, [], off=off)) as process:
        result = read_result(process)
    assert assert_clock_was_off(result, off)
    assert result["states"] == {str(patient): "payment_required", str(too_late): "rejected"}
    assert bench.sql("select state from measurement_jobs where id = %s", postponed) == [{"state": "payment_required"}]
    with connect(bench.database_url) as connection:
        checked_at = connection.execute(
            "select clock_timestamp() - checked_at as ago from payment_decisions"
        ).fetchone()
    assert abs(checked_at["ago"]) < timedelta(minutes=15)
    assert_invariants_hold(bench, at_rest=False)
    record_proof(fault(off, "unpaid requests"), ["I1", "I15"])


# --- the database's clock was set back --------------------------------------------------------------------------------------

SET_BACK = ["I1", "I2", "I4", "I5", "I6", "I10", "I14", "I15"]


def date_ahead(bench: Workbench, table: str, column: str, by: str = "2 days") -> None:
    """Set a column two days ahead, as a clock that was later set back leaves it."""
    bench.sql(f"update {table} set {column} = now() + %s::interval", by)


def test_a_pace_reserved_in_the_future_delays_a_run_by_at_most_its_longest_wait(
    bench: Workbench, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(5)
    bench.submit_request(songs)
    date_ahead(bench, "vendor_state", "next_call_at")
    bench.config = replace(bench.config, requests_per_second=5.0)
    if long_form:
        bench.run_backfill(songs)
        assert_all_stored_and_accounted_for(bench, songs)
    else:
        # The first call waits for half a minute, which is long enough to read its reservation.
        with child(worker(bench, RUN, songs, off=0.0, requests_per_second=5.0)):
            ahead = "select 1 from vendor_state where next_call_at <= clock_timestamp() + interval '31 seconds'"
            wait_until(lambda: bench.sql(ahead), what="the pace, cut down")
    record_proof("the database's clock set back by two days: the pace", SET_BACK)


def test_a_pace_slower_than_a_runs_longest_wait_postpones_the_rest(bench: Workbench):
    songs = isrcs(4)
    bench.submit_request(songs)
    backfill_run, _ = bench.run_backfill(songs, config=replace(bench.config, requests_per_second=0.01))
    assert (backfill_run.summary.calls, bench.sandbox.hits()) == (1, 1)
    assert "allows the next call in" in str(backfill_run.summary.stop_reason)
    waits = bench.sql(
        "select extract(epoch from not_before - clock_timestamp())::float as wait, attempts from songstats_backfill_queue"
        " where status = 'pending'"
    )
    assert [0 < row["wait"] <= 100 and row["attempts"] == 0 for row in waits] == [True] * 3


def test_a_dead_runs_rows_with_future_heartbeats_are_due_after_a_reclaim(bench: Workbench, record_proof: ProofRecorder):
    songs = isrcs(3)
    bench.submit_request(songs)
    claim_as_dead_run(bench, songs[0], since="0 seconds")
    date_ahead(bench, "songstats_backfill_queue", "not_before", "30 days")
    bench.sql(
        "update songstats_backfill_queue set heartbeat_at = now() + interval '2 days' where status = 'in_progress'"
    )
    bench.sql("insert into run_heartbeats (run_id, beat_at) values ('owner', now() + interval '2 days')")
    bench.sql("update vendor_state set streak_since = now() + interval '2 days'")
    bench.config = replace(bench.config, rules=replace(bench.config.rules, claim_timeout_seconds=0.2))
    assert reclaim_backfill(bench.config, bench.dependencies).times_corrected == 5
    with connect(bench.database_url) as connection:
        wait_until(lambda: run_heartbeats.list_silent(connection, ["owner"], seconds=0.2) == {"owner"})
        assert clock.list_future_times(connection, requests_per_second=5.0) == []
    longest = (
        "select max(extract(epoch from not_before - clock_timestamp()))::float as wait from songstats_backfill_queue"
    )
    assert bench.sql(longest)[0]["wait"] <= MAX_BACKOFF_SECONDS
    bench.sql("update songstats_backfill_queue set not_before = null")
    bench.run_backfill(songs, run="next")
    assert_all_stored_and_accounted_for(bench, songs)
    record_proof("the database's clock set back by two days: leases and waits", SET_BACK)


def test_a_payment_decision_dated_in_the_future_is_checked_again_and_replaced(
    bench: Workbench, record_proof: ProofRecorder
):
    songs = isrcs(2)
    bench.submit_request(songs)
    date_ahead(bench, "payment_decisions", "checked_at")
    decisions = PaymentDecisions(bench.database_url)
    assert decisions.load(bench.account).fresh_decision is None
    checked_accounts: list[UUID] = []

    def check_payment(account: UUID) -> PaymentVerdict:
        checked_accounts.append(account)
        bench.allow(account)
        return PaymentVerdict.ALLOWED

    bench.run_backfill(songs, dependencies=replace(bench.dependencies, check_payment=check_payment))
    assert checked_accounts == [bench.account]
    assert_all_stored_and_accounted_for(bench, songs)
    date_ahead(bench, "payment_decisions", "checked_at")
    bench.deny(bench.account)
    assert bench.sql("select verdict from payment_decisions") == [{"verdict": "denied"}]
    record_proof("the database's clock set back by two days: payment decisions", [*SET_BACK, "I12"])
