"""What a benchmark says: a figure, what it is compared with, and the target it is held to. How it is shown is `report`'s."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that a figure has to keep: on itself, or on its ratio to what it is compared with."""

    of: Literal["ours", "ratio"]
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        """The bound, for the table."""
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        return f"{bound} ×" if self.of == "ratio" else bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `ours` and `theirs` are in `unit`; `note` says what the reader must know of how it was measured."""

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
        """The figure as it is written to BENCH_JSON."""
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
    """What one benchmark found. `details`: name → value, shown below the table and kept in the JSON."""

    figures: list[Figure]
    details: dict[str, Any] = field(default_factory=dict)
