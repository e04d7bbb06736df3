"""Captures while an operator has paused purchases: no actor run is started, and a paid result is still stored."""

from uuid import UUID

import pytest

from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.domain.purchase_pause import PausableVendor, PauseScope
from measurement_pipeline.postgres import captures, purchase_pauses
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.capture.conftest import CaptureHarness, isrcs


def pause(harness: CaptureHarness, scope: PauseScope) -> None:
    with connect(harness.database_url) as connection:
        purchase_pauses.begin(connection, scope, until=None, reason="invoice unpaid", actor="alice")


def due(harness: CaptureHarness) -> list[UUID]:
    with connect(harness.database_url) as connection:
        return captures.list_due(connection, claim_timeout_seconds=60, limit=10)


@pytest.mark.parametrize("by_account", [True, False])
def test_a_pause_stops_starts_until_it_is_resumed(harness: CaptureHarness, *, by_account: bool):
    (song,) = isrcs(1)
    snapshot = harness.open_capture(harness.publish({"An Album": {song: 7}}))
    scope = PauseScope(account=harness.account) if by_account else PauseScope(vendor=PausableVendor.APIFY)
    pause(harness, scope)
    assert due(harness) == []
    outcome = harness.run_capture(snapshot, operator=True)
    assert outcome.kind is CaptureResultKind.POSTPONED
    assert "paused by alice until it is resumed: invoice unpaid." in str(outcome.reason)
    assert harness.actor_usage()["runs"] == 0
    with connect(harness.database_url) as connection:
        purchase_pauses.end(connection, scope, actor="alice")
    harness.end_waits()
    assert due(harness) == [snapshot]
    assert harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert harness.stored_counts() == {song: 7}


def test_a_result_that_was_paid_for_is_stored_during_a_pause(harness: CaptureHarness):
    (song,) = isrcs(1)
    snapshot = harness.open_capture(harness.publish({"An Album": {song: 7}}))
    harness.sql("update playcount_snapshots set state = 'running', claimed_by = 'dead' where id = %s", snapshot)
    with harness.captures.dependencies.new_actor() as actor:
        started = actor.start_run(harness.snapshot_row(snapshot)["album_ids"])
    harness.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status)"
        " select id, 0, album_ids, 0.003, 'dead', %s, 'RUNNING' from playcount_snapshots",
        started.id,
    )
    pause(harness, PauseScope())
    assert due(harness) == [snapshot]
    assert harness.run_capture(snapshot).kind is CaptureResultKind.DONE
    assert harness.stored_counts() == {song: 7}
    assert harness.actor_usage()["runs"] == 1
