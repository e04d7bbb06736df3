"""Captures under SIGKILL, failing vendors and concurrency: each part is paid for once, and every album is measured.

Apify's double counts what was paid for. The victim is a process (`child`) that the database blocks at a point (`crash_points`).
"""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.capture.run import CaptureOutcome
from measurement_pipeline.domain.capture import ALBUMS_PER_CHUNK
from measurement_pipeline.intake import process as intake
from measurement_pipeline.postgres import captures
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_tests.capture.conftest import CaptureHarness, isrcs, new_harness
from measurement_pipeline_tests.capture_limits import capture_limits
from measurement_pipeline_tests.faults import crash_points
from measurement_pipeline_tests.faults.child import CAPTURE, REQUEST_CAPTURES, ChildTask, child, read_result
from measurement_pipeline_tests.faults.crash_points import CrashPoint, arm
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.test_crash_points import killed_at
from measurement_pipeline_tests.faults.test_database_faults import read_only
from measurement_pipeline_tests.faults.waiting import wait_until

CLAIM_TIMEOUT_SECONDS = 0.5
PARTS = 2
ALBUMS = ALBUMS_PER_CHUNK + 3
ALWAYS = ("I1", "I2", "I5", "I6", "I10", "I14")

STARTS, LISTED, LOOKS = "/v2/act*/*/runs", "/v2/act*/*/runs", "/v2/actor-runs/"
ITEMS, INPUT = "/v2/datasets/*/items", "/v2/key-value-stores/"


@pytest.fixture
def harness(database_url: str, sandbox: SandboxClient) -> CaptureHarness:
    return new_harness(database_url, sandbox)


@dataclass(frozen=True)
class CaptureRequest:
    """An accepted request for current counts, its capture, and the expected measurements."""

    request: UUID
    snapshot: UUID
    counts: dict[str, int]


def request_capture(harness: CaptureHarness, *, start: int = 0, albums: int = ALBUMS) -> CaptureRequest:
    """Submit a request, as a client does, for albums of one recording each."""
    counts = {song: 10 + number for number, song in enumerate(isrcs(albums, start=start))}
    released = harness.publish({f"Album {song}": {song: count} for song, count in counts.items()})
    (request,) = harness.sql(
        "insert into measurement_jobs (account, source, scope) values (%s, 'current', %s) returning id",
        harness.account,
        json.dumps({"album_ids": released}),
    )
    opened = intake.load_batch(harness.database_url)
    (result,) = intake.process_batch(harness.database_url, opened, {}, run="intake", limits=capture_limits())
    assert result.capture is not None
    return CaptureRequest(request["id"], result.capture.snapshot, counts)


def load_capture_state(harness: CaptureHarness, capture_request: CaptureRequest) -> list[list[dict[str, Any]]]:
    """Everything that a capture has written."""
    return [
        harness.actor_runs(capture_request.snapshot),
        [harness.snapshot_row(capture_request.snapshot)],
        harness.sql("select * from song_measurements order by song"),
        harness.sql("select * from measurement_jobs where id = %s", capture_request.request),
    ]


