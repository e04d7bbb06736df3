"""A worker whose clock is an hour off, in either direction: nothing that is decided or written goes by it. And the database's own
clock, set back: what is dated ahead then blocks nothing for as long.

The worker is a process (`child`) whose clock was put wrong before it imported anything. Where a case differs only by which clock
is believed, it is there twice, half an hour to either side of the limit: an hour off, one of the two would come out wrong.
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
from measurement_pipeline_tests.faults.child import RUN, UNPAID_INTAKE, Orders, child, said
from measurement_pipeline_tests.faults.matrix import Proves
from measurement_pipeline_tests.faults.reckoning import (
    HISTORY,
    everything_is_stored_and_each_hit_accounted_for,
    nothing_breaks,
)
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.workbench import Workbench, isrcs

HOUR = 3600.0
OFF = pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])


def fault(off: float, where: str) -> str:
    return f"a worker's clock an hour {'ahead' if off > 0 else 'behind'}: {where}"


def worker(bench: Workbench, does: str, songs: list[str], *, off: float, **more: object) -> Orders:
    return Orders(does, bench.database_url, bench.sandbox.songstats_url, songs, clock_off_seconds=off, **more)


def was_off(told: dict[str, object], off: float) -> bool:
    return abs(float(str(told["clock"])) - time.time() - off) < HOUR / 4


@OFF
def test_a_worker_whose_clock_is_off_works_beside_one_whose_clock_is_right(
    bench: Workbench, off: float, long_form: bool, proves: Proves
):
    songs = isrcs(100 if long_form else 25)
    bench.ask_for(songs)
    began = bench.sql("select clock_timestamp() as at")[0]["at"]
    # An hour off is far longer than a claim lasts without a beat.
    orders = worker(bench, RUN, songs, off=off, claim_timeout_seconds=60.0, requests_per_second=10.0, run="wrong clock")
    looks = 0
    with child(orders) as process:
        until(lambda: bench.statuses().get("in_progress"))
        while process.poll() is None:
            looks += 1
            coverage, _ = bench.cover(songs, run=f"right clock {looks}")
            assert (coverage.summary.claimed, coverage.summary.calls) == (0, 0), "its owner beats, and keeps its rows"
        heard = said(process)
    assert was_off(heard, off)
    assert looks > 1
    assert heard["told"] == dict.fromkeys(songs, "settled")
    found = everything_is_stored_and_each_hit_accounted_for(bench, songs)
    assert (found.in_vain, found.unknown) == (0, 0)
    ended = bench.sql("select clock_timestamp() as at")[0]["at"]
    for column, (first, last) in times_written(bench).items():
        assert began - timedelta(minutes=1) <= first <= last <= ended + timedelta(minutes=1), column
    assert points_stored(bench) == points_received(bench)
    proves(fault(off, "beside another worker"), ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I14", "I15"])


def times_written(bench: Workbench) -> dict[str, tuple[datetime, datetime]]:
    """The first and last moment in every column of moments, but for those that are of the recordings' past."""
    columns = bench.sql(
        "select table_name, column_name from information_schema.columns inner join information_schema.tables"
        " using (table_schema, table_name) where table_schema = 'public' and table_type = 'BASE TABLE'"
        " and data_type = 'timestamp with time zone' and column_name <> 'captured_at'"
    )
    found = {}
    for column in columns:
        table, name = column["table_name"], column["column_name"]
        (row,) = bench.sql(f'select min("{name}") as first, max("{name}") as last from "{table}"')
        # Made before the test began: the template's stamp.
        if row["first"] is not None and table != "deployment":
            found[f"{table}.{name}"] = (row["first"], row["last"])
    assert {"songstats_quota_ledger.reserved_at", "songstats_backfill_queue.updated_at"} <= found.keys()
    assert {"song_measurements.learnt_at", "run_heartbeats.beat_at", "vendor_state.next_call_at"} <= found.keys()
    return found


def points_stored(bench: Workbench) -> set[tuple[str, datetime, int]]:
    rows = bench.sql("select song, captured_at, value from song_measurements where metric <> 'popularity'")
    return {(row["song"], row["captured_at"], row["value"]) for row in rows}


def points_received(bench: Workbench) -> set[tuple[str, datetime, int]]:
    found = set()
    for row in bench.sql("select * from songstats_responses"):
        history = judge(SongstatsResponse(row["status_code"], row["headers"], row["body"]), is_key_valid=True).history
        assert history is not None
        for point in history.play_counts:
            found.add((row["song"], datetime(point.day.year, point.day.month, point.day.day, tzinfo=UTC), point.value))
    return found


