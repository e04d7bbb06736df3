"""A key of the wrong kind, a changed vendor, a revoked key: calls stop in time, and everything is bought afterwards."""

import json
import threading
from typing import Any

import pytest

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.backfill.reclaim import reclaim_backfill
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.domain.outcome import Outcome
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.faults import vendor_failures
from measurement_pipeline_tests.faults.invariants import HISTORY, assert_invariants_hold
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, isrcs, songstats_client_factory

ENTERPRISE = "/enterprise/v1/"
MAINTENANCE = "<!doctype html><html><body><h1>Down for maintenance</h1></body></html>"
RENAMED = json.dumps(
    {
        "result": "success",
        "stats": [{"source": "spotify", "data": {"history": [{"date": "2026-01-01", "streams": 7}]}}],
    }
)
AWAY = json.dumps({"result": "success", "stats": [{"source": "deezer", "data": {"history": []}}]})

# Every response of the vendor → the number of hits after which calls stop. `GET /status` works throughout.
CHANGES: dict[str, tuple[dict[str, Any], int]] = {
    "a key of the wrong kind, 400 on everything": ({"status": 400}, 5),
    "a key of the wrong kind, 403 on everything": ({"status": 403}, 5),
    "a renamed field in every response": ({"body": RENAMED}, 5),
    "an HTML page with 200 instead of every response": ({"body": MAINTENANCE}, 5),
    "404 on everything": ({"status": 404}, 25),
    "the platform missing from every response": ({"body": AWAY}, 25),
}


# The cases of the short form: from the start, and in the middle of a run.
IN_SHORT = ("a key of the wrong kind, 403 on everything", "404 on everything")
LATE_IN_SHORT = ("a key of the wrong kind, 400 on everything",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    long_form = metafunc.config.getoption("--long")
    if "change" in metafunc.fixturenames:
        metafunc.parametrize("change", CHANGES if long_form else IN_SHORT)
    if "late_change" in metafunc.fixturenames:
        metafunc.parametrize("late_change", CHANGES if long_form else LATE_IN_SHORT)
    if "refusal" in metafunc.fixturenames:
        metafunc.parametrize("refusal", [401, 402, 403] if long_form else [401])


def breaker(bench: Workbench) -> tuple[str, str | None]:
    (state,) = bench.sql("select breaker, breaker_kind from vendor_state")
    return state["breaker"], state["breaker_kind"]


def suspects(bench: Workbench) -> list[str]:
    return [row["song"] for row in bench.sql("select song from songstats_backfill_queue where suspect order by song")]


def assert_no_calls_for_an_hour(bench: Workbench, songs: list[str]) -> None:
    """Assert that no further call is made, however often a run or a reclaim starts."""
    before = bench.sandbox.hits()
    for _ in range(2):
        assert vendor_failures.run_backfill(bench, songs).summary.calls == 0
        reclaim_backfill(bench.config, bench.dependencies)
        assert str(vendor_failures.plan_next(bench, songs).skip_reason).startswith("Circuit breaker open since")
        vendor_failures.end_waits(bench)
    assert bench.sandbox.hits() == before


def recover_as_operator(bench: Workbench, songs: list[str], *, outcome: Outcome | None = None) -> None:
    """Close the breaker, requeue the suspect recordings, and buy them, as an operator does.

    Suspect are the marked recordings or, with `outcome`, all that ended so.
    """
    bench.sandbox.clear_faults()
    with connect(bench.database_url) as connection:
        assert operator_actions.close_breaker(connection, actor="a test") == ["breaker closed"]
        chosen = list(backfill_queue.choose(connection, suspect=outcome is None, outcome=outcome))
        assert sorted(operator_actions.requeue(connection, chosen, rebuy=True, actor="a test")) == chosen
    vendor_failures.drain(bench, songs, runs=2)
    assert bench.statuses() == {"stored": len(songs)}
    assert suspects(bench) == []
    vendor_failures.assert_ledger_matches_vendor_log(bench)


def test_vendor_change_from_the_start_stops_calls_after_an_exact_number_of_hits(
    bench: Workbench, change: str, long_form: bool, record_proof: ProofRecorder
):
    fault, hits = CHANGES[change]
    songs = isrcs(300 if long_form else 35)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, **fault)
    vendor_failures.run_backfill(bench, songs)
    assert breaker(bench) == ("open", "streak")
    assert bench.sandbox.hits() == hits
    assert vendor_failures.count_budgeted_hits(bench) == hits
    assert len(suspects(bench)) == hits
    assert_no_calls_for_an_hour(bench, songs)
    assert_invariants_hold(bench)
    recover_as_operator(bench, songs)
    assert bench.sandbox.hits() == hits + len(songs)
    record_proof(f"vendor: {change}", ["I1", "I4", "I5", "I6", "I7", "I8", "I10", "I14"])