def assert_done_and_paid_once(harness: CaptureHarness, everything: Sequence[CaptureRequest]) -> None:
    """Assert that every album is measured, each part was paid for once, and the request is answered."""
    harness.check_invariants()
    assert harness.stored_counts() == {song: count for one in everything for song, count in one.counts.items()}
    parts = sum(-(-len(one.counts) // ALBUMS_PER_CHUNK) for one in everything)
    assert harness.actor_usage() == {"runs": parts, "albums": sum(len(one.counts) for one in everything)}
    for one in everything:
        brought = [row["chunk"] for row in harness.actor_runs(one.snapshot) if row["status"] != "NOT-STARTED"]
        assert brought == sorted(set(brought)), "one run of the actor for each part"
        (request,) = harness.sql("select state, error from measurement_jobs where id = %s", one.request)
        assert (request["state"], request["error"]) == ("done", None)


# --- deaths ----------------------------------------------------------------------------------------------------------------

# State of the rows and the paid runs at the victim's death. It proves that the victim died at the intended point.
SEEN_AT = {
    crash_points.BEFORE_THE_START: lambda rows, paid: paid == len(rows) - 1,
    crash_points.AFTER_THE_START: lambda rows, paid: paid == len(rows) and not all(row["actor_run"] for row in rows),
    crash_points.AFTER_THE_ID: lambda rows, paid: (
        paid == len(rows) == sum(row["actor_run"] is not None for row in rows)
    ),
    crash_points.AFTER_THE_RESULT: lambda rows, _: any(row["status"] == "SUCCEEDED" for row in rows),
    crash_points.AFTER_KEEPING_THE_RESULT: lambda rows, _: any(row["kept_at"] and not row["mapped_at"] for row in rows),
    crash_points.WHILE_STORING: lambda rows, _: any(row["kept_at"] and not row["mapped_at"] for row in rows),
    crash_points.BEFORE_THE_END: lambda rows, _: all(row["mapped_at"] for row in rows),
}


def dies_alone(point: CrashPoint, number: int) -> bool:
    """Whether the process dies alone, so that its last statement completes, or with its machine. Alternates where both can
    happen.
    """
    if point in {crash_points.BEFORE_THE_START, crash_points.AFTER_THE_START}:
        return point is crash_points.BEFORE_THE_START
    return number % 2 == 1


@pytest.mark.parametrize("point", crash_points.CAPTURE, ids=lambda point: point.name)
def test_the_next_run_finishes_a_capture_killed_at_a_named_point_without_paying_again(
    harness: CaptureHarness, point: CrashPoint, long_form: bool, record_proof: ProofRecorder
):
    moments = random.Random(point.name)
    everything: list[CaptureRequest] = []
    paid_before = 0
    for number in range(6 if long_form else 1):
        capture_request = request_capture(harness, start=number * ALBUMS)
        everything.append(capture_request)
        most = 1 if point is crash_points.BEFORE_THE_END else PARTS
        occurrence = moments.randint(1, most) if long_form else most
        victim = task_for(harness, capture_request, run=f"victim-{number}")
        alone = dies_alone(point, number)
        with killed_at(point, harness.database_url, victim, occurrence=occurrence, undone=not alone):
            at_death, paid = load_capture_state(harness, capture_request), harness.actor_usage()["runs"] - paid_before
        is_as_named = not alone or point is crash_points.BEFORE_THE_START
        assert SEEN_AT[point](at_death[0], paid) or not is_as_named
        harness.check_invariants(at_rest=False)

        # The victim might still live until its claim expires, so nothing changes.
        patient = harness.with_config(claim_timeout_seconds=600.0)
        early = harness.run_capture(capture_request.snapshot, run=f"too early-{number}", captures=patient)
        is_finished = early.kind is CaptureResultKind.ALREADY_DONE
        assert early.kind is CaptureResultKind.UNCHANGED or (
            is_finished and alone and point is crash_points.BEFORE_THE_END
        )
        assert load_capture_state(harness, capture_request) == at_death

        wait_for_the_claim_timeout(harness)
        assert_due(harness, [] if is_finished else [capture_request.snapshot])
        take_over(harness, capture_request, run=f"next-{number}", is_started=point is not crash_points.BEFORE_THE_START)
        assert_done_and_paid_once(harness, everything)
        assert harness.snapshot_row(capture_request.snapshot)["attempts"] <= 2
        paid_before = harness.actor_usage()["runs"]
    record_proof(f"SIGKILL of a capture {point.name}", ALWAYS, times=number + 1)


def test_a_stalled_run_changes_nothing_after_another_run_took_over(
    harness: CaptureHarness, record_proof: ProofRecorder
):
    capture_request = request_capture(harness)
    with ExitStack() as stack:
        with arm(harness.database_url, crash_points.AFTER_THE_RESULT, occurrence=PARTS) as held:
            victim = stack.enter_context(child(task_for(harness, capture_request, run="victim")))
            assert held.wait_for_victim() == victim.pid
            victim.send_signal(signal.SIGSTOP)
        wait_for_the_claim_timeout(harness)
        take_over(harness, capture_request, run="next", is_started=True)
        before = load_capture_state(harness, capture_request)
        victim.send_signal(signal.SIGCONT)
        assert read_result(victim)["kind"] == CaptureResultKind.UNCHANGED
    assert load_capture_state(harness, capture_request) == before
    assert_done_and_paid_once(harness, [capture_request])
    record_proof("a capture run stalled for longer than the claim timeout", [*ALWAYS, "I3"])


def task_for(harness: CaptureHarness, capture_request: CaptureRequest, *, run: str) -> ChildTask:
    return ChildTask(
        CAPTURE,
        harness.database_url,
        harness.sandbox.apify_url,
        run=run,
        claim_timeout_seconds=CLAIM_TIMEOUT_SECONDS,
        snapshot=str(capture_request.snapshot),
    )


def wait_for_the_claim_timeout(harness: CaptureHarness) -> None:
    """Wait in real time, as an operator would; the test does not move the clock."""
    lives = "select 1 from run_heartbeats where beat_at >= clock_timestamp() - make_interval(secs => %s)"
    wait_until(lambda: not harness.sql(lives, CLAIM_TIMEOUT_SECONDS))


def assert_due(harness: CaptureHarness, expected: Sequence[UUID]) -> None:
    with connect(harness.database_url) as connection:
        assert captures.list_due(connection, claim_timeout_seconds=CLAIM_TIMEOUT_SECONDS, limit=10) == expected


def take_over(harness: CaptureHarness, capture_request: CaptureRequest, *, run: str, is_started: bool) -> None:
    """Let the next run finish the capture; wait first if it is uncertain whether the actor was started."""
    captures = harness.with_config(claim_timeout_seconds=CLAIM_TIMEOUT_SECONDS)
    if not is_started:
        paid = harness.actor_usage()
        ended = harness.run_capture(capture_request.snapshot, run=run, captures=captures)
        assert (ended.kind, ended.reason) == (
            CaptureResultKind.POSTPONED,
            "whether Apify started the actor is not known yet",
        )
        assert harness.actor_usage() == paid
        end_waits(harness)
    assert harness.run_capture(capture_request.snapshot, run=run, captures=captures).kind in {
        CaptureResultKind.DONE,
        CaptureResultKind.ALREADY_DONE,
    }


def end_waits(harness: CaptureHarness) -> None:
    """End all waits, and make started runs appear in Apify's list."""
    harness.sql("update playcount_snapshots set not_before = null")
    harness.sql("update vendor_state set paused_until = now() where vendor in ('apify', 'spotify')")
    harness.sql("update apify_runs set intended_at = intended_at - interval '2 minutes' where status is null")


# --- vendors ---------------------------------------------------------------------------------------------------------------


def run_to_completion(harness: CaptureHarness, capture_request: CaptureRequest, *, most: int = 60) -> CaptureOutcome:
    """Run until the capture has ended, with retries within each run, and skip the waits between runs."""
    run, retry_number = 0, 0
    for _ in range(most):
        ended = harness.run_capture(
            capture_request.snapshot, run=f"run-{run}", retry_number=retry_number, is_last_try=retry_number >= 3
        )
        harness.check_invariants(at_rest=False)
        if ended.kind in {CaptureResultKind.DONE, CaptureResultKind.FAILED}:
            return ended
        assert ended.kind in {CaptureResultKind.TRY_AGAIN, CaptureResultKind.POSTPONED, CaptureResultKind.STOPPED}, (
            ended
        )
        retry_number += 1
        if ended.kind is not CaptureResultKind.TRY_AGAIN:
            run, retry_number = run + 1, 0
            end_waits(harness)
    raise AssertionError(f"not over after {most} tries: {harness.snapshot_row(capture_request.snapshot)['error']}")


APIFY = {
    "5xx in bursts": [{"path": "/v2/", "status": 503, "share": 0.25}, {"path": "/v2/", "status": 500, "share": 0.2}],
    "429 with Retry-After": [{"path": "/v2/", "status": 429, "retry_after": 7, "share": 0.4}],
    "429 without Retry-After": [{"path": "/v2/", "status": 429, "share": 0.4}],
    "bodies cut short at random bytes": [{"path": "/v2/", "cut": "anywhere", "share": 0.4}],
    "connections closed or reset": [
        {"path": "/v2/", "reset": True, "share": 0.25},
        {"path": "/v2/", "close": True, "share": 0.25},
    ],
    "HTML instead of JSON": [{"path": "/v2/", "body": "<html>", "share": 0.4}],
    "pages of a CDN, a proxy and a captive portal": [
        {"path": "/v2/", "foreign": page, "share": 0.15} for page in ("challenge", "proxy", "portal", "login")
    ],
    "invalid HTTP": [{"path": "/v2/", "raw": "\x00\x01", "share": 0.4}],
    "all faults together": [
        {"path": "/v2/", "status": 502, "share": 0.1},
        {"path": "/v2/", "status": 429, "share": 0.1},
        {"path": "/v2/", "cut": "anywhere", "share": 0.15},
        {"path": "/v2/", "reset": True, "share": 0.15},
    ],
}


@pytest.mark.parametrize("scenario", APIFY)
def test_a_capture_through_apify_failures_ends_measured_and_paid_once_for_each_part(
    harness: CaptureHarness, scenario: str, long_form: bool, record_proof: ProofRecorder
):
    everything: list[CaptureRequest] = []
    met, enough = 0, 100 if long_form else 3
    while met < enough:
        assert len(everything) < enough, "no request met a fault"
        for place, fault in enumerate(APIFY[scenario]):
            harness.sandbox.faults(**fault, seed=f"{scenario} {len(everything)} {place}")
        everything.append(request_capture(harness, start=len(everything) * ALBUMS))
        ended = run_to_completion(harness, everything[-1])
        met += sum(request["fault"] for request in harness.sandbox.requests("/v2/"))
        harness.sandbox.clear_faults()
        harness.sandbox.forget_requests()
        assert (ended.kind, ended.reason) == (CaptureResultKind.DONE, None)
        assert_done_and_paid_once(harness, everything)
    record_proof(f"Apify: {scenario}", ALWAYS, times=met)


# The request to break, and whether a start must be lost for the request to happen at all.
ROUTES = {
    "start": ("POST", STARTS, False),
    "look": ("GET", LOOKS, False),
    "items": ("GET", ITEMS, False),
    "list": ("GET", LISTED, True),
    "INPUT": ("GET", INPUT, True),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"cut": 20}, id="cut"),
        pytest.param({"reset": True}, id="reset"),
        # Each takes as long as the client's timeout.
        pytest.param({"delay": 30.0}, id="late", marks=pytest.mark.long),
    ],
)
def test_a_lost_apify_response_causes_no_second_payment(
    harness: CaptureHarness, route: str, fault: dict[str, object], record_proof: ProofRecorder
):
    method, path, is_lost = ROUTES[route]
    if is_lost:
        harness.sandbox.faults(STARTS, method="POST", close=True, count=1)
    harness.sandbox.faults(path, method=method, count=2, **fault)
    if "delay" in fault:
        harness = replace(harness, captures=harness.with_vendor_timeout(2.0))
    capture_request = request_capture(harness)
    assert run_to_completion(harness, capture_request).kind is CaptureResultKind.DONE
    assert sum(request["fault"] for request in harness.sandbox.requests("/v2/")) == 2 + is_lost
    assert_done_and_paid_once(harness, [capture_request])
    record_proof(f"Apify: a lost response to {route}", ALWAYS)


