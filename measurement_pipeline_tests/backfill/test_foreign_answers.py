"""Foreign responses settle nothing: rows wait, the deployment pauses, and the operator reads what responded."""

import asyncio
from dataclasses import replace

import pytest

from measurement_pipeline.backfill import vendor_probe, vendor_status
from measurement_pipeline.backfill.reconcile import reconcile
from measurement_pipeline.postgres import songstats_ledger
from measurement_pipeline.postgres.database import ReconnectingConnection
from measurement_pipeline_tests.backfill.test_money_path import HISTORY, STATUS
from measurement_pipeline_tests.backfill.test_reconcile import MADE, NOW
from measurement_pipeline_tests.faults.invariants import assert_invariants_hold
from measurement_pipeline_tests.workbench import Workbench, isrcs

# None of these asks for a retry, so its status would settle the row or blame the key if it counted.
PAGES = ["challenge", "proxy", "portal", "portal redirect", "login", "json"]


def state(bench: Workbench) -> dict[str, object]:
    (row,) = bench.sql(
        "select breaker, reason, pause_reason, coalesce(paused_until > now(), false) as paused from vendor_state"
    )
    return row


@pytest.mark.fails_without("a status counts only in Songstats' own response", parameters="proxy")
@pytest.mark.parametrize("page", PAGES)
def test_a_foreign_response_leaves_its_row_pending_without_an_attempt(bench: Workbench, page: str):
    songs = isrcs(12)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, isrc=songs[3], foreign=page)
    bench.run_backfill(songs)
    assert bench.statuses() == {"stored": 11, "pending": 1}
    row = bench.row(songs[3])
    assert (row["attempts"], row["outcome"]) == (0, None)
    assert row["not_before"] is not None
    assert row["last_error"].startswith("not Songstats' own answer: ")
    (hit,) = [hit for hit in bench.ledger() if hit["song"] == songs[3]]
    assert (hit["billable"], hit["reason"], hit["status_code"]) == (None, "transient", row["last_status_code"])
    assert state(bench)["breaker"] == "closed"
    assert not state(bench)["paused"]
    assert bench.sandbox.requests(STATUS) == [], "the key is checked only after Songstats' own 403"
    assert_invariants_hold(bench)
    bench.sandbox.clear_faults()
    bench.sql("update songstats_backfill_queue set not_before = now() where not_before is not null")
    bench.run_backfill(songs, run="run-2")
    assert bench.statuses() == {"stored": 12}
    assert_invariants_hold(bench)


@pytest.mark.parametrize("page", PAGES)
def test_five_foreign_responses_pause_the_deployment_and_open_no_key_breaker(bench: Workbench, page: str):
    songs = isrcs(40)
    bench.submit_request(songs)
    bench.sandbox.faults("/enterprise/", foreign=page)
    coverage, _ = bench.run_backfill(songs)
    assert "no usable response" in str(coverage.summary.stop_reason)
    assert bench.sandbox.hits() == 5
    assert bench.statuses() == {"pending": 40}
    result = state(bench)
    assert (result["breaker"], result["paused"]) == ("closed", True)
    assert "not Songstats' own answer: " in str(result["pause_reason"])
    assert {row["attempts"] for row in bench.sql("select attempts from songstats_backfill_queue")} == {0}
    assert_invariants_hold(bench)


def test_a_foreign_5xx_is_not_billed_and_counts_towards_a_pause(bench: Workbench):
    songs = isrcs(20)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, foreign="gateway")
    bench.run_backfill(songs)
    assert {(hit["billable"], hit["reason"]) for hit in bench.ledger()} == {(False, "transient")}
    assert len(bench.ledger()) == 5
    assert "HTTP 500: not Songstats' own answer: 500 text/html" in str(state(bench)["pause_reason"])


def test_a_truncated_json_response_stays_malformed(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, body='{"result": "success", "stats": [{"source": "spot')
    bench.run_backfill(songs)
    assert bench.row(song)["outcome"] == "malformed"


def test_foreign_responses_never_exhaust_a_row(bench: Workbench):
    (song,) = songs = isrcs(1)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, foreign="challenge")
    for number in range(7):
        for _ in range(2):  # two tries within one run
            bench.sql("update songstats_backfill_queue set not_before = now() where not_before is not null")
            bench.sql("update vendor_state set paused_until = null")
            bench.run_backfill(songs, run=f"run-{number}")
    assert len(bench.ledger()) == 14
    assert (bench.row(song)["status"], bench.row(song)["attempts"]) == ("pending", 0)
    assert_invariants_hold(bench)