def test_vendor_change_during_a_run_stops_calls_except_those_in_flight(
    bench: Workbench, late_change: str, long_form: bool, record_proof: ProofRecorder
):
    fault, hits = CHANGES[late_change]
    songs = isrcs(300 if long_form else 60)
    bench.submit_request(songs)
    # Slow enough that all thirty are stored, and the maximum number of calls is in flight, before the first response.
    bench.sandbox.faults(HISTORY, count=30)
    bench.sandbox.faults(HISTORY, delay=0.5, **fault)
    vendor_failures.run_backfill(bench, songs)
    assert breaker(bench) == ("open", "streak")
    in_vain = bench.sandbox.hits() - 30
    assert hits <= in_vain <= max(hits, bench.config.concurrency)
    assert_no_calls_for_an_hour(bench, songs)
    assert_invariants_hold(bench)
    (outcome,) = bench.statuses().keys() - {"stored", "pending"}
    assert bench.statuses() == {"stored": 30, outcome: in_vain, "pending": len(songs) - 30 - in_vain}
    recover_as_operator(bench, songs, outcome=Outcome(outcome))
    assert bench.sandbox.hits() == in_vain + len(songs)
    record_proof(f"vendor: {late_change}, during a run", ["I1", "I4", "I5", "I6", "I7", "I8", "I10", "I14"])


def test_calls_in_flight_when_the_breaker_opens_are_suspect(bench: Workbench, record_proof: ProofRecorder):
    songs = isrcs(60)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, count=30)
    bench.sandbox.faults(HISTORY, delay=0.5, status=400)
    vendor_failures.run_backfill(bench, songs)
    assert breaker(bench) == ("open", "streak")
    assert len(suspects(bench)) == bench.statuses()["rejected"]
    recover_as_operator(bench, songs)
    record_proof("vendor: a key of the wrong kind, with 20 calls in flight", ["I1", "I4", "I5", "I6", "I7"])