TRACKS, TOKEN = "/v1/tracks", "/api/token"
SPOTIFY = {
    "429 for 14 hours": [{"path": TRACKS, "status": 429, "retry_after": 14 * 3600}],
    "5xx": [{"path": TRACKS, "status": 503}],
    "no token available": [{"path": TOKEN, "status": 500}],
    "credentials rejected": [{"path": TOKEN, "status": 400, "body": '{"error": "invalid_client"}'}],
    "tokens rejected at once": [{"path": TRACKS, "status": 401}],
    "wrong shapes": [{"path": TRACKS, "body": '{"tracks": {"a": 1}}'}],
    "HTML instead of JSON": [{"path": TRACKS, "body": "<html>"}],
    "a page of a CDN": [{"path": TRACKS, "foreign": "challenge"}],
    "a page of a proxy": [{"path": TRACKS, "foreign": "proxy"}],
    "a proxy that wants a login": [{"path": TOKEN, "foreign": "login"}],
    "bodies cut short": [{"path": TRACKS, "cut": 30}],
    "connections reset": [{"path": TOKEN, "reset": True}, {"path": TRACKS, "reset": True}],
}
PASSING = {
    "an expired token": [{"path": TRACKS, "status": 401, "count": 1}],
    "one 429 with a wait of a second": [{"path": TRACKS, "status": 429, "retry_after": 1, "count": 2}],
    "one 5xx": [{"path": TRACKS, "status": 502, "count": 1}],
}


