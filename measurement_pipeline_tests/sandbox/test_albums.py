"""The double's albums and tracks: identical in every process, one track for each recording on an album, and fast to load."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from measurement_pipeline.sandbox import PLAIN, SAMPLE_CSV, Behaviour, KnownRecording, sample_catalogue
from measurement_pipeline.sandbox.albums import Discography, album_id, track_id
from measurement_pipeline.sandbox.series import history

NOON = datetime(2026, 10, 4, 12, tzinfo=UTC)
CHOIR = {"artist": "Choir", "album": "One"}


def test_ids_have_spotifys_form_and_are_the_same_in_any_process():
    assert album_id("Glasswing Choir", "Cathedral of Rain") == "4MUSeRnhpSfkMqREFQ36mC"
    ids = {track_id(f"AA6Q724{n:05}", "Choir", "One") for n in range(500)} | {
        album_id("Choir", str(n)) for n in range(500)
    }
    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9A-Za-z]{22}", identity) for identity in ids)


def test_an_album_has_its_tracks_in_the_order_of_their_isrcs():
    discography = Discography(
        PLAIN, {isrc: KnownRecording(**CHOIR) for isrc in ("AA6Q72400003", "AA6Q72400001", "AA6Q72400002")}
    )
    album = discography.album(album_id("Choir", "One"))
    assert album is not None
    assert [track.isrc for track in album.tracks] == ["AA6Q72400001", "AA6Q72400002", "AA6Q72400003"]
    for track in album.tracks:
        assert discography.track(track.id) == (track, album)


def test_a_reissue_has_its_own_track_with_the_same_isrc():
    discography = Discography(PLAIN, {"AA6Q72400001": KnownRecording(**CHOIR, reissued_on=("Two", "One"))})
    (first,), (second,) = (
        album.tracks for name in ("One", "Two") if (album := discography.album(album_id("Choir", name)))
    )
    assert first.isrc == second.isrc
    assert first.id != second.id


def test_a_recording_without_an_album_has_no_track():
    discography = Discography(
        PLAIN, {"AA6Q72400001": KnownRecording(artist="Choir"), "AA6Q72400002": KnownRecording(album="One")}
    )
    assert discography.album(album_id("Choir", "One")) is None
    assert discography.track(track_id("AA6Q72400001", "Choir", "One")) is None


def test_new_data_replaces_old_data():
    discography = Discography(PLAIN, {"AA6Q72400001": KnownRecording(**CHOIR, play_count=1)})
    discography.learn({"AA6Q72400001": KnownRecording(artist="Choir", album="Two", play_count=2)})
    old = discography.album(album_id("Choir", "One"))
    assert old is not None
    assert old.tracks == []
    assert discography.track(track_id("AA6Q72400001", "Choir", "One")) is None
    assert discography.track(track_id("AA6Q72400001", "Choir", "Two")) is not None
    assert discography.play_count("AA6Q72400001", NOON) == 2


def test_a_missing_count_is_the_last_of_the_history():
    first, again = (Discography(Behaviour(), {"AA6Q72400001": KnownRecording(**CHOIR)}) for _ in range(2))
    assert first.play_count("AA6Q72400001", NOON) == again.play_count("AA6Q72400001", NOON)
    _, counts = history("AA6Q72400001", KnownRecording(**CHOIR), Behaviour(), NOON.date())
    assert first.play_count("AA6Q72400001", NOON) == counts[-1]


def test_a_count_grows_after_its_day():
    discography = Discography(Behaviour(), {"AA6Q72400001": KnownRecording(**CHOIR, play_count=5_000_000)})
    counted = datetime(2026, 9, 22, 12, tzinfo=UTC)
    assert discography.play_count("AA6Q72400001", counted) == 5_000_000
    counts = [discography.play_count("AA6Q72400001", counted + timedelta(days=30 * month)) or 0 for month in range(4)]
    assert counts == sorted(set(counts))


def test_a_constant_count_is_that_of_the_last_day_of_the_histories():
    discography = Discography(PLAIN, {"AA6Q72400001": KnownRecording(**CHOIR, play_count=7)})
    assert discography.play_count("AA6Q72400001", NOON + timedelta(days=300)) == 7


@pytest.mark.timeout(20)
def test_a_large_catalogue_is_loaded_without_inventing_its_histories():
    catalogue = {
        f"AA6Q7{n:07}": KnownRecording(artist="Choir", album=f"Album {n // 15}", play_count=n) for n in range(15_000)
    }
    discography = Discography(PLAIN, catalogue)
    album = discography.album(album_id("Choir", "Album 999"))
    assert album is not None
    assert [discography.play_count(track.isrc, NOON) for track in album.tracks] == list(range(14_985, 15_000))


def test_the_samples_album_ids_are_those_of_the_double():
    discography = Discography(PLAIN, sample_catalogue())
    lines = [line.split(",") for line in SAMPLE_CSV.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(lines) == 200
    for line in lines:
        album = discography.album(line[-1])
        assert album is not None
        assert line[0] in album.by_isrc


def test_the_sample_has_a_reissue():
    discography = Discography(PLAIN, sample_catalogue())
    reissue = discography.album(album_id("Glasswing Choir", "Cathedral of Rain (Candlelight Edition)"))
    first = discography.album(album_id("Glasswing Choir", "Cathedral of Rain"))
    assert reissue is not None
    assert first is not None
    assert reissue.by_isrc.keys() < first.by_isrc.keys()
