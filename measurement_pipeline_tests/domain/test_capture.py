"""Results of captured tracks, and the parts of a capture."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.capture import (
    ALBUMS_PER_CHUNK,
    CapturedAlbum,
    CapturedTrack,
    OverCap,
    count_plays,
    describe_over_cap,
    infer_missing_album_id,
    split_into_chunks,
)
from measurement_pipeline_tests.capture_limits import capture_limits


def album(album_id: str | None, *tracks: tuple[str, int | None]) -> CapturedAlbum:
    return CapturedAlbum(album_id, "An album", tuple(CapturedTrack(track, f"Title {track}", n) for track, n in tracks))


def test_the_cost_is_exact():
    assert capture_limits().cost_usd(1) == Decimal("0.003")
    assert capture_limits().cost_usd(1_000_000) == Decimal(3000)


def test_a_capture_over_the_cap_reports_cap_spent_and_cost():
    message = describe_over_cap(OverCap(cap=Decimal(25), spent=Decimal("24.999"), asked=Decimal("0.003")))
    assert "$25.00" in message
    assert "$24.999" in message
    assert "$0.003" in message


@given(st.lists(st.integers(), max_size=350).map(lambda numbers: [str(number) for number in numbers]))
def test_parts_have_every_album_once_and_are_deterministic(album_ids: list[str]):
    parts = split_into_chunks(album_ids)
    assert [one for part in parts for one in part] == album_ids
    assert all(0 < len(part) <= ALBUMS_PER_CHUNK for part in parts)
    assert split_into_chunks(album_ids) == parts


def test_a_recording_on_several_albums_has_the_highest_of_its_counts():
    albums = [album("A", ("t1", 10)), album("B", ("t2", 12)), album("C", ("t3", 11))]
    result = count_plays(albums, {"t1": ["X"], "t2": ["X"], "t3": ["X"]}, {})
    assert result.counts == {"X": 12}
    assert result.albums == {("X", "A"), ("X", "B"), ("X", "C")}
    assert result.tracks == 3


def test_a_track_without_a_count_is_not_measured_and_needs_no_recording():
    result = count_plays([album("A", ("t1", None), ("t2", None))], {"t1": ["X"]}, {})
    assert (result.counts, result.unmapped, result.without_count) == ({}, (), 2)
    assert result.albums == {("X", "A")}


def test_a_track_without_a_recording_is_listed_once_with_the_reason():
    albums = [album("A", ("t1", 10), ("t2", 5)), album("B", ("t1", 10))]
    result = count_plays(albums, {}, {"t1": "Spotify knows no such track"})
    assert [(one.track_id, one.stream_count, one.why) for one in result.unmapped] == [
        ("t1", 10, "Spotify knows no such track"),
        ("t2", 5, "not looked up"),
    ]


def test_a_single_album_without_an_id_is_the_remaining_one():
    albums = [album("A"), album(None), album("C")]
    assert [one.album_id for one in infer_missing_album_id(albums, ["A", "B", "C"])] == ["A", "B", "C"]


def test_two_albums_without_an_id_are_not_guessed():
    two_nameless = [album(None), album(None)]
    assert [one.album_id for one in infer_missing_album_id(two_nameless, ["A", "B"])] == [None, None]
    assert [one.album_id for one in infer_missing_album_id([album(None)], ["A", "B"])] == [None]
    assert [one.album_id for one in infer_missing_album_id([album("A"), album(None)], ["A"])] == ["A", None]


TRACKS = st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(1, 100))


@given(
    st.lists(st.lists(TRACKS, max_size=6), max_size=5),
    st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from(["X", "Y", "Z"]), unique=True)),
)
def test_every_track_is_measured_listed_or_without_a_count(albums: list[list[tuple[str, int | None]]], songs: dict):
    given_albums = [album(str(number), *tracks) for number, tracks in enumerate(albums)]
    result = count_plays(given_albums, songs, {})
    tracks = [track for tracks in albums for track in tracks]
    assert result.tracks == len(tracks)
    assert result.without_count == sum(count is None for _, count in tracks)
    counted = {track for track, count in tracks if count is not None}
    assert {one.track_id for one in result.unmapped} == {track for track in counted if not songs.get(track)}
    assert result.counts.keys() == {song for track in counted for song in songs.get(track, ())}
