"""A benchmark's results: a figure, its comparison, and its target. `report` prints them."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for a figure, or for its ratio to its comparison."""

    of: Literal["ours", "ratio"]
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        """The bound, for the table."""
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        return f"{bound} ×" if self.of == "ratio" else bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `ours` and `theirs` are in `unit`; `note` explains how they were measured."""

    name: str
    unit: str
    ours: float
    compared_with: str
    theirs: float | None = None
    target: Target | None = None
    note: str | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def met(self) -> bool | None:
        """Whether the target is kept; None without one."""
        if self.target is None:
            return None
        value = self.ours if self.target.of == "ours" else self.ratio
        if value is None:
            return False
        if self.target.at_least is not None:
            return value >= self.target.at_least
        return self.target.at_most is not None and value <= self.target.at_most

    def as_json(self) -> dict[str, Any]:
        """The figure as BENCH_JSON holds it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "compared_with": self.compared_with,
            "theirs": self.theirs,
            "ratio": self.ratio,
            "target": None if self.target is None else str(self.target),
            "met": self.met,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """The results of one benchmark. `details` maps a name to a value, shown below the table and written to the JSON."""

    figures: list[Figure]
    details: dict[str, Any] = field(default_factory=dict)
