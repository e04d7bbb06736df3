"""Rows of actor runs: one per part, written only by the run that holds the capture."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.domain.capture import CaptureSpec, CaptureTicket, count_plays
from measurement_pipeline.postgres import apify_runs, captures
from measurement_pipeline.postgres.apify_runs import CaptureLostError
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline_tests.capture_limits import USD_PER_ALBUM, capture_limits


@pytest.fixture
def snapshot(connection: Connection) -> UUID:
    """A capture that run-1 has claimed."""
    with connection.transaction():
        opened = captures.open_capture(connection, CaptureSpec(uuid4(), ("a",)), limits=capture_limits("1"))
    assert isinstance(opened, CaptureTicket)
    held = captures.claim(connection, opened.snapshot, run="run-1", operator=False, claim_timeout_seconds=600)
    assert held is not None
    return opened.snapshot


def intend(connection: Connection, snapshot: UUID, *, run: str = "run-1") -> int:
    return apify_runs.record_intent(connection, snapshot, 0, ["a"], cost_usd=USD_PER_ALBUM, run=run)


@contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(CaptureLostError, match=words):
        yield


@pytest.mark.fails_without("captures: one actor run per part")
@pytest.mark.parametrize("status", [None, "READY", "RUNNING", "SUCCEEDED", "MALFORMED"])
def test_a_part_with_a_possibly_billed_run_has_no_second_run(
    connection: Connection, snapshot: UUID, status: str | None
):
    row = intend(connection, snapshot)
    if status is not None:
        apify_runs.record_start(connection, row, actor_run="its-run", status=status)
    with refused("already has an actor run"):
        intend(connection, snapshot)


@pytest.mark.parametrize("status", ["FAILED", "TIMED-OUT", "ABORTED", "NOT-STARTED"])
def test_a_part_with_a_failed_run_may_have_another(connection: Connection, snapshot: UUID, status: str):
    row = intend(connection, snapshot)
    if status == apify_runs.NOT_STARTED:
        apify_runs.record_not_started(connection, row, message="refused")
    else:
        apify_runs.record_start(connection, row, actor_run="its-run", status=status)
    assert intend(connection, snapshot) > row


def test_a_run_without_the_claim_records_no_intent(connection: Connection, snapshot: UUID):
    with refused("run-2 does not own capture"):
        intend(connection, snapshot, run="run-2")


@pytest.mark.fails_without("captures: only the claim's owner stores a result")
def test_a_run_that_lost_the_claim_while_mapping_stores_nothing(connection: Connection, snapshot: UUID):
    row = intend(connection, snapshot)
    apify_runs.record_start(connection, row, actor_run="its-run", status="SUCCEEDED")
    apify_runs.store_result(connection, row, b"[]")
    connection.execute("update playcount_snapshots set claimed_by = 'run-2'")
    with refused("run-1 does not own capture .* any more"):
        apify_runs.store_measurements(connection, row, count_plays((), {}, {}), snapshot=snapshot, run="run-1")
    assert not apify_runs.list_latest_runs(connection, snapshot)[0].is_mapped
    apify_runs.store_measurements(connection, row, count_plays((), {}, {}), snapshot=snapshot, run="run-2")
    assert apify_runs.list_latest_runs(connection, snapshot)[0].is_mapped


def test_an_actor_run_belongs_to_one_row(connection: Connection, snapshot: UUID):
    apify_runs.record_start(connection, intend(connection, snapshot), actor_run="its-run", status="FAILED")
    with refused("its-run is a second run of its chunk"):
        apify_runs.record_start(connection, intend(connection, snapshot), actor_run="its-run", status="READY")