def test_an_hour_of_503_maintenance_pages_pauses_calls_and_settles_nothing(
    bench: Workbench, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(300 if long_form else 60)
    bench.submit_request(songs)
    bench.sandbox.faults(ENTERPRISE, body=MAINTENANCE, status=503, headers={"content-type": "text/html"})
    passed, looks = 0.0, 0
    while passed < 3600:
        requests_before = bench.sandbox.hits()
        vendor_failures.run_backfill(bench, songs)
        assert bench.sandbox.hits() - requests_before <= (5 if looks == 0 else 1)
        (state,) = bench.sql("select breaker, extract(epoch from paused_until - now()) as pause from vendor_state")
        assert state["breaker"] == "closed"
        assert state["pause"] > 0
        passed += float(state["pause"])
        looks += 1
        # A tried row waits out its own delay; the next best ones are tried meanwhile.
        bench.sql("update vendor_state set paused_until = now()")
    assert bench.statuses() == {"pending": len(songs)}, "an hour of maintenance exhausts a recording"
    assert vendor_failures.count_budgeted_hits(bench) == 0
    bench.sandbox.clear_faults()
    vendor_failures.end_waits(bench)
    vendor_failures.run_backfill(bench, songs)
    assert bench.statuses() == {"stored": len(songs)}
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    record_proof("vendor: an HTML page with 503 for an hour", ["I1", "I4", "I5", "I6", "I7", "I10", "I11"], times=looks)


def test_a_revoked_and_restored_key_costs_nothing_and_needs_no_operator(
    bench: Workbench, refusal: int, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(300 if long_form else 50)
    bench.submit_request(songs)
    stored_before = len(songs) // 3
    bench.sandbox.faults(HISTORY, delay=0.05, count=stored_before)
    bench.sandbox.faults(ENTERPRISE, delay=0.05, status=refusal)
    vendor_failures.run_backfill(bench, songs)
    assert breaker(bench) == ("open", "key")
    refused = bench.sandbox.hits() - stored_before
    assert 1 <= refused <= bench.config.concurrency
    assert bench.statuses() == {"stored": stored_before, "pending": len(songs) - stored_before}
    assert vendor_failures.count_budgeted_hits(bench) == stored_before, "a refused key costs budget"
    attempts = bench.sql("select distinct attempts from songstats_backfill_queue where status = 'pending'")
    assert [row["attempts"] for row in attempts] == [0]
    assert "still refused" in str(reclaim_backfill(bench.config, bench.dependencies).breaker)
    assert_no_calls_for_an_hour(bench, songs)
    bench.sandbox.clear_faults()
    assert "closed" in str(reclaim_backfill(bench.config, bench.dependencies).breaker)
    vendor_failures.drain(bench, songs, runs=1)
    assert bench.statuses() == {"stored": len(songs)}
    assert bench.sandbox.hits() == len(songs) + refused
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    record_proof(
        f"vendor: the key revoked during a backfill ({refusal}) and restored",
        ["I1", "I4", "I5", "I6", "I7", "I10", "I11"],
        times=refused,
    )


def test_a_key_of_another_kind_replaces_the_key_during_a_run(
    bench: Workbench, long_form: bool, record_proof: ProofRecorder
):
    """The current run keeps the old key, which is refused. The next runs use the new key, which is of the wrong kind."""
    songs = isrcs(200 if long_form else 60)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, delay=0.05, count=20)
    bench.sandbox.faults(ENTERPRISE, delay=0.05, status=401)
    underway = threading.Thread(target=vendor_failures.run_backfill, args=(bench, songs))
    underway.start()
    wait_until(lambda: breaker(bench) == ("open", "key"), what="the refused key")
    underway.join()
    refused = bench.sandbox.hits() - 20
    bench.sandbox.clear_faults()
    bench.sandbox.faults(HISTORY, status=400)
    assert "closed" in str(reclaim_backfill(bench.config, bench.dependencies).breaker)
    vendor_failures.run_backfill(bench, songs)
    assert breaker(bench) == ("open", "streak")
    assert bench.sandbox.hits() == 20 + refused + 5, "the next run spends exactly five hits"
    recover_as_operator(bench, songs)
    record_proof("vendor: a rejected key replaced by one of the wrong kind", ["I1", "I4", "I5", "I6", "I7", "I10"])


def test_an_unknown_key_spends_nothing(bench: Workbench, record_proof: ProofRecorder):
    songs = isrcs(30)
    bench.submit_request(songs)
    wrong = BackfillDependencies(
        songstats_client_factory(bench.sandbox, api_key="an-unknown-key"),
        bench.dependencies.check_payment,
    )
    vendor_failures.run_backfill(bench, songs, dependencies=wrong)
    assert breaker(bench) == ("open", "key")
    assert bench.statuses() == {"pending": 30}
    assert bench.sandbox.hits() <= 5
    assert vendor_failures.count_budgeted_hits(bench) == 0
    assert_invariants_hold(bench)
    assert "closed" in str(reclaim_backfill(bench.config, bench.dependencies).breaker)
    vendor_failures.drain(bench, songs, runs=1)
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    record_proof("vendor: a key that does not exist", ["I1", "I4", "I6", "I7", "I10", "I11"])
