"""The status of a capture run, its claim and its pool."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import dagster as dg
import pytest

from measurement_pipeline.capture.outcome import CaptureOutcome, CaptureResultKind
from measurement_pipeline.capture.run import make_capture
from measurement_pipeline.defs.capture.assets import POOL
from measurement_pipeline.domain.capture import ALBUMS_PER_CHUNK, CaptureSpec, CaptureTicket, Schedule
from measurement_pipeline.postgres import captures
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.vendors.apify.client import ActorRun, ApifyClient
from measurement_pipeline_tests.capture_limits import capture_limits
from measurement_pipeline_tests.conftest import Server
from measurement_pipeline_tests.defs.conftest import Stage, definitions, pooled
from measurement_pipeline_tests.defs.test_captures import capture, metadata_by_capture, release, request_capture
from measurement_pipeline_tests.faults.waiting import wait_until

STARTS = "/v2/act*/*/runs"


@pytest.fixture
def instance(server: Server, dagster_template: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with pools of one run, as in dagster.yaml."""
    name = server.create_database(template=dagster_template)
    overrides = {
        "storage": pooled(server.url(name)),
        "telemetry": {"enabled": False},
        "concurrency": {"pools": {"default_limit": 1, "granularity": "run"}},
    }
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as opened:
        yield opened
    server.drop(name)


def with_actor(stage: Stage, actor: type[ApifyClient], **changes: object) -> None:
    """Let the stage's captures call Apify through this actor class."""
    captures = stage.services.captures
    assert captures is not None

    def new_actor() -> ApifyClient:
        return actor(stage.bench.sandbox.apify_token, base_url=stage.bench.sandbox.apify_url)

    with_new_actor = replace(
        captures,
        config=replace(captures.config, **changes),
        dependencies=replace(captures.dependencies, new_actor=new_actor),
    )
    stage.services = replace(stage.services, captures=with_new_actor)
    stage.definitions = definitions(stage.services)


def snapshot_row(stage: Stage, snapshot: str) -> dict[str, object]:
    return stage.bench.sql("select * from playcount_snapshots where id = %s", UUID(snapshot))[0]


# --- status ---


def test_a_rejected_token_fails_the_run_although_the_capture_continues_later(stage: Stage):
    stage.bench.sandbox.faults("/v2/", status=401)
    _, snapshot = request_capture(stage)
    result = capture(stage, snapshot)
    assert not result.success
    assert "check APIFY_TOKEN" in stage.failure_message(result)
    assert metadata_by_capture(stage) == {}
    assert snapshot_row(stage, snapshot)["state"] == "running"


