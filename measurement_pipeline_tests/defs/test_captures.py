"""Captures as Dagster runs them: asked for by a sensor, one partition each, with what came of it where an operator looks."""

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

NOBODYS = UUID("00000000-0000-4000-8000-00000000dead")


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


def asked(stage: Stage, *, albums: int = 1) -> tuple[UUID, str]:
    """A request that intake has answered with a capture; both."""
    job = stage.ask({"album_ids": release(stage, albums=albums)}, source="current")
    assert stage.intake().success
    return job, capture_of(stage, job)


def partition_of(stage: Stage, snapshot: str) -> str:
    """The partition of a capture."""
    with connect(stage.bench.database_url) as connection:
        return partition_keys.ensure_for_captures(connection, [UUID(snapshot)])[UUID(snapshot)]


def capture(stage: Stage, snapshot: str, *, planned: bool = True) -> dg.ExecuteInProcessResult:
    """A run over a capture: the sensor's, or an operator's."""
    return launched(stage, partition_of(stage, snapshot), planned=planned)


def launched(stage: Stage, key: str, *, planned: bool = True) -> dg.ExecuteInProcessResult:
    """A run over a partition, whatever it is named."""
    stage.instance.add_dynamic_partitions(str(snapshot_partitions.name), [key])
    return stage.definitions.resolve_job_def("play_count_capture").execute_in_process(
        instance=stage.instance,
        partition_key=key,
        tags={tags.PLAN: "plan-1"} if planned else {},
        raise_on_error=False,
    )


def told(stage: Stage) -> dict[str, dict[str, Any]]:
    """What Dagster shows of each capture."""
    records = stage.instance.fetch_materializations(CURRENT_PLAY_COUNTS, limit=100, ascending=True).records
    result = [record.asset_materialization for record in records]
    ids = stage.bench.sql("select id, partition_key from playcount_snapshots where partition_key is not null")
    capture_of_partition = {row["partition_key"]: str(row["id"]) for row in ids}
    return {
        capture_of_partition[one.partition]: {k: v.value for k, v in one.metadata.items()}
        for one in result
        if one and one.partition
    }


def test_a_request_for_current_counts_goes_through_sensor_run_and_partition_to_done(stage: Stage):
    job = stage.ask({"album_ids": release(stage)}, source="current")
    stage.intake()
    snapshot = capture_of(stage, job)
    (request,) = stage.tick("playcount_snapshot_sensor").run_requests
    key = partition_of(stage, snapshot)
    assert request.tags[tags.PARTITION] == key
    assert stage.instance.get_dynamic_partitions("snapshot") == [key]
    result = capture(stage, snapshot)
    assert result.success
    shown = told(stage)[snapshot]
    assert (shown["albums"], shown["tracks"], shown["recordings measured"]) == (1, 1, 1)
    assert shown["cost of this run (USD)"] == 0.003
    assert stage.bench.sql("select state from measurement_jobs where id = %s", job) == [{"state": "done"}]
    run = stage.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[f"measurement_job/{job}"] == "requested"
    assert f"account/{stage.bench.account}" in run.tags
    assert stage.tick("playcount_snapshot_sensor").skip_message == "no capture is due; 0 are open"


def test_the_sensor_asks_for_nothing_that_a_run_in_flight_covers(stage: Stage):
    _, snapshot = asked(stage)
    stage.instance.create_run_for_job(
        stage.definitions.resolve_job_def("play_count_capture"),
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={tags.PARTITION: partition_of(stage, snapshot)},
    )
    assert stage.tick("playcount_snapshot_sensor").skip_message == "unfinished runs cover the 1 due capture"


def test_the_sensor_says_that_apify_is_left_alone(stage: Stage):
    asked(stage)
    stage.bench.sql(
        "insert into vendor_state (vendor, paused_until, pause_reason) values ('apify', now() + interval '1 hour', 'HTTP 429')"
    )
    assert "Apify is paused until" in str(stage.tick("playcount_snapshot_sensor").skip_message)


def test_a_deployment_without_a_token_captures_nothing_and_says_so(stage: Stage):
    stage.services = replace(stage.services, captures=None)
    stage.definitions = definitions(stage.services)
    job = stage.ask({"album_ids": release(stage)}, source="current")
    assert stage.intake().success
    (row,) = stage.bench.sql("select state, error from measurement_jobs where id = %s", job)
    assert row == {"state": "queued", "error": "captures are not set up here: APIFY_TOKEN is not set"}
    assert stage.tick("playcount_snapshot_sensor").skip_message == row["error"]
    assert row["error"] in stage.why_failed(launched(stage, str(NOBODYS)))


