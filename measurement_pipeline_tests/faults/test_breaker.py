"""A key of the wrong kind, a vendor that changed, a key revoked: calling stops in time, and afterwards everything is bought."""

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
from measurement_pipeline_tests.faults import storm
from measurement_pipeline_tests.faults.matrix import Proves
from measurement_pipeline_tests.faults.reckoning import HISTORY, nothing_breaks
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.workbench import Workbench, isrcs, songstats_client

ENTERPRISE = "/enterprise/v1/"
MAINTENANCE = "<!doctype html><html><body><h1>Down for maintenance</h1></body></html>"
RENAMED = json.dumps(
    {
        "result": "success",
        "stats": [{"source": "spotify", "data": {"history": [{"date": "2026-01-01", "streams": 7}]}}],
    }
)
AWAY = json.dumps({"result": "success", "stats": [{"source": "deezer", "data": {"history": []}}]})

# What everything answers → after how many hits calling stops, whatever else is the case. `GET /status` is fine throughout.
CHANGES: dict[str, tuple[dict[str, Any], int]] = {
    "a key of the wrong kind, 400 on everything": ({"status": 400}, 5),
    "a key of the wrong kind, 403 on everything": ({"status": 403}, 5),
    "a renamed field in every answer": ({"body": RENAMED}, 5),
    "an HTML page with 200 in place of every answer": ({"body": MAINTENANCE}, 5),
    "404 on everything": ({"status": 404}, 25),
    "the platform gone from every answer": ({"body": AWAY}, 25),
}


# What the short form makes do with: from the start, and in the middle of a run.
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


def an_hour_of_looks(bench: Workbench, songs: list[str]) -> None:
    """Nothing more is called, however often a run is made of it and the sweep comes by."""
    before = bench.sandbox.hits()
    for _ in range(2):
        assert storm.run(bench, songs).summary.calls == 0
        reclaim_backfill(bench.terms, bench.means)
        assert str(storm.planned(bench, songs).skip_reason).startswith("Circuit breaker open since")
        storm.time_passes(bench)
    assert bench.sandbox.hits() == before


def a_person_puts_it_right(bench: Workbench, songs: list[str], *, outcome: Outcome | None = None) -> None:
    """What an operator does: close the breaker, put back what was settled on doubtful evidence, and buy it.

    Doubtful is what is marked as suspect; with `outcome`, all that ended so.
    """
    bench.sandbox.clear_faults()
    with connect(bench.database_url) as connection:
        assert operator_actions.close_breaker(connection, actor="a test") == ["breaker closed"]
        chosen = list(backfill_queue.choose(connection, suspect=outcome is None, outcome=outcome))
        assert sorted(operator_actions.requeue(connection, chosen, rebuy=True, actor="a test")) == chosen
    storm.drain(bench, songs, runs=2)
    assert bench.statuses() == {"stored": len(songs)}
    assert suspects(bench) == []
    storm.each_request_has_its_row(bench)


def test_a_change_from_the_start_stops_calls_at_exactly_so_many_hits_and_nothing_is_lost(
    bench: Workbench, change: str, long_form: bool, proves: Proves
):
    fault, hits = CHANGES[change]
    songs = isrcs(300 if long_form else 35)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, **fault)
    storm.run(bench, songs)
    assert breaker(bench) == ("open", "streak")
    assert bench.sandbox.hits() == hits
    assert storm.budget_counts_only(bench) == hits
    assert len(suspects(bench)) == hits
    an_hour_of_looks(bench, songs)
    nothing_breaks(bench)
    a_person_puts_it_right(bench, songs)
    assert bench.sandbox.hits() == hits + len(songs)
    proves(f"vendor: {change}", ["I1", "I4", "I5", "I6", "I7", "I8", "I10", "I14"])


def test_a_change_in_the_middle_of_a_run_stops_calls_within_what_is_in_the_air(
    bench: Workbench, late_change: str, long_form: bool, proves: Proves
):
    fault, hits = CHANGES[late_change]
    songs = isrcs(300 if long_form else 60)
    bench.ask_for(songs)
    # So slow that all thirty are stored, and as many calls in the air as may be, before the first of these is answered.
    bench.sandbox.faults(HISTORY, count=30)
    bench.sandbox.faults(HISTORY, delay=0.5, **fault)
    storm.run(bench, songs)
    assert breaker(bench) == ("open", "streak")
    in_vain = bench.sandbox.hits() - 30
    assert hits <= in_vain <= max(hits, bench.terms.concurrency)
    an_hour_of_looks(bench, songs)
    nothing_breaks(bench)
    (outcome,) = bench.statuses().keys() - {"stored", "pending"}
    assert bench.statuses() == {"stored": 30, outcome: in_vain, "pending": len(songs) - 30 - in_vain}
    a_person_puts_it_right(bench, songs, outcome=Outcome(outcome))
    assert bench.sandbox.hits() == in_vain + len(songs)
    proves(f"vendor: {late_change}, in the middle of a run", ["I1", "I4", "I5", "I6", "I7", "I8", "I10", "I14"])


def test_what_was_in_the_air_when_the_breaker_opened_is_suspect_too(bench: Workbench, proves: Proves):
    songs = isrcs(60)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, count=30)
    bench.sandbox.faults(HISTORY, delay=0.5, status=400)
    storm.run(bench, songs)
    assert breaker(bench) == ("open", "streak")
    assert len(suspects(bench)) == bench.statuses()["rejected"]
    a_person_puts_it_right(bench, songs)
    proves("vendor: a key of the wrong kind, with 20 calls in flight", ["I1", "I4", "I5", "I6", "I7"])


