"""Every way in which the vendor can fail, in the middle of a drain: nothing lost, nothing bought twice, each request told."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.faults import storm
from measurement_pipeline_tests.faults.matrix import Proves
from measurement_pipeline_tests.faults.reckoning import HISTORY, measurements_are_whole, nothing_breaks
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.workbench import Workbench, isrcs, songstats_client

STATUS = "/enterprise/v1/status"
# Seconds after which an answer comes that is waited for in vain; in the short form, no longer than it takes to show.
LATE = 30
LATE_IN_SHORT = 6
HTML = "<!doctype html><html><body><h1>We will be back soon</h1></body></html>"
# What every storm has to leave standing.
ALWAYS = ["I1", "I2", "I3", "I4", "I5", "I6", "I8", "I9", "I10", "I11", "I14"]

Faults = list[dict[str, Any]]


def body(**entry: object) -> str:
    return json.dumps({"result": "success", "message": "", "stats": [{"source": "spotify", **entry}]})


def head(*lines: str) -> str:
    """An answer as it should not look. The connection ends with it, as it says."""
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

# In words → the faults that are set together, each for a share of the requests.
STORMS: dict[str, Faults] = {
    "429 with Retry-After": [{"status": 429, "retry_after": 240, "share": 0.3}],
    "429 without Retry-After": [{"status": 429, "share": 0.3}],
    "429 of both kinds, mixed": [
        {"status": 429, "retry_after": 240, "share": 0.15},
        {"status": 429, "retry_after": "soon", "share": 0.1},
        {"status": 429, "share": 0.15},
    ],
    "5xx in bursts": [{"status": status, "count": 6, "share": 0.5} for status in (500, 502, 503, 504, 408, 425, 520)],
    "answers slower than the time allowed": [{"delay": LATE, "share": 0.3}],
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
    "HTML in place of JSON": [
        {"body": HTML, "headers": {"content-type": "text/html"}, "share": 0.2},
        {"body": HTML, "status": 503, "headers": {"content-type": "text/html"}, "share": 0.2},
    ],
    "pages of a CDN, a proxy and a captive portal": [
        {"foreign": page, "share": 0.08}
        for page in ("challenge", "proxy", "portal", "portal redirect", "login", "gateway", "json")
    ],
    "gzip that lies": [{"gzip": how, "share": 0.15} for how in ("not", "short", "wrong")],
    "what is no HTTP": [
        {"raw": head("HTTP/1.1 two hundred", "content-length: 2"), "share": 0.1},
        {"raw": head("ICY 200 OK"), "share": 0.1},
        {"raw": head("HTTP/1.1 200 OK", "content-length: 20", "content-length: 30"), "share": 0.1},
        {"raw": head("HTTP/1.1 200 OK", "transfer-encoding: chunked"), "share": 0.1},
        {"raw": "\0" * 200, "share": 0.1},
    ],
}
# One thing of each kind, so that any two of them meet.
STORMS["everything at once"] = [
    {**fault, "share": 0.07} for name in STORMS for fault in STORMS[name][:2] if not fault.get("delay")
] + [{"delay": LATE, "share": 0.05}]

# What the short form makes do with: one of each kind meets the others in "everything at once".
IN_SHORT = (
    "429 of both kinds, mixed",
    "bodies cut short at random bytes",
    "half-open connections",
    "pages of a CDN, a proxy and a captive portal",
    "everything at once",
)
PAGES = ("challenge", "proxy", "portal", "portal redirect", "login", "json")
PAGES_IN_SHORT = ("proxy",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    long_form = metafunc.config.getoption("--long")
    if "weather" in metafunc.fixturenames:
        metafunc.parametrize("weather", STORMS if long_form else IN_SHORT)
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", PAGES if long_form else PAGES_IN_SHORT)
    if "retry_after" in metafunc.fixturenames:
        metafunc.parametrize("retry_after", [None, 300] if long_form else [None])


def impatient(bench: Workbench, seconds: float) -> BackfillDependencies:
    """A client that allows a call so many seconds."""
    return BackfillDependencies(songstats_client(bench.sandbox, timeout_seconds=seconds), bench.means.check_payment)


def test_a_drain_through_a_storm_ends_with_everything_stored(
    bench: Workbench, weather: str, long_form: bool, proves: Proves
):
    songs = isrcs(100 if long_form else 20)
    bench.ask_for(songs)
    for number, fault in enumerate(STORMS[weather]):
        late = {"delay": LATE_IN_SHORT} if "delay" in fault and not long_form else {}
        bench.sandbox.faults(HISTORY, seed=f"{weather} {number}", **fault | late)
    met = 0
    for _ in range(20):
        storm.run(bench, songs, means=impatient(bench, 3.0))
        with connect(bench.database_url) as connection:
            operator_actions.close_breaker(connection, actor="a test")
        storm.time_passes(bench)
        nothing_is_failed_too_early(bench)
        met = sum(request["fault"] for request in bench.sandbox.requests(HISTORY))
        if storm.is_over(bench) or (met >= 6 and not long_form):
            break
    assert met >= 3, "a storm that nothing met proves nothing"
    storm.clears_up(bench, songs)
    storm.each_request_has_its_row(bench)
    measurements_are_stored_from_the_last_answer(bench, songs)
    proves(f"vendor: {weather}", ALWAYS, times=met)


def nothing_is_failed_too_early(bench: Workbench) -> None:
    """Exhausted means five runs without an answer; malformed and rejected rows had theirs."""
    for row in bench.sql("select * from songstats_backfill_queue where status = 'failed'"):
        spent = [hit for hit in bench.ledger() if hit["song"] == row["song"]]
        assert row["outcome"] in {"malformed", "exhausted"}
        if row["outcome"] == "exhausted":
            called = [hit for hit in spent if hit["reason"] in {"transient", "timeout: unknown"}]
            assert len({hit["run_id"] for hit in called}) == row["attempts"] == 5
        else:
            assert (spent[-1]["reason"], spent[-1]["billable"]) == ("malformed", True)


def measurements_are_stored_from_the_last_answer(bench: Workbench, songs: list[str]) -> None:
    """Each recording has one history, and it is that of its only answer that could be read."""
    bench.sql(
        "delete from songstats_responses as response using songstats_quota_ledger as ledger"
        " where ledger.id = response.ledger and ledger.reason <> 'stored'"
    )
    measurements_are_whole(bench)
    assert {row["song"] for row in bench.sql("select distinct song from song_measurements")} == set(songs)


def test_retry_after_is_waited_out_to_the_second_by_the_vendors_own_log(
    bench: Workbench, long_form: bool, proves: Proves
):
    """In real time: the planner is asked again and again, as its sensor does, and the vendor's log says when it was called."""
    seconds = 20 if long_form else 2
    songs = isrcs(30)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, status=429, retry_after=seconds, count=2)

    def a_look() -> bool:
        for found in storm.planned(bench, songs).ranges:
            storm.run(bench, found.songs)
        return bench.statuses() == {"stored": 30}

    until(a_look, seconds=6 * seconds + 120, what="the end of the drain")
    received = [(datetime.fromisoformat(r["at"]), r["status"]) for r in bench.sandbox.requests(HISTORY)]
    throttled = [at for at, status in received if status == 429]
    first = throttled[0]
    # What was in the air with the first one; then nothing before its time, and the vendor is tried by one call alone.
    late = [at for at, _ in received if at > first + timedelta(seconds=1)]
    assert all(at >= first + timedelta(seconds=seconds) for at in late)
    assert {r["billable"] for r in bench.ledger() if r["status_code"] == 429} == {False}
    assert {r["attempts"] for r in bench.sql("select attempts from songstats_backfill_queue")} == {1}
    storm.each_request_has_its_row(bench)
    proves("vendor: 429 with Retry-After, waited out in real time", ["I1", "I6", "I9", "I11"])


