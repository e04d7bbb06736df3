"""Captures as Dagster runs them: requested by a sensor, one partition each, with the result on its page."""

import time
from dataclasses import replace
from typing import Any
from uuid import UUID

import dagster as dg
import pytest

from measurement_pipeline.capture.run import make_capture
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.asset_keys import CURRENT_PLAY_COUNTS
from measurement_pipeline.defs.partition_status import failed_partitions
from measurement_pipeline.defs.partitions import snapshot_partitions
from measurement_pipeline.domain.capture import ALBUMS_PER_CHUNK
from measurement_pipeline.postgres import partition_keys
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox.albums import album_id
from measurement_pipeline.sandbox.catalogue import KnownRecording
from measurement_pipeline_tests.dagster_private import DaemonHeartbeat
from measurement_pipeline_tests.defs.conftest import Stage, definitions
from measurement_pipeline_tests.workbench import isrcs

UNKNOWN_CAPTURE = UUID("00000000-0000-4000-8000-00000000dead")


def release(stage: Stage, *, albums: int = 1) -> list[str]:
    """Albums of one recording each that Spotify displays; their ids."""
    songs = isrcs(albums)
    stage.bench.sandbox.know(
        {
            song: KnownRecording(play_count=100 + n, title=f"Song {n}", artist="A", album=f"Album {n}")
            for n, song in enumerate(songs)
        }
    )
    return [album_id("A", f"Album {n}") for n in range(albums)]


def capture_of(stage: Stage, job: UUID) -> str:
    return str(stage.bench.sql("select snapshot from measurement_jobs where id = %s", job)[0]["snapshot"])


def request_capture(stage: Stage, *, albums: int = 1) -> tuple[UUID, str]:
    """A request that intake answered with a capture; both ids."""
    job = stage.submit_request({"album_ids": release(stage, albums=albums)}, source="current")
    assert stage.intake().success
    return job, capture_of(stage, job)


def partition_of(stage: Stage, snapshot: str) -> str:
    """The partition of a capture."""
    with connect(stage.bench.database_url) as connection:
        return partition_keys.ensure_for_captures(connection, [UUID(snapshot)])[UUID(snapshot)]


def capture(stage: Stage, snapshot: str, *, planned: bool = True) -> dg.ExecuteInProcessResult:
    """Run a capture as the sensor does (`planned`) or as an operator does."""
    return run_partition(stage, partition_of(stage, snapshot), planned=planned)


def run_partition(stage: Stage, key: str, *, planned: bool = True) -> dg.ExecuteInProcessResult:
    """Run the partition of this name."""
    stage.instance.add_dynamic_partitions(str(snapshot_partitions.name), [key])
    return stage.definitions.resolve_job_def("play_count_capture").execute_in_process(
        instance=stage.instance,
        partition_key=key,
        tags={tags.PLAN: "plan-1"} if planned else {},
        raise_on_error=False,
    )


def metadata_by_capture(stage: Stage) -> dict[str, dict[str, Any]]:
    """The metadata of each capture's materialization."""
    records = stage.instance.fetch_materializations(CURRENT_PLAY_COUNTS, limit=100, ascending=True).records
    result = [record.asset_materialization for record in records]
    ids = stage.bench.sql("select id, partition_key from playcount_snapshots where partition_key is not null")
    capture_of_partition = {row["partition_key"]: str(row["id"]) for row in ids}
    return {
        capture_of_partition[one.partition]: {k: v.value for k, v in one.metadata.items()}
        for one in result
        if one and one.partition
    }


def test_a_request_for_current_counts_is_done_after_sensor_and_run(stage: Stage):
    job = stage.submit_request({"album_ids": release(stage)}, source="current")
    stage.intake()
    snapshot = capture_of(stage, job)
    (request,) = stage.tick("playcount_snapshot_sensor").run_requests
    key = partition_of(stage, snapshot)
    assert request.tags[tags.PARTITION] == key
    assert stage.instance.get_dynamic_partitions("snapshot") == [key]
    result = capture(stage, snapshot)
    assert result.success
    metadata = metadata_by_capture(stage)[snapshot]
    assert (metadata["albums"], metadata["tracks"], metadata["recordings measured"]) == (1, 1, 1)
    assert metadata["cost of this run (USD)"] == 0.003
    assert stage.bench.sql("select state from measurement_jobs where id = %s", job) == [{"state": "done"}]
    run = stage.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[f"measurement_job/{job}"] == "requested"
    assert f"account/{stage.bench.account}" in run.tags
    assert "no capture is due; 0" in str(stage.tick("playcount_snapshot_sensor").skip_message)


