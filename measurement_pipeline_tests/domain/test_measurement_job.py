"""Requests: valid scopes, and the errors of invalid ones."""

from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.capture import Schedule
from measurement_pipeline.domain.coverage import Aim
from measurement_pipeline.domain.measurement_job import (
    MeasurementRequest,
    Refusal,
    Scope,
    ScopeByAlbum,
    ScopeByCatalog,
    ScopeByIsrc,
    Source,
    read_request,
)

ISRC = "AA6Q72000047"
BAD_SCOPE = "Provide exactly one of scope.catalog_id / album_ids / isrcs"
CATALOG = "3f2b8f0e-6c1e-4f6b-9b0e-1d2c3b4a5f60"


def parse_scope(scope: object) -> MeasurementRequest | Refusal:
    return read_request("historical", scope, ["spotify"])


@pytest.mark.parametrize(
    "source", [None, "", "Historical", "history", 5, ["historical"], {"source": "historical"}, True]
)
def test_a_source_is_current_or_historical(source: object):
    assert read_request(source, {"isrcs": [ISRC]}, ["spotify"]) == Refusal(400, "source must be current or historical")


def test_current_counts_may_be_requested_once_or_monthly():
    for schedule, read in ((None, Schedule.ONCE), ("once", Schedule.ONCE), ("monthly", Schedule.MONTHLY)):
        request = read_request("current", {"isrcs": [ISRC]}, ["spotify"], schedule)
        assert request == MeasurementRequest(Source.CURRENT, ScopeByIsrc((ISRC,)), read)


@pytest.mark.parametrize(
    "given",
    [
        "4aawyAB9vmqN3uQ7FjRGTy",
        " 4aawyAB9vmqN3uQ7FjRGTy ",
        "spotify:album:4aawyAB9vmqN3uQ7FjRGTy",
        "https://open.spotify.com/album/4aawyAB9vmqN3uQ7FjRGTy",
        "https://open.spotify.com/intl-de/album/4aawyAB9vmqN3uQ7FjRGTy?si=x",
    ],
)
@pytest.mark.parametrize("source", ["current", "historical"])
def test_an_album_may_be_an_id_a_uri_or_a_link(given: str, source: str):
    read = read_request(source, {"album_ids": [given]}, ["spotify"])
    assert isinstance(read, MeasurementRequest)
    assert read.scope == ScopeByAlbum(("4aawyAB9vmqN3uQ7FjRGTy",))


@pytest.mark.parametrize(
    "given", ["https://open.spotify.com/track/4aawyAB9vmqN3uQ7FjRGTy", "my album", "a/b", "ä", "x" * 65]
)
def test_an_impossible_album_is_rejected(given: str):
    refusal = read_request("current", {"album_ids": ["4aawyAB9vmqN3uQ7FjRGTy", given]}, ["spotify"])
    assert isinstance(refusal, Refusal)
    assert refusal.error.startswith("Malformed in scope.album_ids: ")
    assert given[:40] in refusal.error


@pytest.mark.parametrize("schedule", ["weekly", "", "Monthly", 5, ["once"], {"once": 1}])
def test_a_schedule_is_once_or_monthly(schedule: object):
    refusal = read_request("current", {"isrcs": [ISRC]}, ["spotify"], schedule)
    assert isinstance(refusal, Refusal)
    assert refusal.error.startswith("schedule must be once or monthly")


def test_a_history_has_no_schedule():
    refusal = read_request("historical", {"isrcs": [ISRC]}, ["spotify"], "monthly")
    assert isinstance(refusal, Refusal)
    assert (refusal.status_code, "schedule monthly" in refusal.error) == (400, True)


