"""One capture, from its claim to its end: what is bought is bought once, and kept before it is mapped."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.capture.retry_mapping import map_again
from measurement_pipeline.domain.capture import ALBUMS_A_CHUNK
from measurement_pipeline.health import incidents
from measurement_pipeline.postgres import apify_runs, captures, run_heartbeats, vendor_state
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox.scenarios import PLAIN
from measurement_pipeline.vendors.apify.client import ApifyActor
from measurement_pipeline_tests.capture.conftest import Studio, album, isrcs, track

STARTS = "/v2/act*/*/runs"


def test_a_capture_measures_what_is_displayed_and_says_what_it_came_to(studio: Studio):
    one, two = studio.release({"One": dict(zip(isrcs(3), (10, 20, 30), strict=True)), "Two": {isrcs(4)[3]: 40}})
    snapshot = studio.asked([one, two])
    ended = studio.make(snapshot)
    assert (ended.kind, ended.reason) == (CaptureResultKind.DONE, None)
    assert studio.counts() == dict(zip(isrcs(4), (10, 20, 30, 40), strict=True))
    shown = studio.shown(snapshot)
    assert (shown["state"], shown["tracks"], shown["recordings"], shown["unmapped"]) == ("done", 4, 4, 0)
    assert shown["claimed_by"] is None
    assert studio.paid() == {"runs": 1, "albums": 2}
    studio.nothing_breaks()


def test_a_measurement_names_its_capture_its_run_of_the_actor_and_when_the_actor_was_done(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.make(snapshot)
    (bought,) = studio.bought(snapshot)
    (measured,) = studio.sql("select * from song_measurements")
    assert measured["snapshot"] == snapshot
    assert measured["raw_ref"] == bought["actor_run"]
    assert (measured["platform"], measured["metric"]) == ("spotify", "platform_displayed_play_count")
    assert measured["captured_at"] == min(bought["finished_at"], bought["kept_at"])
    assert abs(measured["captured_at"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert bought["sha256"]


@pytest.mark.fails_without("captures: a run of the actor is a row before it is started")
def test_a_run_of_the_actor_is_a_row_before_it_is_started(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    seen = []

    class Watched(ApifyActor):
        def start(self, album_ids):
            seen.append([(row["actor_run"], row["status"]) for row in studio.bought(snapshot)])
            return super().start(album_ids)

    watched = Watched(studio.sandbox.apify_token, base_url=studio.sandbox.apify_url)
    captures = replace(studio.captures, means=replace(studio.captures.means, new_actor=lambda: watched))
    studio.make(snapshot, captures=captures)
    assert seen == [[(None, None)]]


@pytest.mark.fails_without("captures: keep before mapping")
def test_a_result_is_kept_before_anything_is_made_of_it(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    seen = []

    def new_spotify():
        # Asked for where a track is to be mapped.
        seen.append([row["kept_at"] is not None for row in studio.bought(snapshot)])
        return studio.captures.means.new_spotify()

    captures = replace(studio.captures, means=replace(studio.captures.means, new_spotify=new_spotify))
    studio.make(snapshot, captures=captures)
    assert seen == [[True]]


def test_tracks_become_songs_with_their_titles_ids_and_albums(studio: Studio):
    isrc = isrcs(1)[0]
    snapshot = studio.asked(studio.release({"One": {isrc: 10}}))
    studio.make(snapshot)
    (song,) = studio.sql("select * from songs")
    assert (song["isrc"], song["name"], song["album"]) == (isrc, f"Song {isrc[-3:]}", "One")
    found = studio.sql("select identifier_type, value from song_identifiers where song = %s order by 1", isrc)
    assert [(row["identifier_type"], row["value"]) for row in found] == [
        ("album_id", album("One")),
        ("track_id", track(isrc, "One")),
    ]


def test_what_a_catalogue_said_of_a_recording_stays(studio: Studio):
    isrc = isrcs(1)[0]
    studio.sql("insert into songs (isrc, name) values (%s, 'as the label writes it')", isrc)
    studio.make(studio.asked(studio.release({"One": {isrc: 10}})))
    assert studio.sql("select name, album from songs") == [{"name": "as the label writes it", "album": "One"}]


def test_known_tracks_are_not_asked_about_again(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    studio.make(studio.asked([one]))
    studio.sql("update playcount_snapshots set created_at = created_at - interval '2 hours'")
    studio.sandbox.forget_requests()
    studio.make(studio.asked([one]), run="run-2")
    assert studio.sandbox.requests("/v1/tracks") == []
    assert studio.paid()["runs"] == 2


def test_a_reissue_is_one_recording_with_one_count_on_several_albums(studio: Studio):
    isrc = isrcs(1)[0]
    albums = studio.release({"First": {isrc: 70}, "Reissue": {isrc: 70}})
    snapshot = studio.asked(albums)
    studio.make(snapshot)
    assert studio.counts() == {isrc: 70}
    shown = studio.shown(snapshot)
    assert (shown["tracks"], shown["recordings"]) == (2, 1)
    found = studio.sql("select value from song_identifiers where identifier_type = 'album_id' order by value")
    assert [row["value"] for row in found] == sorted(albums)


@pytest.mark.parametrize("awkward", [replace(PLAIN, tracks_without_count=0.4)], indirect=True)
def test_a_track_without_a_count_is_no_measurement(awkward: Studio):
    songs = isrcs(60)
    snapshot = awkward.asked(awkward.release({"One": dict.fromkeys(songs, 10)}))
    awkward.make(snapshot)
    shown = awkward.shown(snapshot)
    assert shown["tracks"] == 60
    assert 0 < shown["without_count"] < 60
    assert shown["recordings"] == 60 - shown["without_count"] == len(awkward.counts())
    assert set(awkward.counts().values()) == {10}
    found = awkward.sql("select count(*) n from song_identifiers where identifier_type = 'album_id'")
    assert found[0]["n"] == 60, "each is known to be on its album all the same"


@pytest.mark.parametrize("awkward", [replace(PLAIN, items_without_id=1.0)], indirect=True)
def test_an_album_that_does_not_say_which_it_is_is_told_by_its_tracks(awkward: Studio):
    songs = isrcs(4)
    albums = awkward.release({"One": dict.fromkeys(songs[:2], 10), "Two": dict.fromkeys(songs[2:], 20)})
    awkward.make(awkward.asked(albums))
    found = awkward.sql("select song, value from song_identifiers where identifier_type = 'album_id'")
    assert {(row["song"], row["value"]) for row in found} == {
        *((song, albums[0]) for song in songs[:2]),
        *((song, albums[1]) for song in songs[2:]),
    }


@pytest.mark.parametrize("awkward", [replace(PLAIN, actor_seconds=1.0, dataset_lag=1.5)], indirect=True)
def test_the_actor_is_waited_for_and_so_are_its_last_items(awkward: Studio):
    snapshot = awkward.asked(awkward.release({"One": {isrcs(1)[0]: 10}}))
    assert awkward.make(snapshot).kind is CaptureResultKind.DONE
    assert awkward.paid() == {"runs": 1, "albums": 1}


@pytest.mark.parametrize("awkward", [replace(PLAIN, actor_seconds=600)], indirect=True)
def test_an_actor_that_takes_long_is_left_at_it_and_waited_for_by_a_later_run(awkward: Studio):
    snapshot = awkward.asked(awkward.release({"One": {isrcs(1)[0]: 10}}))
    short = awkward.with_terms(patience_seconds=0.5, poll_seconds=0.1)
    ended = awkward.make(snapshot, captures=short)
    assert ended.kind is CaptureResultKind.PUT_OFF
    assert "still at work on 1 of 1 parts" in str(ended.reason)
    shown = awkward.shown(snapshot)
    assert (shown["state"], shown["claimed_by"], shown["attempts"]) == ("running", None, 0)
    assert shown["not_before"] is not None, "others have the slot meanwhile"
    awkward.time_passes()
    assert awkward.make(snapshot, run="run-2", captures=short).kind is CaptureResultKind.PUT_OFF
    assert awkward.paid()["runs"] == 1
    awkward.nothing_breaks()


def test_many_albums_are_bought_in_parts(studio: Studio):
    count = 2 * ALBUMS_A_CHUNK + 1
    songs = isrcs(count)
    albums = studio.release({f"Album {number}": {song: number + 1} for number, song in enumerate(songs)})
    snapshot = studio.asked(albums)
    studio.make(snapshot)
    assert studio.paid() == {"runs": 3, "albums": count}
    assert [len(one["album_ids"]) for one in studio.bought(snapshot)] == [100, 100, 1]
    assert studio.counts() == {song: number + 1 for number, song in enumerate(songs)}
    studio.nothing_breaks()


@pytest.mark.parametrize("ends", ["FAILED", "TIMED-OUT", "ABORTED"])
def test_an_actor_that_fails_fails_the_capture_in_its_own_words_and_nothing_is_half_written(studio: Studio, ends: str):
    studio.sandbox.actor(ends, "the page looks different today")
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    ended = studio.make(snapshot, last_try=False)
    assert ended.kind is CaptureResultKind.FAILED
    assert f"ended as {ends}: the page looks different today" in str(ended.reason)
    assert studio.shown(snapshot)["error"] == ended.reason
    assert studio.counts() == {}
    assert studio.sql("select * from songs") == []
    assert studio.paid()["runs"] == 1, "it is a person's, or the client's, to pay again"
    studio.nothing_breaks()


def test_of_parts_that_fail_what_was_captured_stays_and_the_rest_is_tried_again_then_said(studio: Studio):
    songs = isrcs(ALBUMS_A_CHUNK + 1)
    albums = studio.release({f"Album {number}": {song: 5} for number, song in enumerate(songs)})
    snapshot = studio.asked(albums)
    studio.sandbox.actor("FAILED", "blocked", count=1)
    studio.sandbox.actor("SUCCEEDED")
    first = studio.make(snapshot, last_try=False)
    assert first.kind is CaptureResultKind.TRY_AGAIN
    assert "blocked" in str(first.reason)
    measured = len(studio.counts())
    assert 0 < measured < len(songs)
    ended = studio.make(snapshot, retry_number=1)
    assert (ended.kind, ended.reason) == (CaptureResultKind.DONE, None)
    assert len(studio.counts()) == len(songs)
    assert studio.paid()["runs"] == 3
    studio.nothing_breaks()


def test_a_part_that_keeps_failing_is_said_and_the_capture_is_done_without_it(studio: Studio):
    songs = isrcs(ALBUMS_A_CHUNK + 1)
    snapshot = studio.asked(studio.release({f"Album {n}": {song: 5} for n, song in enumerate(songs)}))
    studio.sandbox.actor("FAILED", "blocked", count=1)
    for retry_number in range(3):
        assert studio.make(snapshot, retry_number=retry_number, last_try=False).kind is CaptureResultKind.TRY_AGAIN
        studio.sandbox.actor("FAILED", "blocked")
    ended = studio.make(snapshot, retry_number=3)
    assert ended.kind is CaptureResultKind.DONE_IN_PART
    assert "of 101 albums could not be captured: run " in str(ended.reason)
    assert "ended as FAILED: blocked" in str(ended.reason)
    assert studio.shown(snapshot)["error"] == ended.reason
    assert studio.paid()["runs"] == 5, "two at first, and one more each of three times"
    studio.nothing_breaks()


# --- what dies, and where ---------------------------------------------------------------------------------------------------


def test_a_run_that_died_after_the_start_is_followed_by_one_that_waits_for_the_same_run(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([one])
    with connect(studio.database_url) as connection:
        # As the dead one left it: claimed, started, its id known.
        with studio.captures.means.new_actor() as actor:
            started = actor.start([one])
        connection.execute(
            "update playcount_snapshots set state = 'running', claimed_by = 'dead', attempts = 1 where id = %s",
            (snapshot,),
        )
        connection.execute(
            "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status)"
            " values (%s, 0, %s, 0.003, 'dead', %s, 'READY')",
            (snapshot, [one], started.id),
        )
    assert studio.make(snapshot).kind is CaptureResultKind.DONE
    assert studio.paid()["runs"] == 1
    assert studio.counts() == {isrcs(1)[0]: 10}
    studio.nothing_breaks()


@pytest.mark.fails_without("captures: a run is looked for before a second start")
def test_a_run_that_died_between_the_start_and_its_id_is_followed_by_one_that_finds_it(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([one])
    with studio.captures.means.new_actor() as actor:
        started = actor.start([one])
    studio.sql(
        "update playcount_snapshots set state = 'running', claimed_by = 'dead', attempts = 1 where id = %s", snapshot
    )
    studio.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id) values (%s, 0, %s, 0.003, 'dead')",
        snapshot,
        [one],
    )
    assert studio.make(snapshot).kind is CaptureResultKind.DONE
    assert [row["actor_run"] for row in studio.bought(snapshot)] == [started.id]
    assert studio.paid()["runs"] == 1
    studio.nothing_breaks()


@pytest.mark.fails_without("captures: a start whose answer is lost may have been paid")
@pytest.mark.parametrize("fault", [{"reset": True}, {"close": True}, {"hang": True}, {"cut": 20}])
def test_a_start_whose_answer_is_lost_is_looked_for_and_not_paid_again(studio: Studio, fault: dict[str, object]):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sandbox.faults(STARTS, method="POST", count=1, **fault)
    captures = studio.with_vendor_timeout(1.0) if "hang" in fault else studio.captures
    assert studio.make(snapshot, captures=captures, last_try=False).kind is CaptureResultKind.TRY_AGAIN
    assert studio.make(snapshot, retry_number=1).kind is CaptureResultKind.DONE
    assert studio.paid()["runs"] == 1
    studio.nothing_breaks()


def test_a_start_that_never_arrived_is_only_made_again_once_apify_would_list_it(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sandbox.faults(STARTS, method="POST", count=1, status=503)
    ended = studio.make(snapshot, last_try=False)
    assert ended.kind is CaptureResultKind.TRY_AGAIN
    (lost,) = studio.bought(snapshot)
    assert lost["status"] is None, "a 503 does not say whether it was started"
    assert studio.make(snapshot, retry_number=1).kind is CaptureResultKind.PUT_OFF
    studio.sql("update apify_runs set intended_at = intended_at - interval '2 minutes'")
    studio.time_passes()
    assert studio.make(snapshot, retry_number=2).kind is CaptureResultKind.DONE
    assert studio.paid()["runs"] == 1
    assert [row["status"] for row in studio.bought(snapshot)] == ["NOT-STARTED", "SUCCEEDED"]
    studio.nothing_breaks()


@pytest.mark.fails_without("captures: another's run is not taken for the lost one")
def test_another_captures_run_for_the_same_albums_is_not_taken_for_the_lost_one(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    theirs = studio.asked([one], account=studio.sql("select gen_random_uuid() id")[0]["id"])
    studio.make(theirs, run="run-1")
    snapshot = studio.asked([one])
    studio.sql("update playcount_snapshots set state = 'running', claimed_by = 'dead' where id = %s", snapshot)
    studio.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, intended_at)"
        " values (%s, 0, %s, 0.003, 'dead', clock_timestamp() - interval '2 minutes')",
        snapshot,
        [one],
    )
    assert studio.make(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert studio.paid()["runs"] == 2
    studio.nothing_breaks()


def test_a_run_that_died_after_the_result_was_kept_is_followed_by_one_that_maps_it_for_nothing(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.make(snapshot)
    # As if the run had died before it mapped.
    studio.sql("delete from song_measurements")
    studio.sql("update apify_runs set mapped_at = null, tracks = null, recordings = null")
    studio.sql("update playcount_snapshots set state = 'running', claimed_by = 'dead'")
    studio.sandbox.forget_requests()
    assert studio.make(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert studio.sandbox.requests("/v2/") == []
    assert studio.counts() == {isrcs(1)[0]: 10}
    studio.nothing_breaks()


def test_a_living_owner_is_left_alone_and_a_silent_one_is_relieved(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sql("update playcount_snapshots set state = 'running', claimed_by = 'other' where id = %s", snapshot)
    studio.sql("insert into run_heartbeats (run_id) values ('other')")
    assert studio.make(snapshot).kind is CaptureResultKind.LEFT_ALONE
    assert studio.paid()["runs"] == 0
    studio.sql("update run_heartbeats set beat_at = beat_at - interval '1 minute'")
    assert studio.make(snapshot).kind is CaptureResultKind.DONE


def test_a_run_that_was_relieved_writes_nothing_more(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))

    def new_actor():
        # While the first run asks Apify, another takes the capture over.
        studio.sql("update playcount_snapshots set claimed_by = 'other' where id = %s", snapshot)
        return studio.captures.means.new_actor()

    captures = replace(studio.captures, means=replace(studio.captures.means, new_actor=new_actor))
    assert studio.make(snapshot, captures=captures).kind is CaptureResultKind.LEFT_ALONE
    assert studio.bought(snapshot) == []
    assert studio.paid()["runs"] == 0
    assert studio.shown(snapshot)["claimed_by"] == "other"


def test_a_capture_that_kills_its_runs_is_given_up_in_the_end(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sql(
        "update playcount_snapshots set state = 'running', claimed_by = 'dead', attempts = 5 where id = %s", snapshot
    )
    ended = studio.make(snapshot)
    assert ended.kind is CaptureResultKind.FAILED
    assert ended.reason == "given up after 5 attempts: no attempt came to an end"


# --- whose fault it is ------------------------------------------------------------------------------------------------------


def test_apify_away_costs_no_attempt_and_the_capture_goes_on_later(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sandbox.faults("/v2/", status=503)
    ended = studio.make(snapshot)
    assert ended.kind is CaptureResultKind.STOPPED
    shown = studio.shown(snapshot)
    assert (shown["state"], shown["attempts"], shown["claimed_by"]) == ("running", 0, None)
    assert shown["not_before"] > datetime.now(UTC) + timedelta(seconds=30)
    assert "503" in shown["error"]


def test_a_429_pauses_the_whole_deployment_for_as_long_as_apify_asks(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sandbox.faults(STARTS, method="POST", status=429, retry_after=900)
    ended = studio.make(snapshot)
    assert ended.kind is CaptureResultKind.PUT_OFF
    (state,) = studio.sql("select extract(epoch from paused_until - now()) s from vendor_state where vendor = 'apify'")
    assert 890 < state["s"] <= 900
    assert studio.shown(snapshot)["attempts"] == 0
    assert [row["status"] for row in studio.bought(snapshot)] == ["NOT-STARTED"]


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_token_loses_nothing_and_is_a_persons_to_put_right(studio: Studio, status: int):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sandbox.faults("/v2/", status=status)
    ended = studio.make(snapshot)
    assert ended.kind is CaptureResultKind.STOPPED
    assert studio.shown(snapshot)["state"] == "running"
    (state,) = studio.sql("select pause_reason from vendor_state where vendor = 'apify'")
    assert str(status) in state["pause_reason"]
    studio.sandbox.clear_faults()
    assert studio.make(snapshot, run="run-2").kind is CaptureResultKind.PUT_OFF
    with connect(studio.database_url) as connection:
        assert vendor_state.resume(connection, ["apify", "spotify"]) == ["apify"]
    assert studio.make(snapshot, run="run-3").kind is CaptureResultKind.DONE
    studio.nothing_breaks()


def test_what_apify_rejects_each_time_is_given_up(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    body = '{"error": {"type": "invalid-input", "message": "no such actor"}}'
    studio.sandbox.faults(STARTS, method="POST", status=404, body=body)
    for number in range(5):
        assert studio.make(snapshot, run=f"run-{number}").kind is CaptureResultKind.STOPPED
        studio.time_passes()
    ended = studio.make(snapshot, run="run-5")
    assert ended.kind is CaptureResultKind.FAILED
    assert "given up after 5 attempts" in str(ended.reason)
    assert "no such actor" in str(ended.reason)


def test_a_result_that_cannot_be_read_is_kept_and_not_bought_again(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sandbox.faults("/v2/datasets/*/items", status=200, body="[7]")
    ended = studio.make(snapshot)
    assert ended.kind is CaptureResultKind.FAILED
    assert "cannot be read" in str(ended.reason)
    (bought,) = studio.bought(snapshot)
    assert bought["status"] == "MALFORMED"
    assert bought["body"]
    assert studio.paid()["runs"] == 1


# --- Spotify ---------------------------------------------------------------------------------------------------------------


def test_tracks_that_spotify_cannot_be_asked_about_are_counted_named_and_mapped_later_for_nothing(studio: Studio):
    songs = isrcs(3)
    (one,) = studio.release({"One": dict(zip(songs, (10, 20, 30), strict=True))})
    snapshot = studio.asked([one])
    studio.sandbox.spotify_quota_exceeded()
    ended = studio.make(snapshot)
    assert ended.kind is CaptureResultKind.DONE
    assert ended.reason == "3 of 3 tracks could not be matched with a recording"
    assert studio.shown(snapshot)["unmapped"] == 3
    assert [name.split(" (")[0] for name in ended.unmapped] == [f"Song {song[-3:]}" for song in reversed(songs)]
    assert studio.counts() == {}
    (state,) = studio.sql(
        "select extract(epoch from paused_until - now()) s from vendor_state where vendor = 'spotify'"
    )
    assert 50_000 < state["s"] <= 50_400
    # A person launches it again once Spotify is back.
    studio.sandbox.clear_faults()
    studio.sql("update vendor_state set paused_until = now()")
    again = studio.make(snapshot, run="run-2", operator=True)
    assert (again.kind, again.unmapped) == (CaptureResultKind.DONE, ())
    assert studio.counts() == dict(zip(songs, (10, 20, 30), strict=True))
    assert studio.paid()["runs"] == 1
    (act,) = studio.sql("select act, detail from operator_acts")
    assert act["act"] == "capture mapped again"
    studio.nothing_breaks()


def open_incidents(studio: Studio) -> list[str]:
    return [row["what"] for row in studio.sql("select what from incidents where ended_at is null")]


@pytest.mark.parametrize("awkward", [replace(PLAIN, tracks_without_isrc=1.0)], indirect=True)
def test_a_whole_chunk_without_isrcs_is_an_incident_that_ends_once_spotify_names_them(awkward: Studio):
    songs = isrcs(3)
    snapshot = awkward.asked(awkward.release({"One": dict.fromkeys(songs, 10)}))
    assert awkward.make(snapshot).kind is CaptureResultKind.DONE
    (what,) = open_incidents(awkward)
    assert "no ISRC for any of 3 tracks" in what
    told: list[str] = []
    assert incidents.send_alerts(awkward.database_url, told.append) == 1
    assert "external_ids" in told[0]
    tracks = [{"id": track(song, "One"), "external_ids": {"isrc": song}} for song in songs]
    for one in tracks:
        awkward.sandbox.faults(f"/v1/tracks/{one['id']}", body=json.dumps(one))
    awkward.sandbox.faults("/v1/tracks", status=403)
    awkward.make(snapshot, run="run-2", operator=True)
    assert awkward.counts() == dict.fromkeys(songs, 10)
    assert open_incidents(awkward) == []


def test_new_tracks_without_the_field_are_an_incident_though_the_others_are_known(studio: Studio):
    known, new = isrcs(2)
    one, two = studio.release({"One": {known: 10}, "Two": {new: 20}})
    studio.make(studio.asked([one]))
    studio.sandbox.faults("/v1/tracks", body=json.dumps({"tracks": [{"id": track(new, "Two"), "name": "Song"}]}))
    studio.make(studio.asked([one, two]), run="run-2")
    assert studio.sql("select distinct song from song_measurements") == [{"song": known}]
    assert len(open_incidents(studio)) == 1


def test_a_track_without_an_isrc_beside_tracks_that_have_one_is_no_incident(studio: Studio):
    known, bare = isrcs(2)
    one, two = studio.release({"One": {known: 10}, "Two": {bare: 20}})
    studio.make(studio.asked([one]))
    studio.sandbox.faults("/v1/tracks", body=json.dumps({"tracks": [{"id": track(bare, "Two"), "external_ids": {}}]}))
    ended = studio.make(studio.asked([one, two]), run="run-2")
    assert "Spotify names no ISRC" in ended.unmapped[0]
    assert open_incidents(studio) == []


def test_a_token_that_something_else_refuses_stops_no_capture_and_is_not_called_refused(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sandbox.faults(STARTS, method="POST", foreign="login", count=1)
    ended = studio.make(snapshot, last_try=False)
    assert ended.kind is CaptureResultKind.TRY_AGAIN
    assert "not Apify's own answer: 401 text/html" in str(ended.reason)
    assert studio.sql("select 1 from vendor_state where vendor = 'apify' and paused_until > now()") == []
    (lost,) = studio.bought(snapshot)
    assert lost["status"] is None, "whether it was started is not known"


def test_the_next_capture_tries_unmapped_tracks_again(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    studio.make(studio.asked([one]), captures=studio.without_spotify())
    assert studio.counts() == {}
    studio.sql("update playcount_snapshots set created_at = created_at - interval '2 hours'")
    studio.make(studio.asked([one]), run="run-2")
    assert studio.counts() == {isrcs(1)[0]: 10}


def test_while_spotify_asks_to_be_left_alone_it_is(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sql(
        "insert into vendor_state (vendor, paused_until, pause_reason)"
        " values ('spotify', now() + interval '1 hour', 'Spotify answered 429')"
    )
    ended = studio.make(snapshot)
    assert studio.sandbox.requests("/v1/") == []
    assert "Spotify answered 429, until" in ended.unmapped[0]


def test_a_recording_that_waits_is_ranked_by_its_captured_count(studio: Studio):
    low, high = isrcs(2)
    studio.sql("insert into songs (isrc) values (%s), (%s)", low, high)
    studio.sql("insert into songstats_backfill_queue (song, rank_score) values (%s, 500), (%s, 1)", low, high)
    studio.make(studio.asked(studio.release({"One": {low: 500, high: 9_000_000}})))
    ranked = studio.sql("select song, rank_score from songstats_backfill_queue order by rank_score desc")
    assert [(row["song"], row["rank_score"]) for row in ranked] == [(high, 9_000_000), (low, 500)]


# --- twice -----------------------------------------------------------------------------------------------------------------


def test_a_capture_that_is_done_is_never_made_again(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.make(snapshot)
    for operator in (False, True):
        assert studio.make(snapshot, run="run-2", operator=operator).kind is CaptureResultKind.DONE_BEFORE
    assert studio.paid()["runs"] == 1
    assert len(studio.sql("select * from song_measurements")) == 1


def test_a_failed_capture_is_taken_up_by_a_person_alone(studio: Studio):
    studio.sandbox.actor("FAILED", "blocked", count=1)
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.make(snapshot)
    job = studio.request_for(snapshot)
    assert studio.make(snapshot, run="run-2").kind is CaptureResultKind.FAILED
    assert studio.paid()["runs"] == 1
    studio.sandbox.actor("SUCCEEDED")
    assert studio.make(snapshot, run="run-3", operator=True).kind is CaptureResultKind.DONE
    assert studio.counts() == {isrcs(1)[0]: 10}
    assert studio.sql("select state, error, status_code from measurement_jobs where id = %s", job) == [
        {"state": "done", "error": None, "status_code": 202}
    ]
    studio.nothing_breaks()


def test_a_person_who_takes_one_up_again_is_held_to_the_month_too(studio: Studio):
    studio.sandbox.actor("FAILED", "blocked")
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.make(snapshot)
    ended = studio.make(snapshot, run="run-2", operator=True, captures=studio.with_terms(cap_usd=Decimal("0.005")))
    assert ended.kind is CaptureResultKind.LEFT_ALONE
    assert "$0.003 of it spent" in str(ended.reason)
    assert studio.shown(snapshot)["state"] == "failed"
    assert studio.paid()["runs"] == 1


def test_a_later_try_of_a_persons_launch_buys_nothing_again(studio: Studio):
    studio.sandbox.actor("FAILED", "blocked")
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.make(snapshot)
    assert studio.make(snapshot, run="run-2", operator=True).kind is CaptureResultKind.FAILED
    assert studio.make(snapshot, run="run-2", operator=True, retry_number=1).kind is CaptureResultKind.FAILED
    assert studio.paid()["runs"] == 2


def test_a_done_capture_is_never_bought_again_not_even_what_it_lacks(studio: Studio):
    songs = isrcs(ALBUMS_A_CHUNK + 1)
    snapshot = studio.asked(studio.release({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}))
    studio.sandbox.actor("FAILED", "blocked", count=1)
    studio.sandbox.actor("SUCCEEDED")
    assert studio.make(snapshot).kind is CaptureResultKind.DONE_IN_PART
    again = studio.make(snapshot, run="run-2", operator=True)
    assert again.kind is CaptureResultKind.DONE_IN_PART, "and says once more what is missing"
    assert "could not be captured" in str(again.reason)
    assert studio.paid()["runs"] == 2


def test_a_lost_start_that_failed_is_not_paid_again_by_the_tries_that_look_for_it(studio: Studio):
    studio.sandbox.actor("FAILED", "blocked")
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sandbox.faults(STARTS, method="POST", count=1, reset=True)
    assert studio.make(snapshot, last_try=False).kind is CaptureResultKind.TRY_AGAIN
    assert studio.make(snapshot, retry_number=1, last_try=False).kind is CaptureResultKind.FAILED
    assert studio.paid()["runs"] == 1


@pytest.mark.parametrize("awkward", [replace(PLAIN, listing_lag=3.0)], indirect=True)
def test_a_lost_start_is_waited_for_until_apify_lists_it(awkward: Studio):
    snapshot = awkward.asked(awkward.release({"One": {isrcs(1)[0]: 10}}))
    awkward.sandbox.faults(STARTS, method="POST", count=1, reset=True)
    assert awkward.make(snapshot, last_try=False).kind is CaptureResultKind.TRY_AGAIN
    assert awkward.make(snapshot, retry_number=1).kind is CaptureResultKind.PUT_OFF
    awkward.until_listed(snapshot)
    assert awkward.make(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert awkward.paid()["runs"] == 1


@pytest.mark.parametrize("awkward", [replace(PLAIN, dataset_lag=1.0, dataset_count_lags=True)], indirect=True)
def test_a_result_whose_number_of_items_lags_too_is_waited_for(awkward: Studio):
    albums = awkward.release({f"Album {n}": {song: 5} for n, song in enumerate(isrcs(4))})
    snapshot = awkward.asked(albums)
    patient = awkward.with_terms(settling_seconds=5.0)
    assert awkward.make(snapshot, captures=patient).kind is CaptureResultKind.DONE
    assert len(awkward.counts()) == 4


def test_albums_that_brought_no_track_are_said(studio: Studio):
    known = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([*known, album("Nowhere")])
    ended = studio.make(snapshot)
    assert (ended.kind, ended.reason) == (CaptureResultKind.DONE, "1 of 2 albums brought no track")
    assert studio.shown(snapshot)["error"] == ended.reason


def test_albums_that_there_are_none_of_are_not_found_which_is_their_clients_to_know(studio: Studio):
    snapshot = studio.asked(["nonsense"])
    job = studio.request_for(snapshot)
    ended = studio.make(snapshot)
    assert (ended.kind, ended.reason) == (CaptureResultKind.NOT_FOUND, "no track was found on 1 album (nonsense)")
    assert studio.sql("select state, status_code, error from measurement_jobs where id = %s", job) == [
        {"state": "failed", "status_code": 404, "error": ended.reason}
    ]
    assert studio.make(snapshot, run="run-2").kind is CaptureResultKind.NOT_FOUND
    assert studio.paid()["runs"] == 1


def test_an_album_that_is_known_and_brings_no_track_is_the_actors_fault(studio: Studio):
    (song,) = isrcs(1)
    snapshot = studio.asked([album("Nowhere"), "nonsense"])
    job = studio.request_for(snapshot)
    studio.sql("insert into songs (isrc) values (%s)", song)
    studio.sql(
        "insert into song_identifiers (song, platform, identifier_type, value) values (%s, 'spotify', 'album_id', %s)",
        song,
        album("Nowhere"),
    )
    ended = studio.make(snapshot)
    assert ended.kind is CaptureResultKind.FAILED
    assert "no track was found on 2 albums" in str(ended.reason)
    assert studio.sql("select state, status_code from measurement_jobs where id = %s", job) == [
        {"state": "failed", "status_code": 500}
    ]


def test_a_run_that_apify_has_forgotten_is_given_up_after_an_hour(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([one])
    studio.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status)"
        " values (%s, 0, %s, 0.003, 'dead', 'ru000000000000000', 'RUNNING')",
        snapshot,
        [one],
    )
    assert studio.make(snapshot).kind is CaptureResultKind.STOPPED
    studio.time_passes()
    studio.sql("update apify_runs set intended_at = intended_at - interval '2 hours'")
    ended = studio.make(snapshot, run="run-2")
    assert ended.kind is CaptureResultKind.FAILED
    assert "not known to Apify any more" in str(ended.reason)


def test_errors_of_our_own_cost_a_run_one_attempt_and_give_up_what_was_captured_to_nobody(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))

    def new_actor():
        raise RuntimeError("a bug")

    broken = replace(studio.captures, means=replace(studio.captures.means, new_actor=new_actor))
    for retry_number in range(4):
        with pytest.raises(RuntimeError):
            studio.make(snapshot, captures=broken, retry_number=retry_number, last_try=retry_number == 3)
    shown = studio.shown(snapshot)
    assert (shown["attempts"], shown["claimed_by"], shown["state"]) == (1, None, "running")
    assert shown["not_before"] > datetime.now(UTC) + timedelta(seconds=30)
    assert shown["error"] == "RuntimeError interrupted it"


def test_the_sweep_looks_deferred_tracks_up_again_for_nothing_and_unknown_ones_not(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([one])
    job = studio.request_for(snapshot)
    studio.sandbox.faults("/v1/tracks", status=503)
    assert studio.make(snapshot).kind is CaptureResultKind.DONE
    with connect(studio.database_url) as connection:
        assert captures.list_with_deferred_tracks(connection, days=7, limit=10) == [snapshot]
    assert studio.sql("select state, error from measurement_jobs where id = %s", job) == [
        {"state": "done", "error": "1 of 1 track could not be matched with a recording"}
    ]
    studio.sandbox.clear_faults()
    assert map_again(snapshot, studio.captures, run="sweep") == (CaptureResultKind.DONE, None)
    assert studio.counts() == {isrcs(1)[0]: 10}
    assert studio.paid()["runs"] == 1
    with connect(studio.database_url) as connection:
        assert captures.list_with_deferred_tracks(connection, days=7, limit=10) == []
    assert studio.sql("select state, error from measurement_jobs where id = %s", job) == [
        {"state": "done", "error": None}
    ]
    assert studio.sql("select * from operator_acts") == []


def test_a_recording_on_albums_of_two_parts_has_one_count_of_one_moment(studio: Studio):
    songs = isrcs(ALBUMS_A_CHUNK + 1)
    albums = {f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}
    # On every album: so in both parts.
    for tracks in albums.values():
        tracks["AA6Q72999999"] = 70
    snapshot = studio.asked(studio.release(albums))
    studio.make(snapshot)
    assert studio.counts()["AA6Q72999999"] == 70
    assert len(studio.sql("select distinct captured_at from song_measurements")) == 1
    assert studio.shown(snapshot)["recordings"] == len(songs) + 1


def test_a_planned_run_keeps_to_a_pause_that_began_after_it_was_asked_for(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    with connect(studio.database_url) as connection:
        vendor_state.pause(connection, "apify", seconds=900, reason="Apify answered 429")
    ended = studio.make(snapshot)
    assert ended.kind is CaptureResultKind.PUT_OFF
    assert studio.sandbox.requests("/v2/") == []
    assert studio.shown(snapshot)["attempts"] == 0


def test_a_start_that_comes_back_after_it_was_given_up_is_paid_for_and_told_so(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([one])
    studio.make(snapshot)
    late = studio.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, status)"
        " values (%s, 0, %s, 0.003, 'slow', 'NOT-STARTED') returning id",
        snapshot,
        [one],
    )[0]["id"]
    with connect(studio.database_url) as connection, pytest.raises(apify_runs.CaptureLostError):
        apify_runs.record_start(connection, late, actor_run="late", status="READY")
    (row,) = studio.sql("select status, actor_run from apify_runs where id = %s", late)
    assert row == {"status": "SURPLUS", "actor_run": "late"}
    assert studio.sql("select usd from playcount_spent_this_month") == [{"usd": Decimal("0.006")}]


def test_there_is_no_capture_of_that_id(studio: Studio):
    with pytest.raises(LookupError, match="there is no capture"):
        studio.make(studio.account)


# --- what was kept, mapped once more ---------------------------------------------------------------------------------------


def test_a_done_capture_that_lacks_a_part_is_mapped_again_and_never_bought_whoever_launches_it(studio: Studio):
    songs = isrcs(ALBUMS_A_CHUNK + 1)
    albums = studio.release({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)})
    snapshot = studio.asked(albums)
    job = studio.request_for(snapshot)
    studio.sandbox.actor("FAILED", "blocked", count=1)
    studio.sandbox.actor("SUCCEEDED")
    studio.sandbox.faults("/v1/tracks", status=503)
    assert studio.make(snapshot).kind is CaptureResultKind.DONE_IN_PART
    assert studio.shown(snapshot)["unmapped"] == 1
    paid, before = studio.paid(), studio.shown(snapshot)
    studio.sandbox.clear_faults()
    kind, why = map_again(snapshot, studio.captures, run="sweep")
    assert (kind, "could not be captured" in str(why)) == (CaptureResultKind.DONE_IN_PART, True)
    for retry_number in range(3):
        again = studio.make(snapshot, run="run-2", operator=True, retry_number=retry_number, last_try=False)
        assert again.kind is CaptureResultKind.DONE_IN_PART
    assert studio.paid() == paid
    assert len(studio.counts()) == 1
    # It was never opened: neither for the sensor, nor for those who ask for the same, nor for the request that it answered.
    after = studio.shown(snapshot)
    assert (after["state"], after["updated_at"], after["unmapped"]) == ("done", before["updated_at"], 0)
    (row,) = studio.sql("select state, error from measurement_jobs where id = %s", job)
    assert row == {"state": "done", "error": after["error"]}
    studio.nothing_breaks()


def test_while_it_is_mapped_again_a_capture_is_not_open_to_anybody(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([one])
    studio.sandbox.spotify_quota_exceeded()
    studio.make(snapshot)
    studio.sql("update playcount_snapshots set created_at = created_at - interval '6 days'")
    with connect(studio.database_url) as connection:
        held = captures.claim_done(connection, snapshot, run="sweep", claim_timeout_seconds=60)
        assert held is not None
        run_heartbeats.renew(connection, "sweep")
        assert captures.claim_done(connection, snapshot, run="run-2", claim_timeout_seconds=60) is None
        assert captures.list_due(connection, claim_timeout_seconds=60, limit=10) == []
    assert studio.asked([one]) != snapshot
    assert studio.make(snapshot, run="run-2", operator=True).kind is CaptureResultKind.LEFT_ALONE


def test_a_part_that_could_not_be_read_is_read_again_once_the_capture_is_done(studio: Studio):
    songs = isrcs(ALBUMS_A_CHUNK + 1)
    snapshot = studio.asked(studio.release({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}))
    studio.make(snapshot)
    # As code left it that could not read what was kept.
    studio.sql("delete from song_measurements where raw_ref = (select actor_run from apify_runs where chunk = 1)")
    studio.sql("update apify_runs set status = 'MALFORMED', message = 'odd', mapped_at = null where chunk = 1")
    assert len(studio.counts()) == ALBUMS_A_CHUNK
    assert map_again(snapshot, studio.captures, run="sweep") == (CaptureResultKind.DONE, None)
    assert len(studio.counts()) == ALBUMS_A_CHUNK + 1
    assert studio.paid()["runs"] == 2


def test_what_is_bought_weeks_later_is_of_the_moment_at_which_it_is_bought(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    studio.sandbox.actor("FAILED", "blocked", count=1)
    studio.sandbox.actor("SUCCEEDED")
    snapshot = studio.asked([one])
    assert studio.make(snapshot).kind is CaptureResultKind.FAILED
    studio.sql("update playcount_snapshots set captured_at = now() - interval '30 days'")
    assert studio.make(snapshot, run="run-2", operator=True).kind is CaptureResultKind.DONE
    (found,) = studio.sql("select captured_at > now() - interval '1 hour' as is_of_today from song_measurements")
    assert found["is_of_today"]


def test_a_part_that_was_put_off_for_days_is_of_its_own_moment(studio: Studio):
    songs = isrcs(ALBUMS_A_CHUNK + 1)
    snapshot = studio.asked(studio.release({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}))
    studio.sql("update playcount_snapshots set captured_at = now() - interval '3 days'")
    studio.make(snapshot)
    (found,) = studio.sql("select min(captured_at) > now() - interval '1 hour' as is_of_today from song_measurements")
    assert found["is_of_today"]


def test_a_capture_in_which_no_track_has_a_count_failed(studio: Studio):
    snapshot = studio.asked(studio.release({"One": dict.fromkeys(isrcs(2), 0)}))
    ended = studio.make(snapshot)
    assert (ended.kind, ended.reason) == (CaptureResultKind.FAILED, "none of 2 tracks has a count")


def test_a_result_that_apify_has_forgotten_is_given_up_after_an_hour(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([one])
    studio.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status)"
        " values (%s, 0, %s, 0.003, 'dead', 'ru000000000000000', 'SUCCEEDED')",
        snapshot,
        [one],
    )
    assert studio.make(snapshot).kind is CaptureResultKind.STOPPED
    studio.time_passes()
    studio.sql("update apify_runs set intended_at = intended_at - interval '2 hours'")
    assert studio.make(snapshot, run="run-2").kind is CaptureResultKind.FAILED


def test_a_run_that_was_seen_a_moment_ago_is_not_given_up_however_long_it_has_been_at_work(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([one])
    studio.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status, intended_at, seen_at)"
        " values (%s, 0, %s, 0.003, 'dead', 'ru000000000000000', 'RUNNING', now() - interval '5 hours', now())",
        snapshot,
        [one],
    )
    assert studio.make(snapshot).kind is CaptureResultKind.STOPPED
    assert studio.shown(snapshot)["state"] == "running"


def test_a_failed_part_is_not_bought_again_past_the_months_cap(studio: Studio):
    songs = isrcs(ALBUMS_A_CHUNK + 1)
    snapshot = studio.asked(studio.release({f"Album {n:03}": {song: 5} for n, song in enumerate(songs)}))
    tight = studio.with_terms(cap_usd=Decimal("0.303"))
    studio.sandbox.actor("FAILED", "blocked", count=1)
    studio.sandbox.actor("SUCCEEDED")
    assert studio.make(snapshot, captures=tight, last_try=False).kind is CaptureResultKind.TRY_AGAIN
    paid = studio.paid()
    for retry_number in (1, 2, 3):
        ended = studio.make(snapshot, captures=tight, retry_number=retry_number, last_try=retry_number == 3)
    assert ended.kind is CaptureResultKind.DONE_IN_PART
    assert studio.paid() == paid


def test_what_a_relaunch_buys_is_set_aside_for_it(studio: Studio):
    albums = studio.release({f"Album {n:03}": {song: 5} for n, song in enumerate(isrcs(2))})
    studio.sandbox.actor("FAILED", "blocked", count=1)
    studio.sandbox.actor("SUCCEEDED")
    snapshot = studio.asked(albums)
    tight = studio.with_terms(cap_usd=Decimal("0.012"))
    assert studio.make(snapshot, captures=tight).kind is CaptureResultKind.FAILED
    studio.sandbox.faults(STARTS, method="POST", status=429, count=1)
    assert studio.make(snapshot, captures=tight, run="run-2", operator=True).kind is CaptureResultKind.PUT_OFF
    assert studio.sql("select usd from playcount_spent_this_month") == [{"usd": Decimal("0.012")}]


def test_what_a_request_leaves_out_is_still_said_once_its_capture_was_mapped_again(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    job = studio.request_for(snapshot)
    left_out = "1 of 2 recordings has no known album"
    studio.sql("update measurement_jobs set error = %s where id = %s", left_out, job)
    studio.sandbox.faults("/v1/tracks", status=503)
    studio.make(snapshot)
    (row,) = studio.sql("select error from measurement_jobs where id = %s", job)
    assert row["error"] == f"1 of 1 track could not be matched with a recording; {left_out}"
    studio.sandbox.clear_faults()
    assert map_again(snapshot, studio.captures, run="sweep") == (CaptureResultKind.DONE, None)
    assert studio.sql("select error from measurement_jobs where id = %s", job) == [{"error": left_out}]