def test_the_sensor_requests_no_capture_of_an_unfinished_run(stage: Stage):
    _, snapshot = request_capture(stage)
    stage.instance.create_run_for_job(
        stage.definitions.resolve_job_def("play_count_capture"),
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={tags.PARTITION: partition_of(stage, snapshot)},
    )
    assert "unfinished runs cover the 1 due" in str(stage.tick("playcount_snapshot_sensor").skip_message)


def test_the_sensor_reports_a_pause_of_apify(stage: Stage):
    request_capture(stage)
    stage.bench.sql(
        "insert into vendor_state (vendor, paused_until, pause_reason) values ('apify', now() + interval '1 hour', 'HTTP 429')"
    )
    assert "Apify is paused until" in str(stage.tick("playcount_snapshot_sensor").skip_message)


def test_a_deployment_without_a_token_captures_nothing_and_reports_it(stage: Stage):
    stage.services = replace(stage.services, captures=None)
    stage.definitions = definitions(stage.services)
    job = stage.submit_request({"album_ids": release(stage)}, source="current")
    assert stage.intake().success
    (row,) = stage.bench.sql("select state, error from measurement_jobs where id = %s", job)
    assert row == {"state": "queued", "error": "captures are not set up here: APIFY_TOKEN is not set"}
    assert stage.tick("playcount_snapshot_sensor").skip_message == row["error"]
    assert row["error"] in stage.failure_message(run_partition(stage, str(UNKNOWN_CAPTURE)))


def test_a_failed_actor_run_fails_the_partition_with_its_message_and_the_request(stage: Stage):
    stage.bench.sandbox.actor("ABORTED", "stopped by its owner")
    job, snapshot = request_capture(stage)
    result = capture(stage, snapshot)
    assert not result.success
    assert "ended as ABORTED: stopped by its owner" in stage.failure_message(result)
    assert metadata_by_capture(stage) == {}
    (row,) = stage.bench.sql("select state, status_code, error from measurement_jobs where id = %s", job)
    assert (row["state"], row["status_code"]) == ("failed", 500)
    assert "stopped by its owner" in row["error"]


