"""`Retry-After`, read from the response alone."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.vendors.http import MAX_RETRY_AFTER_SECONDS
from measurement_pipeline.vendors.songstats.response import Failure, SongstatsResponse

SENT = "Wed, 21 Oct 2015 07:28:00 GMT"


def retry_after(headers: Mapping[str, str]) -> float | None:
    return SongstatsResponse(429, headers, b"").retry_after


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("2.5", 2.5),
        ("-5", 0),
        ("86400", 86400),
        ("9" * 400, MAX_RETRY_AFTER_SECONDS),
    ],
)
def test_seconds_are_read(text: str, seconds: float) -> None:
    assert retry_after({"retry-after": text}) == seconds


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:29:30 GMT", 90),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 06:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:10 -0000", 10),
        ("Wed, 21 Oct 2099 07:28:00 GMT", MAX_RETRY_AFTER_SECONDS),
    ],
)
def test_an_http_date_is_compared_with_the_responses_own_date(until: str, seconds: float) -> None:
    assert retry_after({"retry-after": until, "date": SENT}) == seconds


def test_an_http_date_without_the_responses_own_date_is_ignored() -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert retry_after({"retry-after": in_an_hour}) is None
    assert retry_after({"retry-after": in_an_hour, "date": "yesterday"}) is None


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1e3", "5, 10", "0x10", "\u0665"])
def test_an_unreadable_header_is_ignored(text: str) -> None:
    assert retry_after({"retry-after": text, "date": SENT}) is None
    assert retry_after({}) is None


@given(st.text(), st.text())
def test_any_header_gives_none_or_a_value_in_range(text: str, sent: str) -> None:
    seconds = retry_after({"retry-after": text, "date": sent})
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


def test_a_response_has_a_status_or_a_failure() -> None:
    with pytest.raises(ValueError, match="failure"):
        SongstatsResponse(None, {}, b"")
    assert SongstatsResponse(None, {}, b"", Failure.TIMEOUT).retry_after is None
