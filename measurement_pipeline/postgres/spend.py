"""Read what was spent, and what the queue will still cost.

The statements are in `spend.sql`; `domain/spend` computes the totals.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from measurement_pipeline.domain.backfill_queue import QueueRules
from measurement_pipeline.domain.spend import CallGroup, HitTotals
from measurement_pipeline.postgres.database import Connection, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("spend")


@dataclass(frozen=True, slots=True)
class RemainingRows:
    """Wanted recordings that need a hit; `unpaid`: those that no account with an allowed payment decision wants.

    `recent_hits` were spent in the last hour, within `recent_seconds` from first to last, at least a minute.
    """

    to_buy: int
    unpaid: int
    recent_hits: int
    recent_seconds: float


@dataclass(frozen=True, slots=True)
class BudgetRelease:
    """Counted hits that expire within a day, and within a week."""

    in_a_day: int
    in_a_week: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the recordings of a request came from; the other figures add up to `asked`.

    `bought`: with its own hits. `bought_for_others`: by other requests or a launch since its creation. `owned`: settled before.
    `withdrawn`: not bought, and the request was withdrawn.
    """

    asked: int
    bought: int
    bought_for_others: int
    owned: int
    failed: int
    still_open: int
    withdrawn: int


@dataclass(frozen=True, slots=True)
class Month:
    """The ledger's calls since `begins`, a calendar month's first moment in UTC.

    `calls` = `counted` + `unknown` (outcome unknown, or in flight) + `cost_nothing`. `early`: those counted in the first
    half day; `late`: hits of the last hours before. `answered`: distinct recordings with a 200; `asked`: with a hit.
    """

    begins: datetime
    calls: int
    counted: int
    unknown: int
    cost_nothing: int
    early: int
    late: int
    answered: int
    asked: int


def list_calls(connection: Connection, *, days: int, account: UUID | None = None) -> list[CallGroup]:
    """The calls of the last `days`, of one account or of all, grouped by cause."""
    return _spent(connection, days=days, account=account, job=None)


def list_calls_of_job(connection: Connection, job: UUID) -> list[CallGroup]:
    """All calls made for a request."""
    return _spent(connection, days=None, account=None, job=job)


def get_origin(connection: Connection, job: UUID) -> Origin:
    """Where the recordings of a request came from."""
    return Origin(**fetch_row(connection, _SQL["origin"], job=job))


def read_remaining(connection: Connection, rules: QueueRules) -> RemainingRows:
    """Recordings that still need a hit."""
    return RemainingRows(**fetch_row(connection, _SQL["queue"], operators_account=rules.operators_account))


def read_budget_release(connection: Connection) -> BudgetRelease:
    """How many counted hits expire soon."""
    return BudgetRelease(**fetch_row(connection, _SQL["frees"]))


def read_month(connection: Connection) -> Month:
    """This month's calls, to compare with the vendor's own count."""
    return Month(**fetch_row(connection, _SQL["month"]))


def read_window(connection: Connection, *, days: int) -> tuple[datetime, datetime]:
    """Start and end of the last `days`; the end is now."""
    now: datetime = fetch_row(connection, _SQL["now"])["now"]
    return now - timedelta(days=days), now


def _spent(connection: Connection, *, days: int | None, account: UUID | None, job: UUID | None) -> list[CallGroup]:
    found = connection.execute(_SQL["spent"], {"days": days, "account": account, "job": job})
    return [CallGroup(**{**row, "counted": HitTotals(row["counted"])}) for row in found]
