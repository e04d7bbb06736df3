"""Charts as SVG. Pure. Three shapes need no library and no script in the page (decisions 0019 and 0031).

The caller chooses the colours: a page has CSS variables that follow the reader's light or dark mode. An image in Dagster's UI
does not know its background, and gets colours that are readable on both.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from html import escape

WIDTH = 640
_INVALID_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 30, 26
_HEIGHT = 220
_BAR, _ROW = 16, 24
# A longer label would overlap its bar.
_LONGEST_LABEL = 34
_LABELS = 230


@dataclass(frozen=True, slots=True)
class Palette:
    """CSS colours. Those of `series` differ from one another."""

    text: str
    grid: str
    line: str
    series: Sequence[str]


# Readable on white and on near-black: contrast of at least 4 against both.
LIGHT_OR_DARK = Palette(
    "#7d8590", "#7d859055", "#3b82f6", ("#3b82f6", "#d97706", "#8b5cf6", "#0d9488", "#e11d48", "#7d8590")
)
PAGE_VARIABLES = Palette(
    "var(--text)", "var(--grid)", "var(--line)", tuple(f"var(--part-{place})" for place in range(6))
)


def line_chart(title: str, series: Sequence[tuple[str, Sequence[tuple[date, int]]]], palette: Palette) -> str:
    """Draw lines over time with a legend. The axis starts at 0. The first line is solid, the others are dashed."""
    points = [point for _, drawn in series for point in drawn]
    if len({day for day, _ in points}) < 2:
        return _svg(title, 60, palette, _text(_LEFT, 48, "too few days for a line", palette))
    most = max([value for _, value in points] + [1])
    first, last = min(points)[0], max(points)[0]
    span = max((last - first).days, 1)

    def at(day: date, value: int) -> tuple[float, float]:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * (day - first).days / span
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / most
        return round(x, 1), round(y, 1)

    marks = []
    for share in (0.0, 0.5, 1.0):
        _, y = at(first, round(most * share))
        marks.append(f'<path d="M{_LEFT} {y}H{WIDTH - _RIGHT}" stroke="{palette.grid}"/>')
        marks.append(_text(_LEFT - 6, y + 4, format_short(round(most * share)), palette, anchor="end"))
    for place, (label, drawn) in enumerate(series):
        stroke = f'stroke="{palette.series[place % len(palette.series)]}" stroke-width="2"'
        if place:
            stroke += ' stroke-dasharray="5 4"'
        path = "L".join(f"{x} {y}" for x, y in (at(*point) for point in drawn))
        marks.append(f'<path d="M{path}" fill="none" {stroke}/>')
        y = _HEIGHT + 12 + 20 * place
        marks.append(f'<path d="M{_LEFT} {y}h24" {stroke}/>')
        marks.append(_text(_LEFT + 32, y + 4, label, palette))
    marks.append(_text(_LEFT, _HEIGHT - 8, f"{first}", palette))
    marks.append(_text(WIDTH - _RIGHT, _HEIGHT - 8, f"{last}", palette, anchor="end"))
    return _svg(title, _HEIGHT + 4 + 20 * len(series), palette, "".join(marks))


def bar_chart(title: str, rows: Sequence[tuple[str, int]], palette: Palette) -> str:
    """Draw one bar per row. The longest bar uses the available width."""
    most = max([value for _, value in rows] + [1])
    room = WIDTH - _LABELS - _RIGHT - 60
    marks = []
    for place, (label, value) in enumerate(rows):
        y = _TOP + _ROW * place
        width = round(room * value / most, 1)
        shown = label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
        marks.append(_text(_LABELS - 8, y + 13, shown, palette, anchor="end"))
        marks.append(f'<rect x="{_LABELS}" y="{y}" width="{width}" height="{_BAR}" rx="2" fill="{palette.line}"/>')
        marks.append(_text(_LABELS + width + 6, y + 13, format_short(value), palette))
    return _svg(title, _TOP + _ROW * len(rows) + 6, palette, "".join(marks))


def stacked_bar(title: str, rows: Sequence[tuple[str, int]], palette: Palette) -> str:
    """Draw one bar divided into parts of a whole, with a legend."""
    whole = max(sum(value for _, value in rows), 1)
    x = 0.0
    marks = []
    for place, (label, value) in enumerate(rows):
        colour = palette.series[place % len(palette.series)]
        width = round(WIDTH * value / whole, 1)
        y = _TOP + _BAR + 14 + 20 * place
        marks.append(f'<rect x="{round(x, 1)}" y="{_TOP}" width="{width}" height="{_BAR}" fill="{colour}"/>')
        marks.append(f'<rect x="0" y="{y}" width="12" height="12" rx="2" fill="{colour}"/>')
        marks.append(_text(20, y + 10, f"{label}: {value:,} ({value / whole:.0%})", palette))
        x += width
    return _svg(title, _TOP + _BAR + 20 + 20 * len(rows), palette, "".join(marks))


def format_short(value: int) -> str:
    """Abbreviate a count: 1.2 B, 34 M, 950."""
    for size, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        # Three digits are shown, so a value that rounds up to the next size uses that size.
        if abs(value) >= size * 0.9995:
            shown = float(f"{value / size:.3g}")
            return f"{shown:,.0f} {name}" if abs(shown) >= 100 else f"{shown:g} {name}"
    return str(value)


def markdown_image(title: str, svg: str) -> str:
    """Return the chart as a Markdown image with embedded data."""
    return f"![{title}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"


def _svg(title: str, height: int, palette: Palette, marks: str) -> str:
    heading = _text(0, 16, title, palette, weight="600")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img"'
        f' aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12">{heading}{marks}</svg>'
    )


def _text(x: float, y: float, text: str, palette: Palette, *, anchor: str = "start", weight: str = "400") -> str:
    escaped = escape(_valid_xml(text))
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" fill="{palette.text}">{escaped}</text>'


def _valid_xml(text: str) -> str:
    """Replace characters that XML does not allow, even escaped. Titles come from vendors and can contain anything."""
    return _INVALID_XML.sub("\N{REPLACEMENT CHARACTER}", text)