def test_at_a_pace_no_call_is_left_to_go_out_once_the_vendor_has_asked_for_a_pause(bench: Workbench, proves: Proves):
    songs = isrcs(20)
    bench.ask_for(songs)
    storm.run(bench, songs[:5])
    bench.sandbox.forget_requests()
    bench.sandbox.faults(HISTORY, status=429, retry_after=60)
    storm.run(bench, songs, terms=replace(bench.terms, requests_per_second=0.5))
    assert bench.sandbox.hits() <= 2, "the second one only where this machine took 2 s to take in the first"
    nothing_breaks(bench)
    proves("vendor: 429 at a pace", ["I1", "I9", "I11"])


def test_a_429_storm_of_an_hour_costs_nothing_and_is_over_at_the_next_look(
    bench: Workbench, retry_after: int | None, long_form: bool, proves: Proves
):
    songs = isrcs(300 if long_form else 40)
    bench.ask_for(songs)
    storm.run(bench, songs[:10])
    before = storm.budget_counts_only(bench)
    bench.sandbox.faults(HISTORY, status=429, retry_after=retry_after)
    passed, pauses = 0.0, []
    while passed < 3600:
        asked = bench.sandbox.hits()
        storm.run(bench, songs)
        (state,) = bench.sql("select throttled, extract(epoch from paused_until - now()) as pause from vendor_state")
        passed += float(state["pause"])
        pauses.append(round(state["pause"]))
        assert state["throttled"] == len(pauses)
        assert bench.sandbox.hits() - asked <= (bench.terms.concurrency if len(pauses) == 1 else 1)
        assert str(storm.planned(bench, songs).skip_reason).startswith("Calls to Songstats paused"), (
            "nothing is asked for meanwhile"
        )
        storm.time_passes(bench)
    rows = bench.sql(
        "select status, attempts, outcome, last_status_code from songstats_backfill_queue where attempts = 0"
    )
    assert {(row["status"], row["outcome"]) for row in rows} == {("pending", None)}
    assert len(rows) == len(songs) - 10, "no attempt, no row failed"
    assert storm.budget_counts_only(bench) == before, "no budget"
    assert pauses == sorted(pauses)
    assert pauses[-1] == 900, "without an answer a pause grows to a quarter of an hour, Retry-After or none"
    assert pauses[0] == (retry_after or 5)
    bench.sandbox.clear_faults()
    storm.run(bench, songs)
    assert bench.statuses() == {"stored": len(songs)}, "the first run after the vendor's return does it all"
    assert bench.sql("select throttled from vendor_state")[0]["throttled"] == 0
    storm.each_request_has_its_row(bench)
    kind = "with" if retry_after else "without"
    proves(f"vendor: 429 for an hour, {kind} Retry-After", ALWAYS, times=len(pauses))


