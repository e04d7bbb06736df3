"""Every vendor failure during a backfill: nothing is lost, nothing is bought twice, every request is accounted for."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.faults import vendor_failures
from measurement_pipeline_tests.faults.invariants import HISTORY, assert_invariants_hold, assert_measurements_complete
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Workbench, isrcs, songstats_client_factory

STATUS = "/enterprise/v1/status"
# Seconds by which a response misses the timeout; the short form uses the least that shows it.
LATE = 30
LATE_IN_SHORT = 6
HTML = "<!doctype html><html><body><h1>We will be back soon</h1></body></html>"
# The invariants that hold after every case.
ALWAYS = ["I1", "I2", "I3", "I4", "I5", "I6", "I8", "I9", "I10", "I11", "I14"]

Faults = list[dict[str, Any]]


def body(**entry: object) -> str:
    return json.dumps({"result": "success", "message": "", "stats": [{"source": "spotify", **entry}]})


def head(*lines: str) -> str:
    """A malformed response head. The connection closes after it, as it announces."""
    return "\r\n".join([*lines, "connection: close", "", body(data={"history": []})])


WRONG_SHAPES = [
    '{"result": "success"}',
    '{"result": "error", "message": "maintenance"}',
    "[]",
    "null",
    '"',
    body(data={"history": {}}),
    body(data={"history": [{"date": "2026-01-01", "plays": 3}]}),
    body(data={"history": [{"day": "2026-01-01", "streams_total": 3}]}),
    json.dumps({"result": "success", "stats": [{"history": []}]}),
]

# Description → faults that are set together, each for a share of the requests.
SCENARIOS: dict[str, Faults] = {
    "429 with Retry-After": [{"status": 429, "retry_after": 240, "share": 0.3}],
    "429 without Retry-After": [{"status": 429, "share": 0.3}],
    "429 of both kinds, mixed": [
        {"status": 429, "retry_after": 240, "share": 0.15},
        {"status": 429, "retry_after": "soon", "share": 0.1},
        {"status": 429, "share": 0.15},
    ],
    "5xx in bursts": [{"status": status, "count": 6, "share": 0.5} for status in (500, 502, 503, 504, 408, 425, 520)],
    "responses slower than the timeout": [{"delay": LATE, "share": 0.3}],
    "bodies cut short at random bytes": [{"cut": "anywhere", "share": 0.4}],
    "connections closed or reset": [
        {"close": True, "share": 0.15},
        {"reset": True, "share": 0.15},
        {"reset": True, "cut": "anywhere", "share": 0.15},
    ],
    "half-open connections": [
        {"hang": True, "share": 0.1},
        {"hang": True, "cut": 0, "share": 0.1},
        {"hang": True, "cut": "anywhere", "share": 0.1},
    ],
    "wrong shapes": [{"body": shape, "share": 0.06} for shape in WRONG_SHAPES],
    "HTML instead of JSON": [
        {"body": HTML, "headers": {"content-type": "text/html"}, "share": 0.2},
        {"body": HTML, "status": 503, "headers": {"content-type": "text/html"}, "share": 0.2},
    ],
    "pages of a CDN, a proxy and a captive portal": [
        {"foreign": page, "share": 0.08}
        for page in ("challenge", "proxy", "portal", "portal redirect", "login", "gateway", "json")
    ],
    "corrupt gzip": [{"gzip": how, "share": 0.15} for how in ("not", "short", "wrong")],
    "invalid HTTP": [
        {"raw": head("HTTP/1.1 two hundred", "content-length: 2"), "share": 0.1},
        {"raw": head("ICY 200 OK"), "share": 0.1},
        {"raw": head("HTTP/1.1 200 OK", "content-length: 20", "content-length: 30"), "share": 0.1},
        {"raw": head("HTTP/1.1 200 OK", "transfer-encoding: chunked"), "share": 0.1},
        {"raw": "\0" * 200, "share": 0.1},
    ],
}
# One fault of each kind, so that any two can occur together.
SCENARIOS["all faults together"] = [
    {**fault, "share": 0.07} for name in SCENARIOS for fault in SCENARIOS[name][:2] if not fault.get("delay")
] + [{"delay": LATE, "share": 0.05}]

# The cases of the short form. "all faults together" combines one fault of each kind.
IN_SHORT = (
    "429 of both kinds, mixed",
    "bodies cut short at random bytes",
    "half-open connections",
    "pages of a CDN, a proxy and a captive portal",
    "all faults together",
)
PAGES = ("challenge", "proxy", "portal", "portal redirect", "login", "json")
PAGES_IN_SHORT = ("proxy",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    long_form = metafunc.config.getoption("--long")
    if "scenario" in metafunc.fixturenames:
        metafunc.parametrize("scenario", SCENARIOS if long_form else IN_SHORT)
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", PAGES if long_form else PAGES_IN_SHORT)
    if "retry_after" in metafunc.fixturenames:
        metafunc.parametrize("retry_after", [None, 300] if long_form else [None])


def impatient(bench: Workbench, seconds: float) -> BackfillDependencies:
    """A client with a timeout of so many seconds."""
    return BackfillDependencies(
        songstats_client_factory(bench.sandbox, timeout_seconds=seconds), bench.dependencies.check_payment
    )


def test_a_backfill_through_vendor_failures_stores_everything(
    bench: Workbench, scenario: str, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(100 if long_form else 20)
    bench.submit_request(songs)
    for number, fault in enumerate(SCENARIOS[scenario]):
        late = {"delay": LATE_IN_SHORT} if "delay" in fault and not long_form else {}
        bench.sandbox.faults(HISTORY, seed=f"{scenario} {number}", **fault | late)
    met = 0
    for _ in range(20):
        vendor_failures.run_backfill(bench, songs, dependencies=impatient(bench, 3.0))
        with connect(bench.database_url) as connection:
            operator_actions.close_breaker(connection, actor="a test")
        vendor_failures.end_waits(bench)
        assert_nothing_failed_too_early(bench)
        met = sum(request["fault"] for request in bench.sandbox.requests(HISTORY))
        if vendor_failures.is_finished(bench) or (met >= 6 and not long_form):
            break
    assert met >= 3, "no request met a fault"
    vendor_failures.recover_and_finish(bench, songs)
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    assert_measurements_come_from_the_last_response(bench, songs)
    record_proof(f"vendor: {scenario}", ALWAYS, times=met)


def assert_nothing_failed_too_early(bench: Workbench) -> None:
    """Exhausted recordings had five runs without a response; malformed and rejected ones had a response."""
    for row in bench.sql("select * from songstats_backfill_queue where status = 'failed'"):
        spent = [hit for hit in bench.ledger() if hit["song"] == row["song"]]
        assert row["outcome"] in {"malformed", "exhausted"}
        if row["outcome"] == "exhausted":
            called = [hit for hit in spent if hit["reason"] in {"transient", "timeout: unknown"}]
            assert len({hit["run_id"] for hit in called}) == row["attempts"] == 5
        else:
            assert (spent[-1]["reason"], spent[-1]["billable"]) == ("malformed", True)


def assert_measurements_come_from_the_last_response(bench: Workbench, songs: list[str]) -> None:
    """Each recording has one history, from its only readable response."""
    bench.sql(
        "delete from songstats_responses as response using songstats_quota_ledger as ledger"
        " where ledger.id = response.ledger and ledger.reason <> 'stored'"
    )
    assert_measurements_complete(bench)
    assert {row["song"] for row in bench.sql("select distinct song from song_measurements")} == set(songs)


def test_the_vendors_log_shows_no_call_before_retry_after(
    bench: Workbench, long_form: bool, record_proof: ProofRecorder
):
    """In real time: the test plans again and again, as the sensor does, and the vendor's log has the times of the calls."""
    seconds = 20 if long_form else 2
    songs = isrcs(30)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=429, retry_after=seconds, count=2)

    def a_look() -> bool:
        for result in vendor_failures.plan_next(bench, songs).ranges:
            vendor_failures.run_backfill(bench, result.songs)
        return bench.statuses() == {"stored": 30}

    wait_until(a_look, seconds=6 * seconds + 120, what="the end of the backfill")
    received = [(datetime.fromisoformat(r["at"]), r["status"]) for r in bench.sandbox.requests(HISTORY)]
    throttled = [at for at, status in received if status == 429]
    first = throttled[0]
    # The calls that were in flight with the first one. Then none until the pause ends, and a single call after it.
    late = [at for at, _ in received if at > first + timedelta(seconds=1)]
    assert all(at >= first + timedelta(seconds=seconds) for at in late)
    assert {r["billable"] for r in bench.ledger() if r["status_code"] == 429} == {False}
    assert {r["attempts"] for r in bench.sql("select attempts from songstats_backfill_queue")} == {1}
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    record_proof("vendor: 429 with Retry-After, in real time", ["I1", "I6", "I9", "I11"])


