"""A figure and its noun agree."""

from datetime import datetime, timedelta, timezone

import pytest

from measurement_pipeline.domain.text import counted, utc


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (counted(0, "recording"), "0 recordings"),
        (counted(1, "recording"), "1 recording"),
        (counted(2_000, "recording"), "2,000 recordings"),
        (counted(1, "breach", "breaches"), "1 breach"),
        (counted(2, "request waits", "requests wait"), "2 requests wait"),
        (counted(0.5, "call"), "0.5 calls"),
    ],
)
def test_a_noun_agrees_with_its_figure(said: str, words: str):
    assert said == words


def test_a_moment_is_told_in_utc_whatever_zone_it_is_in():
    tokyo = timezone(timedelta(hours=9))
    assert utc(datetime(2026, 1, 2, 3, 4, 5, tzinfo=tokyo)) == "2026-01-01 18:04:05 UTC"