@pytest.mark.parametrize(
    "scope",
    [
        None, "isrcs", 5, [], [ISRC], {}, {"isrc": ISRC}, {"isrcs": None},
        {"isrcs": [ISRC], "album_ids": ["a"]},
        {"isrcs": [ISRC], "catalog_id": CATALOG},
        {"isrcs": [ISRC], "album_ids": ["a"], "catalog_id": CATALOG},
        {"isrcs": [], "album_ids": []},
    ],
)  # fmt: skip
def test_a_scope_has_exactly_one_kind(scope: object):
    assert parse_scope(scope) == Refusal(400, BAD_SCOPE)


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ({"isrcs": []}, "scope.isrcs must be a list of at least one"),
        ({"isrcs": ISRC}, f"scope.isrcs must be a list of at least one (got '{ISRC}')"),
        ({"isrcs": {"a": 1}}, "scope.isrcs must be a list of at least one (got \"{'a': 1}\")"),
        ({"album_ids": []}, "scope.album_ids must be a list of at least one"),
        ({"album_ids": "an album"}, "scope.album_ids must be a list of at least one (got 'an album')"),
        ({"album_ids": ["a", 5, " "]}, "Malformed in scope.album_ids: '5', ' ' (a Spotify album id is a string)"),
        ({"catalog_id": "everything"}, "scope.catalog_id must be a UUID (got 'everything')"),
        ({"catalog_id": ""}, "scope.catalog_id must be a UUID (got '')"),
        ({"catalog_id": 7}, "scope.catalog_id must be a UUID (got '7')"),
        ({"catalog_id": ["x"]}, "scope.catalog_id must be a UUID (got \"['x']\")"),
        ({"isrcs": [ISRC], "note": 1}, f"Unknown in scope: 'note'. {BAD_SCOPE}"),
    ],
)  # fmt: skip
def test_a_malformed_scope_is_rejected_with_the_expected_shape(scope: object, words: str):
    assert parse_scope(scope) == Refusal(400, words)


def test_only_malformed_isrcs_are_listed():
    refusal = parse_scope({"isrcs": [ISRC, "GBUM7250189", "gb-um7-25-01895", "", None, 12, "O0000000000000"]})
    assert refusal == Refusal(
        400,
        "Malformed in scope.isrcs: 'GBUM7250189', '', 'None', '12', 'O0000000000000' (an ISRC looks like GBUM72501895)",
    )


def test_at_most_twenty_malformed_isrcs_are_listed_and_long_ones_are_truncated():
    refusal = parse_scope({"isrcs": ["x" * 10_000] + [f"bad{n}" for n in range(99)]})
    assert isinstance(refusal, Refusal)
    assert refusal.error.startswith("Malformed in scope.isrcs: '" + "x" * 40 + "…', 'bad0', ")
    assert "'bad18' and 80 more" in refusal.error
    assert len(refusal.error) < 500


@pytest.mark.parametrize(
    "spelt", ["AA6Q72000047", "aa6q72000047", "AA-6Q7-20-00047", " AA 6Q7 20 00047 ", "ISRC AA-6Q7-20-00047"]
)
def test_isrcs_are_normalised_before_validation(spelt: str):
    assert parse_scope({"isrcs": [spelt]}) == MeasurementRequest(Source.HISTORICAL, ScopeByIsrc((ISRC,)))


def test_each_recording_is_requested_once_in_the_given_order():
    request = parse_scope({"isrcs": ["GBUM72501895", ISRC, "gbum72501895", "AA-6Q7-20-00047"]})
    assert request == MeasurementRequest(Source.HISTORICAL, ScopeByIsrc(("GBUM72501895", ISRC)))


def test_each_album_is_requested_once_with_its_id_unchanged():
    request = parse_scope({"album_ids": [" 6dVIqQ8qmQ5GBnJ9shOYGE", "short", "6dVIqQ8qmQ5GBnJ9shOYGE"]})
    assert request == MeasurementRequest(Source.HISTORICAL, ScopeByAlbum(("6dVIqQ8qmQ5GBnJ9shOYGE", "short")))


def test_a_catalogue_is_requested_by_its_uuid():
    expected: Scope = ScopeByCatalog(UUID(CATALOG))
    assert parse_scope({"catalog_id": CATALOG.upper()}) == MeasurementRequest(Source.HISTORICAL, expected)
    assert parse_scope({"catalog_id": CATALOG, "isrcs": None}) == MeasurementRequest(Source.HISTORICAL, expected)


@pytest.mark.parametrize("platforms", [None, ["spotify"], ["spotify", "spotify"]])
def test_spotify_is_the_only_platform(platforms: object):
    assert isinstance(read_request("historical", {"isrcs": [ISRC]}, platforms), MeasurementRequest)