def test_paced_calls_stop_once_the_vendor_requests_a_pause(bench: Workbench, record_proof: ProofRecorder):
    songs = isrcs(20)
    bench.submit_request(songs)
    vendor_failures.run_backfill(bench, songs[:5])
    bench.sandbox.forget_requests()
    bench.sandbox.faults(HISTORY, status=429, retry_after=60)
    vendor_failures.run_backfill(bench, songs, config=replace(bench.config, requests_per_second=0.5))
    assert bench.sandbox.hits() <= 2, "a second call only if the machine took 2 s to process the first"
    assert_invariants_hold(bench)
    record_proof("vendor: 429 with a limited pace", ["I1", "I9", "I11"])


def test_an_hour_of_429_costs_nothing_and_ends_at_the_next_probe(
    bench: Workbench, retry_after: int | None, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(300 if long_form else 40)
    bench.submit_request(songs)
    vendor_failures.run_backfill(bench, songs[:10])
    before = vendor_failures.count_budgeted_hits(bench)
    bench.sandbox.faults(HISTORY, status=429, retry_after=retry_after)
    passed, pauses = 0.0, []
    while passed < 3600:
        requests_before = bench.sandbox.hits()
        vendor_failures.run_backfill(bench, songs)
        (state,) = bench.sql("select throttled, extract(epoch from paused_until - now()) as pause from vendor_state")
        passed += float(state["pause"])
        pauses.append(round(state["pause"]))
        assert state["throttled"] == len(pauses)
        assert bench.sandbox.hits() - requests_before <= (bench.config.concurrency if len(pauses) == 1 else 1)
        assert "Calls to Songstats paused until" in str(vendor_failures.plan_next(bench, songs).skip_reason), (
            "no run is planned meanwhile"
        )
        vendor_failures.end_waits(bench)
    rows = bench.sql(
        "select status, attempts, outcome, last_status_code from songstats_backfill_queue where attempts = 0"
    )
    assert {(row["status"], row["outcome"]) for row in rows} == {("pending", None)}
    assert len(rows) == len(songs) - 10, "no attempt counted, no row failed"
    assert vendor_failures.count_budgeted_hits(bench) == before, "no budget used"
    assert pauses == sorted(pauses)
    assert pauses[-1] == 900, "without a response, pauses grow to 15 minutes, with or without Retry-After"
    assert pauses[0] == (retry_after or 5)
    bench.sandbox.clear_faults()
    vendor_failures.run_backfill(bench, songs)
    assert bench.statuses() == {"stored": len(songs)}, "the first run after the recovery finishes everything"
    assert bench.sql("select throttled from vendor_state")[0]["throttled"] == 0
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    kind = "with" if retry_after else "without"
    record_proof(f"vendor: 429 for an hour, {kind} Retry-After", ALWAYS, times=len(pauses))


def test_endless_5xx_exhausts_recordings_and_the_next_request_requeues_them(
    bench: Workbench, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(30 if long_form else 4)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, status=503)
    for _ in range(5 * len(songs)):
        vendor_failures.run_backfill(bench, songs)
        vendor_failures.end_waits(bench)
        if bench.statuses() == {"exhausted": len(songs)}:
            break
    assert bench.statuses() == {"exhausted": len(songs)}
    assert bench.sandbox.hits() == 5 * len(songs), "exactly five runs for each recording"
    assert vendor_failures.count_budgeted_hits(bench) == 0, "a 5xx response is not billed"
    assert bench.sql("select state from measurement_jobs")[0]["state"] == "done"
    assert_invariants_hold(bench)
    bench.sandbox.clear_faults()
    with connect(bench.database_url) as connection:
        requeued = operator_actions.requeue(connection, songs[::2], rebuy=False, actor="a test")
    assert sorted(requeued) == songs[::2]
    vendor_failures.drain(bench, songs[::2], runs=1)
    assert bench.statuses() == {"stored": len(songs) // 2, "exhausted": len(songs) // 2}
    vendor_failures.recover_and_finish(bench, songs)
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    record_proof("vendor: 5xx until attempts are used up, then requeued", ALWAYS, times=5 * len(songs))


def test_an_hour_of_foreign_pages_settles_nothing_and_the_backfill_resumes(
    bench: Workbench, page: str, long_form: bool, record_proof: ProofRecorder
):
    """From the middle of a backfill, for histories and `/status`. The key is not blamed, and no attempt is counted."""
    songs = isrcs(300 if long_form else 40)
    bench.submit_request(songs)
    vendor_failures.run_backfill(bench, songs[:10])
    bench.sandbox.faults("/enterprise/", foreign=page)
    passed, pauses = 0.0, 0
    while passed < 3600:
        requests_before = bench.sandbox.hits()
        vendor_failures.run_backfill(bench, songs)
        (state,) = bench.sql(
            "select breaker, pause_reason, extract(epoch from paused_until - now()) as pause from vendor_state"
        )
        assert (state["breaker"], "not Songstats' own answer: " in state["pause_reason"]) == ("closed", True)
        assert bench.sandbox.hits() - requests_before <= (5 if pauses == 0 else 1)
        assert "Calls to Songstats paused until" in str(vendor_failures.plan_next(bench, songs).skip_reason)
        passed += float(state["pause"])
        pauses += 1
        vendor_failures.end_waits(bench)
    assert bench.statuses() == {"stored": 10, "pending": len(songs) - 10}
    assert {row["attempts"] for row in bench.sql("select attempts from songstats_backfill_queue")} == {0, 1}
    assert vendor_failures.count_budgeted_hits(bench) == len(bench.ledger()), "hits of unknown fate count"
    bench.sandbox.clear_faults()
    vendor_failures.drain(bench, songs, runs=2)
    assert bench.statuses() == {"stored": len(songs)}
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    record_proof(f"vendor: a foreign response for an hour ({page})", ALWAYS, times=pauses)


def test_slow_responses_within_the_timeout_are_stored(bench: Workbench, long_form: bool, record_proof: ProofRecorder):
    delay, allowed = (30.0, 50.0) if long_form else (0.3, 60.0)
    bench.config = replace(bench.config, rules=replace(bench.config.rules, claim_timeout_seconds=5.0))
    songs = isrcs(25 if long_form else 20)
    bench.submit_request(songs)
    bench.dependencies = impatient(bench, allowed)
    bench.sandbox.faults(HISTORY, delay=delay)
    # The claim timeout is far shorter than a response takes; heartbeats keep each row.
    vendor_failures.drain(bench, songs, runs=1)
    assert bench.sandbox.hits() == len(songs)
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    record_proof("vendor: slow responses within the timeout", ALWAYS, times=len(songs))


def test_a_silent_vendor_pauses_all_runs_and_each_call_counts_as_unknown(
    bench: Workbench, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(20)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, hang=True, count=3)
    bench.sandbox.faults(HISTORY, delay=LATE if long_form else LATE_IN_SHORT)
    backfill_run = vendor_failures.run_backfill(bench, songs, dependencies=impatient(bench, 0.7))
    assert "no usable response" in str(backfill_run.summary.stop_reason)
    assert bench.sandbox.hits() == len(bench.ledger()) == 5
    assert {(hit["reason"], hit["billable"]) for hit in bench.ledger()} == {("timeout: unknown", None)}
    assert vendor_failures.count_budgeted_hits(bench) == 5, "possibly billed hits count"
    assert bench.statuses() == {"pending": 20}
    vendor_failures.recover_and_finish(bench, songs)
    vendor_failures.assert_ledger_matches_vendor_log(bench)
    record_proof("vendor: no response to any call", ALWAYS)
