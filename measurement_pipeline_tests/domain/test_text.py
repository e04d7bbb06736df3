"""Text helpers: plurals, times, one-line texts."""

from datetime import datetime, timedelta, timezone

import pytest

from measurement_pipeline.domain.text import counted, is_visible_ascii, one_line, storable_text, utc


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (counted(0, "recording"), "0 recordings"),
        (counted(1, "recording"), "1 recording"),
        (counted(2_000, "recording"), "2,000 recordings"),
        (counted(1, "breach", "breaches"), "1 breach"),
        (counted(2, "request waits", "requests wait"), "2 requests wait"),
        (counted(0.5, "call"), "0.5 calls"),
    ],
)
def test_a_noun_agrees_with_its_number(expected: str, words: str):
    assert expected == words


def test_a_time_is_formatted_in_utc():
    tokyo = timezone(timedelta(hours=9))
    assert utc(datetime(2026, 1, 2, 3, 4, 5, tzinfo=tokyo)) == "2026-01-01 18:04:05 UTC"


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "é", "\x7f", "a\0"])
def test_only_visible_ascii_may_be_a_header(text: str):
    assert not is_visible_ascii(text)
    assert is_visible_ascii("sk_live-~!0")


def test_one_line_is_printable_and_short():
    assert one_line("a\tb\n\x00c   d", max_length=50) == "a b c d"
    assert one_line("x" * 500, max_length=10) == "x" * 10


@pytest.mark.parametrize("value", [None, 7, "", "  ", "a\0b", "\ud800"])
def test_blank_and_unstorable_text_is_dropped(value: object):
    assert storable_text(value) is None
    assert storable_text(" a ") == " a "