def test_a_lasting_share_of_foreign_responses_pauses_and_then_opens_the_breaker(bench: Workbench):
    """One response in five is foreign: a pause by the 25th call, the breaker by the 50th, and no row settled by one."""
    songs = isrcs(80)
    bench.submit_request(songs)
    for song in songs[4::5]:
        bench.sandbox.faults(HISTORY, isrc=song, foreign="challenge", count=1)
    first_pause = None
    for number in range(20):
        bench.sql("update songstats_backfill_queue set not_before = now() where not_before is not null")
        bench.sql("update vendor_state set paused_until = null")
        # One at a time, so that responses arrive in the order of their calls.
        bench.run_backfill(
            songs[number * 5 : number * 5 + 5], run=f"run-{number}", config=replace(bench.config, concurrency=1)
        )
        result = state(bench)
        if result["paused"] and first_pause is None:
            first_pause = bench.sandbox.hits()
        if result["breaker"] == "open":
            break
    assert first_pause is not None
    assert first_pause <= 25
    assert bench.sandbox.hits() <= 50
    assert "something other than Songstats answered 10 separate times" in str(state(bench)["reason"])
    assert "403 text/html, begins with" in str(state(bench)["reason"])
    assert bench.sql("select 1 from songstats_backfill_queue where suspect") == []
    assert set(bench.statuses()) == {"stored", "pending"}
    assert_invariants_hold(bench)


def test_a_foreign_response_to_the_probe_does_not_blame_the_key(bench: Workbench):
    bench.submit_request(isrcs(1))
    for page in PAGES:
        bench.sandbox.clear_faults()
        bench.sandbox.faults("/enterprise/", foreign=page)
        result = vendor_status.fetch_vendor_status(bench.dependencies.new_client)
        assert result.key_works is None, page
        assert result.month.requests is None
        assert result.month.detail.startswith("not Songstats' own answer: ")


def test_a_key_breaker_stays_open_during_foreign_responses(bench: Workbench):
    bench.submit_request(isrcs(1))
    bench.sandbox.faults(HISTORY, status=401)
    bench.run_backfill(isrcs(1))
    assert state(bench)["breaker"] == "open"
    bench.sandbox.faults(STATUS, foreign="portal")
    assert vendor_probe.close_key_breaker(bench.config, bench.dependencies) == "Songstats did not answer `GET /status`"
    assert state(bench)["breaker"] == "open"


def causes(bench: Workbench) -> dict[str, str]:
    """Song → cause of its call, as the next run reads it."""

    async def read() -> list[tuple[str, str]]:
        line = ReconnectingConnection(bench.database_url, patience_seconds=60.0)
        try:
            return await line.execute_with_retry(songstats_ledger.recent_causes)
        finally:
            await line.close()

    return {song: cause for cause, song in asyncio.run(read())}


def test_the_next_run_reads_the_share_of_foreign_responses_from_the_ledger(bench: Workbench):
    songs = isrcs(4)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, isrc=songs[0], foreign="proxy")
    bench.sandbox.faults(HISTORY, isrc=songs[1], cut=20)
    bench.run_backfill(songs)
    assert causes(bench) == {songs[0]: "foreign", songs[2]: "stored", songs[3]: "stored"}, (
        "a truncated body is not foreign"
    )


def test_a_foreign_response_counts_as_foreign_after_its_hit_is_returned(bench: Workbench):
    foreign, stored = songs = isrcs(2)
    bench.submit_request(songs)
    bench.sandbox.faults(HISTORY, isrc=foreign, foreign="proxy")
    bench.run_backfill(songs)
    move = "update songstats_quota_ledger set reserved_at = %s, settled_at = %s"
    # The middle of a month, whenever the test runs.
    bench.sql(move, MADE, MADE)
    assert reconcile(bench.config, bench.dependencies, now=NOW).returned == 1
    bench.sql(move, *[bench.sql("select now() as now")[0]["now"]] * 2)
    assert causes(bench) == {foreign: "foreign", stored: "stored"}
    assert bench.row(foreign)["attempts"] == 0
    assert_invariants_hold(bench)