def test_a_vendor_that_answers_5xx_for_ever_exhausts_what_was_asked_and_the_next_request_takes_it_up(
    bench: Workbench, long_form: bool, proves: Proves
):
    songs = isrcs(30 if long_form else 4)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, status=503)
    for _ in range(5 * len(songs)):
        storm.run(bench, songs)
        storm.time_passes(bench)
        if bench.statuses() == {"exhausted": len(songs)}:
            break
    assert bench.statuses() == {"exhausted": len(songs)}
    assert bench.sandbox.hits() == 5 * len(songs), "five runs each, and not one call more"
    assert storm.budget_counts_only(bench) == 0, "an answered 5xx was not billed"
    assert bench.sql("select state from measurement_jobs")[0]["state"] == "done"
    nothing_breaks(bench)
    bench.sandbox.clear_faults()
    with connect(bench.database_url) as connection:
        put_back = operator_actions.requeue(connection, songs[::2], rebuy=False, actor="a test")
    assert sorted(put_back) == songs[::2]
    storm.drain(bench, songs[::2], runs=1)
    assert bench.statuses() == {"stored": len(songs) // 2, "exhausted": len(songs) // 2}
    storm.clears_up(bench, songs)
    storm.each_request_has_its_row(bench)
    proves("vendor: 5xx until attempts are used up, then requeued", ALWAYS, times=5 * len(songs))


def test_an_hour_of_a_page_of_something_else_settles_nothing_and_the_drain_goes_on_by_itself(
    bench: Workbench, page: str, long_form: bool, proves: Proves
):
    """From the middle of a drain, histories and `/status` alike. The key is not blamed, and no attempt is counted."""
    songs = isrcs(300 if long_form else 40)
    bench.ask_for(songs)
    storm.run(bench, songs[:10])
    bench.sandbox.faults("/enterprise/", foreign=page)
    passed, pauses = 0.0, 0
    while passed < 3600:
        asked = bench.sandbox.hits()
        storm.run(bench, songs)
        (state,) = bench.sql(
            "select breaker, pause_reason, extract(epoch from paused_until - now()) as pause from vendor_state"
        )
        assert (state["breaker"], "not Songstats' own answer: " in state["pause_reason"]) == ("closed", True)
        assert bench.sandbox.hits() - asked <= (5 if pauses == 0 else 1)
        assert str(storm.planned(bench, songs).skip_reason).startswith("Calls to Songstats paused")
        passed += float(state["pause"])
        pauses += 1
        storm.time_passes(bench)
    assert bench.statuses() == {"stored": 10, "pending": len(songs) - 10}
    assert {row["attempts"] for row in bench.sql("select attempts from songstats_backfill_queue")} == {0, 1}
    assert storm.budget_counts_only(bench) == len(bench.ledger()), "unknown hits count"
    bench.sandbox.clear_faults()
    storm.drain(bench, songs, runs=2)
    assert bench.statuses() == {"stored": len(songs)}
    storm.each_request_has_its_row(bench)
    proves(f"vendor: a page of something else for an hour ({page})", ALWAYS, times=pauses)


def test_answers_that_are_slow_but_in_time_are_answers(bench: Workbench, long_form: bool, proves: Proves):
    delay, allowed = (30.0, 50.0) if long_form else (0.3, 60.0)
    bench.terms = replace(bench.terms, rules=replace(bench.terms.rules, claim_timeout_seconds=5.0))
    songs = isrcs(25 if long_form else 20)
    bench.ask_for(songs)
    bench.means = impatient(bench, allowed)
    bench.sandbox.faults(HISTORY, delay=delay)
    # The claim timeout is far shorter than an answer takes: the beat keeps each row.
    storm.drain(bench, songs, runs=1)
    assert bench.sandbox.hits() == len(songs)
    storm.each_request_has_its_row(bench)
    proves("vendor: answers that are slow but in time", ALWAYS, times=len(songs))


def test_a_vendor_that_falls_silent_for_all_pauses_everybody_and_each_call_counts_as_unknown(
    bench: Workbench, long_form: bool, proves: Proves
):
    songs = isrcs(20)
    bench.ask_for(songs)
    bench.sandbox.faults(HISTORY, hang=True, count=3)
    bench.sandbox.faults(HISTORY, delay=LATE if long_form else LATE_IN_SHORT)
    coverage = storm.run(bench, songs, means=impatient(bench, 0.7))
    assert coverage.summary.stop_reason == "Songstats gives no usable response: pausing"
    assert bench.sandbox.hits() == len(bench.ledger()) == 5
    assert {(hit["reason"], hit["billable"]) for hit in bench.ledger()} == {("timeout: unknown", None)}
    assert storm.budget_counts_only(bench) == 5, "what may have been billed counts"
    assert bench.statuses() == {"pending": 20}
    storm.clears_up(bench, songs)
    storm.each_request_has_its_row(bench)
    proves("vendor: silent to everybody", ALWAYS)
