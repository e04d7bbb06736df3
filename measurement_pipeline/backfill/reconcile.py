"""Returns hits of unknown outcome to the budget where Songstats' own monthly count shows that it did not bill them.

`domain/reconciliation` decides what follows from the figures. The count comes from `GET /status`, which is free. Without an
answer, nothing changes.
"""

from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.domain.reconciliation import LedgerState, Window, WindowResult, decide_windows, wait_reason
from measurement_pipeline.domain.spend import VendorMonth
from measurement_pipeline.postgres import operator_acts, songstats_ledger
from measurement_pipeline.postgres.database import Connection, LockTimeout, connect

# The reclaim continues without an answer that takes longer.
_PATIENCE_SECONDS = 10.0
# The same for the lock: `reserve` holds it for milliseconds, so after this time another session holds it.
_LOCK_SECONDS = 10.0
_LOCKED = (
    "waiting: another session holds the lock of the budget (line sessions of `measurement-pipeline doctor` names it)"
)


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """`returned` hits no longer count; `kept` hits of unknown outcome do. `reason` gives the figures, or what is missing.

    `late`: hits among `kept` that were returned before and that Songstats counts after all.
    """

    returned: int
    kept: int
    reason: str
    late: int = 0


def reconcile(
    config: BackfillConfig,
    dependencies: BackfillDependencies,
    *,
    now: datetime | None = None,
    lock_seconds: float = _LOCK_SECONDS,
) -> ReconcileResult:
    """Settle unknown hits by Songstats' count, in one transaction that locks out reservations.

    `now`: overrides the clock. Raises database errors, but not for what Songstats does or for a lock that another session holds.
    """
    with connect(config.database_url) as connection:
        before = songstats_ledger.read_ledger_state(connection, now=now)
    waits = wait_reason(before)
    if waits is not None:
        return ReconcileResult(0, before.unknown, waits)
    vendor = vendor_status.fetch_vendor_status(dependencies.new_client, seconds=_PATIENCE_SECONDS).month
    try:
        return _settle_by(vendor, before, config, now=now, lock_seconds=lock_seconds)
    except LockTimeout:
        return ReconcileResult(0, before.unknown, _LOCKED)


def _settle_by(
    vendor: VendorMonth, before: LedgerState, terms: BackfillConfig, *, now: datetime | None, lock_seconds: float
) -> ReconcileResult:
    with connect(terms.database_url) as connection, connection.transaction():
        songstats_ledger.lock_reservations(connection, seconds=lock_seconds)
        after = songstats_ledger.read_ledger_state(connection, now=now)
        results = decide_windows(before, after, vendor)
        if isinstance(results, str):
            return ReconcileResult(0, after.unknown, results)
        returned = sum(_settle(connection, after, result) for result in results)
        late = sum(_revert_unbilled(connection, after, result) for result in results)
    return ReconcileResult(
        returned, after.unknown - returned + late, "; ".join(result.reason for result in results), late
    )


def _settle(connection: Connection, ledger: LedgerState, result: WindowResult) -> int:
    if not result.not_billed:
        return 0
    since, until = _bounds(ledger, result.window)
    settled = songstats_ledger.settle_unbilled(connection, since=since, until=until, calls=result.not_billed)
    _record(connection, "settle unknown hits as not billed", result, settled=settled)
    return len(settled)


def _revert_unbilled(connection: Connection, ledger: LedgerState, result: WindowResult) -> int:
    if not result.late:
        return 0
    since, until = _bounds(ledger, result.window)
    taken = songstats_ledger.revert_unbilled(connection, since=since, until=until, calls=result.late)
    _record(connection, "count returned hits again", result, taken_back=taken)
    return len(taken)


def _bounds(ledger: LedgerState, window: Window) -> tuple[datetime, datetime]:
    since = ledger.month_begins if window is Window.CURRENT else ledger.previous_month_begins
    until = ledger.month_begins if window is Window.PREVIOUS else ledger.next_month_begins
    return since, until


def _record(connection: Connection, act: str, result: WindowResult, **ledgers: list[int]) -> None:
    figures = {
        "window": result.window.value,
        "songstats_counts": result.vendor_count,
        "ledger_billed": result.billed,
        "ledger_unknown": result.unknown,
        "kept": result.kept,
    }
    operator_acts.record(connection, actor="the hourly reclaim", act=act, detail={**figures, **ledgers})
