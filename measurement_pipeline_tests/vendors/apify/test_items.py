"""Items of a run: which counts are usable, what may be missing, and that no bytes raise another error."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.capture import CapturedAlbum, CapturedTrack
from measurement_pipeline.domain.play_count import MAX_COUNT
from measurement_pipeline.vendors.apify.items import read_items
from measurement_pipeline.vendors.errors import UnexpectedResponseError


def items(*albums: Any) -> bytes:
    return json.dumps(albums).encode()


def count_of(stream_count: str) -> int | None:
    """The parsed count of a JSON literal."""
    body = f'[{{"id": "a", "tracks": [{{"id": "t", "streamCount": {stream_count}}}]}}]'
    [album] = read_items(body.encode())
    [track] = album.tracks
    return track.stream_count


def test_white_space_around_an_id_is_stripped():
    [album] = read_items(items({"id": " a ", "tracks": [{"id": "t\n", "streamCount": "7"}]}))
    assert (album.album_id, album.tracks) == ("a", (CapturedTrack("t", None, 7),))


def test_an_item_is_an_album_with_its_tracks():
    body = items(
        {
            "id": "a1",
            "name": "Cathedral",
            "label": "L",
            "copyright": [],
            "tracks": [{"id": "t1", "name": "One", "streamCount": 7}],
        },
        {"id": "a2", "name": "Rain", "tracks": []},
    )
    assert read_items(body) == (
        CapturedAlbum("a1", "Cathedral", (CapturedTrack("t1", "One", 7),)),
        CapturedAlbum("a2", "Rain", ()),
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), (str(MAX_COUNT), MAX_COUNT), ("12.0", 12), ("1.2e1", 12), ('"296422273"', 296422273), ('"12.0"', 12)],
)
def test_numbers_and_their_text_are_counts(text: str, count: int):
    assert count_of(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "null", "0", "0.0", '"0"', "-1", '"-1"', "1.5", '"1.5"', "true", "false", '""', '"many"', "[]", "{}", "NaN",
        "Infinity", "1e999999999", str(MAX_COUNT + 1), "9" * 5000,
    ],
)  # fmt: skip
def test_an_unusable_count_is_none(text: str):
    assert count_of(text) is None


def test_a_missing_count_is_none_and_the_track_is_there():
    [album] = read_items(items({"id": "a", "tracks": [{"id": "t", "name": "One"}]}))
    assert album.tracks == (CapturedTrack("t", "One", None),)


@pytest.mark.parametrize("identity", [None, "", " ", 7, ["a"], "a\0b", "\ud800"])
def test_an_album_without_an_id_keeps_its_tracks(identity: Any):
    [album] = read_items(items({"id": identity, "name": "n", "tracks": [{"id": "t", "streamCount": 7}]}))
    assert album == CapturedAlbum(None, "n", (CapturedTrack("t", None, 7),))


@pytest.mark.parametrize("track", [{}, {"id": None}, {"id": ""}, {"id": 7}, "t", None])
def test_a_track_without_an_id_is_left_out(track: Any):
    [album] = read_items(items({"id": "a", "tracks": [track, {"id": "t", "streamCount": 7}]}))
    assert [result.track_id for result in album.tracks] == ["t"]


@pytest.mark.parametrize("tracks", [None, "none", {}, 7])
def test_an_album_without_a_list_of_tracks_has_none(tracks: Any):
    assert read_items(items({"id": "a", "tracks": tracks}, {"id": "b"})) == (
        CapturedAlbum("a", None, ()),
        CapturedAlbum("b", None, ()),
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b'[{"id": "a"', "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "an object"),
        (b"null", "null"),
        (b"3", "a number"),
        (b'[{"id": "a"}, 7]', "item 2 of 2: expected an album, not a number"),
    ],
)
def test_anything_but_a_list_of_albums_raises_with_a_description(body: bytes, words: str):
    with pytest.raises(UnexpectedResponseError, match=words):
        read_items(body)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "name", "tracks", "streamCount", "x"]), inside, max_size=5)
    ),
    max_leaves=20,
)


@given(st.binary() | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_albums_or_an_unexpected_response(body: bytes):
    try:
        albums = read_items(body)
    except UnexpectedResponseError:
        return
    for album in albums:
        for track in album.tracks:
            assert track.track_id.encode()
            assert track.stream_count is None or 0 < track.stream_count <= MAX_COUNT
