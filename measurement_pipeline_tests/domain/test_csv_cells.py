"""Cells of CSV files: no formulas, and times in UTC."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from measurement_pipeline.domain.csv_cells import csv_cell


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_text_that_a_spreadsheet_would_execute_gets_an_apostrophe(begins: str):
    assert csv_cell(f"{begins}cmd|' /C calc'!A0") == f"'{begins}cmd|' /C calc'!A0"
    assert csv_cell(begins) == f"'{begins}"


@pytest.mark.parametrize("text", ["", "a=b", " =1", "'quoted", "-5", "+44", "-1.50", "2024-01-02"])
def test_other_texts_and_numbers_as_text_are_unchanged(text: str):
    assert csv_cell(text) == text


@pytest.mark.parametrize("value", [-5, Decimal("-1.5"), None, True, date(2026, 1, 2)])
def test_values_that_are_not_text_are_unchanged(value: object):
    assert csv_cell(value) is value


def test_a_time_is_written_in_utc_with_z():
    at = datetime(2026, 1, 2, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert csv_cell(at) == "2026-01-01T23:30:00Z"
    assert csv_cell(at.astimezone(UTC).replace(microsecond=5)) == "2026-01-01T23:30:00.000005Z"
