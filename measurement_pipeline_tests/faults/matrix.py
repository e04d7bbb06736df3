"""The fault matrix: how often each fault was injected, and which invariants held after it. Printed at the end of a run.

A test records its proof at its end (fixture `record_proof`). A failed test proves nothing and is not in the matrix.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

PROVED = "proved"
CAUGHT = "caught"

INVARIANTS = tuple(f"I{number}" for number in range(1, 20))


@dataclass(frozen=True)
class Proof:
    """One fault, injected `times` times; `invariants` held after each."""

    fault: str
    invariants: tuple[str, ...]
    times: int


class ProofRecorder:
    """Records what a test has proved: `record_proof("SIGKILL after the claim", ["I1", "I5"], times=3)`."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def __call__(self, fault: str, invariants: Iterable[str], *, times: int = 1) -> None:
        named = tuple(sorted(set(invariants), key=INVARIANTS.index))
        self._properties.append((PROVED, (fault, named, times)))


def proofs(properties: Iterable[tuple[str, Any]]) -> list[Proof]:
    """The proofs, one for each fault: their times added up, with the invariants that held every time."""
    found: dict[str, Proof] = {}
    for name, value in properties:
        if name == PROVED:
            fault, invariants, times = value
            before = found.get(fault, Proof(fault, tuple(invariants), 0))
            stored = tuple(one for one in before.invariants if one in invariants)
            found[fault] = Proof(fault, stored, before.times + times)
    return list(found.values())


def guards(properties: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of a guard and a test that fails without it."""
    return list(dict.fromkeys((value[0], value[1]) for name, value in properties if name == CAUGHT))


def as_markdown(found: Sequence[Proof], caught: Sequence[tuple[str, str]]) -> str:
    """Format the matrix, then the guards that were removed on purpose, as docs/explanation/guarantees.md shows them."""
    columns = [name for name in INVARIANTS if any(name in proof.invariants for proof in found)]
    lines = []
    if found:
        lines += [f"| fault | times | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for proof in sorted(found, key=lambda proof: proof.fault):
        held = " | ".join("✓" if name in proof.invariants else "" for name in columns)
        lines.append(f"| {proof.fault} | {proof.times:,} | {held} |")
    if caught:
        lines += ["", "| without this guard | caught by |", "|---|---|"]
        lines += [f"| {guard} | {by} |" for guard, by in sorted(caught)]
    return "\n".join(lines)
