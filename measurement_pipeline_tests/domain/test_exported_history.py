"""Files of daily plays that artists export: what is read, and how the rest is refused."""

from datetime import date

import pytest

from measurement_pipeline.domain.exported_history import (
    UnreadableHistoryError,
    describe_history,
    parse_exported_history,
)

TODAY = date(2026, 11, 30)


@pytest.mark.parametrize(
    "text",
    [
        "date,streams\n2026-01-03,5\n2026-01-01,7\n",
        "\ufeffDate,Streams\r\n2026-01-01,7\r\n2026-01-03,5\r\n\r\n",
        'listeners,"streams",date\n1,7,2026-01-01\n1,5,2026-01-03\n1,5,2026-01-03\n',
    ],
)
def test_days_are_read_in_order_whatever_the_columns_order(text: str):
    found = parse_exported_history(text, today=TODAY)
    assert dict(zip(found.days, found.plays, strict=True)) == {date(2026, 1, 1): 7, date(2026, 1, 3): 5}
    assert describe_history(found) == (
        "2 days from 2026-01-01 to 2026-01-03, 12 plays; 1 day between them without a figure"
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "line 1: columns ''"),
        ("day,streams\n", "expected a header with `date` and `streams`"),
        ("date,date,streams\n", "once each"),
        ("date,streams\n", "no line below its header"),
        ("date,streams\n01/02/2026,5\n", "line 2: date '01/02/2026': expected a day from 2008-10-01"),
        ("date,streams\n2026-12-02,5\n", "line 2: date '2026-12-02'"),
        ("date,streams\n2026-01-01,\n", "line 2: streams '': expected a whole number"),
        ('date,streams\n2026-01-01,"1,234"\n', "line 2: streams '1,234'"),
        ("date,streams\n2026-01-01,-5\n", "line 2: streams '-5'"),
        ("date,streams\n2026-01-01\n", "line 2: expected 2 columns, got 1"),
        ("date,streams\n2026-01-01,5\n2026-01-01,6\n", "line 3: 2026-01-01 has 5 streams on an earlier line"),
        ('date,streams\n"2026', "not CSV"),
    ],
)
def test_a_file_that_is_no_export_is_refused_with_line_value_and_expectation(text: str, part: str):
    with pytest.raises(UnreadableHistoryError) as refused:
        parse_exported_history(text, today=TODAY)
    assert part in str(refused.value)
