"""A free probe of the vendor ends pauses, and runs only if it may change something."""

import pytest

from measurement_pipeline.backfill import operator_actions, vendor_probe
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.backfill.test_money_path import HISTORY, STATUS
from measurement_pipeline_tests.workbench import Workbench, isrcs


def paused(bench: Workbench) -> bool:
    return bool(bench.sql("select coalesce(paused_until > now(), false) as paused from vendor_state")[0]["paused"])


def throttle(bench: Workbench, *, times: int = 1, **fault: object) -> None:
    """Record `times` pauses in a row."""
    bench.sandbox.faults(HISTORY, **fault)
    for number in range(times):
        bench.sql("update vendor_state set paused_until = null, no_probe_before = null")
        bench.run_backfill(isrcs(30), run=f"run-{number}")
    bench.sandbox.clear_faults()
    assert paused(bench)


def probe(bench: Workbench) -> str | None:
    return vendor_probe.end_guessed_pause(bench.config, bench.dependencies)


def test_a_guessed_pause_ends_when_the_probe_succeeds(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, times=8, status=429)
    left = bench.sql("select extract(epoch from paused_until - now()) s from vendor_state")[0]["s"]
    assert left > 500, "it would have grown by now"
    hits = bench.sandbox.hits()
    assert "has ended" in str(probe(bench))
    assert bench.sandbox.hits() == hits, "the probe is free"
    bench.run_backfill(isrcs(30))
    assert bench.statuses() == {"stored": 30}


def test_a_pause_continues_while_the_probe_fails(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429)
    bench.sandbox.faults(STATUS, status=429)
    assert "continues" in str(probe(bench))
    assert paused(bench)


def test_a_requested_pause_is_respected_without_a_probe(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429, retry_after=60)
    assert probe(bench) is None
    assert paused(bench)
    assert bench.sandbox.requests(STATUS) == []


def test_a_pause_of_30_days_is_probed_every_hour_after_a_day(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429, retry_after=30 * 86_400)
    row = "select extract(epoch from {} - now())::int as s from vendor_state"
    assert bench.sql(row.format("paused_until"))[0]["s"] > 29 * 86_400
    assert 86_000 < bench.sql(row.format("no_probe_before"))[0]["s"] <= 86_400
    assert probe(bench) is None
    bench.sql("update vendor_state set no_probe_before = now()")  # a day later
    bench.sandbox.faults(STATUS, status=429)
    assert "continues" in str(probe(bench))
    assert 3_500 < bench.sql(row.format("no_probe_before"))[0]["s"] <= 3_600
    assert probe(bench) is None, "not probed again within the hour"
    bench.sandbox.clear_faults()
    bench.sql("update vendor_state set no_probe_before = now()")  # an hour later
    assert "has ended" in str(probe(bench))
    bench.run_backfill(isrcs(30))
    assert bench.statuses() == {"stored": 30}


def test_a_pause_beyond_its_retry_after_is_probed(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, times=8, status=429, retry_after=60)
    assert probe(bench) is None
    bench.sql("update vendor_state set no_probe_before = now()")  # 60 s later
    assert "has ended" in str(probe(bench))


def test_a_successful_probe_does_not_end_a_growing_pause_of_failed_calls(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=503)
    assert probe(bench) is None
    assert paused(bench)


def test_no_probe_runs_without_a_pause(bench: Workbench):
    assert probe(bench) is None
    assert bench.sandbox.requests(STATUS) == []


def test_each_pause_ends_with_one_call_if_only_the_status_succeeds(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429)
    bench.sandbox.faults(HISTORY, status=429)
    for look in range(20):
        before = bench.sandbox.hits()
        assert "has ended" in str(probe(bench))
        bench.run_backfill(isrcs(30), run=f"look-{look}")
        assert bench.sandbox.hits() == before + 1
        assert paused(bench)
    assert bench.sql("select throttled from vendor_state")[0]["throttled"] == 21
    rows = bench.sql("select distinct status, attempts from songstats_backfill_queue")
    assert rows == [{"status": "pending", "attempts": 0}]
    assert {hit["billable"] for hit in bench.ledger()} == {False}


@pytest.mark.parametrize("answer", [{}, {"status": 404}, {"status": 400}])
def test_any_response_resets_the_growth_of_pauses(bench: Workbench, answer: dict[str, object]):
    bench.submit_request(isrcs(30))
    throttle(bench, times=3, status=429)
    probe(bench)
    if answer:
        bench.sandbox.faults(HISTORY, **answer)
    bench.run_backfill(isrcs(1), run="after")
    assert bench.sql("select throttled from vendor_state")[0]["throttled"] == 0


def test_the_first_empty_response_after_a_pause_continues_it(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=503)
    bench.sandbox.faults(HISTORY, status=503)
    bench.sql("update vendor_state set paused_until = now(), no_probe_before = now()")
    before = bench.sandbox.hits()
    bench.run_backfill(isrcs(30), run="after")
    assert bench.sandbox.hits() == before + 1
    assert paused(bench)


def test_an_empty_response_after_many_429s_does_not_start_with_their_long_pause(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, times=8, status=429)
    probe(bench)
    bench.sandbox.faults(HISTORY, status=503)
    bench.run_backfill(isrcs(30), run="after")
    (left,) = bench.sql("select extract(epoch from paused_until - now()) s from vendor_state")
    assert 0 < left["s"] <= 5


def test_a_pause_ended_by_an_operator_does_not_prevent_later_probes(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429, retry_after=86_400)
    with connect(bench.database_url) as connection:
        assert operator_actions.close_breaker(connection, actor="operator") == ["pause lifted"]
    bench.sandbox.faults(HISTORY, status=429)
    bench.run_backfill(isrcs(30), run="after")
    bench.sandbox.clear_faults()
    assert "has ended" in str(probe(bench))


def test_a_hanging_probe_ends_within_the_tick(bench: Workbench):
    bench.submit_request(isrcs(30))
    throttle(bench, status=429)
    bench.sandbox.faults(STATUS, hang=True)
    assert "continues" in str(probe(bench))
