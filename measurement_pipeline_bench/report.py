"""Prints the benchmark's results: one table, its details, and JSON for comparisons between runs."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from measurement_pipeline_bench.figures import Figure, Findings


def show(console: Console, findings: Mapping[str, Findings], *, quick: bool) -> None:
    """Print the table, the notes and the details."""
    title = "quick: the sizes are too small for the figures to mean anything" if quick else None
    table = Table(title=title, title_style="bold yellow", header_style="bold")
    for column in ("figure", "ours", "compared with", "", "ratio", "target", "met?"):
        table.add_column(column, justify="right" if column in {"ours", "", "ratio"} else "left", overflow="fold")
    figures = [figure for found in findings.values() for figure in found.figures]
    for figure in figures:
        table.add_row(
            figure.name,
            f"{_number(figure.ours)} {figure.unit}",
            figure.compared_with,
            "" if figure.theirs is None else f"{_number(figure.theirs)} {figure.unit}",
            "" if figure.ratio is None else _number(figure.ratio),
            "" if figure.target is None else str(figure.target),
            _met(figure),
        )
    for found in findings.values():
        for name, detail in found.details.items():
            console.print(_detail(name, detail))
    for note in dict.fromkeys(figure.note for figure in figures if figure.note):
        console.print(f"[dim]· {note}[/]", highlight=False)
    console.print(table)


def write(path: Path, findings: Mapping[str, Findings], *, quick: bool, seconds: float) -> None:
    """Write the figures as JSON."""
    content = {
        "quick": quick,
        "seconds": round(seconds, 1),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "figures": [figure.as_json() | {"benchmark": name} for name, f in findings.items() for figure in f.figures],
        "details": {name: found.details for name, found in findings.items() if found.details},
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _met(figure: Figure) -> str:
    return {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[figure.met]


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 10 else f"{value:.2f}"


def _detail(name: str, detail: Any) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, title=name, title_justify="left", title_style="bold")
    table.add_column(min_width=48)
    table.add_column(justify="right")
    for key, value in detail.items():
        table.add_row(str(key), _number(value) if isinstance(value, float) else str(value))
    return table
