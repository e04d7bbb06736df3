"""What a capture keeps to while it is made: its claim, its waits, how much is bought at once, and of which moment a count is."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.capture.series import start_due
from measurement_pipeline.domain.capture import ALBUMS_A_CHUNK, Schedule
from measurement_pipeline.postgres import captures
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.vendors.apify.client import ActorRun, ApifyActor
from measurement_pipeline_tests.capture.conftest import Studio, isrcs

INPUTS = "/v2/key-value-stores/*/records/INPUT"


def with_actor(studio: Studio, actor: type[ApifyActor], **terms: object) -> CaptureServices:
    """Captures that ask Apify through an actor of the test's own."""

    def new_actor() -> ApifyActor:
        return actor(studio.sandbox.apify_token, base_url=studio.sandbox.apify_url)

    captures = studio.with_terms(**terms)
    return replace(captures, means=replace(captures.means, new_actor=new_actor))


# --- the claim -------------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_lets_go_of_its_capture_which_waits_and_is_not_to_blame(studio: Studio):
    class Interrupted(ApifyActor):
        def look(self, run_id: str, *, wait_seconds: float = 0) -> ActorRun:
            super().look(run_id, wait_seconds=wait_seconds)
            raise KeyboardInterrupt

    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    with pytest.raises(KeyboardInterrupt):
        studio.make(snapshot, captures=with_actor(studio, Interrupted), last_try=False)
    shown = studio.shown(snapshot)
    assert (shown["state"], shown["claimed_by"], shown["attempts"]) == ("running", None, 0)
    assert shown["error"] == "its run was interrupted"
    with connect(studio.database_url) as connection:
        assert captures.list_due(connection, claim_timeout_seconds=0, limit=10) == [], (
            "whoever cancelled it wants it gone"
        )
    studio.time_passes()
    assert studio.make(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert studio.paid()["runs"] == 1, "what it had bought is waited for"
    studio.nothing_breaks()


def test_a_person_may_try_what_has_used_up_its_attempts(studio: Studio):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sql(
        "update playcount_snapshots set state = 'running', claimed_by = 'dead', attempts = 5 where id = %s", snapshot
    )
    assert studio.make(snapshot, operator=True).kind is CaptureResultKind.DONE
    assert studio.counts() == {isrcs(1)[0]: 10}


@pytest.mark.parametrize(("age", "seconds"), [("0", 60), ("40 minutes", 600), ("2 days", 3600)])
def test_a_capture_that_apify_keeps_waiting_waits_a_quarter_of_its_age_from_a_minute_to_an_hour(
    studio: Studio, age: str, seconds: int
):
    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    studio.sql("update playcount_snapshots set created_at = created_at - %s::interval", age)
    studio.sandbox.faults("/v2/", status=503)
    assert studio.make(snapshot).kind is CaptureResultKind.STOPPED
    (wait,) = studio.sql("select extract(epoch from not_before - clock_timestamp()) as left from playcount_snapshots")
    assert seconds - 30 < wait["left"] < seconds + 30


def test_a_start_is_looked_for_among_runs_whose_input_is_lost_for_an_hour_and_then_made_again(studio: Studio):
    (one,) = studio.release({"One": {isrcs(1)[0]: 10}})
    snapshot = studio.asked([one])
    with studio.captures.means.new_actor() as actor:
        actor.start([one])
    studio.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, intended_at)"
        " values (%s, 0, %s, 0.003, 'dead', clock_timestamp() - interval '50 minutes')",
        snapshot,
        [one],
    )
    studio.sandbox.faults(INPUTS, status=404)
    assert studio.make(snapshot).kind is CaptureResultKind.STOPPED
    assert studio.paid()["runs"] == 1, "it may be the one that was started"
    studio.sql("update apify_runs set intended_at = intended_at - interval '11 minutes'")
    studio.time_passes()
    assert studio.make(snapshot, run="run-2").kind is CaptureResultKind.DONE
    assert [row["status"] for row in studio.bought(snapshot)] == ["NOT-STARTED", "SUCCEEDED"]
    assert studio.paid()["runs"] == 2
    studio.nothing_breaks()


# --- how much, and when ----------------------------------------------------------------------------------------------------


def test_no_more_parts_are_bought_at_once_than_the_terms_say(studio: Studio):
    at_work: list[int] = []

    class Watched(ApifyActor):
        def start(self, album_ids: Sequence[str]) -> ActorRun:
            at_work.append(sum(row["status"] in {"READY", "RUNNING"} for row in studio.bought(snapshot)))
            return super().start(album_ids)

    songs = isrcs(3 * ALBUMS_A_CHUNK + 1)
    snapshot = studio.asked(studio.release({f"Album {n}": {song: 5} for n, song in enumerate(songs)}))
    studio.sandbox.actor("SUCCEEDED", seconds=0.2)
    assert studio.make(snapshot, captures=with_actor(studio, Watched, chunks_at_once=2)).kind is CaptureResultKind.DONE
    assert len(at_work) == 4
    assert max(at_work) == 1, "beside the one that is started"
    assert len(studio.counts()) == len(songs)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_series_waits_for_its_open_capture_however_old_that_is(studio: Studio, state: str):
    studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}), schedule=Schedule.MONTHLY)
    studio.sql("update playcount_snapshots set created_at = created_at - interval '45 days', state = %s", state)
    found = start_due(studio.captures.terms)
    assert (found.due, found.started, found.refused) == (0, 0, ())
    studio.sql("update playcount_snapshots set state = 'done'")
    assert start_due(studio.captures.terms).started == 1


# --- of which moment -------------------------------------------------------------------------------------------------------


def test_a_count_is_never_of_a_moment_that_is_still_to_come_whatever_apifys_clock_says(studio: Studio):
    class Ahead(ApifyActor):
        def look(self, run_id: str, *, wait_seconds: float = 0) -> ActorRun:
            run = super().look(run_id, wait_seconds=wait_seconds)
            late = run.finished_at and run.finished_at + timedelta(hours=3)
            return replace(run, finished_at=late)

    snapshot = studio.asked(studio.release({"One": {isrcs(1)[0]: 10}}))
    assert studio.make(snapshot, captures=with_actor(studio, Ahead)).kind is CaptureResultKind.DONE
    (bought,) = studio.bought(snapshot)
    assert bought["finished_at"] > bought["kept_at"] + timedelta(hours=2)
    (measured,) = studio.sql("select captured_at from song_measurements")
    assert measured["captured_at"] == bought["kept_at"] == studio.shown(snapshot)["captured_at"]


@pytest.mark.parametrize(("behind", "stored"), [("the second part", [70]), ("the first part", [50, 70])])
def test_of_two_parts_that_count_a_recording_the_higher_count_stays(studio: Studio, behind: str, stored: list[int]):
    class Behind(ApifyActor):
        def result(self, run: ActorRun) -> bytes:
            albums = json.loads(super().result(run))
            is_second = len(albums) == 1
            if is_second == (behind == "the second part"):
                for album in albums:
                    for track in album["tracks"]:
                        track["streamCount"] = 50
            return json.dumps(albums).encode()

    (isrc,) = isrcs(1)
    # On every album: so in both parts.
    snapshot = studio.asked(studio.release({f"Album {n:03}": {isrc: 70} for n in range(ALBUMS_A_CHUNK + 1)}))
    assert studio.make(snapshot, captures=with_actor(studio, Behind)).kind is CaptureResultKind.DONE
    found = studio.sql("select value, captured_at from song_measurements where song = %s order by learnt_at", isrc)
    assert [row["value"] for row in found] == stored
    assert len({row["captured_at"] for row in found}) == 1
