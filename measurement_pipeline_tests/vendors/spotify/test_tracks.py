"""Track objects: the id is required, every other field is optional, and nothing is invented."""

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.capture import SpotifyTrack
from measurement_pipeline.vendors.errors import UnexpectedResponseError
from measurement_pipeline.vendors.spotify.tracks import read_requested_track, read_track

WHOLE = {
    "id": "t",
    "name": "One",
    "external_ids": {"isrc": "AA6Q72400001", "ean": "1"},
    "artists": [{"id": "x", "name": "Choir"}, {"id": "y", "name": "Guest"}],
    "album": {"id": "a", "name": "Cathedral", "release_date": "2024-03-15", "release_date_precision": "day"},
}


def test_every_field_of_a_track_is_read():
    assert read_track(WHOLE) == SpotifyTrack(
        "t", "AA6Q72400001", "One", "Choir, Guest", "a", "Cathedral", date(2024, 3, 15)
    )


@pytest.mark.parametrize("isrc", ["aa-6q7-24-00001", "ISRC AA6Q72400001", " AA6Q72400001 "])
def test_an_isrc_comes_in_normal_form(isrc: str):
    assert read_track({**WHOLE, "external_ids": {"isrc": isrc}}).isrc == "AA6Q72400001"


@pytest.mark.parametrize("ids", [None, {}, [], {"isrc": None}, {"isrc": ""}, {"isrc": "AA6Q7240000"}, {"isrc": 7}])
def test_an_invalid_isrc_is_none(ids: Any):
    assert read_track({**WHOLE, "external_ids": ids}).isrc is None


@pytest.mark.parametrize(
    "released", [None, "2024", "2024-03", "20240315", "2024-W11-5", "2024-02-30", 2024, "0000-00-00"]
)
def test_a_year_or_a_month_is_not_a_release_date(released: Any):
    assert read_track({**WHOLE, "album": {"id": "a", "release_date": released}}).release_date is None


def test_a_track_needs_only_its_id():
    assert read_track({"id": "t"}) == SpotifyTrack("t", None, None, None, None, None, None, has_external_ids=False)


def test_white_space_around_an_id_is_stripped():
    assert read_requested_track({"id": " t\n"}, "t", others=["t", "u"]).track_id == "t"


@pytest.mark.parametrize(
    "value", [None, 7, "t", [], {}, {"id": None}, {"id": ""}, {"id": 7}, {"id": "a\0"}, {"id": "\ud800"}]
)
def test_a_value_without_an_id_raises(value: Any):
    with pytest.raises(UnexpectedResponseError, match="expected a track with an `id`"):
        read_track(value)


def test_a_relinked_track_answers_for_the_one_it_replaces():
    relinked = {**WHOLE, "id": "new", "linked_from": {"id": "old"}}
    assert read_requested_track(relinked, "old", others=["old", "new"]).track_id == "new"
    assert read_requested_track(WHOLE, "older", others=["older"]).track_id == "t"


def test_a_track_at_another_requested_tracks_place_raises():
    with pytest.raises(UnexpectedResponseError, match="expected track u, not t"):
        read_requested_track(WHOLE, "u", others=["t", "u"])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: (
        st.lists(inside, max_size=4) | st.dictionaries(st.sampled_from([*WHOLE, "isrc"]), inside, max_size=6)
    ),
    max_leaves=20,
)


@given(ANYTHING)
def test_any_json_gives_a_track_or_an_unexpected_response(value: Any):
    try:
        track = read_track(json.loads(json.dumps(value)))
    except UnexpectedResponseError:
        return
    assert track.track_id.encode()