def test_an_actor_that_fails_turns_the_partition_red_in_its_own_words_and_the_request_failed(stage: Stage):
    stage.bench.sandbox.actor("ABORTED", "stopped by its owner")
    job, snapshot = asked(stage)
    result = capture(stage, snapshot)
    assert not result.success
    assert "ended as ABORTED: stopped by its owner" in stage.why_failed(result)
    assert told(stage) == {}
    (row,) = stage.bench.sql("select state, status_code, error from measurement_jobs where id = %s", job)
    assert (row["state"], row["status_code"]) == ("failed", 500)
    assert "stopped by its owner" in row["error"]


def test_of_parts_that_fail_the_run_tries_the_rest_again_by_itself(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("measurement_pipeline.defs.retry_policies.seconds_before", lambda _number: 0.1)
    stage.bench.sandbox.actor("FAILED", "blocked", count=1)
    stage.bench.sandbox.actor("SUCCEEDED")
    _, snapshot = asked(stage, albums=ALBUMS_PER_CHUNK + 1)
    assert capture(stage, snapshot).success
    assert told(stage)[snapshot]["recordings measured"] == ALBUMS_PER_CHUNK + 1
    assert stage.bench.sandbox.actor_usage()["runs"] == 3


def test_an_operator_who_launches_a_done_capture_pays_nothing(stage: Stage):
    _, snapshot = asked(stage)
    capture(stage, snapshot)
    assert capture(stage, snapshot, planned=False).success
    assert told(stage)[snapshot]["cost of this run (USD)"] == 0.0
    assert stage.bench.sandbox.actor_usage()["runs"] == 1


def test_tracks_without_an_isrc_are_named_on_the_partition(stage: Stage):
    stage.bench.sandbox.spotify_quota_exceeded()
    _, snapshot = asked(stage)
    assert capture(stage, snapshot).success
    shown = told(stage)[snapshot]
    assert shown["tracks without an ISRC"] == 1
    assert "Song 0" in shown["names without an ISRC"]


@pytest.mark.parametrize("key", ["Abbey Road", str(NOBODYS)])
def test_a_partition_that_is_no_capture_fails_in_plain_words(stage: Stage, key: str):
    why = stage.why_failed(launched(stage, key, planned=False))
    assert f"'{key}' is no capture: no row of playcount_snapshots has this partition_key" in why
    assert "nothing was launched: " in why


def test_captures_are_listed_by_what_a_person_knows(stage: Stage):
    job = stage.ask({"album_ids": release(stage, albums=2)}, source="current")
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
    assert launched(stage, request.tags[tags.PARTITION]).success
    assert set(told(stage)) == {snapshot}


def test_the_sweep_shows_a_capture_whose_run_failed_before_it_was_tried_as_missing(stage: Stage):
    _, snapshot = asked(stage)
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


def test_captures_from_before_keep_the_id_that_they_were_registered_under(stage: Stage):
    _, snapshot = asked(stage)
    stage.bench.sql("update playcount_snapshots set partition_key = id::text")
    assert stage.tick("playcount_snapshot_sensor").run_requests[0].tags[tags.PARTITION] == snapshot
    assert launched(stage, snapshot).success
    assert set(told(stage)) == {snapshot}


def test_the_sweep_shows_what_a_crash_kept_from_being_shown_and_looks_deferred_tracks_up_again(stage: Stage):
    stage.bench.sandbox.faults("/v1/tracks", status=503)
    _, snapshot = asked(stage)
    assert stage.services.captures is not None
    # As a run that died between its last commit and its materialization left it.
    make_capture(UUID(snapshot), stage.services.captures, run_id="dead")
    assert told(stage) == {}
    stage.bench.sandbox.clear_faults()
    result = stage.reclaim()
    (swept,) = [event.step_output_data.metadata for event in result.all_events if event.is_successful_output]
    assert (swept["captures mapped again"].value, swept["materializations emitted late"].value) == (1, 1)
    shown = told(stage)[snapshot]
    assert (shown["recordings measured"], shown["tracks without an ISRC"], shown["cost of this run (USD)"]) == (
        1,
        0,
        0.0,
    )
    again = stage.reclaim()
    (swept,) = [event.step_output_data.metadata for event in again.all_events if event.is_successful_output]
    assert (swept["captures mapped again"].value, swept["materializations emitted late"].value) == (0, 0)


def test_the_daily_round_sweeps_then_starts_due_series_and_says_how_many(stage: Stage):
    job = stage.ask({"album_ids": release(stage)}, source="current")
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


def test_open_captures_are_an_alarm_after_hours_of_silence(stage: Stage):
    asked(stage)
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