def test_a_run_retries_the_failed_parts_of_a_capture(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("measurement_pipeline.defs.retry_policies.seconds_before", lambda _number: 0.1)
    stage.bench.sandbox.actor("FAILED", "blocked", count=1)
    stage.bench.sandbox.actor("SUCCEEDED")
    _, snapshot = request_capture(stage, albums=ALBUMS_PER_CHUNK + 1)
    assert capture(stage, snapshot).success
    assert metadata_by_capture(stage)[snapshot]["recordings measured"] == ALBUMS_PER_CHUNK + 1
    assert stage.bench.sandbox.actor_usage()["runs"] == 3


def test_an_operator_who_launches_a_done_capture_pays_nothing(stage: Stage):
    _, snapshot = request_capture(stage)
    capture(stage, snapshot)
    assert capture(stage, snapshot, planned=False).success
    assert metadata_by_capture(stage)[snapshot]["cost of this run (USD)"] == 0.0
    assert stage.bench.sandbox.actor_usage()["runs"] == 1


def test_tracks_without_an_isrc_are_named_on_the_partition(stage: Stage):
    stage.bench.sandbox.spotify_quota_exceeded()
    _, snapshot = request_capture(stage)
    assert capture(stage, snapshot).success
    metadata = metadata_by_capture(stage)[snapshot]
    assert metadata["tracks without an ISRC"] == 1
    assert "Song 0" in metadata["names without an ISRC"]


@pytest.mark.parametrize("key", ["Abbey Road", str(UNKNOWN_CAPTURE)])
def test_a_partition_without_a_capture_fails_with_one_line(stage: Stage, key: str):
    why = stage.failure_message(run_partition(stage, key, planned=False))
    assert f"'{key}' is no capture: no row of playcount_snapshots has this partition_key" in why
    assert "nothing was launched: " in why


def test_capture_partitions_are_named_for_people(stage: Stage):
    job = stage.submit_request({"album_ids": release(stage, albums=2)}, source="current")
    stage.bench.sql("update measurement_jobs set schedule = 'monthly' where id = %s", job)
    stage.intake()
    first = min(release(stage, albums=2))
    stage.bench.sql("insert into songs (isrc, album) values ('AA6Q72000000', 'Abbey Road [2019, \"Mix\"]')")
    stage.bench.sql(
        "insert into song_identifiers (song, platform, identifier_type, value)"
        " values ('AA6Q72000000', 'spotify', 'album_id', %s)",
        first,
    )
    snapshot = capture_of(stage, job)
    (request,) = stage.tick("playcount_snapshot_sensor").run_requests
    (row,) = stage.bench.sql(
        "select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD') as day from playcount_snapshots"
    )
    assert request.partition_key is None
    assert request.tags[tags.PARTITION] == f"Abbey Road 2019 Mix and 1 more monthly {row['day']} {snapshot[:8]}"
    assert run_partition(stage, request.tags[tags.PARTITION]).success
    assert set(metadata_by_capture(stage)) == {snapshot}


def test_the_reclaim_run_shows_a_capture_as_missing_if_its_run_failed_before_a_try(stage: Stage):
    _, snapshot = request_capture(stage)
    key = partition_of(stage, snapshot)
    stage.instance.add_dynamic_partitions("snapshot", [key])
    run = stage.instance.create_run_for_job(
        stage.definitions.resolve_job_def("play_count_capture"), tags={tags.PARTITION: key}
    )
    stage.instance.report_run_failed(run, "the disk is full")
    assert failed_partitions(stage.instance, CURRENT_PLAY_COUNTS, snapshot_partitions) == [key]
    stage.bench.sql("update playcount_snapshots set state = 'failed'")
    assert stage.reclaim().success
    assert failed_partitions(stage.instance, CURRENT_PLAY_COUNTS, snapshot_partitions) == [key]
    stage.bench.sql("update playcount_snapshots set state = 'queued'")
    assert stage.reclaim().success
    assert failed_partitions(stage.instance, CURRENT_PLAY_COUNTS, snapshot_partitions) == []


def test_earlier_captures_keep_their_registered_id(stage: Stage):
    _, snapshot = request_capture(stage)
    stage.bench.sql("update playcount_snapshots set partition_key = id::text")
    assert stage.tick("playcount_snapshot_sensor").run_requests[0].tags[tags.PARTITION] == snapshot
    assert run_partition(stage, snapshot).success
    assert set(metadata_by_capture(stage)) == {snapshot}


def test_the_daily_run_reports_unreported_captures_and_retries_deferred_tracks(stage: Stage):
    stage.bench.sandbox.faults("/v1/tracks", status=503)
    _, snapshot = request_capture(stage)
    assert stage.services.captures is not None
    # As a run leaves it that died between its last commit and its materialization.
    make_capture(UUID(snapshot), stage.services.captures, run_id="dead")
    assert metadata_by_capture(stage) == {}
    stage.bench.sandbox.clear_faults()
    result = stage.reclaim()
    (swept,) = [event.step_output_data.metadata for event in result.all_events if event.is_successful_output]
    assert (swept["captures mapped again"].value, swept["materializations emitted late"].value) == (1, 1)
    metadata = metadata_by_capture(stage)[snapshot]
    assert (
        metadata["recordings measured"],
        metadata["tracks without an ISRC"],
        metadata["cost of this run (USD)"],
    ) == (
        1,
        0,
        0.0,
    )
    again = stage.reclaim()
    (swept,) = [event.step_output_data.metadata for event in again.all_events if event.is_successful_output]
    assert (swept["captures mapped again"].value, swept["materializations emitted late"].value) == (0, 0)


def test_the_daily_run_reclaims_starts_due_series_and_reports_their_number(stage: Stage):
    job = stage.submit_request({"album_ids": release(stage)}, source="current")
    stage.bench.sql("update measurement_jobs set schedule = 'monthly' where id = %s", job)
    stage.intake()
    stage.bench.sql("update playcount_snapshots set created_at = created_at - interval '31 days', state = 'done'")
    result = stage.definitions.resolve_job_def("daily_maintenance").execute_in_process(instance=stage.instance)
    steps = [event.step_key for event in result.all_events if event.is_step_success]
    assert steps == ["reclaim", "start_due_series"]
    outputs = {
        event.step_key: {k: v.value for k, v in event.step_output_data.metadata.items()}
        for event in result.all_events
        if event.is_successful_output
    }
    assert outputs["start_due_series"]["captures started"] == 1
    assert outputs["reclaim"]["requests settled"] == 1
    assert len(stage.tick("playcount_snapshot_sensor").run_requests) == 1


def test_open_captures_without_progress_for_hours_are_an_error(stage: Stage):
    request_capture(stage)
    check = stage.definitions.resolve_job_def("health_checks")
    for daemon in stage.instance.get_required_daemon_types():
        stage.instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), daemon, None))

    def finding() -> Any:
        result = check.execute_in_process(instance=stage.instance, raise_on_error=False)
        (row,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "captures_are_progressing"]
        return row

    assert finding().passed
    stage.bench.sql("update playcount_snapshots set created_at = created_at - interval '7 hours', error = 'HTTP 503'")
    late = finding()
    assert not late.passed
    assert "1 capture is open" in str(late.description)
    assert late.metadata["reason"].value == "vendor away"
