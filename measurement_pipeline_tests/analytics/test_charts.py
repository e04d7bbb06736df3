"""Charts are valid XML and show their values."""

from datetime import date, timedelta
from xml.etree import ElementTree as ET

import pytest

from measurement_pipeline.analytics import charts

DAYS = [(date(2026, 1, 1) + timedelta(days=place), 1000 * place) for place in range(50)]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_line_chart_labels_both_axes_and_each_line():
    svg = charts.line_chart("Total", [("the cohort", DAYS[20:]), ("all", DAYS)], charts.LIGHT_OR_DARK)
    assert texts(svg) == ["Total", "0", "24.5 k", "49 k", "the cohort", "all", "2026-01-01", "2026-02-19"]
    paths = [e for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path") if "L" in e.get("d", "")]
    assert [(path.get("d", "").count("L"), path.get("stroke-dasharray")) for path in paths] == [(29, None), (49, "5 4")]
    assert len({path.get("stroke") for path in paths}) == 2


@pytest.mark.parametrize("points", [[], DAYS[:1]])
def test_a_line_needs_two_days(points: list[tuple[date, int]]):
    assert texts(charts.line_chart("Total", [("all", points)], charts.LIGHT_OR_DARK)) == [
        "Total",
        "too few days for a line",
    ]
    assert texts(charts.line_chart("Total", [], charts.LIGHT_OR_DARK)) == ["Total", "too few days for a line"]


def test_titles_are_escaped():
    wild = """<script>alert("x")</script> & 'so'"""
    svg = charts.bar_chart("Top", [(wild, 5), ("plain", 0)], charts.LIGHT_OR_DARK)
    assert "<script>" not in svg
    assert texts(svg)[1].startswith('<script>alert("x")')


def test_the_parts_of_a_stacked_bar_add_up():
    svg = charts.stacked_bar("Status", [("measured", 3), ("to be bought", 1)], charts.LIGHT_OR_DARK)
    assert texts(svg) == ["Status", "measured: 3 (75%)", "to be bought: 1 (25%)"]
    bars = [e for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect") if e.get("height") == "16"]
    assert sum(float(bar.get("width", "0")) for bar in bars) == charts.WIDTH


def test_charts_without_rows_are_empty():
    for draw in (charts.stacked_bar, charts.bar_chart):
        assert texts(draw("Nothing", [], charts.LIGHT_OR_DARK)) == ["Nothing"]


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0"), (950, "950"), (1_234, "1.23 k"), (34_000_000, "34 M"), (1_200_000_000, "1.2 B")]
)
def test_a_count_is_abbreviated(count: int, shown: str):
    assert charts.format_short(count) == shown


def test_characters_that_xml_does_not_allow_are_replaced():
    assert texts(charts.bar_chart("Top", [("a\x0bb\x00", 5)], charts.LIGHT_OR_DARK))[1].startswith("a\ufffdb\ufffd")


def test_titles_in_any_script_are_unchanged():
    assert (
        texts(charts.bar_chart("Top", [("夜に\u3000駆け\u200cる", 5)], charts.LIGHT_OR_DARK))[1]
        == "夜に\u3000駆け\u200cる"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (950, "950"), (1_000, "1 k"), (999_499, "999 k"), (999_500, "1 M"), (999_600_000, "1 B"), (1_234_000, "1.23 M"),
     (-1_500, "-1.5 k"), (5_000_000_000_000, "5,000 B")],
)  # fmt: skip
def test_a_count_is_abbreviated_at_every_boundary(value: int, expected: str):
    assert charts.format_short(value) == expected
