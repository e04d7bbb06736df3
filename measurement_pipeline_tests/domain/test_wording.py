"""A figure and its noun agree."""

import pytest

from measurement_pipeline.domain.wording import counted


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