@pytest.mark.parametrize("scenario", SPOTIFY)
def test_a_capture_without_spotify_ends_unmapped_and_is_mapped_later_for_free(
    harness: CaptureHarness, scenario: str, record_proof: ProofRecorder
):
    capture_request = request_capture(harness)
    for fault in SPOTIFY[scenario]:
        harness.sandbox.faults(**fault)
    assert run_to_completion(harness, capture_request).kind is CaptureResultKind.DONE
    row = harness.snapshot_row(capture_request.snapshot)
    assert (row["unmapped"], row["recordings"]) == (len(capture_request.counts), 0)
    assert harness.sql("select 1 from songs") == harness.sql("select 1 from song_measurements") == []
    harness.check_invariants()
    harness.sandbox.clear_faults()
    end_waits(harness)
    again = harness.run_capture(capture_request.snapshot, run="a person", operator=True)
    assert (again.kind, again.unmapped) == (CaptureResultKind.DONE, ())
    assert_done_and_paid_once(harness, [capture_request])
    record_proof(f"Spotify: {scenario}", ALWAYS)


@pytest.mark.parametrize("scenario", PASSING)
def test_a_spotify_failure_of_seconds_does_not_affect_a_capture(
    harness: CaptureHarness, scenario: str, record_proof: ProofRecorder
):
    capture_request = request_capture(harness)
    for fault in PASSING[scenario]:
        harness.sandbox.faults(**fault)
    assert run_to_completion(harness, capture_request).unmapped == ()
    assert_done_and_paid_once(harness, [capture_request])
    record_proof(f"Spotify: {scenario}", ALWAYS)