@pytest.mark.parametrize(
    ("platforms", "got"),
    [
        ([], ""),
        (["apple_music"], " (got \"['apple_music']\")"),
        (["spotify", "youtube"], " (got \"['youtube']\")"),
        ([None], " (got '[None]')"),
        ([["spotify", "youtube"]], " (got \"[['spotify', 'youtube']]\")"),
        ("spotify", " (got \"['spotify']\")"),
    ],
)
def test_other_platforms_are_rejected(platforms: object, got: str):
    refusal = read_request("historical", {"isrcs": [ISRC]}, platforms)
    assert refusal == Refusal(400, f"platforms may only be spotify{got}")


def test_the_first_error_is_returned():
    assert read_request("x", {}, ["y"]) == Refusal(400, "source must be current or historical")
    assert read_request("current", {}, ["spotify"]) == Refusal(400, BAD_SCOPE)


def test_a_scope_nested_deeper_than_the_stack_is_rejected():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert parse_scope(deep) == Refusal(400, BAD_SCOPE)
    for scope in ({"isrcs": deep}, {"album_ids": deep}, {"catalog_id": deep}):
        refusal = parse_scope(scope)
        assert isinstance(refusal, Refusal)
        assert "[[[" in refusal.error
    while deep:  # taken apart step by step, because the interpreter's deallocation would exhaust the stack
        deep = deep.pop()  # type: ignore[assignment]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.sampled_from([ISRC, CATALOG]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["isrcs", "album_ids", "catalog_id"])


@pytest.mark.parametrize(
    ("limit", "coverage", "aim"),
    [
        (None, None, Aim()),
        (300, None, Aim(limit=300)),
        (None, 0.9, Aim(coverage=Decimal("0.9"))),
        (None, 1, Aim(coverage=Decimal(1))),
        (None, Decimal("0.25"), Aim(coverage=Decimal("0.25"))),
    ],
)
def test_a_request_may_want_a_part_of_its_scope(limit: object, coverage: object, aim: Aim):
    request = read_request("historical", {"isrcs": [ISRC]}, ["spotify"], limit=limit, coverage=coverage)
    assert isinstance(request, MeasurementRequest)
    assert request.aim == aim


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"limit": 0}, "limit must be a whole number"),
        ({"limit": True}, "limit must be a whole number"),
        ({"limit": 10**30}, "limit must be a whole number"),
        ({"limit": "300"}, "limit must be a whole number"),
        ({"coverage": 0}, "coverage must be a number"),
        ({"coverage": 90}, "coverage must be a number"),
        ({"coverage": float("nan")}, "coverage must be a number"),
        ({"coverage": "90%"}, "coverage must be a number"),
        ({"limit": 1, "coverage": 0.5}, "at most one of limit / coverage"),
    ],
)
def test_an_impossible_part_is_refused_with_what_is_expected(fields: dict[str, object], part: str):
    refusal = read_request("historical", {"isrcs": [ISRC]}, ["spotify"], **fields)
    assert isinstance(refusal, Refusal)
    assert part in refusal.error


def test_a_part_is_for_histories_only():
    refusal = read_request("current", {"isrcs": [ISRC]}, ["spotify"], limit=1)
    assert isinstance(refusal, Refusal)
    assert "source historical" in refusal.error


@given(
    source=json | st.sampled_from(["historical", "current"]),
    scope=json
    | st.dictionaries(keys, json, max_size=2)
    | st.dictionaries(keys, st.lists(json, max_size=3), max_size=1),
    platforms=json | st.just(["spotify"]),
)
def test_any_row_is_a_request_or_an_error(source: object, scope: object, platforms: object):
    result = read_request(source, scope, platforms)
    if isinstance(result, Refusal):
        assert result.status_code == 400
        assert 0 < len(result.error) < 2000
    else:
        assert result.source.value == source


@given(st.dictionaries(keys, st.lists(json, max_size=3) | json, min_size=1, max_size=1))
def test_any_scope_is_parsed_or_rejected(scope: object):
    result = parse_scope(scope)
    if isinstance(result, MeasurementRequest):
        assert isinstance(result.scope, ScopeByIsrc | ScopeByAlbum | ScopeByCatalog)
    else:
        assert result.status_code == 400
