"""Whether the vendor is back is asked for free, and only where the answer may change anything."""

import pytest

from measurement_pipeline.backfill import operator_actions, vendor_probe
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.backfill.test_money_path import HISTORY, STATUS
from measurement_pipeline_tests.workbench import Workbench, isrcs


def paused(bench: Workbench) -> bool:
    return bool(bench.sql("select coalesce(paused_until > now(), false) as paused from vendor_state")[0]["paused"])


def throttle(bench: Workbench, *, times: int = 1, **fault: object) -> None:
    """So many pauses in a row."""
    bench.sandbox.faults(HISTORY, **fault)
    for number in range(times):
        bench.sql("update vendor_state set paused_until = null, no_probe_before = null")
        bench.run_backfill(isrcs(30), run=f"run-{number}")
    bench.sandbox.clear_faults()
    assert paused(bench)


def ask(bench: Workbench) -> str | None:
    return vendor_probe.end_guessed_pause(bench.config, bench.dependencies)


def test_a_pause_that_was_a_guess_ends_once_the_vendor_answers(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, times=8, status=429)
    left = bench.sql("select extract(epoch from paused_until - now()) s from vendor_state")[0]["s"]
    assert left > 500, "by now it would be long"
    hits = bench.sandbox.hits()
    assert ask(bench) == "Songstats answers `GET /status` again: the pause has ended"
    assert bench.sandbox.hits() == hits, "asking is free"
    bench.run_backfill(isrcs(30))
    assert bench.statuses() == {"stored": 30}


def test_while_the_vendor_does_not_answer_the_pause_goes_on(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429)
    bench.sandbox.faults(STATUS, status=429)
    assert ask(bench) == "Songstats does not answer `GET /status` yet: the pause continues"
    assert paused(bench)


def test_a_pause_that_the_vendor_asked_for_is_kept_to(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429, retry_after=60)
    assert ask(bench) is None
    assert paused(bench)
    assert bench.sandbox.requests(STATUS) == []


def test_a_pause_of_30_days_is_kept_for_a_day_and_then_tested_every_hour(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429, retry_after=30 * 86_400)
    row = "select extract(epoch from {} - now())::int as s from vendor_state"
    assert bench.sql(row.format("paused_until"))[0]["s"] > 29 * 86_400
    assert 86_000 < bench.sql(row.format("no_probe_before"))[0]["s"] <= 86_400
    assert ask(bench) is None
    bench.sql("update vendor_state set no_probe_before = now()")  # a day later
    bench.sandbox.faults(STATUS, status=429)
    assert ask(bench) == "Songstats does not answer `GET /status` yet: the pause continues"
    assert 3_500 < bench.sql(row.format("no_probe_before"))[0]["s"] <= 3_600
    assert ask(bench) is None, "not asked again before the hour is up"
    bench.sandbox.clear_faults()
    bench.sql("update vendor_state set no_probe_before = now()")  # an hour later
    assert ask(bench) == "Songstats answers `GET /status` again: the pause has ended"
    bench.run_backfill(isrcs(30))
    assert bench.statuses() == {"stored": 30}


def test_what_goes_beyond_the_vendors_wish_is_a_guess_again(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, times=8, status=429, retry_after=60)
    assert ask(bench) is None
    bench.sql("update vendor_state set no_probe_before = now()")  # 60 s later
    assert ask(bench) == "Songstats answers `GET /status` again: the pause has ended"


def test_a_vendor_that_stumbles_is_not_believed_to_be_well_because_its_status_is(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=503)
    assert ask(bench) is None
    assert paused(bench)


def test_without_a_pause_nothing_is_asked(bench: Workbench):
    assert ask(bench) is None
    assert bench.sandbox.requests(STATUS) == []


def test_in_a_storm_that_the_status_knows_nothing_of_one_call_goes_out_each_time(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429)
    bench.sandbox.faults(HISTORY, status=429)
    for look in range(20):
        before = bench.sandbox.hits()
        assert ask(bench) == "Songstats answers `GET /status` again: the pause has ended"
        bench.run_backfill(isrcs(30), run=f"look-{look}")
        assert bench.sandbox.hits() == before + 1
        assert paused(bench)
    assert bench.sql("select throttled from vendor_state")[0]["throttled"] == 21
    rows = bench.sql("select distinct status, attempts from songstats_backfill_queue")
    assert rows == [{"status": "pending", "attempts": 0}]
    assert {hit["billable"] for hit in bench.ledger()} == {False}


@pytest.mark.parametrize("answer", [{}, {"status": 404}, {"status": 400}])
def test_any_answer_ends_the_growing_of_pauses(bench: Workbench, answer: dict[str, object]):
    bench.submit_request(isrcs(30))
    throttle(bench, times=3, status=429)
    ask(bench)
    if answer:
        bench.sandbox.faults(HISTORY, **answer)
    bench.run_backfill(isrcs(1), run="after")
    assert bench.sql("select throttled from vendor_state")[0]["throttled"] == 0


def test_after_a_pause_the_first_blank_answer_says_that_it_is_not_over(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=503)
    bench.sandbox.faults(HISTORY, status=503)
    bench.sql("update vendor_state set paused_until = now(), no_probe_before = now()")
    before = bench.sandbox.hits()
    bench.run_backfill(isrcs(30), run="after")
    assert bench.sandbox.hits() == before + 1
    assert paused(bench)


def test_a_blank_answer_after_a_storm_of_429s_does_not_begin_with_their_long_pause(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, times=8, status=429)
    ask(bench)
    bench.sandbox.faults(HISTORY, status=503)
    bench.run_backfill(isrcs(30), run="after")
    (left,) = bench.sql("select extract(epoch from paused_until - now()) s from vendor_state")
    assert 0 < left["s"] <= 5


def test_a_pause_that_a_person_lifted_does_not_keep_the_next_ones_from_being_probed(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429, retry_after=86_400)
    with connect(bench.database_url) as connection:
        assert operator_actions.close_breaker(connection, actor="operator") == ["pause lifted"]
    bench.sandbox.faults(HISTORY, status=429)
    bench.run_backfill(isrcs(30), run="after")
    bench.sandbox.clear_faults()
    assert ask(bench) == "Songstats answers `GET /status` again: the pause has ended"


def test_a_status_that_hangs_is_given_up_in_time_for_the_tick(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429)
    bench.sandbox.faults(STATUS, hang=True)
    assert ask(bench) == "Songstats does not answer `GET /status` yet: the pause continues"
