"""The outcome table of one call, and the reading of points, for any bytes a vendor may send."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from measurement_pipeline.domain.outcome import Cause, DailyCount, Judgement, Outcome
from measurement_pipeline.vendors.songstats.historic_stats import digest, judge, needs_key_check, read_key_validity
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

BIGINT_MAX = 2**63 - 1

# Every row of the outcome table: `judge` returns nothing else.
TABLE = {
    (Outcome.STORED, True, Cause.STORED),
    (Outcome.NO_HISTORY, True, Cause.NO_HISTORY),
    (Outcome.REJECTED, True, Cause.REJECTED),
    (Outcome.MALFORMED, True, Cause.MALFORMED),
    (Outcome.TRANSIENT, False, Cause.TRANSIENT),
    (Outcome.TRANSIENT, None, Cause.TRANSIENT),
    (Outcome.TRANSIENT, None, Cause.TIMEOUT),
    (None, False, Cause.THROTTLED),
    (None, False, Cause.REFUSED_KEY),
    (None, None, Cause.TRANSIENT),
}


def payload(history: object, *, source: str = "spotify", **more: object) -> dict[str, Any]:
    entry = {"source": source, "data": {"history": history}}
    return {"result": "success", "message": "Data Retrieved.", "stats": [entry]} | more


def ok(value: object) -> SongstatsResponse:
    return SongstatsResponse(200, {}, json.dumps(value).encode())


def day(text: str) -> date:
    return date.fromisoformat(text)


def refused(status: int, message: str = "no") -> SongstatsResponse:
    return SongstatsResponse(status, {}, json.dumps({"result": "error", "message": message}).encode())


def taken_as(judgement: Judgement) -> tuple[Outcome | None, bool | None, Cause]:
    return judgement.outcome, judgement.billable, judgement.cause


def left_out(*values: object) -> dict[str, int]:
    """Which reasons for leaving a point out the values have, each beside one good point."""
    history = [{"date": "2025-01-01", "streams_total": 1}]
    history += [
        {"date": str(day("2025-02-01") + timedelta(place)), "streams_total": value}
        for place, value in enumerate(values)
    ]
    parsed = judge(ok(payload(history))).history
    assert parsed is not None
    return parsed.dropped


# The table, row by row.


def test_usable_points_are_stored_and_billed() -> None:
    judgement = judge(
        ok(
            payload(
                [
                    {"date": "2025-05-08", "streams_total": 0},
                    {"date": "2025-05-09", "streams_total": 0, "popularity_current": 3},
                    {"date": "2025-05-10", "streams_total": 3069, "popularity_current": 12},
                ]
            )
        )
    )
    assert taken_as(judgement) == (Outcome.STORED, True, Cause.STORED)
    assert judgement.history is not None
    assert [point.value for point in judgement.history.play_counts] == [0, 0, 3069]
    assert judgement.history.popularity == (
        DailyCount(day("2025-05-09"), 3),
        DailyCount(day("2025-05-10"), 12),
    )
    assert judgement.history.dropped == {}
    assert judgement.detail == "3 points from 2025-05-08 to 2025-05-10"


@pytest.mark.parametrize(
    "body",
    [
        payload([]),
        {"result": "success", "stats": []},
        payload([{"date": "2025-05-08", "streams_total": 1}], source="deezer"),
    ],
    ids=["empty history", "no stats", "other platform only"],
)
def test_a_platform_without_a_history_is_no_history_and_billed(body: object) -> None:
    assert taken_as(judge(ok(body))) == (Outcome.NO_HISTORY, True, Cause.NO_HISTORY)


def test_404_is_no_history_and_counted_as_billed() -> None:
    judgement = judge(refused(404, "Track not found. "))
    assert taken_as(judgement) == (Outcome.NO_HISTORY, True, Cause.NO_HISTORY)
    assert judgement.detail == "HTTP 404: Track not found."


@pytest.mark.parametrize("status", [400, 405, 406, 407, 409, 410, 413, 418, 422, 426, 451, 499])
def test_other_4xx_are_rejected(status: int) -> None:
    assert taken_as(judge(refused(status))) == (Outcome.REJECTED, True, Cause.REJECTED)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_rejected_rather_than_followed_with_the_key(status: int) -> None:
    assert taken_as(judge(SongstatsResponse(status, {"location": "https://elsewhere"}, b""))) == (
        Outcome.REJECTED,
        True,
        Cause.REJECTED,
    )


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_a_success_that_is_not_200_is_malformed_and_not_bought_again(status: int) -> None:
    body = json.dumps(payload([{"date": "2025-05-08", "streams_total": 1}])).encode()
    assert taken_as(judge(SongstatsResponse(status, {}, body))) == (
        Outcome.MALFORMED,
        True,
        Cause.MALFORMED,
    )


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 520, 599])
def test_a_server_error_is_transient_and_not_billed(status: int) -> None:
    assert taken_as(judge(refused(status))) == (Outcome.TRANSIENT, False, Cause.TRANSIENT)


@pytest.mark.fails_without("a 429 costs no budget")
def test_a_429_has_no_outcome_and_is_not_billed() -> None:
    assert taken_as(judge(refused(429))) == (None, False, Cause.THROTTLED)


@pytest.mark.parametrize("status", [401, 402])
@pytest.mark.parametrize("works", [True, False, None])
def test_401_and_402_mean_a_rejected_key(*, status: int, works: bool | None) -> None:
    judgement = judge(refused(status), is_key_valid=works)
    assert taken_as(judgement) == (None, False, Cause.REFUSED_KEY)


@pytest.mark.parametrize(
    ("works", "expected"),
    [
        (True, (Outcome.REJECTED, True, Cause.REJECTED)),
        (False, (None, False, Cause.REFUSED_KEY)),
        (None, (None, None, Cause.TRANSIENT)),
    ],
)
def test_a_403_is_judged_by_the_status_call(*, works: bool | None, expected: object) -> None:
    assert taken_as(judge(refused(403), is_key_valid=works)) == expected


def test_a_403_without_a_key_check_reports_that() -> None:
    assert "could not be checked" in judge(refused(403, "Forbidden")).detail


def test_only_403_needs_the_status_call() -> None:
    assert [status for status in range(200, 600) if needs_key_check(refused(status))] == [403]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Failure.CONNECTION, None), (Failure.INCOMPLETE, 200), (Failure.INCOMPLETE, 203), (Failure.INCOMPLETE, 206)],
)
def test_a_call_without_a_complete_response_is_transient_and_may_be_billed(
    failure: Failure, status: int | None
) -> None:
    judgement = judge(SongstatsResponse(status, {}, b"", failure, "cut short"))
    assert taken_as(judgement) == (Outcome.TRANSIENT, None, Cause.TRANSIENT)
    assert judgement.detail == f"{failure.value}: cut short"


@pytest.mark.parametrize("status", [None, 200])
def test_a_timeout_is_transient_and_may_have_been_billed(status: int | None) -> None:
    judgement = judge(SongstatsResponse(status, {}, b"", Failure.TIMEOUT, "no answer"))
    assert taken_as(judgement) == (Outcome.TRANSIENT, None, Cause.TIMEOUT)


@pytest.mark.parametrize("failure", list(Failure))
@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (429, Cause.THROTTLED),
        (408, Cause.TRANSIENT),
        (503, Cause.TRANSIENT),
    ],
)
def test_a_retryable_status_counts_even_without_its_body(failure: Failure, status: int, cause: Cause) -> None:
    judgement = judge(SongstatsResponse(status, {}, b"", failure, "cut short"))
    assert taken_as(judgement) == taken_as(judge(refused(status)))
    assert judgement.cause is cause


@pytest.mark.parametrize("failure", [Failure.INCOMPLETE, Failure.TIMEOUT, Failure.FOREIGN])
@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 402, 403, 404, 410])
def test_any_other_status_without_its_body_is_a_failure(failure: Failure, status: int) -> None:
    judgement = judge(SongstatsResponse(status, {}, b"", failure, "cut short"))
    assert judgement.outcome in {None, Outcome.TRANSIENT}
    assert judgement.billable is None
    assert judgement.detail == f"{failure.value}: cut short"


# The key, from /status.


@pytest.mark.parametrize(
    ("answer", "works"),
    [
        (ok({"result": "success", "status": {}}), True),
        (refused(401), False),
        (refused(402), False),
        (refused(403), False),
        (refused(429), None),
        (refused(500), None),
        (ok({"result": "error"}), None),
        (SongstatsResponse(200, {}, b"<html>maintenance</html>"), None),
        (SongstatsResponse(200, {}, b"", Failure.INCOMPLETE), None),
        (SongstatsResponse(403, {}, b"", Failure.FOREIGN), None),
        (SongstatsResponse(401, {}, b"", Failure.FOREIGN), None),
        (SongstatsResponse(None, {}, b"", Failure.CONNECTION), None),
    ],
)
def test_the_key_is_valid_invalid_or_unknown(*, answer: SongstatsResponse, works: bool | None) -> None:
    assert read_key_validity(answer) is works


# Bodies of another shape.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>busy</html>",
        b'{"result":"success","stats":[{"source":"spotify","data":{"history":[{"da',
        b"\xff\xfe\xff",
        b'{"result":"success","stats":"\xe9"}',
        b"[" * 200_000,
        b'{"result":' * 20_000,
        json.dumps(payload([]) | {"result": "error"}).encode(),
        json.dumps({"stats": []}).encode(),
        json.dumps({"result": "success"}).encode(),
        json.dumps({"result": "success", "stats": None}).encode(),
        json.dumps({"result": "success", "stats": {"source": "spotify"}}).encode(),
        json.dumps({"result": "success", "stats": ["spotify"]}).encode(),
        json.dumps({"result": "success", "stats": [{"data": {"history": []}}]}).encode(),
        json.dumps({"result": "success", "stats": [{"source": "spotify"}]}).encode(),
        json.dumps(payload(None)).encode(),
        json.dumps(payload({"2025-01-01": 5})).encode(),
        json.dumps({"result": "success", "stats": [{"source": "spotify", "data": []}]}).encode(),
    ],
)
def test_an_unexpected_200_is_malformed(body: bytes) -> None:
    judgement = judge(SongstatsResponse(200, {}, body))
    assert taken_as(judgement) == (Outcome.MALFORMED, True, Cause.MALFORMED)
    assert judgement.history is None


def test_a_byte_order_mark_is_ignored() -> None:
    body = b"\xef\xbb\xbf" + json.dumps(payload([{"date": "2025-01-01", "streams_total": 1}])).encode()
    assert judge(SongstatsResponse(200, {}, body)).outcome is Outcome.STORED


def test_the_platform_is_found_at_any_position() -> None:
    history = [{"date": "2025-01-01", "streams_total": 1}]
    spotify = {"source": "spotify", "data": {"history": history}}
    others: list[object] = [{"source": "youtube", "data": None}, "odd", {"no": "source"}]
    for stats in ([spotify, *others], [*others, spotify]):
        assert judge(ok({"result": "success", "stats": stats})).outcome is Outcome.STORED


@pytest.mark.parametrize("source", ["Spotify", "SPOTIFY", " spotify ", "spotify"])
@pytest.mark.parametrize("result", ["success", "Success", "SUCCESS "])
def test_the_platform_and_the_result_are_read_in_any_case(source: str, result: str) -> None:
    body = payload([{"date": "2025-01-01", "streams_total": 1}], source=source) | {"result": result}
    assert judge(ok(body)).outcome is Outcome.STORED


def test_the_same_platform_in_two_cases_is_one() -> None:
    entries = [
        {"source": name, "data": {"history": [{"date": "2025-01-01", "streams_total": 1}]}}
        for name in ("Spotify", "spotify")
    ]
    assert judge(ok({"result": "success", "stats": entries})).outcome is Outcome.STORED
    entries[0]["data"] = {"history": []}
    assert judge(ok({"result": "success", "stats": entries})).outcome is Outcome.MALFORMED


def test_a_list_without_a_known_platform_is_malformed_and_names_its_platforms() -> None:
    judgement = judge(ok(payload([{"date": "2025-01-01", "streams_total": 1}], source="Platform 7")))
    assert taken_as(judgement) == (Outcome.MALFORMED, True, Cause.MALFORMED)
    assert "platform_7" in judgement.detail


@pytest.mark.parametrize("known", ["deezer", "Apple Music", "apple-music", "1001Tracklists"])
def test_a_list_with_one_known_platform_is_no_history(known: str) -> None:
    odd = {"source": "platform 7", "data": {"history": []}}
    body = {"result": "success", "stats": [odd, {"source": known, "data": {"history": []}}]}
    assert judge(ok(body)).outcome is Outcome.NO_HISTORY


def test_another_platform_can_be_judged() -> None:
    body = payload([{"date": "2025-01-01", "streams_total": 1}], source="soundcloud")
    assert judge(ok(body), platform="soundcloud").outcome is Outcome.STORED


def test_the_same_entry_twice_is_read_once_and_two_that_differ_are_malformed() -> None:
    def entry(count: int) -> dict[str, object]:
        history = [{"date": "2025-01-01", "streams_total": count}]
        return {"source": "spotify", "data": {"history": history}}

    twice = judge(ok({"result": "success", "stats": [entry(5), entry(5)]}))
    assert twice.history is not None
    assert twice.history.dropped == {}
    differing = judge(ok({"result": "success", "stats": [entry(5), entry(6)]}))
    assert differing.outcome is Outcome.MALFORMED


def test_entries_nested_too_deeply_to_be_compared_are_malformed() -> None:
    deep = b'{"source":"spotify","data":' + b"[" * 900 + b"]" * 900 + b"}"
    body = b'{"result":"success","stats":[' + deep + b"," + deep + b"]}"
    assert judge(SongstatsResponse(200, {}, body)).outcome is Outcome.MALFORMED


# Points.


def test_a_history_without_usable_points_is_malformed_with_the_reasons() -> None:
    history = [{"date": "2025-01-01"}, {"date": "2025-01-02", "streams_total": None}]
    judgement = judge(ok(payload(history)))
    assert taken_as(judgement) == (Outcome.MALFORMED, True, Cause.MALFORMED)
    assert judgement.detail == "none of 2 points is usable: 1 missing, 1 null"


def test_popularity_alone_is_no_history_of_plays() -> None:
    history = [{"date": "2025-01-01", "popularity_current": 50}]
    assert judge(ok(payload(history))).outcome is Outcome.MALFORMED


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (-0.0, 0),
        (3069, 3069),
        (3069.0, 3069),
        ("3069", 3069),
        ("296422273.0", 296422273),
        (" 12 ", 12),
        ("+12", 12),
        ("12.", 12),
        ("3e5", 300_000),
        ("1.5e1", 15),
        ("0e999999999", 0),
        (BIGINT_MAX, BIGINT_MAX),
        (str(BIGINT_MAX), BIGINT_MAX),
        (f"{BIGINT_MAX}.0", BIGINT_MAX),
    ],
)
def test_numbers_and_numeric_strings_are_read(value: object, count: int) -> None:
    judgement = judge(ok(payload([{"date": "2025-01-01", "streams_total": value}])))
    assert judgement.history is not None
    assert judgement.history.play_counts == (DailyCount(day("2025-01-01"), count),)


def test_a_number_with_a_point_keeps_digits_that_a_float_would_lose() -> None:
    body = json.dumps(payload([{"date": "2025-01-01", "streams_total": "?"}]))
    exact = body.replace('"?"', "9007199254740993.0").encode()
    judgement = judge(SongstatsResponse(200, {}, exact))
    assert judgement.history is not None
    assert judgement.history.play_counts[0].value == 9007199254740993


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null"),
        (True, "not a number"),
        (False, "not a number"),
        ("", "not a number"),
        ("many", "not a number"),
        ("1,000", "not a number"),
        ("1_000", "not a number"),
        ("0x10", "not a number"),
        ("\u0663", "not a number"),
        ([5], "not a number"),
        ({"value": 5}, "not a number"),
        (float("nan"), "not finite"),
        (float("inf"), "not finite"),
        ("NaN", "not finite"),
        ("-Infinity", "not finite"),
        (-1, "negative"),
        ("-1.0", "negative"),
        (1.5, "fractional"),
        ("0.1", "fractional"),
        ("1e-999999999", "fractional"),
        (BIGINT_MAX + 1, "over range"),
        (f"{BIGINT_MAX + 1}.0", "over range"),
        ("1e19", "over range"),
        ("9" * 5000, "over range"),
        ("1e" + "9" * 40, "over range"),
    ],
)
def test_a_value_that_is_not_a_count_drops_the_point_and_is_tallied(value: object, reason: str) -> None:
    assert left_out(value) == {reason: 1}


def test_a_missing_count_is_dropped_and_never_stored_as_zero() -> None:
    history = [{"date": "2025-01-01", "streams_total": 1}, {"date": "2025-01-02"}]
    parsed = judge(ok(payload(history))).history
    assert parsed is not None
    assert parsed.play_counts == (DailyCount(day("2025-01-01"), 1),)
    assert parsed.dropped == {"missing": 1}


def test_an_integer_too_long_for_python_drops_its_point_and_not_the_body() -> None:
    body = json.dumps(payload([{"date": "2025-01-01", "streams_total": 7}, {"n": "?"}]))
    huge = body.replace('{"n": "?"}', '{"date":"2025-01-02","streams_total":' + "9" * 5000 + "}")
    judgement = judge(SongstatsResponse(200, {}, huge.encode()))
    assert judgement.history is not None
    assert judgement.history.play_counts == (DailyCount(day("2025-01-01"), 7),)
    assert judgement.history.dropped == {"over range": 1}


def test_a_huge_exponent_is_parsed_quickly() -> None:
    monsters = ["1e999999999", "-1e999999999", "1e-999999999", "0e999999999"] * 50
    # One number of a billion digits would take longer than a test may.
    assert left_out(*monsters) == {"over range": 50, "negative": 50, "fractional": 50}


@pytest.mark.parametrize(
    "when",
    [
        "2025-13-01",
        "2025-02-30",
        "20250510",
        "2025-W19-6",
        "2025-5-1",
        "2025-05-10T00:00:00Z",
        "10.05.2025",
        "\u0662\u0660\u0662\u0665-05-10",
        "",
        None,
        20250510,
    ],
)
def test_a_date_in_any_other_form_drops_the_point(when: object) -> None:
    history = [{"date": "2025-01-01", "streams_total": 1}, {"date": when, "streams_total": 2}]
    parsed = judge(ok(payload(history))).history
    assert parsed is not None
    assert parsed.dropped == {"without a readable date": 1}


@pytest.mark.parametrize("when", ["0002-01-01", "2005-12-31"])
def test_a_day_before_there_was_streaming_drops_the_point(when: str) -> None:
    history = [{"date": "2006-01-01", "streams_total": 1}, {"date": when, "streams_total": 2}]
    parsed = judge(ok(payload(history))).history
    assert parsed is not None
    assert (len(parsed.play_counts), parsed.dropped) == (1, {"before there was streaming": 1})


def test_a_point_that_is_not_an_object_is_dropped() -> None:
    parsed = judge(ok(payload([{"date": "2025-01-01", "streams_total": 1}, 5, None, []]))).history
    assert parsed is not None
    assert parsed.dropped == {"not an object": 3}


def test_of_two_points_with_one_date_the_last_usable_one_wins() -> None:
    history = [
        {"date": "2025-01-02", "streams_total": 5},
        {"date": "2025-01-01", "streams_total": 1},
        {"date": "2025-01-02", "streams_total": 6},
        {"date": "2025-01-02", "streams_total": None},
    ]
    parsed = judge(ok(payload(history))).history
    assert parsed is not None
    assert parsed.play_counts == (DailyCount(day("2025-01-01"), 1), DailyCount(day("2025-01-02"), 6))
    assert parsed.dropped == {"same date twice": 1, "null": 1}


def test_falls_and_plateaus_are_stored() -> None:
    values = [10, 10, 10, 7, 20, 0]
    history = [{"date": f"2025-01-0{place}", "streams_total": value} for place, value in enumerate(values, start=1)]
    parsed = judge(ok(payload(history))).history
    assert parsed is not None
    assert [point.value for point in parsed.play_counts] == values


def test_unusable_popularity_is_dropped_without_a_tally() -> None:
    history = [
        {"date": f"2025-01-0{place}", "streams_total": 1, "popularity_current": value}
        for place, value in enumerate([12, "13.0", None, "high", -1, 1.5, True], start=1)
    ]
    parsed = judge(ok(payload(history))).history
    assert parsed is not None
    assert [point.value for point in parsed.popularity] == [12, 13]
    assert len(parsed.play_counts) == 7
    assert parsed.dropped == {}


def test_popularity_is_stored_on_a_day_without_a_count() -> None:
    history = [
        {"date": "2025-01-01", "streams_total": 1},
        {"date": "2025-01-02", "popularity_current": 9},
    ]
    parsed = judge(ok(payload(history))).history
    assert parsed is not None
    assert parsed.popularity == (DailyCount(day("2025-01-02"), 9),)


# Arbitrary input.

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
POINTS = st.fixed_dictionaries(
    {},
    optional={
        "date": st.dates().map(str) | ANY_JSON,
        "streams_total": st.integers() | st.floats() | ANY_JSON,
        "popularity_current": st.integers(0, 100) | ANY_JSON,
    },
)


def check_it_is_of_the_table(answer: SongstatsResponse, *, works: bool | None = None) -> None:
    judgement = judge(answer, is_key_valid=works)
    assert taken_as(judgement) in TABLE
    assert (judgement.history is not None) == (judgement.outcome is Outcome.STORED)
    assert len(judgement.detail) <= 300
    assert judgement.detail.isprintable()
    judgement.detail.encode("utf-8")
    if judgement.history is not None:
        assert judgement.history.play_counts
        for series in (judgement.history.play_counts, judgement.history.popularity):
            days = [point.day for point in series]
            assert days == sorted(set(days))
            assert all(0 <= point.value <= BIGINT_MAX for point in series)


@given(
    status=st.sampled_from([200, 200, 200, 204, 301, 400, 401, 403, 404, 408, 429, 500, 999]),
    body=st.binary(max_size=200),
    failure=st.none() | st.sampled_from(Failure),
    works=st.sampled_from([True, False, None]),
)
@example(status=200, body=b'{"result":"error","message":"a\\u0000b\\ud800"}', failure=None, works=None)
def test_any_bytes_give_a_row_of_the_outcome_table(
    *, status: int, body: bytes, failure: Failure | None, works: bool | None
) -> None:
    check_it_is_of_the_table(SongstatsResponse(status, {}, body, failure), works=works)


@given(ANY_JSON)
def test_any_json_gives_a_row_of_the_outcome_table(value: object) -> None:
    check_it_is_of_the_table(ok(value))
    check_it_is_of_the_table(ok({"result": "success", "stats": value}))
    check_it_is_of_the_table(ok(payload(value)))


@given(st.lists(POINTS | ANY_JSON, max_size=20))
def test_any_point_is_either_read_or_tallied_as_dropped(points: Sequence[object]) -> None:
    answer = ok(payload(points))
    check_it_is_of_the_table(answer)
    history = judge(answer).history
    if history is not None:
        assert len(history.play_counts) + sum(history.dropped.values()) == len(points)


@given(
    st.dictionaries(
        st.dates(min_value=date(2006, 1, 1)),
        st.tuples(st.integers(0, BIGINT_MAX), st.none() | st.integers(0, 100)),
        min_size=1,
    ),
    st.sampled_from([int, str, lambda count: f"{count}.0"]),
    st.randoms(use_true_random=False),
)
def test_a_valid_history_is_complete_and_ascending(
    series: dict[date, tuple[int, int | None]], spelt: Any, random: Any
) -> None:
    points = [
        {"date": str(when), "streams_total": spelt(count)} | ({} if level is None else {"popularity_current": level})
        for when, (count, level) in series.items()
    ]
    random.shuffle(points)
    history = judge(ok(payload(points))).history
    assert history is not None
    assert history.dropped == {}
    assert history.play_counts == tuple(DailyCount(when, count) for when, (count, _) in sorted(series.items()))
    assert history.popularity == tuple(
        DailyCount(when, level) for when, (_, level) in sorted(series.items()) if level is not None
    )


def test_a_digest_is_sha256_in_hex() -> None:
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
