"""Sums of calls as people and scripts read them: the rows of `spend` and of a request's receipt."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from rich.table import Table

from measurement_pipeline.cli import output
from measurement_pipeline.domain.spend import SpendRow, split_cost_eur

K = TypeVar("K")

_FIGURES = ("calls", "counted", "unknown, counted too", "cost nothing", "hits", "wasted", "EUR")


def to_json_rows(sums: Mapping[K, SpendRow], *, key_name: str, eur_per_hit: float) -> list[dict[str, Any]]:
    """One object a sum, `key_name` naming what it is the sum of; hits and euros add up to those of all together."""
    eur = split_cost_eur({key: found.hits for key, found in sums.items()}, eur_per_hit)
    return [{key_name: key, **_figures(found), "eur": float(eur[key])} for key, found in sums.items()]


def to_json_row(found: SpendRow, *, eur: object) -> dict[str, Any]:
    """One sum, for a script."""
    return {**_figures(found), "eur": float(str(eur))}


def build_spend_table(sums: Mapping[K, SpendRow], *, key_name: str, total: SpendRow, eur_per_hit: float) -> Table:
    """A row a sum, and the total, which they add up to."""
    eur = split_cost_eur({key: found.hits for key, found in sums.items()}, eur_per_hit)
    rows: list[tuple[object, ...]] = [(key, *_row(found), f"{eur[key]:,.2f}") for key, found in sums.items()]
    rows.append(("total", *_row(total), f"{sum(eur.values()):,.2f}"))
    return output.build_table((key_name, *_FIGURES), rows, right=_FIGURES)


def _figures(found: SpendRow) -> dict[str, Any]:
    return {
        **{name: value for name, value in asdict(found).items() if name != "undecided"},
        "hits": found.hits,
    }


def _row(found: SpendRow) -> tuple[int, ...]:
    return (found.calls, found.counted, found.unknown, found.cost_nothing, found.hits, found.wasted)
