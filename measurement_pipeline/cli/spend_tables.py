"""Formats the totals of calls for people and scripts: the rows of `spend` and of a request's receipt."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from rich.table import Table

from measurement_pipeline.cli import output
from measurement_pipeline.domain.spend import SpendRow, split_cost_eur
from measurement_pipeline.postgres.account_shares import AccountStatus

K = TypeVar("K")

_COLUMNS = ("calls", "counted", "unknown, also counted", "free", "hits", "wasted", "EUR")


def to_json_rows(rows: Mapping[K, SpendRow], *, key_name: str, eur_per_hit: float) -> list[dict[str, Any]]:
    """Return one object per row, with the row's key under `key_name`. Hits and euros add up to the total's."""
    eur = split_cost_eur({key: row.hits for key, row in rows.items()}, eur_per_hit)
    return [{key_name: key, **_json_figures(row), "eur": float(eur[key])} for key, row in rows.items()]


def to_json_row(row: SpendRow, *, eur: object) -> dict[str, Any]:
    """Return one row as JSON values."""
    return {**_json_figures(row), "eur": float(str(eur))}


def build_spend_table(rows: Mapping[K, SpendRow], *, key_name: str, total: SpendRow, eur_per_hit: float) -> Table:
    """Build a table with one line per row, and their total."""
    eur = split_cost_eur({key: row.hits for key, row in rows.items()}, eur_per_hit)
    lines: list[tuple[object, ...]] = [(key, *_figures(row), f"{eur[key]:,.2f}") for key, row in rows.items()]
    lines.append(("total", *_figures(total), f"{sum(eur.values()):,.2f}"))
    return output.build_table((key_name, *_COLUMNS), lines, right=_COLUMNS)


def _json_figures(row: SpendRow) -> dict[str, Any]:
    return {
        **{name: value for name, value in asdict(row).items() if name != "undecided"},
        "hits": row.hits,
    }


def _figures(row: SpendRow) -> tuple[int, ...]:
    return (row.calls, row.counted, row.unknown, row.cost_nothing, row.hits, row.wasted)


def build_share_table(accounts: Sequence[AccountStatus]) -> Table:
    """Build a table with one line per account: its share of the next hits, and what it had."""
    rows = [
        (
            f"{one.name or ''} {one.account}".strip(),
            one.weight,
            f"{one.share:.0%}",
            one.waiting,
            one.hits,
            "none" if one.cap is None else one.cap,
            f"{one.credit:+.1f}",
        )
        for one in accounts
    ]
    columns = ("account", "weight", "share", "to buy", "hits in 30 days", "limit", "hits owed")
    return output.build_table(columns, rows, right=columns[1:])
