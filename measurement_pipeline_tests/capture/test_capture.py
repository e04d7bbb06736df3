"""One capture from its claim to its result: each chunk is bought once, and stored before it is mapped."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.capture.retry_mapping import remap_capture
from measurement_pipeline.domain.capture import ALBUMS_PER_CHUNK
from measurement_pipeline.health import incidents
from measurement_pipeline.postgres import apify_runs, captures, run_heartbeats, vendor_state
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox.scenarios import PLAIN
from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline_tests.capture.conftest import CaptureHarness, album, isrcs, track
from measurement_pipeline_tests.capture_limits import capture_limits

STARTS = "/v2/act*/*/runs"


def test_a_capture_stores_the_displayed_counts_and_its_totals(harness: CaptureHarness):
    one, two = harness.publish({"One": dict(zip(isrcs(3), (10, 20, 30), strict=True)), "Two": {isrcs(4)[3]: 40}})
    snapshot = harness.open_capture([one, two])
    ended = harness.run_capture(snapshot)
    assert (ended.kind, ended.reason) == (CaptureResultKind.DONE, None)
    assert harness.stored_counts() == dict(zip(isrcs(4), (10, 20, 30, 40), strict=True))
    row = harness.snapshot_row(snapshot)
    assert (row["state"], row["tracks"], row["recordings"], row["unmapped"]) == ("done", 4, 4, 0)
    assert row["claimed_by"] is None
    assert harness.actor_usage() == {"runs": 1, "albums": 2}
    harness.check_invariants()


def test_a_measurement_names_its_capture_actor_run_and_time(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.run_capture(snapshot)
    (actor_run,) = harness.actor_runs(snapshot)
    (measured,) = harness.sql("select * from song_measurements")
    assert measured["snapshot"] == snapshot
    assert measured["raw_ref"] == actor_run["actor_run"]
    assert (measured["platform"], measured["metric"]) == ("spotify", "platform_displayed_play_count")
    assert measured["captured_at"] == min(actor_run["finished_at"], actor_run["kept_at"])
    assert abs(measured["captured_at"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert actor_run["sha256"]


@pytest.mark.fails_without("captures: an actor run has a row before its start")
def test_an_actor_run_is_a_row_before_it_is_started(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    seen = []

    class Watched(ApifyClient):
        def start_run(self, album_ids):
            seen.append([(row["actor_run"], row["status"]) for row in harness.actor_runs(snapshot)])
            return super().start_run(album_ids)

    watched = Watched(harness.sandbox.apify_token, base_url=harness.sandbox.apify_url)
    captures = replace(harness.captures, dependencies=replace(harness.captures.dependencies, new_actor=lambda: watched))
    harness.run_capture(snapshot, captures=captures)
    assert seen == [[(None, None)]]


@pytest.mark.fails_without("captures: a result is stored before it is mapped")
def test_a_result_is_stored_before_it_is_mapped(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    seen = []

    def new_spotify():
        # Called when the first track is mapped.
        seen.append([row["kept_at"] is not None for row in harness.actor_runs(snapshot)])
        return harness.captures.dependencies.new_spotify()

    captures = replace(harness.captures, dependencies=replace(harness.captures.dependencies, new_spotify=new_spotify))
    harness.run_capture(snapshot, captures=captures)
    assert seen == [[True]]


def test_tracks_become_songs_with_their_titles_ids_and_albums(harness: CaptureHarness):
    isrc = isrcs(1)[0]
    snapshot = harness.open_capture(harness.publish({"One": {isrc: 10}}))
    harness.run_capture(snapshot)
    (song,) = harness.sql("select * from songs")
    assert (song["isrc"], song["name"], song["album"]) == (isrc, f"Song {isrc[-3:]}", "One")
    rows = harness.sql("select identifier_type, value from song_identifiers where song = %s order by 1", isrc)
    assert [(row["identifier_type"], row["value"]) for row in rows] == [
        ("album_id", album("One")),
        ("track_id", track(isrc, "One")),
    ]


def test_catalogue_data_of_a_recording_is_not_overwritten(harness: CaptureHarness):
    isrc = isrcs(1)[0]
    harness.sql("insert into songs (isrc, name) values (%s, 'as the label writes it')", isrc)
    harness.run_capture(harness.open_capture(harness.publish({"One": {isrc: 10}})))
    assert harness.sql("select name, album from songs") == [{"name": "as the label writes it", "album": "One"}]


def test_known_tracks_are_not_looked_up_again(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    harness.run_capture(harness.open_capture([one]))
    harness.sql("update playcount_snapshots set created_at = created_at - interval '2 hours'")
    harness.sandbox.forget_requests()
    harness.run_capture(harness.open_capture([one]), run="run-2")
    assert harness.sandbox.requests("/v1/tracks") == []
    assert harness.actor_usage()["runs"] == 2


def test_a_reissue_is_one_recording_with_one_count_on_several_albums(harness: CaptureHarness):
    isrc = isrcs(1)[0]
    albums = harness.publish({"First": {isrc: 70}, "Reissue": {isrc: 70}})
    snapshot = harness.open_capture(albums)
    harness.run_capture(snapshot)
    assert harness.stored_counts() == {isrc: 70}
    capture_row = harness.snapshot_row(snapshot)
    assert (capture_row["tracks"], capture_row["recordings"]) == (2, 1)
    rows = harness.sql("select value from song_identifiers where identifier_type = 'album_id' order by value")
    assert [row["value"] for row in rows] == sorted(albums)


@pytest.mark.parametrize("custom_harness", [replace(PLAIN, tracks_without_count=0.4)], indirect=True)
def test_a_track_without_a_count_is_not_stored(custom_harness: CaptureHarness):
    songs = isrcs(60)
    snapshot = custom_harness.open_capture(custom_harness.publish({"One": dict.fromkeys(songs, 10)}))
    custom_harness.run_capture(snapshot)
    row = custom_harness.snapshot_row(snapshot)
    assert row["tracks"] == 60
    assert 0 < row["without_count"] < 60
    assert row["recordings"] == 60 - row["without_count"] == len(custom_harness.stored_counts())
    assert set(custom_harness.stored_counts().values()) == {10}
    rows = custom_harness.sql("select count(*) n from song_identifiers where identifier_type = 'album_id'")
    assert rows[0]["n"] == 60, "each is still recorded with its album"


@pytest.mark.parametrize("custom_harness", [replace(PLAIN, items_without_id=1.0)], indirect=True)
def test_an_album_without_an_id_is_identified_by_its_tracks(custom_harness: CaptureHarness):
    songs = isrcs(4)
    albums = custom_harness.publish({"One": dict.fromkeys(songs[:2], 10), "Two": dict.fromkeys(songs[2:], 20)})
    custom_harness.run_capture(custom_harness.open_capture(albums))
    rows = custom_harness.sql("select song, value from song_identifiers where identifier_type = 'album_id'")
    assert {(row["song"], row["value"]) for row in rows} == {
        *((song, albums[0]) for song in songs[:2]),
        *((song, albums[1]) for song in songs[2:]),
    }


@pytest.mark.parametrize("custom_harness", [replace(PLAIN, actor_seconds=1.0, dataset_lag=1.5)], indirect=True)
def test_the_actor_and_its_last_items_are_awaited(custom_harness: CaptureHarness):
    snapshot = custom_harness.open_capture(custom_harness.publish({"One": {isrcs(1)[0]: 10}}))
    assert custom_harness.run_capture(snapshot).kind is CaptureResultKind.DONE
    assert custom_harness.actor_usage() == {"runs": 1, "albums": 1}


@pytest.mark.parametrize("custom_harness", [replace(PLAIN, actor_seconds=600)], indirect=True)
def test_a_slow_actor_keeps_running_and_a_later_run_waits_for_it(custom_harness: CaptureHarness):
    snapshot = custom_harness.open_capture(custom_harness.publish({"One": {isrcs(1)[0]: 10}}))
    short = custom_harness.with_config(max_wait_seconds=0.5, poll_seconds=0.1)
    ended = custom_harness.run_capture(snapshot, captures=short)
    assert ended.kind is CaptureResultKind.POSTPONED
    assert "still at work on 1 of 1 parts" in str(ended.reason)
    row = custom_harness.snapshot_row(snapshot)
    assert (row["state"], row["claimed_by"], row["attempts"]) == ("running", None, 0)
    assert row["not_before"] is not None, "the slot is free for other captures"
    custom_harness.end_waits()
    assert custom_harness.run_capture(snapshot, run="run-2", captures=short).kind is CaptureResultKind.POSTPONED
    assert custom_harness.actor_usage()["runs"] == 1
    custom_harness.check_invariants()


def test_many_albums_are_captured_in_chunks(harness: CaptureHarness):
    count = 2 * ALBUMS_PER_CHUNK + 1
    songs = isrcs(count)
    albums = harness.publish({f"Album {number}": {song: number + 1} for number, song in enumerate(songs)})
    snapshot = harness.open_capture(albums)
    harness.run_capture(snapshot)
    assert harness.actor_usage() == {"runs": 3, "albums": count}
    assert [len(one["album_ids"]) for one in harness.actor_runs(snapshot)] == [100, 100, 1]
    assert harness.stored_counts() == {song: number + 1 for number, song in enumerate(songs)}
    harness.check_invariants()


@pytest.mark.parametrize("ends", ["FAILED", "TIMED-OUT", "ABORTED"])
def test_a_failed_actor_run_fails_the_capture_with_its_message(harness: CaptureHarness, ends: str):
    harness.sandbox.actor(ends, "the page looks different today")
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    ended = harness.run_capture(snapshot, is_last_try=False)
    assert ended.kind is CaptureResultKind.FAILED
    assert f"ended as {ends}: the page looks different today" in str(ended.reason)
    assert harness.snapshot_row(snapshot)["error"] == ended.reason
    assert harness.stored_counts() == {}
    assert harness.sql("select * from songs") == []
    assert harness.actor_usage()["runs"] == 1, "only an operator or the client pays again"
    harness.check_invariants()


def test_a_failed_chunk_is_tried_again_and_captured_chunks_stay(harness: CaptureHarness):
    songs = isrcs(ALBUMS_PER_CHUNK + 1)
    albums = harness.publish({f"Album {number}": {song: 5} for number, song in enumerate(songs)})
    snapshot = harness.open_capture(albums)
    harness.sandbox.actor("FAILED", "blocked", count=1)
    harness.sandbox.actor("SUCCEEDED")
    first = harness.run_capture(snapshot, is_last_try=False)
    assert first.kind is CaptureResultKind.TRY_AGAIN
    assert "blocked" in str(first.reason)
    measured = len(harness.stored_counts())
    assert 0 < measured < len(songs)
    ended = harness.run_capture(snapshot, retry_number=1)
    assert (ended.kind, ended.reason) == (CaptureResultKind.DONE, None)
    assert len(harness.stored_counts()) == len(songs)
    assert harness.actor_usage()["runs"] == 3
    harness.check_invariants()


def test_a_chunk_that_keeps_failing_is_reported_and_the_capture_partly_done(harness: CaptureHarness):
    songs = isrcs(ALBUMS_PER_CHUNK + 1)
    snapshot = harness.open_capture(harness.publish({f"Album {n}": {song: 5} for n, song in enumerate(songs)}))
    harness.sandbox.actor("FAILED", "blocked", count=1)
    for retry_number in range(3):
        assert (
            harness.run_capture(snapshot, retry_number=retry_number, is_last_try=False).kind
            is CaptureResultKind.TRY_AGAIN
        )
        harness.sandbox.actor("FAILED", "blocked")
    ended = harness.run_capture(snapshot, retry_number=3)
    assert ended.kind is CaptureResultKind.PARTLY_DONE
    assert "of 101 albums could not be captured: actor run " in str(ended.reason)
    assert "ended as FAILED: blocked" in str(ended.reason)
    assert harness.snapshot_row(snapshot)["error"] == ended.reason
    assert harness.actor_usage()["runs"] == 5, "two at first, and one more each of three times"
    harness.check_invariants()


# --- crashes ---------------------------------------------------------------------------------------------------------------


def test_after_a_crash_behind_the_start_the_same_actor_run_is_awaited(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([one])
    with connect(harness.database_url) as connection:
        # The state after the crash: claimed, started, id stored.
        with harness.captures.dependencies.new_actor() as actor:
            started = actor.start_run([one])
        connection.execute(
            "update playcount_snapshots set state = 'running', claimed_by = 'dead', attempts = 1 where id = %s",
            (snapshot,),
        )
        connection.execute(
            "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status)"
            " values (%s, 0, %s, 0.003, 'dead', %s, 'READY')",
            (snapshot, [one], started.id),
        )
    assert harness.run_capture(snapshot).kind is CaptureResultKind.DONE
    assert harness.actor_usage()["runs"] == 1
    assert harness.stored_counts() == {isrcs(1)[0]: 10}
    harness.check_invariants()


@pytest.mark.fails_without("captures: a lost run is searched for before a second start")
def test_after_a_crash_before_the_id_was_stored_the_actor_run_is_found(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([one])
    with harness.captures.dependencies.new_actor() as actor:
        started = actor.start_run([one])
    harness.sql(
        "update playcount_snapshots set state = 'running', claimed_by = 'dead', attempts = 1 where id = %s", snapshot
    )
    harness.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id) values (%s, 0, %s, 0.003, 'dead')",
        snapshot,
        [one],
    )
    assert harness.run_capture(snapshot).kind is CaptureResultKind.DONE
    assert [row["actor_run"] for row in harness.actor_runs(snapshot)] == [started.id]
    assert harness.actor_usage()["runs"] == 1
    harness.check_invariants()


@pytest.mark.fails_without("captures: a start with a lost response may have been billed")
@pytest.mark.parametrize("fault", [{"reset": True}, {"close": True}, {"hang": True}, {"cut": 20}])
def test_a_start_with_a_lost_response_is_searched_for_and_not_paid_again(
    harness: CaptureHarness, fault: dict[str, object]
):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sandbox.faults(STARTS, method="POST", count=1, **fault)
    captures = harness.with_vendor_timeout(1.0) if "hang" in fault else harness.captures
    assert harness.run_capture(snapshot, captures=captures, is_last_try=False).kind is CaptureResultKind.TRY_AGAIN
    assert harness.run_capture(snapshot, retry_number=1).kind is CaptureResultKind.DONE
    assert harness.actor_usage()["runs"] == 1
    harness.check_invariants()


def test_a_lost_start_is_repeated_only_after_apify_would_list_it(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sandbox.faults(STARTS, method="POST", count=1, status=503)
    ended = harness.run_capture(snapshot, is_last_try=False)
    assert ended.kind is CaptureResultKind.TRY_AGAIN
    (lost_run,) = harness.actor_runs(snapshot)
    assert lost_run["status"] is None, "a 503 leaves unknown whether it was started"
    assert harness.run_capture(snapshot, retry_number=1).kind is CaptureResultKind.POSTPONED
    harness.sql("update apify_runs set intended_at = intended_at - interval '2 minutes'")
    harness.end_waits()
    assert harness.run_capture(snapshot, retry_number=2).kind is CaptureResultKind.DONE
    assert harness.actor_usage()["runs"] == 1
    assert [row["status"] for row in harness.actor_runs(snapshot)] == ["NOT-STARTED", "SUCCEEDED"]
    harness.check_invariants()


@pytest.mark.fails_without("captures: another capture's run is not the lost one")
def test_another_captures_run_for_the_same_albums_is_not_the_lost_one(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    theirs = harness.open_capture([one], account=harness.sql("select gen_random_uuid() id")[0]["id"])
    harness.run_capture(theirs, run="run-1")
    snapshot = harness.open_capture([one])
    harness.sql("update playcount_snapshots set state = 'running', claimed_by = 'dead' where id = %s", snapshot)
    harness.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, intended_at)"
        " values (%s, 0, %s, 0.003, 'dead', clock_timestamp() - interval '2 minutes')",
        snapshot,
        [one],
    )
    assert harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert harness.actor_usage()["runs"] == 2
    harness.check_invariants()


def test_after_a_crash_before_mapping_the_stored_result_is_mapped_for_free(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.run_capture(snapshot)
    # The state after a crash before mapping.
    harness.sql("delete from song_measurements")
    harness.sql("update apify_runs set mapped_at = null, tracks = null, recordings = null")
    harness.sql("update playcount_snapshots set state = 'running', claimed_by = 'dead'")
    harness.sandbox.forget_requests()
    assert harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert harness.sandbox.requests("/v2/") == []
    assert harness.stored_counts() == {isrcs(1)[0]: 10}
    harness.check_invariants()


def test_a_claim_with_a_heartbeat_stays_and_one_without_is_taken_over(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sql("update playcount_snapshots set state = 'running', claimed_by = 'other' where id = %s", snapshot)
    harness.sql("insert into run_heartbeats (run_id) values ('other')")
    assert harness.run_capture(snapshot).kind is CaptureResultKind.UNCHANGED
    assert harness.actor_usage()["runs"] == 0
    harness.sql("update run_heartbeats set beat_at = beat_at - interval '1 minute'")
    assert harness.run_capture(snapshot).kind is CaptureResultKind.DONE


def test_a_run_that_lost_its_claim_writes_nothing(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))

    def new_actor():
        # Another run takes the capture over while the first one calls Apify.
        harness.sql("update playcount_snapshots set claimed_by = 'other' where id = %s", snapshot)
        return harness.captures.dependencies.new_actor()

    captures = replace(harness.captures, dependencies=replace(harness.captures.dependencies, new_actor=new_actor))
    assert harness.run_capture(snapshot, captures=captures).kind is CaptureResultKind.UNCHANGED
    assert harness.actor_runs(snapshot) == []
    assert harness.actor_usage()["runs"] == 0
    assert harness.snapshot_row(snapshot)["claimed_by"] == "other"


def test_a_capture_that_crashes_its_runs_is_given_up(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sql(
        "update playcount_snapshots set state = 'running', claimed_by = 'dead', attempts = 5 where id = %s", snapshot
    )
    ended = harness.run_capture(snapshot)
    assert ended.kind is CaptureResultKind.FAILED
    assert "after 5 attempts" in str(ended.reason)


# --- kinds of failures ------------------------------------------------------------------------------------------------------


def test_an_unavailable_apify_costs_no_attempt(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sandbox.faults("/v2/", status=503)
    ended = harness.run_capture(snapshot)
    assert ended.kind is CaptureResultKind.STOPPED
    row = harness.snapshot_row(snapshot)
    assert (row["state"], row["attempts"], row["claimed_by"]) == ("running", 0, None)
    assert row["not_before"] > datetime.now(UTC) + timedelta(seconds=30)
    assert "503" in row["error"]


def test_a_429_pauses_the_whole_deployment_for_the_retry_after(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sandbox.faults(STARTS, method="POST", status=429, retry_after=900)
    ended = harness.run_capture(snapshot)
    assert ended.kind is CaptureResultKind.POSTPONED
    (state,) = harness.sql("select extract(epoch from paused_until - now()) s from vendor_state where vendor = 'apify'")
    assert 890 < state["s"] <= 900
    assert harness.snapshot_row(snapshot)["attempts"] == 0
    assert [row["status"] for row in harness.actor_runs(snapshot)] == ["NOT-STARTED"]


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_rejected_token_stops_the_capture_until_an_operator_acts(harness: CaptureHarness, status: int):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sandbox.faults("/v2/", status=status)
    ended = harness.run_capture(snapshot)
    assert ended.kind is CaptureResultKind.STOPPED
    assert harness.snapshot_row(snapshot)["state"] == "running"
    (state,) = harness.sql("select pause_reason from vendor_state where vendor = 'apify'")
    assert str(status) in state["pause_reason"]
    harness.sandbox.clear_faults()
    assert harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.POSTPONED
    with connect(harness.database_url) as connection:
        assert vendor_state.resume(connection, ["apify", "spotify"]) == ["apify"]
    assert harness.run_capture(snapshot, run="run-3").kind is CaptureResultKind.DONE
    harness.check_invariants()


def test_a_request_that_apify_always_rejects_is_given_up(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    body = '{"error": {"type": "invalid-input", "message": "no such actor"}}'
    harness.sandbox.faults(STARTS, method="POST", status=404, body=body)
    for number in range(5):
        assert harness.run_capture(snapshot, run=f"run-{number}").kind is CaptureResultKind.STOPPED
        harness.end_waits()
    ended = harness.run_capture(snapshot, run="run-5")
    assert ended.kind is CaptureResultKind.FAILED
    assert "given up after 5 attempts" in str(ended.reason)
    assert "no such actor" in str(ended.reason)


def test_an_unreadable_result_is_stored_and_not_bought_again(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sandbox.faults("/v2/datasets/*/items", status=200, body="[7]")
    ended = harness.run_capture(snapshot)
    assert ended.kind is CaptureResultKind.FAILED
    assert "cannot be read" in str(ended.reason)
    (actor_run,) = harness.actor_runs(snapshot)
    assert actor_run["status"] == "MALFORMED"
    assert actor_run["body"]
    assert harness.actor_usage()["runs"] == 1


# --- Spotify ---------------------------------------------------------------------------------------------------------------


def test_deferred_tracks_are_counted_named_and_mapped_later_for_free(
    harness: CaptureHarness,
):
    songs = isrcs(3)
    (one,) = harness.publish({"One": dict(zip(songs, (10, 20, 30), strict=True))})
    snapshot = harness.open_capture([one])
    harness.sandbox.spotify_quota_exceeded()
    ended = harness.run_capture(snapshot)
    assert ended.kind is CaptureResultKind.DONE
    assert "3 of 3 tracks" in str(ended.reason)
    assert harness.snapshot_row(snapshot)["unmapped"] == 3
    assert [name.split(" (")[0] for name in ended.unmapped] == [f"Song {song[-3:]}" for song in reversed(songs)]
    assert harness.stored_counts() == {}
    (state,) = harness.sql(
        "select extract(epoch from paused_until - now()) s from vendor_state where vendor = 'spotify'"
    )
    assert 50_000 < state["s"] <= 50_400
    # An operator launches it again once Spotify responds.
    harness.sandbox.clear_faults()
    harness.sql("update vendor_state set paused_until = now()")
    again = harness.run_capture(snapshot, run="run-2", operator=True)
    assert (again.kind, again.unmapped) == (CaptureResultKind.DONE, ())
    assert harness.stored_counts() == dict(zip(songs, (10, 20, 30), strict=True))
    assert harness.actor_usage()["runs"] == 1
    (act,) = harness.sql("select act, detail from operator_acts")
    assert act["act"] == "capture mapped again"
    harness.check_invariants()


def open_incidents(harness: CaptureHarness) -> list[str]:
    return [row["what"] for row in harness.sql("select what from incidents where ended_at is null")]


@pytest.mark.parametrize("custom_harness", [replace(PLAIN, tracks_without_isrc=1.0)], indirect=True)
def test_a_chunk_without_isrcs_is_an_incident_until_spotify_gives_them(custom_harness: CaptureHarness):
    songs = isrcs(3)
    snapshot = custom_harness.open_capture(custom_harness.publish({"One": dict.fromkeys(songs, 10)}))
    assert custom_harness.run_capture(snapshot).kind is CaptureResultKind.DONE
    (what,) = open_incidents(custom_harness)
    assert "no ISRC for any of 3 tracks" in what
    sent: list[str] = []
    assert incidents.send_alerts(custom_harness.database_url, sent.append) == 1
    assert "external_ids" in sent[0]
    tracks = [{"id": track(song, "One"), "external_ids": {"isrc": song}} for song in songs]
    for one in tracks:
        custom_harness.sandbox.faults(f"/v1/tracks/{one['id']}", body=json.dumps(one))
    custom_harness.sandbox.faults("/v1/tracks", status=403)
    custom_harness.run_capture(snapshot, run="run-2", operator=True)
    assert custom_harness.stored_counts() == dict.fromkeys(songs, 10)
    assert open_incidents(custom_harness) == []


def test_new_tracks_without_external_ids_are_an_incident(harness: CaptureHarness):
    known, new = isrcs(2)
    one, two = harness.publish({"One": {known: 10}, "Two": {new: 20}})
    harness.run_capture(harness.open_capture([one]))
    harness.sandbox.faults("/v1/tracks", body=json.dumps({"tracks": [{"id": track(new, "Two"), "name": "Song"}]}))
    harness.run_capture(harness.open_capture([one, two]), run="run-2")
    assert harness.sql("select distinct song from song_measurements") == [{"song": known}]
    assert len(open_incidents(harness)) == 1


def test_a_single_track_without_an_isrc_is_not_an_incident(harness: CaptureHarness):
    known, bare = isrcs(2)
    one, two = harness.publish({"One": {known: 10}, "Two": {bare: 20}})
    harness.run_capture(harness.open_capture([one]))
    # Older than what the next capture would reuse.
    harness.sql("update playcount_snapshots set created_at = created_at - interval '2 hours'")
    harness.sandbox.faults("/v1/tracks", body=json.dumps({"tracks": [{"id": track(bare, "Two"), "external_ids": {}}]}))
    ended = harness.run_capture(harness.open_capture([one, two]), run="run-2")
    assert "Spotify names no ISRC" in ended.unmapped[0]
    assert open_incidents(harness) == []


def test_a_foreign_401_is_not_a_rejected_token(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sandbox.faults(STARTS, method="POST", foreign="login", count=1)
    ended = harness.run_capture(snapshot, is_last_try=False)
    assert ended.kind is CaptureResultKind.TRY_AGAIN
    assert "not Apify's own response: 401 text/html" in str(ended.reason)
    assert harness.sql("select 1 from vendor_state where vendor = 'apify' and paused_until > now()") == []
    (lost_run,) = harness.actor_runs(snapshot)
    assert lost_run["status"] is None, "whether it was started is not known"


def test_the_next_capture_tries_unmapped_tracks_again(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    harness.run_capture(harness.open_capture([one]), captures=harness.without_spotify())
    assert harness.stored_counts() == {}
    harness.sql("update playcount_snapshots set created_at = created_at - interval '2 hours'")
    harness.run_capture(harness.open_capture([one]), run="run-2")
    assert harness.stored_counts() == {isrcs(1)[0]: 10}


def test_a_pause_of_spotify_is_respected(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sql(
        "insert into vendor_state (vendor, paused_until, pause_reason)"
        " values ('spotify', now() + interval '1 hour', 'Spotify answered 429')"
    )
    ended = harness.run_capture(snapshot)
    assert harness.sandbox.requests("/v1/") == []
    assert "Spotify answered 429, until" in ended.unmapped[0]


def test_a_pending_recording_is_ranked_by_its_captured_count(harness: CaptureHarness):
    low, high = isrcs(2)
    harness.sql("insert into songs (isrc) values (%s), (%s)", low, high)
    harness.sql("insert into songstats_backfill_queue (song, rank_score) values (%s, 500), (%s, 1)", low, high)
    harness.run_capture(harness.open_capture(harness.publish({"One": {low: 500, high: 9_000_000}})))
    ranked = harness.sql("select song, rank_score from songstats_backfill_queue order by rank_score desc")
    assert [(row["song"], row["rank_score"]) for row in ranked] == [(high, 9_000_000), (low, 500)]


# --- repeats ---------------------------------------------------------------------------------------------------------------


def test_a_done_capture_is_never_bought_again(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.run_capture(snapshot)
    for operator in (False, True):
        assert harness.run_capture(snapshot, run="run-2", operator=operator).kind is CaptureResultKind.ALREADY_DONE
    assert harness.actor_usage()["runs"] == 1
    assert len(harness.sql("select * from song_measurements")) == 1


def test_only_an_operator_reopens_a_failed_capture(harness: CaptureHarness):
    harness.sandbox.actor("FAILED", "blocked", count=1)
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.run_capture(snapshot)
    job = harness.request_for(snapshot)
    assert harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.FAILED
    assert harness.actor_usage()["runs"] == 1
    harness.sandbox.actor("SUCCEEDED")
    assert harness.run_capture(snapshot, run="run-3", operator=True).kind is CaptureResultKind.DONE
    assert harness.stored_counts() == {isrcs(1)[0]: 10}
    assert harness.sql("select state, error, status_code from measurement_jobs where id = %s", job) == [
        {"state": "done", "error": None, "status_code": 202}
    ]
    harness.check_invariants()


def test_the_monthly_cap_limits_an_operators_relaunch_too(harness: CaptureHarness):
    harness.sandbox.actor("FAILED", "blocked")
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.run_capture(snapshot)
    ended = harness.run_capture(
        snapshot, run="run-2", operator=True, captures=harness.with_config(limits=capture_limits("0.005"))
    )
    assert ended.kind is CaptureResultKind.UNCHANGED
    assert "$0.003 of it spent" in str(ended.reason)
    assert harness.snapshot_row(snapshot)["state"] == "failed"
    assert harness.actor_usage()["runs"] == 1


def test_a_later_attempt_of_an_operators_launch_buys_nothing_again(harness: CaptureHarness):
    harness.sandbox.actor("FAILED", "blocked")
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.run_capture(snapshot)
    assert harness.run_capture(snapshot, run="run-2", operator=True).kind is CaptureResultKind.FAILED
    assert harness.run_capture(snapshot, run="run-2", operator=True, retry_number=1).kind is CaptureResultKind.FAILED
    assert harness.actor_usage()["runs"] == 2


def test_a_done_capture_is_never_bought_again_even_if_incomplete(harness: CaptureHarness):
    songs = isrcs(ALBUMS_PER_CHUNK + 1)
    snapshot = harness.open_capture(harness.publish({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}))
    harness.sandbox.actor("FAILED", "blocked", count=1)
    harness.sandbox.actor("SUCCEEDED")
    assert harness.run_capture(snapshot).kind is CaptureResultKind.PARTLY_DONE
    again = harness.run_capture(snapshot, run="run-2", operator=True)
    assert again.kind is CaptureResultKind.PARTLY_DONE, "with the message about the missing part"
    assert "could not be captured" in str(again.reason)
    assert harness.actor_usage()["runs"] == 2


def test_a_lost_start_whose_run_failed_is_not_paid_again(harness: CaptureHarness):
    harness.sandbox.actor("FAILED", "blocked")
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    harness.sandbox.faults(STARTS, method="POST", count=1, reset=True)
    assert harness.run_capture(snapshot, is_last_try=False).kind is CaptureResultKind.TRY_AGAIN
    assert harness.run_capture(snapshot, retry_number=1, is_last_try=False).kind is CaptureResultKind.FAILED
    assert harness.actor_usage()["runs"] == 1


@pytest.mark.parametrize("custom_harness", [replace(PLAIN, listing_lag=3.0)], indirect=True)
def test_a_lost_start_is_waited_for_until_apify_lists_it(custom_harness: CaptureHarness):
    snapshot = custom_harness.open_capture(custom_harness.publish({"One": {isrcs(1)[0]: 10}}))
    custom_harness.sandbox.faults(STARTS, method="POST", count=1, reset=True)
    assert custom_harness.run_capture(snapshot, is_last_try=False).kind is CaptureResultKind.TRY_AGAIN
    assert custom_harness.run_capture(snapshot, retry_number=1).kind is CaptureResultKind.POSTPONED
    custom_harness.wait_until_listed(snapshot)
    assert custom_harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert custom_harness.actor_usage()["runs"] == 1


@pytest.mark.parametrize("custom_harness", [replace(PLAIN, dataset_lag=1.0, dataset_count_lags=True)], indirect=True)
def test_a_result_with_a_lagging_item_count_is_awaited(custom_harness: CaptureHarness):
    albums = custom_harness.publish({f"Album {n}": {song: 5} for n, song in enumerate(isrcs(4))})
    snapshot = custom_harness.open_capture(albums)
    patient = custom_harness.with_config(result_settle_seconds=5.0)
    assert custom_harness.run_capture(snapshot, captures=patient).kind is CaptureResultKind.DONE
    assert len(custom_harness.stored_counts()) == 4


def test_albums_without_tracks_are_reported(harness: CaptureHarness):
    known = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([*known, album("Nowhere")])
    ended = harness.run_capture(snapshot)
    assert ended.kind is CaptureResultKind.DONE
    assert "1 of 2 albums" in str(ended.reason)
    assert harness.snapshot_row(snapshot)["error"] == ended.reason


def test_unknown_albums_without_tracks_are_not_found(harness: CaptureHarness):
    snapshot = harness.open_capture(["nonsense"])
    job = harness.request_for(snapshot)
    ended = harness.run_capture(snapshot)
    assert (ended.kind, ended.reason) == (CaptureResultKind.NOT_FOUND, "no track was found on 1 album (nonsense)")
    assert harness.sql("select state, status_code, error from measurement_jobs where id = %s", job) == [
        {"state": "failed", "status_code": 404, "error": ended.reason}
    ]
    assert harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.NOT_FOUND
    assert harness.actor_usage()["runs"] == 1


def test_a_known_album_without_tracks_is_the_actors_fault(harness: CaptureHarness):
    (song,) = isrcs(1)
    snapshot = harness.open_capture([album("Nowhere"), "nonsense"])
    job = harness.request_for(snapshot)
    harness.sql("insert into songs (isrc) values (%s)", song)
    harness.sql(
        "insert into song_identifiers (song, platform, identifier_type, value) values (%s, 'spotify', 'album_id', %s)",
        song,
        album("Nowhere"),
    )
    ended = harness.run_capture(snapshot)
    assert ended.kind is CaptureResultKind.FAILED
    assert "no track was found on 2 albums" in str(ended.reason)
    assert harness.sql("select state, status_code from measurement_jobs where id = %s", job) == [
        {"state": "failed", "status_code": 500}
    ]


def test_a_run_that_apify_deleted_is_given_up_after_an_hour(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([one])
    harness.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status)"
        " values (%s, 0, %s, 0.003, 'dead', 'ru000000000000000', 'RUNNING')",
        snapshot,
        [one],
    )
    assert harness.run_capture(snapshot).kind is CaptureResultKind.STOPPED
    harness.end_waits()
    harness.sql("update apify_runs set intended_at = intended_at - interval '2 hours'")
    ended = harness.run_capture(snapshot, run="run-2")
    assert ended.kind is CaptureResultKind.FAILED
    assert "no longer has actor run" in str(ended.reason)


def test_programming_errors_cost_a_run_one_attempt_and_keep_the_captured_part(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))

    def new_actor():
        raise RuntimeError("a bug")

    broken = replace(harness.captures, dependencies=replace(harness.captures.dependencies, new_actor=new_actor))
    for retry_number in range(4):
        with pytest.raises(RuntimeError):
            harness.run_capture(snapshot, captures=broken, retry_number=retry_number, is_last_try=retry_number == 3)
    row = harness.snapshot_row(snapshot)
    assert (row["attempts"], row["claimed_by"], row["state"]) == (1, None, "running")
    assert row["not_before"] > datetime.now(UTC) + timedelta(seconds=30)
    assert row["error"] == "RuntimeError interrupted it"


def test_remapping_looks_up_deferred_tracks_and_not_unknown_ones(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([one])
    job = harness.request_for(snapshot)
    harness.sandbox.faults("/v1/tracks", status=503)
    assert harness.run_capture(snapshot).kind is CaptureResultKind.DONE
    with connect(harness.database_url) as connection:
        assert captures.list_with_deferred_tracks(connection, days=7, limit=10) == [snapshot]
    assert harness.sql("select state, error from measurement_jobs where id = %s", job) == [
        {"state": "done", "error": "1 of 1 track could not be matched with a recording"}
    ]
    harness.sandbox.clear_faults()
    assert remap_capture(snapshot, harness.captures, run_id="reclaim") == (CaptureResultKind.DONE, None)
    assert harness.stored_counts() == {isrcs(1)[0]: 10}
    assert harness.actor_usage()["runs"] == 1
    with connect(harness.database_url) as connection:
        assert captures.list_with_deferred_tracks(connection, days=7, limit=10) == []
    assert harness.sql("select state, error from measurement_jobs where id = %s", job) == [
        {"state": "done", "error": None}
    ]
    assert harness.sql("select * from operator_acts") == []


def test_a_recording_in_two_chunks_has_one_count_at_one_time(harness: CaptureHarness):
    songs = isrcs(ALBUMS_PER_CHUNK + 1)
    albums = {f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}
    # On every album, and so in both chunks.
    for tracks in albums.values():
        tracks["AA6Q72999999"] = 70
    snapshot = harness.open_capture(harness.publish(albums))
    harness.run_capture(snapshot)
    assert harness.stored_counts()["AA6Q72999999"] == 70
    assert len(harness.sql("select distinct captured_at from song_measurements")) == 1
    assert harness.snapshot_row(snapshot)["recordings"] == len(songs) + 1


def test_a_planned_run_respects_a_pause_that_began_after_its_launch(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    with connect(harness.database_url) as connection:
        vendor_state.pause(connection, "apify", seconds=900, reason="Apify answered 429")
    ended = harness.run_capture(snapshot)
    assert ended.kind is CaptureResultKind.POSTPONED
    assert harness.sandbox.requests("/v2/") == []
    assert harness.snapshot_row(snapshot)["attempts"] == 0


def test_a_start_that_returns_after_it_was_given_up_is_recorded_as_surplus(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([one])
    harness.run_capture(snapshot)
    late = harness.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, status)"
        " values (%s, 0, %s, 0.003, 'slow', 'NOT-STARTED') returning id",
        snapshot,
        [one],
    )[0]["id"]
    with connect(harness.database_url) as connection, pytest.raises(apify_runs.CaptureLostError):
        apify_runs.record_start(connection, late, actor_run="late", status="READY")
    (row,) = harness.sql("select status, actor_run from apify_runs where id = %s", late)
    assert row == {"status": "SURPLUS", "actor_run": "late"}
    assert harness.sql("select usd from playcount_spent_this_month") == [{"usd": Decimal("0.006")}]


def test_an_unknown_capture_raises(harness: CaptureHarness):
    with pytest.raises(LookupError, match="there is no capture"):
        harness.run_capture(harness.account)


# --- remapping of stored results -------------------------------------------------------------------------------------------


def test_an_incomplete_done_capture_is_mapped_again_and_never_bought(harness: CaptureHarness):
    songs = isrcs(ALBUMS_PER_CHUNK + 1)
    albums = harness.publish({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)})
    snapshot = harness.open_capture(albums)
    job = harness.request_for(snapshot)
    harness.sandbox.actor("FAILED", "blocked", count=1)
    harness.sandbox.actor("SUCCEEDED")
    harness.sandbox.faults("/v1/tracks", status=503)
    assert harness.run_capture(snapshot).kind is CaptureResultKind.PARTLY_DONE
    assert harness.snapshot_row(snapshot)["unmapped"] == 1
    paid, before = harness.actor_usage(), harness.snapshot_row(snapshot)
    harness.sandbox.clear_faults()
    kind, why = remap_capture(snapshot, harness.captures, run_id="reclaim")
    assert (kind, "could not be captured" in str(why)) == (CaptureResultKind.PARTLY_DONE, True)
    for retry_number in range(3):
        again = harness.run_capture(snapshot, run="run-2", operator=True, retry_number=retry_number, is_last_try=False)
        assert again.kind is CaptureResultKind.PARTLY_DONE
    assert harness.actor_usage() == paid
    assert len(harness.stored_counts()) == 1
    # It stayed closed: for the sensor, for equal requests, and for its own request.
    after = harness.snapshot_row(snapshot)
    assert (after["state"], after["updated_at"], after["unmapped"]) == ("done", before["updated_at"], 0)
    (row,) = harness.sql("select state, error from measurement_jobs where id = %s", job)
    assert row == {"state": "done", "error": after["error"]}
    harness.check_invariants()


def test_a_capture_stays_closed_while_it_is_mapped_again(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([one])
    harness.sandbox.spotify_quota_exceeded()
    harness.run_capture(snapshot)
    harness.sql("update playcount_snapshots set created_at = created_at - interval '6 days'")
    with connect(harness.database_url) as connection:
        held = captures.claim_done(connection, snapshot, run="reclaim", claim_timeout_seconds=60)
        assert held is not None
        run_heartbeats.renew(connection, "reclaim")
        assert captures.claim_done(connection, snapshot, run="run-2", claim_timeout_seconds=60) is None
        assert captures.list_due(connection, claim_timeout_seconds=60, limit=10) == []
    assert harness.open_capture([one]) != snapshot
    assert harness.run_capture(snapshot, run="run-2", operator=True).kind is CaptureResultKind.UNCHANGED


def test_an_unreadable_chunk_is_parsed_again_once_the_capture_is_done(harness: CaptureHarness):
    songs = isrcs(ALBUMS_PER_CHUNK + 1)
    snapshot = harness.open_capture(harness.publish({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}))
    harness.run_capture(snapshot)
    # The state that an older parser left.
    harness.sql("delete from song_measurements where raw_ref = (select actor_run from apify_runs where chunk = 1)")
    harness.sql("update apify_runs set status = 'MALFORMED', message = 'odd', mapped_at = null where chunk = 1")
    assert len(harness.stored_counts()) == ALBUMS_PER_CHUNK
    assert remap_capture(snapshot, harness.captures, run_id="reclaim") == (CaptureResultKind.DONE, None)
    assert len(harness.stored_counts()) == ALBUMS_PER_CHUNK + 1
    assert harness.actor_usage()["runs"] == 2


def test_a_chunk_bought_weeks_later_is_dated_then(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    harness.sandbox.actor("FAILED", "blocked", count=1)
    harness.sandbox.actor("SUCCEEDED")
    snapshot = harness.open_capture([one])
    assert harness.run_capture(snapshot).kind is CaptureResultKind.FAILED
    harness.sql("update playcount_snapshots set captured_at = now() - interval '30 days'")
    assert harness.run_capture(snapshot, run="run-2", operator=True).kind is CaptureResultKind.DONE
    (row,) = harness.sql("select captured_at > now() - interval '1 hour' as is_of_today from song_measurements")
    assert row["is_of_today"]


def test_a_postponed_chunk_is_dated_when_it_was_captured(harness: CaptureHarness):
    songs = isrcs(ALBUMS_PER_CHUNK + 1)
    snapshot = harness.open_capture(harness.publish({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}))
    harness.sql("update playcount_snapshots set captured_at = now() - interval '3 days'")
    harness.run_capture(snapshot)
    (row,) = harness.sql("select min(captured_at) > now() - interval '1 hour' as is_of_today from song_measurements")
    assert row["is_of_today"]


def test_a_capture_without_any_count_fails(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": dict.fromkeys(isrcs(2), 0)}))
    ended = harness.run_capture(snapshot)
    assert (ended.kind, "none of 2 tracks" in str(ended.reason)) == (CaptureResultKind.FAILED, True)


def test_a_result_that_apify_deleted_is_given_up_after_an_hour(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([one])
    harness.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status)"
        " values (%s, 0, %s, 0.003, 'dead', 'ru000000000000000', 'SUCCEEDED')",
        snapshot,
        [one],
    )
    assert harness.run_capture(snapshot).kind is CaptureResultKind.STOPPED
    harness.end_waits()
    harness.sql("update apify_runs set intended_at = intended_at - interval '2 hours'")
    assert harness.run_capture(snapshot, run="run-2").kind is CaptureResultKind.FAILED


def test_a_run_that_apify_showed_recently_is_not_given_up(harness: CaptureHarness):
    (one,) = harness.publish({"One": {isrcs(1)[0]: 10}})
    snapshot = harness.open_capture([one])
    harness.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status, intended_at, seen_at)"
        " values (%s, 0, %s, 0.003, 'dead', 'ru000000000000000', 'RUNNING', now() - interval '5 hours', now())",
        snapshot,
        [one],
    )
    assert harness.run_capture(snapshot).kind is CaptureResultKind.STOPPED
    assert harness.snapshot_row(snapshot)["state"] == "running"


def test_a_failed_chunk_is_not_bought_again_above_the_monthly_cap(harness: CaptureHarness):
    songs = isrcs(ALBUMS_PER_CHUNK + 1)
    snapshot = harness.open_capture(harness.publish({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}))
    tight = harness.with_config(limits=capture_limits("0.303"))
    harness.sandbox.actor("FAILED", "blocked", count=1)
    harness.sandbox.actor("SUCCEEDED")
    assert harness.run_capture(snapshot, captures=tight, is_last_try=False).kind is CaptureResultKind.TRY_AGAIN
    paid = harness.actor_usage()
    for retry_number in (1, 2, 3):
        ended = harness.run_capture(snapshot, captures=tight, retry_number=retry_number, is_last_try=retry_number == 3)
    assert ended.kind is CaptureResultKind.PARTLY_DONE
    assert harness.actor_usage() == paid


def test_a_relaunch_reserves_its_cost(harness: CaptureHarness):
    albums = harness.publish({f"Album {n:03}": {song: 5} for n, song in enumerate(isrcs(2))})
    harness.sandbox.actor("FAILED", "blocked", count=1)
    harness.sandbox.actor("SUCCEEDED")
    snapshot = harness.open_capture(albums)
    tight = harness.with_config(limits=capture_limits("0.012"))
    assert harness.run_capture(snapshot, captures=tight).kind is CaptureResultKind.FAILED
    harness.sandbox.faults(STARTS, method="POST", status=429, count=1)
    assert harness.run_capture(snapshot, captures=tight, run="run-2", operator=True).kind is CaptureResultKind.POSTPONED
    assert harness.sql("select usd from playcount_spent_this_month") == [{"usd": Decimal("0.012")}]


def test_a_requests_own_omissions_stay_reported_after_remapping(harness: CaptureHarness):
    snapshot = harness.open_capture(harness.publish({"One": {isrcs(1)[0]: 10}}))
    job = harness.request_for(snapshot)
    left_out = "1 of 2 recordings has no known album"
    harness.sql("update measurement_jobs set error = %s where id = %s", left_out, job)
    harness.sandbox.faults("/v1/tracks", status=503)
    harness.run_capture(snapshot)
    (row,) = harness.sql("select error from measurement_jobs where id = %s", job)
    assert row["error"] == f"1 of 1 track could not be matched with a recording; {left_out}"
    harness.sandbox.clear_faults()
    assert remap_capture(snapshot, harness.captures, run_id="reclaim") == (CaptureResultKind.DONE, None)
    assert harness.sql("select error from measurement_jobs where id = %s", job) == [{"error": left_out}]