def test_a_capture_without_a_part_fails_its_run_and_its_partition_is_materialized(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("measurement_pipeline.defs.retry_policies.seconds_before", lambda _number: 0.1)
    for ends in ("FAILED", "SUCCEEDED"):
        stage.bench.sandbox.actor(ends, "blocked", count=1)
    stage.bench.sandbox.actor("FAILED", "blocked")
    _, snapshot = request_capture(stage, albums=ALBUMS_PER_CHUNK + 1)
    result = capture(stage, snapshot)
    assert not result.success
    assert "of 101 albums could not be captured" in stage.failure_message(result)
    actual = metadata_by_capture(stage)[snapshot]
    assert actual["recordings measured"] in {1, ALBUMS_PER_CHUNK}
    assert "ended as FAILED: blocked" in actual["missing"]
    assert snapshot_row(stage, snapshot)["state"] == "done"
    again = capture(stage, snapshot)
    assert not again.success, "another run reports it again"
    assert "could not be captured" in stage.failure_message(again)


def throttled(stage: Stage, _snapshot: str) -> str:
    stage.bench.sandbox.faults(STARTS, method="POST", status=429, retry_after=900)
    return "Apify asks to wait"


def held_by_another(stage: Stage, snapshot: str) -> str:
    stage.bench.sql("update playcount_snapshots set state = 'running', claimed_by = 'other' where id = %s", snapshot)
    stage.bench.sql("insert into run_heartbeats (run_id) values ('other')")
    return "another run works on the capture"


@pytest.mark.parametrize("blocker", [throttled, held_by_another])
def test_a_blocked_capture_fails_an_operators_run_and_not_a_planned_run(stage: Stage, blocker):
    _, snapshot = request_capture(stage)
    why = blocker(stage, snapshot)
    operators = capture(stage, snapshot, planned=False)
    assert not operators.success
    assert why in stage.failure_message(operators)
    stage.bench.sql("update playcount_snapshots set not_before = null")
    assert capture(stage, snapshot).success
    assert metadata_by_capture(stage) == {}, "nothing was captured: the partition stays missing"


def test_a_series_over_the_monthly_cap_fails_the_daily_run_and_blocks_no_other_series(
    stage: Stage,
):
    few, many = uuid4(), uuid4()
    albums = release(stage, albums=3)
    with connect(stage.bench.database_url) as connection:
        for account, wanted in ((many, albums[:2]), (few, albums[2:])):
            with connection.transaction():
                series = CaptureSpec(account, tuple(sorted(wanted)), schedule=Schedule.MONTHLY)
                assert isinstance(captures.open_capture(connection, series, limits=capture_limits()), CaptureTicket)
    stage.bench.sql("update playcount_snapshots set created_at = created_at - interval '31 days', state = 'done'")
    with_actor(stage, ApifyClient, limits=capture_limits("0.003"))
    result = stage.definitions.resolve_job_def("daily_maintenance").execute_in_process(
        instance=stage.instance, raise_on_error=False
    )
    assert not result.success
    why = stage.failure_message(result)
    assert f"of account {many}: The monthly cap of captures is reached" in why
    assert str(few) not in why
    assert stage.bench.sql("select account from playcount_snapshots where state = 'queued'") == [{"account": few}]


# --- claim and pool ---


def test_a_cancelled_run_releases_its_capture(stage: Stage):
    class Cancelled(ApifyClient):
        def start_run(self, album_ids: Sequence[str]) -> ActorRun:
            super().start_run(album_ids)
            raise dg.DagsterExecutionInterruptedError

    _, snapshot = request_capture(stage)
    with_actor(stage, Cancelled)
    assert not capture(stage, snapshot).success
    row = snapshot_row(stage, snapshot)
    assert (row["state"], row["claimed_by"], row["attempts"]) == ("running", None, 0)
    assert row["error"] == "its run was interrupted"


def test_a_run_that_waits_for_the_actor_writes_heartbeats_and_keeps_its_claim(stage: Stage):
    others: list[CaptureOutcome] = []

    class Slow(ApifyClient):
        def start_run(self, album_ids: Sequence[str]) -> ActorRun:
            # As if the response had taken an hour; wait for the next heartbeat.
            stage.bench.sql("update run_heartbeats set beat_at = beat_at - interval '1 hour'")
            wait_until(lambda: not is_due(), what="a heartbeat")
            assert plain is not None
            others.append(make_capture(UUID(snapshot), plain, run_id="other"))
            return super().start_run(album_ids)

    def is_due() -> bool:
        with connect(stage.bench.database_url) as connection:
            return bool(captures.list_due(connection, claim_timeout_seconds=60, limit=1))

    _, snapshot = request_capture(stage)
    plain = stage.services.captures
    with_actor(stage, Slow, heartbeat_seconds=0.05)
    assert capture(stage, snapshot).success
    assert [other.kind for other in others] == [CaptureResultKind.UNCHANGED]
    assert stage.bench.sandbox.actor_usage()["runs"] == 1


def test_the_capture_pool_has_its_limit_before_the_first_run_is_requested(stage: Stage):
    request_capture(stage)
    assert POOL not in {limit.name for limit in stage.instance.event_log_storage.get_pool_limits()}
    assert stage.tick("playcount_snapshot_sensor").run_requests
    limits = {limit.name: limit.limit for limit in stage.instance.event_log_storage.get_pool_limits()}
    assert limits[POOL] == 1
