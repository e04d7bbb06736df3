"""How commands say things: JSON for scripts, plain words and tables for people. What is said is theirs."""

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

from measurement_pipeline.domain.text import utc

if TYPE_CHECKING:
    from measurement_pipeline.cli.environment import CliEnvironment
    from measurement_pipeline.postgres.songstats_ledger import Budget

# Not a terminal: nothing is to be cut or folded at 80 columns.
_WIDTH_OF_A_FILE = 200

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text, for scripts.")


def console(*, stderr: bool = False) -> Console:
    """Where people read. Made when it is used, since a test may have replaced the streams."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _WIDTH_OF_A_FILE)


def print_line(line: str) -> None:
    """One line, as it stands."""
    click.echo(line)


def print_json(value: Any) -> None:
    """`value` as JSON: times in ISO 8601, UUIDs as text."""
    click.echo(json.dumps(value, default=_to_json, indent=2, ensure_ascii=False))


def build_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """A table of values as people read them; the columns named in `right` hold figures."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        # Text, not str: a title may hold what rich would read as markup.
        made.add_row(*(Text(format_value(value)) for value in row))
    return made


def program_name() -> str:
    """How to call this program from here: by its name where the shell finds it, else by its path."""
    name = Path(sys.argv[0]).name
    found, own = shutil.which(name), Path(sys.argv[0]).absolute()
    if found is not None and Path(found).absolute() == own:
        return shlex.quote(name)
    here = Path.cwd()
    shown = str(own.relative_to(here) if own.is_relative_to(here) else own)
    # Without a slash a shell looks for it on the path alone.
    return shlex.quote(shown if "/" in shown else f"./{shown}")


def print_banner(environment: "CliEnvironment") -> None:
    """Say loudly, once, whose vendors and which database: nobody should have to guess whether money is spent."""
    kind = (
        "SANDBOX: doubles of the vendors, every figure is invented"
        if environment.kind == "sandbox"
        else "LIVE: real vendors, real money"
    )
    style = "black on yellow" if environment.kind == "sandbox" else "white on red"
    lines = Text(f" {kind} \n", style=f"bold {style}", justify="center")
    console(stderr=True).print(
        Panel(lines.append(f" database: {environment.database_location} ", style="not bold"), style=style, expand=False)
    )


def build_facts(pairs: Mapping[str, object]) -> Table:
    """Names and values, one a line; those without a value are left out."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None:
            made.add_row(name, Text(format_value(value)))
    return made


def format_value(value: object) -> str:
    """A value for a person: figures with separators, times to the second."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return utc(value)
    return str(value)


def format_budget(found: "Budget") -> str:
    """The budget as a person reads it."""
    spent = f"{found.left:,} of {found.allowed:,} hits left ({found.hits:,} in the last 30 days"
    spent += f", {found.in_flight:,} in the air)" if found.in_flight else ")"
    if found.left:
        return spent
    frees = (
        "no hits are allowed"
        if found.next_hit_frees_at is None
        else f"the next hit frees {format_value(found.next_hit_frees_at)}"
    )
    return f"{spent}; {frees}"


def _to_json(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
