"""Valid ISRCs and their presentation."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.isrc import normalise_isrc

ISRCS = st.from_regex(r"[A-Z]{2}[A-Z0-9]{3}[0-9]{7}", fullmatch=True)
HYPHENS = st.sampled_from(["", "-", " ", "\u2010", "\u2011", "\u2013", "\u00a0", "\t"])


@pytest.mark.parametrize(
    "written",
    [
        "AA6Q72000047",
        "aa6q72000047",
        "AA-6Q7-20-00047",
        " AA 6Q7 20 00047\n",
        "ISRC AA-6Q7-20-00047",
        "isrc: AA6Q72000047",
        "ISRCAA6Q72000047",
        "ISRC-AA6Q72000047",
        "AA\u20116Q7\u201120\u201100047",
    ],
)
def test_presentation_is_stripped(written: str) -> None:
    assert normalise_isrc(written) == "AA6Q72000047"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ISRC",
        "AA6Q7200004",  # eleven
        "AA6Q720000471",  # thirteen
        "A16Q72000047",  # a digit in the country
        "AA6Q7200004O",  # the letter O among the digits
        "AA/6Q7/20/00047",
        "ISRC:ISRC:AA6Q72000047",
        "AA6Q72000047 AA6Q72000048",
    ],
)
def test_an_invalid_isrc_is_not_corrected(text: str) -> None:
    assert normalise_isrc(text) is None


@pytest.mark.parametrize(
    ("text", "isrc"),
    [
        ("ISRC12345678", "ISRC12345678"),
        ("IS-RC1-23-45678", "ISRC12345678"),
        ("ISRC:ISRC12345678", "ISRC12345678"),
        ("ISRC ISRC12345678", "ISRC12345678"),
    ],
)
def test_an_isrc_that_begins_with_the_word_isrc_keeps_it(text: str, isrc: str) -> None:
    assert normalise_isrc(text) == isrc


@pytest.mark.parametrize(
    "text",
    [
        "\ufb01ABC1234567",  # the ligature fi, which upper() makes two letters of
        "\u0131A6Q72000047",  # dotless i
        "\u017fA6Q72000047",  # long s
        "A\u212a6Q72000047",  # the Kelvin sign
        "AA6Q7200004\u0667",  # an Arabic-Indic seven
        "\uff21\uff216Q72000047",  # full-width letters
    ],
)
def test_letters_and_digits_of_other_alphabets_are_not_converted(text: str) -> None:
    assert normalise_isrc(text) is None


@given(ISRCS)
def test_an_isrc_is_its_own_normal_form(isrc: str) -> None:
    assert normalise_isrc(isrc) == isrc


@given(ISRCS, st.lists(HYPHENS, min_size=12, max_size=12), st.sampled_from(["", "ISRC", "isrc:"]))
def test_hyphens_and_case_do_not_matter(isrc: str, hyphens: list[str], word: str) -> None:
    written = word + "".join(hyphen + letter for hyphen, letter in zip(hyphens, isrc.lower(), strict=True))
    assert normalise_isrc(written) == isrc


@given(st.text())
def test_any_text_gives_an_isrc_or_none(text: str) -> None:
    isrc = normalise_isrc(text)
    assert isrc is None or re.fullmatch(r"[A-Z]{2}[A-Z0-9]{3}[0-9]{7}", isrc, re.ASCII)
