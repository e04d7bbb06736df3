"""What a track object says: the id is required, all else may be missing, and nothing is made up."""

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


def test_a_track_is_read_whole():
    assert read_track(WHOLE) == SpotifyTrack(
        "t", "AA6Q72400001", "One", "Choir, Guest", "a", "Cathedral", date(2024, 3, 15)
    )


@pytest.mark.parametrize("isrc", ["aa-6q7-24-00001", "ISRC AA6Q72400001", " AA6Q72400001 "])
def test_an_isrc_comes_in_normal_form(isrc: str):
    assert read_track({**WHOLE, "external_ids": {"isrc": isrc}}).isrc == "AA6Q72400001"


@pytest.mark.parametrize("ids", [None, {}, [], {"isrc": None}, {"isrc": ""}, {"isrc": "AA6Q7240000"}, {"isrc": 7}])
def test_what_is_no_isrc_is_none(ids: Any):
    assert read_track({**WHOLE, "external_ids": ids}).isrc is None


@pytest.mark.parametrize(
    "released", [None, "2024", "2024-03", "20240315", "2024-W11-5", "2024-02-30", 2024, "0000-00-00"]
)
def test_a_year_or_a_month_alone_names_no_day(released: Any):
    assert read_track({**WHOLE, "album": {"id": "a", "release_date": released}}).release_date is None


def test_a_track_with_nothing_but_its_id_is_one():
    assert read_track({"id": "t"}) == SpotifyTrack("t", None, None, None, None, None, None, has_external_ids=False)


def test_blanks_around_an_id_are_left_out():
    assert read_requested_track({"id": " t\n"}, "t", others=["t", "u"]).track_id == "t"


@pytest.mark.parametrize(
    "value", [None, 7, "t", [], {}, {"id": None}, {"id": ""}, {"id": 7}, {"id": "a\0"}, {"id": "\ud800"}]
)
def test_what_has_no_id_is_no_track(value: Any):
    with pytest.raises(UnexpectedResponseError, match="expected a track with an `id`"):
        read_track(value)


def test_a_relinked_track_answers_for_the_one_it_replaces():
    relinked = {**WHOLE, "id": "new", "linked_from": {"id": "old"}}
    assert read_requested_track(relinked, "old", others=["old", "new"]).track_id == "new"
    assert read_requested_track(WHOLE, "older", others=["older"]).track_id == "t"


def test_a_track_in_the_place_of_another_that_was_asked_for_is_not_believed():
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
def test_whatever_json_comes_it_is_a_track_or_none(value: Any):
    try:
        track = read_track(json.loads(json.dumps(value)))
    except UnexpectedResponseError:
        return
    assert track.track_id.encode()
