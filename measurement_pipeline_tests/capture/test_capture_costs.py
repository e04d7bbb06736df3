"""What captures cost: only new albums, the cost that the run reports, and a cap for all accounts together."""

from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.domain.capture import CaptureSpec, CaptureTicket, OverCap, describe_over_cap
from measurement_pipeline.postgres import captures
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.capture.conftest import CaptureHarness, isrcs
from measurement_pipeline_tests.capture_limits import capture_limits


def open_capture(harness: CaptureHarness, album_ids: list[str], *, deployment: str = "1000") -> CaptureTicket | OverCap:
    spec = CaptureSpec(harness.account, tuple(sorted(album_ids)))
    with connect(harness.database_url) as connection, connection.transaction():
        return captures.open_capture(connection, spec, limits=capture_limits(deployment=deployment))


def test_a_superset_within_the_hour_pays_only_for_new_albums(harness: CaptureHarness):
    songs = isrcs(3)
    first, second, third = harness.publish({name: {song: 7} for name, song in zip("ABC", songs, strict=True)})
    harness.run_capture(harness.open_capture([first, second]))
    found = open_capture(harness, [first, second, third])
    assert isinstance(found, CaptureTicket)
    assert (found.albums, found.cost_usd, found.reused) == (3, Decimal("0.003"), False)
    assert harness.run_capture(found.snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert harness.actor_usage() == {"runs": 2, "albums": 3}
    assert set(harness.stored_counts()) == set(songs)
    harness.check_invariants()


def test_a_part_of_a_recent_capture_is_done_at_once(harness: CaptureHarness):
    songs = isrcs(2)
    first, second = harness.publish({name: {song: 7} for name, song in zip("AB", songs, strict=True)})
    harness.run_capture(harness.open_capture([first, second]))
    found = open_capture(harness, [first])
    assert isinstance(found, CaptureTicket)
    assert found.cost_usd == 0
    assert harness.snapshot_row(found.snapshot)["state"] == "done"
    assert harness.run_capture(found.snapshot).kind is CaptureResultKind.ALREADY_DONE
    harness.check_invariants()


def test_albums_are_bought_again_after_an_hour_and_for_another_account(harness: CaptureHarness):
    first, second = harness.publish({name: {song: 7} for name, song in zip("AB", isrcs(2), strict=True)})
    harness.run_capture(harness.open_capture([first]))
    own, harness.account = harness.account, uuid4()
    found = open_capture(harness, [first, second])
    assert isinstance(found, CaptureTicket)
    assert found.cost_usd == Decimal("0.006")
    harness.account = own
    harness.sql("update playcount_snapshots set created_at = created_at - interval '1 hour'")
    found = open_capture(harness, [first, second])
    assert isinstance(found, CaptureTicket)
    assert found.cost_usd == Decimal("0.006")


def test_a_new_album_that_does_not_exist_does_not_fail_what_is_reused(harness: CaptureHarness):
    (first,) = harness.publish({"A": {isrcs(1)[0]: 7}})
    harness.run_capture(harness.open_capture([first]))
    found = open_capture(harness, [first, "0000000000000000000000"])
    assert isinstance(found, CaptureTicket)
    assert harness.run_capture(found.snapshot, run="run-2").kind is CaptureResultKind.PARTLY_DONE


def test_the_cost_that_a_run_reports_is_booked(harness: CaptureHarness):
    (first,) = harness.publish({"A": {isrcs(1)[0]: 7}})
    snapshot = harness.open_capture([first])
    expensive = harness.with_config(limits=replace(capture_limits(), usd_per_album=Decimal("0.5")))
    assert harness.run_capture(snapshot, captures=expensive).kind is CaptureResultKind.DONE
    # Expected: $0.50. The double reports $0.003 an album.
    assert harness.actor_runs(snapshot)[0]["cost_usd"] == Decimal("0.003")
    with connect(harness.database_url) as connection:
        assert captures.spent_this_month(connection, harness.account) == Decimal("0.003")


def test_all_accounts_together_have_a_cap(harness: CaptureHarness):
    assert isinstance(open_capture(harness, ["a"], deployment="0.006"), CaptureTicket)
    harness.account = uuid4()
    assert isinstance(open_capture(harness, ["b"], deployment="0.006"), CaptureTicket)
    over = open_capture(harness, ["c"], deployment="0.006")
    assert isinstance(over, OverCap)
    assert over.is_of_deployment
    # One account does not learn what the others spend.
    assert "0.006" not in describe_over_cap(over)
    assert "SNAPSHOT_DEPLOYMENT_CAP_USD" in describe_over_cap(over)
