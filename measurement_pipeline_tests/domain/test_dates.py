"""Dates have the form YYYY-MM-DD."""

from datetime import date

import pytest

from measurement_pipeline.domain.dates import parse_date


def test_a_date_is_parsed():
    assert parse_date("2024-03-15") == date(2024, 3, 15)


@pytest.mark.parametrize(
    "value",
    [
        None,
        20240315,
        "",
        "2024",
        "2024-03",
        "20240315",
        "2024-W11-5",
        "2024-02-30",
        "0000-00-00",
        "2024-03-15T00",
        "2024-3-150",
    ],
)
def test_other_forms_are_not_dates(value: object):
    assert parse_date(value) is None
