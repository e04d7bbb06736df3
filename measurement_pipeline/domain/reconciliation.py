"""Finds the hits of unknown outcome that the vendor did not bill, from the ledger and the vendor's monthly count. Pure.

A call whose response was lost counts against the budget, since the vendor may have billed it. The vendor's count settles the
question, but only if both figures must cover the same calls. `decide_windows` states each condition. If one fails, nothing
changes, and the text says which. Hits are returned until billed and unknown hits are as many as the vendor counts. If the vendor
counts more later, its count was late: as many of the returned hits become unknown again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.domain.text import counted

QUIET_PERIOD = timedelta(hours=1)
"""The time without a call or a settlement before a comparison: the vendor's count may lag behind its responses."""

MAX_OFFSET_EAST = timedelta(hours=14)
MAX_OFFSET_WEST = timedelta(hours=12)
"""The vendor's time zone is unknown: its months begin up to 14 hours before, and up to 12 hours after, those of UTC."""


class Window(StrEnum):
    """The calls that one figure of the vendor counts."""

    CURRENT = "this month"
    PREVIOUS = "last month"
    BOTH = "last month and this month"


@dataclass(frozen=True, slots=True)
class MonthlyHits:
    """Settled calls of a calendar month (UTC): billed, of unknown outcome, and returned before."""

    billed: int
    unknown: int
    returned: int = 0


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The ledger at one moment, by the database's clock.

    `near_month` and `near_previous`: hits so near the beginning of this month, or of the last one, that the vendor may count them
    in the month before. `open_calls`: reserved and not settled, of any time. `calls_ever` changes with each call.
    """

    now: datetime
    previous_month_begins: datetime
    month_begins: datetime
    next_month_begins: datetime
    current: MonthlyHits
    previous: MonthlyHits
    near_month: int
    near_previous: int
    open_calls: int
    last_call_at: datetime | None
    calls_ever: int

    @property
    def unknown(self) -> int:
        """Calls of unknown outcome in both months."""
        return self.current.unknown + self.previous.unknown

    @property
    def returned(self) -> int:
        """Calls of unknown outcome that were returned because the vendor had not counted them."""
        return self.current.returned + self.previous.returned


@dataclass(frozen=True, slots=True)
class WindowResult:
    """The result for one window: `not_billed` unknown calls, or `late` returned ones that are unknown again.

    Both 0: nothing changes, and `why` says so.
    """

    window: Window
    vendor_count: int | None
    billed: int
    unknown: int
    not_billed: int
    reason: str
    late: int = 0

    @property
    def kept(self) -> int:
        """Unknown calls that still count against the budget."""
        return self.unknown - self.not_billed + self.late


def decide_windows(before: LedgerState, after: LedgerState, vendor: VendorMonth) -> list[WindowResult] | str:
    """A result for each window with unknown or returned calls; or why none can be decided.

    `before` and `after`: the ledger before the call to the vendor, and after it.
    """
    obstacle = _find_obstacle(before, after, vendor)
    return obstacle or [_decide_window(*window) for window in _windows(after, vendor)]


def wait_reason(ledger: LedgerState) -> str | None:
    """Why the vendor's count is not needed or not comparable now; None if it should be read."""
    if ledger.unknown == 0 and ledger.returned == 0:
        return "no hit of unknown outcome in this month or the last one"
    if ledger.open_calls:
        return f"waiting: {counted(ledger.open_calls, 'call')} not settled yet"
    if ledger.last_call_at is not None and ledger.now - ledger.last_call_at < QUIET_PERIOD:
        minutes = int(QUIET_PERIOD.total_seconds() // 60)
        return f"waiting: the last call must be {minutes} minutes old, since the vendor's count may lag behind"
    if ledger.now < ledger.month_begins + MAX_OFFSET_WEST or ledger.now >= ledger.next_month_begins - MAX_OFFSET_EAST:
        return "waiting: near the turn of the month it is unknown which month the vendor counts"
    return None


def _find_obstacle(before: LedgerState, after: LedgerState, vendor: VendorMonth) -> str | None:
    waits = wait_reason(before) or wait_reason(after)
    if waits is not None:
        return waits
    if replace(before, now=after.now) != after:
        return "waiting: calls were made or settled during the call to the vendor"
    if vendor.requests is None:
        return f"unknown: Songstats gave no count ({vendor.detail})"
    return None


def _windows(ledger: LedgerState, vendor: VendorMonth) -> Iterator[tuple[Window, MonthlyHits, int | None, bool]]:
    """Each window with unknown or returned calls: ledger, vendor's count, and whether its edges are clear."""
    if ledger.near_month == 0:
        if ledger.current.unknown or ledger.current.returned:
            yield Window.CURRENT, ledger.current, vendor.requests, True
        if ledger.previous.unknown or ledger.previous.returned:
            yield Window.PREVIOUS, ledger.previous, vendor.previous_requests, ledger.near_previous == 0
        return
    # Calls near the turn may belong to either month, which does not change the sum of both.
    billed = ledger.current.billed + ledger.previous.billed
    both = MonthlyHits(billed, ledger.unknown, ledger.returned)
    known = vendor.requests is not None and vendor.previous_requests is not None
    total = (vendor.requests or 0) + (vendor.previous_requests or 0) if known else None
    yield Window.BOTH, both, total, ledger.near_previous == 0


def _decide_window(window: Window, ledger: MonthlyHits, count: int | None, has_clear_edge: bool) -> WindowResult:  # noqa: FBT001
    def result(not_billed: int, why: str, *, late: int = 0) -> WindowResult:
        return WindowResult(window, count, ledger.billed, ledger.unknown, not_billed, f"{window.value}: {why}", late)

    figures = f"Songstats counts {count}, the ledger {ledger.billed} billed and {ledger.unknown} unknown"
    if not has_clear_edge:
        return result(0, "nothing changes: calls near the turn of the month may belong to another one")
    if count is None:
        return result(0, "nothing changes: Songstats gave no count of it")
    if count < ledger.billed:
        return result(
            0, f"nothing changes: {figures}. Songstats does not bill all that the ledger counts, or counts late"
        )
    late = count - ledger.billed - ledger.unknown
    if 0 < late <= ledger.returned:
        return result(
            0,
            f"{figures}: it counted {late} of the {ledger.returned} returned before late, they count again",
            late=late,
        )
    if late > 0:
        return result(
            0, f"nothing changes: {figures}. Another program uses the key, or Songstats bills other calls too"
        )
    not_billed = ledger.billed + ledger.unknown - count
    return result(not_billed, f"{figures}: {not_billed} not billed, {ledger.unknown - not_billed} kept")
