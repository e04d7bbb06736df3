"""The money path on a real database and doubles: every outcome, with the vendor's count of hits."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from measurement_pipeline.backfill.results import ResultKind
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.domain.blockers import NO_PAYER
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.postgres import account_shares, backfill_queue, measurement_jobs
from measurement_pipeline.postgres.database import DatabaseUnavailable, connect
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Gate, Workbench, isrcs, songstats_client_factory

HISTORY = "/enterprise/v1/tracks/historic_stats"
STATUS = "/enterprise/v1/status"


def payload(history: object, source: str = "spotify") -> str:
    return json.dumps({"result": "success", "message": "", "stats": [{"source": source, "data": {"history": history}}]})


def point(day: str, count: object) -> dict[str, object]:
    return {"date": day, "streams_total": count}


GOOD = payload([point("2026-01-01", 10), point("2026-01-02", 12)])


def test_a_due_recording_is_bought_once_and_stored(bench: Workbench):
    (song,) = songs = isrcs(1)
    job = bench.submit_request(songs)
    _, results = bench.run_backfill(songs)
    assert [(r.song, r.kind, r.hit) for r in results] == [(song, ResultKind.SETTLED, True)]
    assert bench.row(song)["outcome"] == "stored"
    assert bench.sandbox.hits() == 1
    points = bench.sql("select count(*) n from song_measurements where metric = 'platform_displayed_play_count'")[0][
        "n"
    ]
    assert points == results[0].history.points > 0
    (hit,) = bench.ledger()
    assert (hit["reason"], hit["billable"], hit["job"], hit["account"]) == ("stored", True, job, bench.account)
    assert bench.sql("select state from measurement_jobs")[0]["state"] == "done"


def test_a_run_claims_its_rows_in_parts_and_each_row_once(bench: Workbench):
    songs = isrcs(7)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=502, count=1)
    # An operator's run ignores `not_before`: it would claim the row that it has just deferred again.
    config = replace(bench.config, claimed_at_once=2)
    run, results = bench.run_backfill(songs, is_operator=True, config=config)
    assert sorted(result.song for result in results) == songs
    assert (run.summary.claimed, run.summary.calls, bench.sandbox.hits()) == (7, 7, 7)
    assert bench.statuses() == {"stored": 6, "pending": 1}


def test_a_run_that_has_used_its_time_leaves_its_rows_to_the_next(bench: Workbench):
    songs = isrcs(3)
    bench.submit_request(songs)
    run, _ = bench.run_backfill(songs, is_operator=True, config=replace(bench.config, run_seconds=0.0))
    pending = [song for song in songs if bench.row(song)["status"] == "pending"]
    assert pending
    assert run.summary.unfinished == dict.fromkeys(pending, "the run has taken 0 minutes; the next one continues")


def test_popularity_in_the_same_payload_is_stored_as_its_own_metric(bench: Workbench):
    songs = isrcs(1)
    bench.submit_request(songs)
    body = payload([{"date": "2026-01-01", "streams_total": "296422273.0", "popularity_current": 61}])
    bench.sandbox.faults(HISTORY, body=body)
    bench.run_backfill(songs)
    rows = bench.sql("select metric, value, captured_at, data_source, raw_ref from song_measurements order by metric")
    assert [(r["metric"], r["value"]) for r in rows] == [
        ("platform_displayed_play_count", 296422273),
        ("popularity", 61),
    ]
    response = bench.sql("select id from songstats_responses")[0]["id"]
    assert {(str(r["captured_at"].date()), r["data_source"], r["raw_ref"]) for r in rows} == {
        ("2026-01-01", "songstats", f"songstats_responses/{response}")
    }


def test_two_hundred_recordings_cost_two_hundred_hits_and_a_second_run_none(bench: Workbench):
    songs = isrcs(200)
    bench.submit_request(songs)
    run, results = bench.run_backfill(songs)
    assert run.summary.total(ResultKind.SETTLED) == 200
    assert {len(bench.sandbox.requests(HISTORY, isrc=song)) for song in songs[:5]} == {1}
    again, results = bench.run_backfill(songs, run="run-2")
    assert {r.kind for r in results} == {ResultKind.ALREADY_STORED}
    assert len(results) == 200
    assert again.summary.calls == 0
    assert bench.sandbox.hits() == 200


# The vendor's response → the row, whether the hit counts, and the ledger's reason. `None` for the row: pending again.
OUTCOMES: dict[str, tuple[dict[str, Any], str | None, bool | None, str]] = {
    "no entry for the platform": ({"body": payload([], "deezer")}, "no_history", True, "no history"),
    "an empty history": ({"body": payload([])}, "no_history", True, "no history"),
    "404": ({"status": 404}, "no_history", True, "no history"),
    "400": ({"status": 400}, "rejected", True, "rejected"),
    "409": ({"status": 409}, "rejected", True, "rejected"),
    "410": ({"status": 410}, "rejected", True, "rejected"),
    "422": ({"status": 422}, "rejected", True, "rejected"),
    "418": ({"status": 418}, "rejected", True, "rejected"),
    "403 while the status is fine": ({"status": 403}, "rejected", True, "rejected"),
    "not JSON": ({"body": "<html>maintenance</html>"}, "malformed", True, "malformed"),
    "another shape": ({"body": '{"result": "success"}'}, "malformed", True, "malformed"),
    "a renamed field": ({"body": payload([{"date": "2026-01-01", "plays": 3}])}, "malformed", True, "malformed"),
    "408": ({"status": 408}, None, False, "transient"),
    "425": ({"status": 425}, None, False, "transient"),
    "500": ({"status": 500}, None, False, "transient"),
    "503": ({"status": 503}, None, False, "transient"),
    "a connection closed before an answer": ({"close": True}, None, None, "transient"),
    "a connection reset": ({"reset": True}, None, None, "transient"),
    "a body cut short": ({"cut": 20}, None, None, "transient"),
    "corrupt gzip": ({"body": GOOD, "headers": {"content-encoding": "gzip"}}, None, None, "transient"),
    "no answer in time": ({"hang": True}, None, None, "timeout: unknown"),
    "429": ({"status": 429}, None, False, "throttled"),
}


@pytest.mark.parametrize("answer", OUTCOMES)
def test_each_response_has_its_outcome(bench: Workbench, answer: str):
    fault, outcome, billable, reason = OUTCOMES[answer]
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, **fault)
    if answer == "no answer in time":
        bench.dependencies = BackfillDependencies(
            songstats_client_factory(bench.sandbox, timeout_seconds=0.3), bench.dependencies.check_payment
        )
    bench.run_backfill(songs)
    row = bench.row(song)
    assert row["outcome"] == outcome
    assert row["status"] == {None: "pending", "malformed": "failed"}.get(outcome, "done")
    (hit,) = bench.ledger()
    assert (hit["billable"], hit["reason"]) == (billable, reason)
    assert hit["settled_at"] is not None
    stored = bench.sql("select count(*) n from songstats_responses")[0]["n"]
    assert stored == (1 if billable else 0), "billed responses are stored, and no others"
    assert row["attempts"] == (0 if reason == "throttled" else 1)


def test_a_transient_failure_backs_off_and_is_exhausted_at_the_cap(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=500)
    waits = []
    for run in range(1, 6):
        bench.run_backfill(songs, run=f"run-{run}")
        row = bench.row(song)
        if row["not_before"] is not None:
            waits.append(round((row["not_before"] - row["updated_at"]).total_seconds()))
        bench.sql("update songstats_backfill_queue set not_before = null")
    assert waits == [60, 120, 240, 480]
    assert (row["status"], row["outcome"], row["attempts"]) == ("failed", "exhausted", 5)
    assert bench.sandbox.hits() == 5
    assert bench.sql("select state from measurement_jobs")[0]["state"] == "done", "exhausted is settled"


def test_tries_within_one_run_count_one_attempt_and_each_hit(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=502, count=1)
    run, _ = bench.run_backfill(songs, retry_soon_seconds=0.0)
    assert run.summary.retry_in_seconds == 0.0
    bench.run_backfill(songs)
    assert bench.row(song)["attempts"] == 1
    assert bench.row(song)["outcome"] == "stored"
    assert [h["reason"] for h in bench.ledger()] == ["transient", "stored"]


def test_a_429_pauses_the_deployment_and_costs_no_attempt_and_no_budget(bench: Workbench):
    songs = isrcs(60)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=429, retry_after=77)
    run, _ = bench.run_backfill(songs)
    assert "asks for a pause" in str(run.summary.stop_reason)
    rows = bench.sql("select status, attempts from songstats_backfill_queue")
    assert {(r["status"], r["attempts"]) for r in rows} == {("pending", 0)}
    assert {h["billable"] for h in bench.ledger()} == {False}
    assert len(bench.ledger()) == bench.sandbox.hits() <= 5, "no history was stored yet: at most five in flight"
    left = bench.sql("select extract(epoch from paused_until - now()) s from vendor_state")[0]["s"]
    assert 70 < left <= 77
    again, _ = bench.run_backfill(songs, run="run-2")
    assert again.summary.calls == 0, "no row is due during the pause"


def test_a_429_without_retry_after_waits_longer_each_time(bench: Workbench):
    songs = isrcs(1)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=429)
    waits = []
    for run in range(4):
        bench.run_backfill(songs, run=f"run-{run}")
        waits.append(round(bench.sql("select extract(epoch from paused_until - now()) s from vendor_state")[0]["s"]))
        bench.sql("update vendor_state set paused_until = now()")
    assert waits == [5, 10, 20, 40]
    bench.sandbox.clear_faults()
    bench.run_backfill(songs, run="run-5")
    assert bench.sql("select throttled from vendor_state")[0]["throttled"] == 0


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_rejected_key_settles_no_row_and_opens_the_breaker(bench: Workbench, status: int):
    songs = isrcs(40)
    bench.submit_request(songs)
    bench.sandbox.faults("/enterprise/v1/", status=status)
    run, _ = bench.run_backfill(songs)
    assert run.summary.breaker_reason
    state = bench.sql("select * from vendor_state")[0]
    assert (state["breaker"], state["breaker_kind"]) == ("open", "key")
    assert "sandbox-songstats-key" not in state["reason"]
    assert bench.statuses() == {"pending": 40}
    assert bench.sandbox.hits() <= 5
    assert {(h["billable"], h["reason"]) for h in bench.ledger()} == {(False, "refused key")}
    assert {r["attempts"] for r in bench.sql("select attempts from songstats_backfill_queue")} == {0}


@pytest.mark.fails_without("the streak breaker", parameters="fault0-5")
@pytest.mark.parametrize(("fault", "hits"), [({"status": 400}, 5), ({"body": "<html/>"}, 5), ({"status": 404}, 25)])
def test_unusable_responses_open_the_breaker_after_an_exact_number_of_hits(
    bench: Workbench, fault: dict[str, Any], hits: int
):
    songs = isrcs(100)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, **fault)
    run, _ = bench.run_backfill(songs)
    assert bench.sandbox.hits() == hits
    assert "not one stored between" in run.summary.breaker_reason
    assert len(bench.sql("select song from songstats_backfill_queue where suspect")) == hits
    assert bench.sql("select count(*) n from songstats_backfill_queue where status = 'pending'")[0]["n"] == 100 - hits
    again, _ = bench.run_backfill(songs, run="run-2")
    assert again.summary.calls == 0


@pytest.mark.fails_without("the streak continues across runs")
def test_a_streak_is_counted_across_runs(bench: Workbench):
    songs = isrcs(10)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=400)
    for run, song in enumerate(songs):
        bench.run_backfill([song], run=f"run-{run}")
    assert bench.sandbox.hits() == 5


def test_the_budget_is_never_exceeded_and_the_rest_stays_pending(bench: Workbench):
    songs = isrcs(50)
    bench.submit_request(songs)
    bench.run_backfill(songs, config=replace(bench.config, hits_allowed=30))
    assert bench.sandbox.hits() == 30
    assert bench.statuses() == {"stored": 30, "pending": 20}
    best = bench.sql("select song from songstats_backfill_queue where outcome = 'stored'")
    assert {r["song"] for r in best} == set(songs[:30]), "highest rank first"
    again, _ = bench.run_backfill(songs, run="run-2", config=replace(bench.config, hits_allowed=30))
    assert "30 of 30 hits" in str(again.summary.stop_reason)
    assert bench.sandbox.hits() == 30


def test_a_run_whose_hits_another_one_took_names_the_figures_of_the_budget(bench: Workbench):
    songs = isrcs(3)
    bench.submit_request(songs)

    def new_client_after_the_claim() -> SongstatsClient:
        bench.sql(
            "insert into songstats_quota_ledger (song, account, run_id, lease)"
            " select isrc, %s, 'another run', 1 from songs limit 2",
            bench.account,
        )
        return bench.dependencies.new_client()

    dependencies = replace(bench.dependencies, new_client=new_client_after_the_claim)
    config = replace(bench.config, hits_allowed=3, concurrency=1)
    backfill_run, _ = bench.run_backfill(songs, config=config, dependencies=dependencies)
    assert bench.sandbox.hits() == 1
    assert "3 of 3 hits in the last 30 days" in str(backfill_run.summary.stop_reason)


def test_a_removed_card_spends_no_hit(bench: Workbench):
    songs = isrcs(3)
    bench.submit_request(songs)
    bench.deny(bench.account)
    bench.run_backfill(songs)
    assert bench.sandbox.hits() == 0
    assert bench.statuses() == {"pending": 3}


@pytest.mark.parametrize(
    ("answer", "hits", "waits"),
    [(PaymentVerdict.ALLOWED, 2, False), (PaymentVerdict.DENIED, 0, False), (PaymentVerdict.UNKNOWN, 0, True)],
)
def test_a_decision_older_than_ten_minutes_is_renewed_before_a_hit(
    bench: Workbench, answer: PaymentVerdict, hits: int, waits: bool
):
    songs = isrcs(2)
    bench.submit_request(songs)
    bench.sql("update payment_decisions set checked_at = now() - interval '11 minutes'")

    def check(account: Any) -> PaymentVerdict:
        if answer is PaymentVerdict.ALLOWED:
            bench.allow(account)
        if answer is PaymentVerdict.DENIED:
            bench.deny(account)
        return answer

    _, results = bench.run_backfill(songs, dependencies=BackfillDependencies(bench.dependencies.new_client, check))
    assert bench.sandbox.hits() == hits
    assert all((bench.row(song)["not_before"] is not None) == waits for song in songs)
    if not hits:
        assert {r.kind for r in results} == {ResultKind.DEFERRED}


def test_a_recording_whose_request_is_withdrawn_during_the_run_is_deferred_without_a_payer(bench: Workbench):
    (song,) = songs = isrcs(1)
    job = bench.submit_request(songs)
    bench.sql("update payment_decisions set checked_at = now() - interval '11 minutes'")

    def withdraw(account: Any) -> PaymentVerdict:
        with connect(bench.database_url) as connection:
            measurement_jobs.withdraw(connection, job, account=account)
        return PaymentVerdict.ALLOWED

    bench.run_backfill(songs, dependencies=BackfillDependencies(bench.dependencies.new_client, withdraw))
    assert bench.sandbox.hits() == 0
    row = bench.row(song)
    assert (row["status"], row["last_error"]) == ("pending", NO_PAYER)


def test_a_stored_unread_response_is_read_without_a_hit(bench: Workbench):
    """The run died between storing the response and settling the row."""
    songs = isrcs(1)
    bench.submit_request(songs)
    bench.run_backfill(songs)
    bench.sql("delete from song_measurements")
    bench.sql("update measurement_jobs set state = 'accepted'")
    bench.sql("update songstats_responses set parser_version = null")
    bench.sql(
        "update songstats_backfill_queue set status = 'in_progress', outcome = null, claimed_by = 'dead',"
        " heartbeat_at = now() - interval '1 hour'"
    )
    _, results = bench.run_backfill(songs, run="run-2")
    assert bench.sandbox.hits() == 1
    assert [(r.kind, r.hit) for r in results] == [(ResultKind.SETTLED, False)]
    assert bench.sql("select count(*) n from song_measurements")[0]["n"] > 0


@pytest.mark.fails_without("a run skips owned recordings")
def test_measurements_without_a_settled_row_are_owned_and_cost_nothing(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.run_backfill(songs)
    bench.sql("update songstats_backfill_queue set status = 'pending', outcome = null")
    bench.sql("update measurement_jobs set state = 'accepted'")
    _, results = bench.run_backfill(songs, run="run-2")
    assert (results[0].kind, bench.row(song)["outcome"]) == (ResultKind.ALREADY_STORED, "stored")
    assert bench.sandbox.hits() == 1


def waiting_for(bench: Workbench, kind: str) -> list[dict[str, Any]]:
    """Sessions that wait for a lock of this kind: `advisory`, or `transactionid` for a row."""
    return bench.sql(
        "select 1 from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock' and wait_event = %s",
        kind,
    )


@pytest.mark.fails_without("reserve before the call")
def test_no_call_is_made_before_its_hit_is_reserved(bench: Workbench):
    songs = isrcs(3)
    bench.submit_request(songs)
    with connect(bench.database_url) as busy, ThreadPoolExecutor() as pool:
        with busy.transaction():
            busy.execute("select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0))")
            run = pool.submit(bench.run_backfill, songs)
            wait_until(lambda: waiting_for(bench, "advisory") or run.done())
            assert (bench.sandbox.hits(), bench.ledger()) == (0, [])
        run.result()
    assert bench.sandbox.hits() == len(bench.ledger()) == 3


@pytest.mark.fails_without("a response is stored before it is parsed")
def test_a_response_is_stored_before_it_is_parsed(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    gate = Gate()
    dependencies = gate.delay_responses(bench.dependencies, bench.sandbox)
    with connect(bench.database_url) as busy, ThreadPoolExecutor() as pool:
        with busy.transaction():
            run = pool.submit(
                bench.run_backfill,
                songs,
                config=replace(bench.config, heartbeat_seconds=60.0),
                dependencies=dependencies,
            )
            wait_until(lambda: bench.sandbox.hits(song) or run.done())
            busy.execute("select song from songstats_backfill_queue for update")
            gate.open()
            # Measurements commit with their row, so storing stops there.
            wait_until(lambda: waiting_for(bench, "transactionid") or run.done())
            assert bench.sql("select song, parser_version from songstats_responses") == [
                {"song": song, "parser_version": None}
            ]
            assert bench.ledger()[0]["billable"] is True
        run.result()
    assert bench.row(song)["outcome"] == "stored"


def test_a_row_with_a_live_owner_is_not_claimed(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    gate = Gate()
    dependencies = gate.delay_responses(bench.dependencies, bench.sandbox)
    slow = threading.Thread(target=lambda: bench.run_backfill(songs, dependencies=dependencies))
    slow.start()
    wait_until(bench.sandbox.hits, what="its call")
    run, results = bench.run_backfill(songs, run="run-2", is_operator=True)
    assert results == []
    assert run.summary.unfinished == {song: "in progress in run run-1"}
    gate.open()
    slow.join()
    assert bench.row(song)["outcome"] == "stored"
    assert bench.sandbox.hits() == 1


def test_a_late_response_of_a_stale_owner_changes_no_row(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    gate = Gate()
    dependencies = gate.delay_responses(bench.dependencies, bench.sandbox)
    # Its heartbeats are too rare, so that its claim is taken over while its call is in flight.
    stale: list[Any] = []
    frozen = replace(bench.config, heartbeat_seconds=60.0)
    slow = threading.Thread(
        target=lambda: stale.extend(bench.run_backfill(songs, run="stale", config=frozen, dependencies=dependencies)[1])
    )
    slow.start()
    wait_until(bench.sandbox.hits, what="its call")
    bench.sql("update songstats_backfill_queue set heartbeat_at = now() - interval '1 hour'")
    bench.run_backfill(songs, run="new")
    lease = bench.row(song)["lease"]
    before = bench.sql("select count(*) n from song_measurements")[0]["n"]
    gate.open()
    slow.join()
    assert stale == [], "it reports only rows that it settled"
    assert (bench.row(song)["lease"], bench.row(song)["outcome"]) == (lease, "stored")
    assert bench.sql("select count(*) n from song_measurements")[0]["n"] == before
    assert len(bench.sql("select 1 from songstats_responses")) == 2, "but its billed response is stored"


def test_two_concurrent_runs_buy_each_recording_once(bench: Workbench):
    songs = isrcs(60)
    bench.submit_request(songs)
    threads = [threading.Thread(target=bench.run_backfill, args=(songs,), kwargs={"run": f"run-{n}"}) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.statuses() == {"stored": 60}
    assert bench.sandbox.hits() == 60


def test_all_runs_share_the_deployments_pace(bench: Workbench):
    songs = isrcs(15)
    bench.submit_request(songs)
    config = replace(bench.config, requests_per_second=20.0)
    halves = [
        threading.Thread(target=bench.run_backfill, args=(half,), kwargs={"run": half[0], "config": config})
        for half in (songs[:7], songs[7:])
    ]
    began = time.monotonic()
    for half in halves:
        half.start()
    for half in halves:
        half.join()
    assert time.monotonic() - began >= 14 / 20, "fifteen calls at 20 a second cannot take less"
    assert bench.statuses() == {"stored": 15}


def test_stopping_finishes_the_calls_in_flight_and_releases_the_rest(bench: Workbench):
    songs = isrcs(50)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.3)
    from measurement_pipeline.backfill.run import BackfillRun

    run = BackfillRun(songs, run="run-1", is_operator=False, config=bench.config, dependencies=bench.dependencies)
    results = []
    for recording in run:
        results.append(recording)
        run.stop("cancelled")
    hits = bench.sandbox.hits()
    assert 0 < hits < 50
    assert len(results) == hits
    assert bench.statuses() == {"stored": hits, "pending": 50 - hits}


def test_an_operators_run_retries_failed_rows_and_is_recorded(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.sql("update songstats_backfill_queue set status = 'failed', outcome = 'exhausted', attempts = 5")
    bench.run_backfill(songs)
    assert bench.sandbox.hits() == 0, "a planned run does not claim failed rows"
    _, results = bench.run_backfill(songs, run="run-2", is_operator=True)
    assert [r.kind for r in results] == [ResultKind.SETTLED]
    (act,) = bench.sql("select actor, act, detail from operator_acts")
    assert (act["actor"], act["detail"]["songs"]) == ("run run-2", [song])


def test_an_operators_run_reads_a_stored_malformed_response_again_without_a_hit(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, body="not json")
    bench.run_backfill(songs)
    bench.sandbox.clear_faults()
    bench.run_backfill(songs, run="run-2", is_operator=True)
    assert bench.row(song)["outcome"] == "malformed"
    assert bench.sandbox.hits() == 1


def test_an_absent_recording_is_bought_for_the_operators_account_or_rejected_with_a_reason(bench: Workbench):
    known, unknown = isrcs(2)
    run, results = bench.run_backfill([known, "not-an-isrc"], is_operator=True)
    assert run.summary.unfinished[known].startswith(NO_PAYER)
    assert "not an ISRC" in run.summary.unfinished["not-an-isrc"]
    from measurement_pipeline_tests.workbench import OPERATORS

    bench.allow(OPERATORS)
    _, results = bench.run_backfill([known], run="run-2", is_operator=True)
    assert [(r.kind, r.account) for r in results] == [(ResultKind.SETTLED, OPERATORS)]
    homeless = replace(bench.config, rules=replace(bench.config.rules, operators_account=None))
    run, _ = bench.run_backfill([unknown], run="run-3", is_operator=True, config=homeless)
    assert "BACKFILL_ACCOUNT_ID" in run.summary.unfinished[unknown]
    assert bench.sandbox.hits() == 1


def test_terminated_connections_lose_and_repeat_no_call(bench: Workbench):
    songs = isrcs(120)
    bench.submit_request(songs)
    done = threading.Event()

    def terminate() -> None:
        # Limited, because a busy machine gets nothing done in between.
        for _ in range(20):
            if done.wait(0.3):
                return
            bench.sql(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )

    killer = threading.Thread(target=terminate)
    killer.start()
    try:
        for run in range(60):
            # Any of its statements may have failed; the next run continues.
            with suppress(DatabaseUnavailable, ExceptionGroup):
                bench.run_backfill(songs, run=f"run-{run}")
            bench.sql(
                "update songstats_backfill_queue set heartbeat_at = now() - interval '1 hour' where status = 'in_progress'"
            )
            if bench.statuses() == {"stored": 120}:
                break
    finally:
        done.set()
        killer.join()
    assert bench.statuses() == {"stored": 120}
    assert bench.sandbox.hits() <= len(bench.ledger())
    answered = bench.sql("select song, count(*) n from songstats_responses group by 1 having count(*) > 1")
    assert answered == []


def test_an_unreachable_vendor_costs_no_hit_and_pauses_the_deployment(bench: Workbench):
    songs = isrcs(40)
    bench.submit_request(songs)
    unknown = BackfillDependencies(
        songstats_client_factory(bench.sandbox, base_url="http://127.0.0.1:9"),
        bench.dependencies.check_payment,
    )
    run, _ = bench.run_backfill(songs, dependencies=unknown)
    assert "no usable response" in str(run.summary.stop_reason)
    assert {(h["billable"], h["reason"]) for h in bench.ledger()} == {(False, "transient")}
    assert len(bench.ledger()) == 5
    assert bench.sql("select paused_until > now() as paused from vendor_state")[0]["paused"]


def test_a_403_without_an_explanation_settles_no_row_and_pauses(bench: Workbench):
    songs = isrcs(40)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=403)
    bench.sandbox.faults(STATUS, status=500)
    run, _ = bench.run_backfill(songs)
    assert "no usable response" in str(run.summary.stop_reason)
    assert bench.sandbox.hits() <= 5
    assert bench.statuses() == {"pending": 40}
    assert {r["attempts"] for r in bench.sql("select attempts from songstats_backfill_queue")} == {0}


@pytest.mark.parametrize("first", [{"hang": True}, {"cut": 20}, {"status": 502}])
def test_a_429_does_not_give_back_an_attempt_with_an_earlier_response(bench: Workbench, first: dict[str, Any]):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, count=1, **first)
    bench.sandbox.faults(HISTORY, status=429, count=1)
    dependencies = bench.dependencies
    if "hang" in first:
        dependencies = BackfillDependencies(
            songstats_client_factory(bench.sandbox, timeout_seconds=1.0), bench.dependencies.check_payment
        )
    bench.run_backfill(songs, retry_soon_seconds=0.0, dependencies=dependencies)
    bench.run_backfill(songs, is_retry=True)
    assert [hit["reason"] for hit in bench.ledger()][1:] == ["throttled"]
    assert bench.row(song)["attempts"] == 1


def test_the_next_reclaim_reads_a_late_billed_response_of_a_settled_row(
    bench: Workbench,
):
    (song,) = songs = isrcs(1)
    job = bench.submit_request(songs)
    bench.run_backfill(songs)
    # As after a slow owner lost its lease to one that received a 404.
    bench.sql("update songstats_responses set parser_version = null")
    bench.sql("delete from song_measurements")
    bench.sql("update songstats_backfill_queue set outcome = 'no_history'")
    with connect(bench.database_url) as connection:
        assert backfill_queue.reclaim(connection, bench.config.rules, parser_version=1) == (1, 0)
        assert [row.song for row in account_shares.due(connection, bench.config.rules)] == songs
    assert bench.sql("select state from measurement_jobs where id = %s", job) == [{"state": "done"}], (
        "the operators' account pays again"
    )
    bench.run_backfill(songs, run="after")
    assert bench.row(song)["outcome"] == "stored"
    assert bench.sandbox.hits() == 1


def test_an_hour_of_5xx_pauses_rather_than_exhausts_the_queue(bench: Workbench):
    songs = isrcs(60)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=503)
    for run in range(4):
        bench.run_backfill(songs, run=f"run-{run}")
        bench.sql("update vendor_state set paused_until = now()")
    assert bench.sandbox.hits() <= 20
    assert bench.statuses() == {"pending": 60}
    assert bench.sql("select throttled, stumbled from vendor_state") == [{"throttled": 0, "stumbled": 4}]


def test_reading_a_stored_response_again_does_not_count_for_the_breaker(bench: Workbench):
    songs = isrcs(16)
    bench.submit_request(songs)
    for song in songs[::2]:
        bench.sandbox.faults(HISTORY, isrc=song, body="not json")
    for number, song in enumerate(songs):
        bench.run_backfill([song], run=f"run-{number}")
    bench.sandbox.clear_faults()
    assert bench.statuses() == {"malformed": 8, "stored": 8}
    run, _ = bench.run_backfill(songs[::2], run="again", is_operator=True)
    assert run.summary.calls == 0
    assert run.summary.breaker_reason is None
    assert bench.sql("select breaker from vendor_state")[0]["breaker"] == "closed"


def test_an_internal_error_ends_the_run_after_the_responses_in_flight_are_stored(bench: Workbench):
    paid, stale = isrcs(4), isrcs(1, start=50)
    bench.submit_request(paid)
    other = uuid4()
    bench.submit_request(stale, account=other, ranks=[0])
    bench.sql("update payment_decisions set checked_at = now() - interval '11 minutes' where account = %s", other)
    bench.sandbox.faults(HISTORY, delay=0.5)

    def broken(_account: Any) -> PaymentVerdict:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        bench.run_backfill([*paid, *stale], dependencies=BackfillDependencies(bench.dependencies.new_client, broken))
    assert bench.sandbox.hits() == len(bench.sql("select 1 from songstats_responses")) == 4
    assert "crashed: unknown" not in {h["reason"] for h in bench.ledger()}
    bench.sandbox.clear_faults()
    bench.sql("update payment_decisions set checked_at = now()")
    bench.run_backfill([*paid, *stale], run="run-2")
    assert bench.statuses() == {"stored": 5}
    assert bench.sandbox.hits() == 5


def test_a_failed_row_with_an_unread_response_is_requeued_at_any_number_of_attempts(bench: Workbench):
    from measurement_pipeline.postgres.database import connect

    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.run_backfill(songs)
    bench.sql("delete from song_measurements")
    bench.sql("update songstats_responses set parser_version = null")
    bench.sql("update songstats_backfill_queue set status = 'failed', outcome = 'transient', attempts = 5")
    bench.sql("update measurement_jobs set state = 'accepted'")
    with connect(bench.database_url) as connection:
        assert backfill_queue.reclaim(connection, bench.config.rules, parser_version=1) == (1, 0)
    bench.run_backfill(songs, run="run-2")
    assert bench.row(song)["outcome"] == "stored"
    assert bench.sandbox.hits() == 1