@OFF
def test_what_is_due_and_who_has_paid_is_told_by_the_databases_clock(bench: Workbench, off: float, proves: Proves):
    backed_off, waiting, abandoned, held, fresh, stale = songs = isrcs(6)
    bench.ask_for([backed_off, waiting, abandoned, held])
    paid_lately, paid_long_ago = uuid4(), uuid4()
    bench.ask_for([fresh], account=paid_lately)
    bench.ask_for([stale], account=paid_long_ago)
    put_off(bench, backed_off, "-30 minutes")
    put_off(bench, waiting, "30 minutes")
    own(bench, abandoned, since="90 minutes")
    own(bench, held, since="30 minutes")
    # A yes serves for ten minutes.
    checked(bench, paid_lately, ago="5 minutes")
    checked(bench, paid_long_ago, ago="40 minutes")
    with child(worker(bench, RUN, songs, off=off, claim_timeout_seconds=HOUR)) as process:
        heard = said(process)
    assert was_off(heard, off)
    assert heard["told"] == dict.fromkeys([backed_off, abandoned, fresh, stale], "settled")
    assert heard["asked about payment"] == [str(paid_long_ago)]
    assert bench.row(waiting)["status"] == "pending"
    assert (bench.row(held)["claimed_by"], bench.row(held)["lease"]) == ("owner", 1)
    nothing_breaks(bench, at_rest=False)
    proves(fault(off, "leases, waits and payment"), ["I1", "I2", "I4", "I5", "I6", "I10", "I11", "I12", "I14", "I15"])


def put_off(bench: Workbench, song: str, by: str) -> None:
    bench.sql("update songstats_backfill_queue set not_before = now() + %s::interval where song = %s", by, song)


def own(bench: Workbench, song: str, *, since: str) -> None:
    bench.sql(
        "update songstats_backfill_queue set status = 'in_progress', lease = 1, claimed_by = 'owner',"
        " heartbeat_at = now() - %s::interval where song = %s",
        since,
        song,
    )


def checked(bench: Workbench, account: UUID, *, ago: str) -> None:
    bench.sql("update payment_decisions set checked_at = now() - %s::interval where account = %s", ago, account)


@OFF
def test_pause_and_budget_go_by_the_databases_clock(bench: Workbench, off: float, proves: Proves):
    songs = isrcs(12)
    job = bench.ask_for(songs)
    bench.sql("update vendor_state set paused_until = now() + interval '30 minutes'")
    with child(worker(bench, RUN, songs, off=off, run="in the pause")) as process:
        assert said(process)["calls"] == 0

    # The pause is over, and of ten hits five are just within the 30 days.
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
        heard = said(process)
    assert was_off(heard, off)
    assert (heard["calls"], len(heard["told"])) == (3, 3)

    bench.sandbox.faults(HISTORY, status=429, retry_after=1800, count=1)
    with child(worker(bench, RUN, songs, off=off, run="throttled", hits_allowed=5 + 3 + 1)) as process:
        assert said(process)["calls"] == 1
    (pause,) = bench.sql("select extract(epoch from paused_until - clock_timestamp())::float as left from vendor_state")
    assert HOUR / 4 < pause["left"] <= 1800
    nothing_breaks(bench, at_rest=False)
    proves(fault(off, "pause and budget"), ["I1", "I2", "I4", "I5", "I6", "I9", "I10", "I11", "I14", "I15"])


