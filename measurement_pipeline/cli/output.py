"""Prints results: JSON for scripts, lines and tables for people."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from measurement_pipeline.domain.text import utc, utc_minute

if TYPE_CHECKING:
    from measurement_pipeline.cli.environment import CliEnvironment
    from measurement_pipeline.domain.completion import Completion
    from measurement_pipeline.domain.vendor_state import Budget

# For output to a file or pipe, so that nothing is wrapped at 80 columns.
_WIDTH_OF_A_FILE = 200

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text, for scripts.")


def console(*, stderr: bool = False) -> Console:
    """Return a console for text and tables. Created on each use, because tests replace the streams."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _WIDTH_OF_A_FILE)


def print_line(line: str) -> None:
    """Print one line unchanged."""
    click.echo(line)


def print_json(value: Any) -> None:
    """Print `value` as JSON, with times in ISO 8601 and UUIDs as text."""
    click.echo(json.dumps(value, default=_to_json, indent=2, ensure_ascii=False))


def build_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """Build a table of formatted values; the columns named in `right` are right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        # Text, not str: rich would interpret brackets in a title as markup.
        table.add_row(*(Text(format_value(value)) for value in row))
    return table


def print_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    empty: str,
    as_json: bool,
    right: Sequence[str] = (),
) -> None:
    """Print rows of the database: as JSON, or as a table of `columns` (heading → field). `empty`: the line for no rows."""
    if as_json:
        print_json(rows)
    elif not rows:
        print_line(empty)
    else:
        table = build_table(list(columns), [[row[field] for field in columns.values()] for row in rows], right=right)
        console().print(table)


def program_name() -> str:
    """Return the program as a shell in this directory can run it: by name if it is on the path, else by file."""
    name = Path(sys.argv[0]).name
    on_path, program = shutil.which(name), Path(sys.argv[0]).absolute()
    if on_path is not None and Path(on_path).absolute() == program:
        return shlex.quote(name)
    here = Path.cwd()
    file = str(program.relative_to(here) if program.is_relative_to(here) else program)
    # Without a slash, a shell searches only the path.
    return shlex.quote(file if "/" in file else f"./{file}")


def print_banner(environment: "CliEnvironment") -> None:
    """Print which vendors and which database are used, so that it is obvious whether money is spent."""
    kind = (
        "SANDBOX: vendor doubles, all figures are invented"
        if environment.kind == "sandbox"
        else "LIVE: real vendors, real money"
    )
    style = "black on yellow" if environment.kind == "sandbox" else "white on red"
    lines = Text(f" {kind} \n", style=f"bold {style}", justify="center")
    console(stderr=True).print(
        Panel(lines.append(f" database: {environment.database_location} ", style="not bold"), style=style, expand=False)
    )


def build_facts(pairs: Mapping[str, object]) -> Table:
    """Build a list of names and values, one per line, without the pairs whose value is None."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None:
            table.add_row(name, Text(format_value(value)))
    return table


def format_value(value: object) -> str:
    """Format a value for people: numbers with separators, times to the second."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return utc(value)
    return str(value)


def format_budget(budget: "Budget") -> str:
    """Describe the budget in one line."""
    in_flight = f", {budget.in_flight:,} in flight" if budget.in_flight else ""
    text = f"{budget.left:,} of {budget.allowed:,} hits left ({budget.hits:,} used in the last 30 days{in_flight})"
    if budget.left:
        return text
    if budget.next_hit_frees_at is None:
        return f"{text}; no hits are allowed"
    return f"{text}; next hit available {format_value(budget.next_hit_frees_at)}"


def format_completion(completion: "Completion | None") -> str | None:
    """Describe in one line when the last recording is bought."""
    if completion is None:
        return None
    latest = "later than a century" if completion.latest is None else utc_minute(completion.latest)
    return (
        f"about {utc_minute(completion.expected)}; between {utc_minute(completion.earliest)} and {latest}, depending on retries "
        "and other accounts"
    )


def _to_json(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