def test_a_maintenance_page_with_503_for_an_hour_is_a_pause_and_settles_nothing(
    bench: Workbench, long_form: bool, proves: Proves
):
    songs = isrcs(300 if long_form else 60)
    bench.ask_for(songs)
    bench.sandbox.faults(ENTERPRISE, body=MAINTENANCE, status=503, headers={"content-type": "text/html"})
    passed, looks = 0.0, 0
    while passed < 3600:
        asked = bench.sandbox.hits()
        storm.run(bench, songs)
        assert bench.sandbox.hits() - asked <= (5 if looks == 0 else 1)
        (state,) = bench.sql("select breaker, extract(epoch from paused_until - now()) as pause from vendor_state")
        assert state["breaker"] == "closed"
        assert state["pause"] > 0
        passed += float(state["pause"])
        looks += 1
        # A row that was tried waits its own time; the best ranked others are tried meanwhile.
        bench.sql("update vendor_state set paused_until = now()")
    assert bench.statuses() == {"pending": len(songs)}, "an hour of it exhausts nothing"
    assert storm.budget_counts_only(bench) == 0
    bench.sandbox.clear_faults()
    storm.time_passes(bench)
    storm.run(bench, songs)
    assert bench.statuses() == {"stored": len(songs)}
    storm.each_request_has_its_row(bench)
    proves("vendor: an HTML page with 503 for an hour", ["I1", "I4", "I5", "I6", "I7", "I10", "I11"], times=looks)


def test_a_key_revoked_in_the_middle_of_a_drain_and_restored_costs_nothing_and_needs_nobody(
    bench: Workbench, refusal: int, long_form: bool, proves: Proves
):
    songs = isrcs(300 if long_form else 50)
    bench.ask_for(songs)
    stored_before = len(songs) // 3
    bench.sandbox.faults(HISTORY, delay=0.05, count=stored_before)
    bench.sandbox.faults(ENTERPRISE, delay=0.05, status=refusal)
    storm.run(bench, songs)
    assert breaker(bench) == ("open", "key")
    refused = bench.sandbox.hits() - stored_before
    assert 1 <= refused <= bench.terms.concurrency
    assert bench.statuses() == {"stored": stored_before, "pending": len(songs) - stored_before}
    assert storm.budget_counts_only(bench) == stored_before, "a refused key costs no budget"
    attempts = bench.sql("select distinct attempts from songstats_backfill_queue where status = 'pending'")
    assert [row["attempts"] for row in attempts] == [0]
    assert reclaim_backfill(bench.terms, bench.means).breaker == "the key is still refused"
    an_hour_of_looks(bench, songs)
    bench.sandbox.clear_faults()
    assert reclaim_backfill(bench.terms, bench.means).breaker == "the key works again: closed"
    storm.drain(bench, songs, runs=1)
    assert bench.statuses() == {"stored": len(songs)}
    assert bench.sandbox.hits() == len(songs) + refused
    storm.each_request_has_its_row(bench)
    proves(
        f"vendor: the key revoked in the middle of a drain ({refusal}), and restored",
        ["I1", "I4", "I5", "I6", "I7", "I10", "I11"],
        times=refused,
    )


def test_a_key_replaced_by_one_of_another_kind_while_a_run_is_under_way(
    bench: Workbench, long_form: bool, proves: Proves
):
    """The run goes on with the old key, which is refused; the next runs have the new one, which is of no use either."""
    songs = isrcs(200 if long_form else 60)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, delay=0.05, count=20)
    bench.sandbox.faults(ENTERPRISE, delay=0.05, status=401)
    underway = threading.Thread(target=storm.run, args=(bench, songs))
    underway.start()
    until(lambda: breaker(bench) == ("open", "key"), what="the refused key")
    underway.join()
    refused = bench.sandbox.hits() - 20
    bench.sandbox.clear_faults()
    bench.sandbox.faults(HISTORY, status=400)
    assert reclaim_backfill(bench.terms, bench.means).breaker == "the key works again: closed"
    storm.run(bench, songs)
    assert breaker(bench) == ("open", "streak")
    assert bench.sandbox.hits() == 20 + refused + 5, "the next run starts with little trust, and spends five hits"
    a_person_puts_it_right(bench, songs)
    proves("vendor: a refused key replaced by one of the wrong kind", ["I1", "I4", "I5", "I6", "I7", "I10"])


def test_a_key_that_does_not_exist_spends_nothing(bench: Workbench, proves: Proves):
    songs = isrcs(30)
    bench.ask_for(songs)
    wrong = BackfillDependencies(
        songstats_client(bench.sandbox, api_key="a-key-nobody-knows"),
        bench.means.check_payment,
    )
    storm.run(bench, songs, means=wrong)
    assert breaker(bench) == ("open", "key")
    assert bench.statuses() == {"pending": 30}
    assert bench.sandbox.hits() <= 5
    assert storm.budget_counts_only(bench) == 0
    nothing_breaks(bench)
    assert reclaim_backfill(bench.terms, bench.means).breaker == "the key works again: closed"
    storm.drain(bench, songs, runs=1)
    storm.each_request_has_its_row(bench)
    proves("vendor: a key that does not exist", ["I1", "I4", "I6", "I7", "I10", "I11"])