# --- many at once ----------------------------------------------------------------------------------------------------------


def waiting_for_the_account(harness: CaptureHarness) -> int:
    (row,) = harness.sql(
        "select count(*) as n from pg_locks inner join pg_database on pg_locks.database = pg_database.oid"
        " where datname = current_database() and locktype = 'advisory' and not granted"
    )
    return int(row["n"])


def test_concurrent_requests_spend_a_monthly_cap_to_its_last_album(
    harness: CaptureHarness, long_form: bool, record_proof: ProofRecorder
):
    rounds = 10 if long_form else 1
    for number in range(rounds):
        account = uuid4()
        harness.sql("insert into accounts (id) values (%s)", account)
        task = [
            ChildTask(
                REQUEST_CAPTURES,
                harness.database_url,
                harness.sandbox.apify_url,
                songs=[f"round {number} process {process} thread {thread}" for thread in range(4)],
                account=str(account),
                cap_usd="0.1",
            )
            for process in range(2)
        ]
        with connect(harness.database_url) as gate, ExitStack() as stack:
            # All sessions wait for the account's lock before any of them proceeds.
            with gate.transaction():
                gate.execute(
                    "select pg_advisory_xact_lock(hashtextextended('playcount_snapshots of ' || %s, 0))", [str(account)]
                )
                processes = [stack.enter_context(child(one)) for one in task]
                wait_until(lambda: waiting_for_the_account(harness) == 8, what="all of them before the account")
            verdicts = sum((Counter(read_result(process)) for process in processes), Counter[str]())
        # A cap of $0.10 a month covers 11 captures of three albums at $0.009, and leaves $0.001.
        assert (verdicts["CaptureTicket"], verdicts["OverCap"]) == (11, 29)
        (spent,) = harness.sql(
            "select count(*) as n, sum(estimated_cost_usd) as usd from playcount_snapshots where account = %s", account
        )
        assert (spent["n"], spent["usd"]) == (11, Decimal("0.099"))
    record_proof("more concurrent captures than the monthly cap allows", ["I1", "I6"], times=rounds)


# --- the database ----------------------------------------------------------------------------------------------------------


def test_a_read_only_database_during_a_capture_causes_no_second_actor_run(
    harness: CaptureHarness, long_form: bool, record_proof: ProofRecorder
):
    capture_request = request_capture(harness)
    harness.sandbox.faults(LOOKS, delay=1.0)
    with ThreadPoolExecutor(1) as threads:
        making = threads.submit(harness.run_capture, capture_request.snapshot)
        wait_until(lambda: harness.actor_usage()["runs"] >= 1, what="a run of the actor that is paid for")
        with read_only(harness.database_url):
            time.sleep(30.0 if long_form else 1.5)
            assert not making.done()
        ended = making.result(120)
    while ended.kind is CaptureResultKind.POSTPONED:
        harness.wait_until_listed(capture_request.snapshot)
        ended = harness.run_capture(capture_request.snapshot, run="next")
    assert_done_and_paid_once(harness, [capture_request])
    record_proof("PostgreSQL read-only during a capture", ALWAYS)


def test_an_actor_run_dated_in_the_future_is_found_and_not_started_again(
    harness: CaptureHarness, record_proof: ProofRecorder
):
    capture_request = request_capture(harness)
    victim = task_for(harness, capture_request, run="victim")
    with killed_at(crash_points.AFTER_THE_START, harness.database_url, victim, occurrence=PARTS, undone=True):
        pass
    harness.sql("update apify_runs set intended_at = now() + interval '2 days' where actor_run is null")
    wait_for_the_claim_timeout(harness)
    take_over(harness, capture_request, run="next", is_started=True)
    assert_done_and_paid_once(harness, [capture_request])
    record_proof("the database's clock set back by two days: a start of the actor", [*ALWAYS, "I15"])
