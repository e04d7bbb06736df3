"""Sums of calls by cause, by account, and in euros. Pure; `postgres/spend` reads the ledger.

A call is a row of the ledger, whatever its result. A hit is a call that counts against the budget: the vendor counted it, or may
have counted it. The others cost nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from measurement_pipeline.domain.outcome import Cause

K = TypeVar("K")

NOT_READ_YET = "response stored, not parsed yet"
IN_FLIGHT = "in flight"
NOT_BILLED = "not billed (reconciled)"
CAUSES = (*(cause.value for cause in Cause), NOT_BILLED, NOT_READ_YET, IN_FLIGHT)
"""All causes in display order. The last two are of calls whose cause is not known yet.

`NOT_BILLED` takes the place of the cause of a call of unknown outcome once the vendor's own count shows that it was not billed.
"""

_CENT = Decimal("0.01")


class HitTotals(StrEnum):
    """Whether the vendor counted a call. The budget counts the first two."""

    YES = "yes"
    UNKNOWN = "unknown"
    NO = "no"


@dataclass(frozen=True, slots=True)
class CallGroup:
    """Calls of one account with the same cause.

    `wasted`: hits that brought neither a history nor the first response that there is none. `stored`: calls that brought a
    recording's first history. `settled`: calls that settled a recording: stored, no history, or rejected.
    """

    account: UUID
    name: str | None
    cause: str
    counted: HitTotals
    calls: int
    wasted: int = 0
    stored: int = 0
    settled: int = 0


@dataclass(frozen=True, slots=True)
class SpendRow:
    """Calls added up: `calls` = `counted` + `unknown` + `cost_nothing`."""

    calls: int = 0
    counted: int = 0
    unknown: int = 0
    cost_nothing: int = 0
    wasted: int = 0
    stored: int = 0
    settled: int = 0
    undecided: int = 0

    @property
    def hits(self) -> int:
        """Calls that count against the budget."""
        return self.counted + self.unknown

    @property
    def hits_per_recording_settled(self) -> float | None:
        """Hits divided by the recordings they settled. The ideal is 1.00. Hits without an outcome yet are left out.

        None if no recording was settled.
        """
        return hits_per_recording(self.hits - self.undecided, self.settled)


@dataclass(frozen=True, slots=True)
class VendorMonth:
    """The vendor's own counts of its current month, and requests of the month before. None: unknown, which is never 0.

    `detail` is one line for a person if something is unknown.
    """

    requests: int | None = None
    objects: int | None = None
    bill: Decimal | None = None
    detail: str = ""
    previous_requests: int | None = None


def hits_per_recording(hits: int, settled: int) -> float | None:
    """Hits per settled recording, rounded; None if none was settled."""
    return round(hits / settled, 4) if settled else None


def sum_calls(lines: Iterable[CallGroup]) -> SpendRow:
    """The sum of all calls."""
    found = list(lines)

    def calls(counted: HitTotals) -> int:
        return sum(line.calls for line in found if line.counted is counted)

    return SpendRow(
        calls=sum(line.calls for line in found),
        counted=calls(HitTotals.YES),
        unknown=calls(HitTotals.UNKNOWN),
        cost_nothing=calls(HitTotals.NO),
        wasted=sum(line.wasted for line in found),
        stored=sum(line.stored for line in found),
        settled=sum(line.settled for line in found),
        undecided=sum(line.calls for line in found if line.cause in (NOT_READ_YET, IN_FLIGHT)),
    )


def sum_by_cause(lines: Sequence[CallGroup]) -> dict[str, SpendRow]:
    """A sum for each cause that occurs."""
    return _grouped(lines, lambda line: line.cause, in_order=CAUSES)


def sum_by_account(lines: Sequence[CallGroup]) -> dict[UUID, SpendRow]:
    """A sum for each account, most hits first."""
    found = _grouped(lines, lambda line: line.account, in_order=sorted({line.account for line in lines}))
    return dict(sorted(found.items(), key=lambda one: -one[1].hits))


def split_cost_eur(hits: Mapping[K, int], eur_per_hit: float) -> dict[K, Decimal]:
    """The cost of each of `hits`, to the cent, such that the costs add up to the cost of all.

    If each were rounded on its own, a column of figures would not add up to its total.
    """
    price = Decimal(str(eur_per_hit))
    exact = {key: count * price for key, count in hits.items()}
    shares = {key: value.quantize(_CENT, ROUND_FLOOR) for key, value in exact.items()}
    missing = int((cost_eur(sum(hits.values()), eur_per_hit) - sum(shares.values())) / _CENT)
    for key in sorted(exact, key=lambda key: shares[key] - exact[key])[:missing]:
        shares[key] += _CENT
    return shares


def cost_eur(hits: int, eur_per_hit: float) -> Decimal:
    """The cost of `hits`, to the cent."""
    return (hits * Decimal(str(eur_per_hit))).quantize(_CENT, ROUND_HALF_UP)


def _grouped(lines: Sequence[CallGroup], key: Callable[[CallGroup], K], *, in_order: Iterable[K]) -> dict[K, SpendRow]:
    groups: dict[K, list[CallGroup]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    return {name: sum_calls(groups[name]) for name in in_order if name in groups}