@OFF
def test_how_long_a_request_has_waited_goes_by_the_databases_clock(bench: Workbench, off: float, proves: Proves):
    patient, too_late, put_off_until = (
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
        heard = said(process)
    assert was_off(heard, off)
    assert heard["states"] == {str(patient): "payment_required", str(too_late): "rejected"}
    assert bench.sql("select state from measurement_jobs where id = %s", put_off_until) == [
        {"state": "payment_required"}
    ]
    with connect(bench.database_url) as connection:
        checked_at = connection.execute(
            "select clock_timestamp() - checked_at as ago from payment_decisions"
        ).fetchone()
    assert abs(checked_at["ago"]) < timedelta(minutes=15)
    nothing_breaks(bench, at_rest=False)
    proves(fault(off, "unpaid requests"), ["I1", "I15"])


# --- the database's clock was set back --------------------------------------------------------------------------------------

SET_BACK = ["I1", "I2", "I4", "I5", "I6", "I10", "I14", "I15"]


def date_ahead(bench: Workbench, table: str, column: str, by: str = "2 days") -> None:
    """What a clock leaves behind that was two days ahead, and was then set back."""
    bench.sql(f"update {table} set {column} = now() + %s::interval", by)


def test_a_pace_booked_ahead_of_the_clock_holds_up_a_run_for_no_longer_than_a_run_ever_waits(
    bench: Workbench, long_form: bool, proves: Proves
):
    songs = isrcs(5)
    bench.ask_for(songs)
    date_ahead(bench, "vendor_state", "next_call_at")
    bench.terms = replace(bench.terms, requests_per_second=5.0)
    if long_form:
        bench.cover(songs)
        everything_is_stored_and_each_hit_accounted_for(bench, songs)
    else:
        # The first call waits for half a minute: long enough to see what it has booked.
        with child(worker(bench, RUN, songs, off=0.0, requests_per_second=5.0)):
            ahead = "select 1 from vendor_state where next_call_at <= clock_timestamp() + interval '31 seconds'"
            until(lambda: bench.sql(ahead), what="the pace, cut down")
    proves("the database's clock set back by two days: the pace", SET_BACK)


def test_at_a_pace_slower_than_a_run_waits_the_rest_is_put_off_until_the_next_call(bench: Workbench):
    songs = isrcs(4)
    bench.ask_for(songs)
    coverage, _ = bench.cover(songs, terms=replace(bench.terms, requests_per_second=0.01))
    assert (coverage.summary.calls, bench.sandbox.hits()) == (1, 1)
    assert "allows the next call in" in str(coverage.summary.stop_reason)
    waits = bench.sql(
        "select extract(epoch from not_before - clock_timestamp())::float as wait, attempts from songstats_backfill_queue"
        " where status = 'pending'"
    )
    assert [0 < row["wait"] <= 100 and row["attempts"] == 0 for row in waits] == [True] * 3


def test_rows_of_a_dead_run_whose_heartbeats_are_ahead_of_the_clock_are_due_after_a_sweep(
    bench: Workbench, proves: Proves
):
    songs = isrcs(3)
    bench.ask_for(songs)
    own(bench, songs[0], since="0 seconds")
    date_ahead(bench, "songstats_backfill_queue", "not_before", "30 days")
    bench.sql(
        "update songstats_backfill_queue set heartbeat_at = now() + interval '2 days' where status = 'in_progress'"
    )
    bench.sql("insert into run_heartbeats (run_id, beat_at) values ('owner', now() + interval '2 days')")
    bench.sql("update vendor_state set streak_since = now() + interval '2 days'")
    bench.terms = replace(bench.terms, rules=replace(bench.terms.rules, claim_timeout_seconds=0.2))
    assert reclaim_backfill(bench.terms, bench.means).times_corrected == 5
    with connect(bench.database_url) as connection:
        until(lambda: run_heartbeats.list_silent(connection, ["owner"], seconds=0.2) == {"owner"})
        assert clock.list_future_times(connection, requests_per_second=5.0) == []
    longest = (
        "select max(extract(epoch from not_before - clock_timestamp()))::float as wait from songstats_backfill_queue"
    )
    assert bench.sql(longest)[0]["wait"] <= MAX_BACKOFF_SECONDS
    bench.sql("update songstats_backfill_queue set not_before = null")
    bench.cover(songs, run="next")
    everything_is_stored_and_each_hit_accounted_for(bench, songs)
    proves("the database's clock set back by two days: leases and waits", SET_BACK)


def test_a_payment_decision_dated_ahead_is_asked_for_anew_and_replaced(bench: Workbench, proves: Proves):
    songs = isrcs(2)
    bench.ask_for(songs)
    date_ahead(bench, "payment_decisions", "checked_at")
    decisions = PaymentDecisions(bench.database_url)
    assert decisions.load(bench.account).fresh_decision is None
    asked: list[UUID] = []

    def check_payment(account: UUID) -> PaymentVerdict:
        asked.append(account)
        bench.allow(account)
        return PaymentVerdict.ALLOWED

    bench.cover(songs, means=replace(bench.means, check_payment=check_payment))
    assert asked == [bench.account]
    everything_is_stored_and_each_hit_accounted_for(bench, songs)
    date_ahead(bench, "payment_decisions", "checked_at")
    bench.deny(bench.account)
    assert bench.sql("select verdict from payment_decisions") == [{"verdict": "denied"}]
    proves("the database's clock set back by two days: payment decisions", [*SET_BACK, "I12"])
