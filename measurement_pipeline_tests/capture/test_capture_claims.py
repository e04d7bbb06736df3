"""Rules of a running capture: its claim, its waits, its concurrency, and the time of its counts."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.capture.series import start_due_captures
from measurement_pipeline.domain.capture import ALBUMS_PER_CHUNK, Schedule
from measurement_pipeline.postgres import captures
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.vendors.apify.client import ActorRun, ApifyClient
from measurement_pipeline_tests.capture.conftest import CaptureHarness, isrcs

INPUTS = "/v2/key-value-stores/*/records/INPUT"


def with_actor(harness: CaptureHarness, actor: type[ApifyClient], **changes: object) -> CaptureServices:
    """Services with this Apify client class."""

    def new_actor() -> ApifyClient:
        return actor(harness.sandbox.apify_token, base_url=harness.sandbox.apify_url)

    captures = harness.with_config(**changes)
    return replace(captures, dependencies=replace(captures.dependencies, new_actor=new_actor))


# --- the claim -------------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_releases_its_capture_without_an_attempt(harness: CaptureHarness):
    class Interrupted(ApifyClient):
        def get_run(self, run_id: str, *, wait_seconds: float = 0) -> ActorRun:
            super().get_run(run_id, wait_seconds=wait_seconds)
            raise KeyboardInterrupt

    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    with pytest.raises(KeyboardInterrupt):
        harness.run_capture(snapshot, captures=with_actor(harness, Interrupted), is_last_try=False)
    row = harness.snapshot_row(snapshot)
    assert (row["state"], row["claimed_by"], row["attempts"]) == ("running", None, 0)
    assert row["error"] == "its run was interrupted"
    with connect(harness.database_url) as connection:
        assert captures.list_due(connection, claim_timeout_seconds=0, limit=10) == [], (
            "a cancelled run does not start again at once"
        )
    harness.end_waits()
    assert harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert harness.actor_usage()["runs"] == 1, "the run that it paid for is awaited"
    harness.check_invariants()


def test_an_operator_may_run_a_capture_without_attempts_left(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sql(
        "update playcount_snapshots set state = 'running', claimed_by = 'dead', attempts = 5 where id = %s", snapshot
    )
    assert harness.run_capture(snapshot, operator=True).kind is CaptureResultKind.DONE
    assert harness.stored_counts() == {isrcs(1)[0]: 10}


@pytest.mark.parametrize(("age", "seconds"), [("0", 60), ("40 minutes", 600), ("2 days", 3600)])
def test_while_apify_is_down_a_capture_waits_a_quarter_of_its_age(harness: CaptureHarness, age: str, seconds: int):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sql("update playcount_snapshots set created_at = created_at - %s::interval", age)
    harness.sandbox.faults("/v2/", status=503)
    assert harness.run_capture(snapshot).kind is CaptureResultKind.STOPPED
    (wait,) = harness.sql("select extract(epoch from not_before - clock_timestamp()) as left from playcount_snapshots")
    assert seconds - 30 < wait["left"] < seconds + 30


def test_a_run_with_a_missing_input_blocks_a_second_start_for_an_hour(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([one])
    with harness.captures.dependencies.new_actor() as actor:
        actor.start_run([one])
    harness.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, intended_at)"
        " values (%s, 0, %s, 0.003, 'dead', clock_timestamp() - interval '50 minutes')",
        snapshot,
        [one],
    )
    harness.sandbox.faults(INPUTS, status=404)
    assert harness.run_capture(snapshot).kind is CaptureResultKind.STOPPED
    assert harness.actor_usage()["runs"] == 1, "it may be the one that was started"
    harness.sql("update apify_runs set intended_at = intended_at - interval '11 minutes'")
    harness.end_waits()
    assert harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert [row["status"] for row in harness.actor_runs(snapshot)] == ["NOT-STARTED", "SUCCEEDED"]
    assert harness.actor_usage()["runs"] == 2
    harness.check_invariants()


# --- amounts and waits -----------------------------------------------------------------------------------------------------


def test_concurrent_chunks_are_limited(harness: CaptureHarness):
    at_work: list[int] = []

    class Watched(ApifyClient):
        def start_run(self, album_ids: Sequence[str]) -> ActorRun:
            at_work.append(sum(row["status"] in {"READY", "RUNNING"} for row in harness.actor_runs(snapshot)))
            return super().start_run(album_ids)

    songs = isrcs(3 * ALBUMS_PER_CHUNK + 1)
    snapshot = harness.open_capture(harness.publish({f"Album {n}": {song: 5} for n, song in enumerate(songs)}))
    harness.sandbox.actor("SUCCEEDED", seconds=0.2)
    assert (
        harness.run_capture(snapshot, captures=with_actor(harness, Watched, max_concurrent_chunks=2)).kind
        is CaptureResultKind.DONE
    )
    assert len(at_work) == 4
    assert max(at_work) == 1, "besides the one being started"
    assert len(harness.stored_counts()) == len(songs)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_series_waits_for_its_open_capture_of_any_age(harness: CaptureHarness, state: str):
    harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}), schedule=Schedule.MONTHLY)
    harness.sql("update playcount_snapshots set created_at = created_at - interval '45 days', state = %s", state)
    result = start_due_captures(harness.captures.config)
    assert (result.due, result.started, result.refused) == (0, 0, ())
    harness.sql("update playcount_snapshots set state = 'done'")
    assert start_due_captures(harness.captures.config).started == 1


# --- times of counts -------------------------------------------------------------------------------------------------------


def test_a_count_is_never_dated_in_the_future(harness: CaptureHarness):
    class Ahead(ApifyClient):
        def get_run(self, run_id: str, *, wait_seconds: float = 0) -> ActorRun:
            run = super().get_run(run_id, wait_seconds=wait_seconds)
            late = run.finished_at and run.finished_at + timedelta(hours=3)
            return replace(run, finished_at=late)

    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    assert harness.run_capture(snapshot, captures=with_actor(harness, Ahead)).kind is CaptureResultKind.DONE
    (actor_run,) = harness.actor_runs(snapshot)
    assert actor_run["finished_at"] > actor_run["kept_at"] + timedelta(hours=2)
    (measured,) = harness.sql("select captured_at from song_measurements")
    assert measured["captured_at"] == actor_run["kept_at"] == harness.snapshot_row(snapshot)["captured_at"]


@pytest.mark.parametrize(("behind", "stored"), [("the second part", [70]), ("the first part", [50, 70])])
def test_of_two_chunks_with_one_recording_the_higher_count_stays(
    harness: CaptureHarness, behind: str, stored: list[int]
):
    class Behind(ApifyClient):
        def download_items(self, run: ActorRun) -> bytes:
            albums = json.loads(super().download_items(run))
            is_second = len(albums) == 1
            if is_second == (behind == "the second part"):
                for album in albums:
                    for track in album["tracks"]:
                        track["streamCount"] = 50
            return json.dumps(albums).encode()

    (isrc,) = isrcs(1)
    # On every album, and so in both chunks.
    snapshot = harness.open_capture(harness.publish({f"Album {n:03}": {isrc: 70} for n in range(ALBUMS_PER_CHUNK + 1)}))
    assert harness.run_capture(snapshot, captures=with_actor(harness, Behind)).kind is CaptureResultKind.DONE
    rows = harness.sql("select value, captured_at from song_measurements where song = %s order by learnt_at", isrc)
    assert [row["value"] for row in rows] == stored
    assert len({row["captured_at"] for row in rows}) == 1
