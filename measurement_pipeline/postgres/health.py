"""Read the figures of the health checks. `health/` judges them; the statements are in `health.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from measurement_pipeline.domain.blockers import BackfillState, Backlog
from measurement_pipeline.postgres import purchase_pauses, songstats_ledger
from measurement_pipeline.postgres.backfill_queue import PLAY_COUNT
from measurement_pipeline.postgres.database import Connection, fetch_row
from measurement_pipeline.postgres.sql import statements

_SQL = statements("health")

# Series that a check reads: about one second, at two thousand points each.
_MOST_SERIES = 200


@dataclass(frozen=True, slots=True)
class SettlingProgress:
    """Queued requests, or open captures: how many, the creation time of the oldest, and its error."""

    waiting: int
    oldest: datetime | None
    error: str | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Sample:
    """A number of recordings, and the most played of them."""

    count: int
    songs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FailedRows:
    """Rows that only an operator or a newer parser returns to pending."""

    exhausted: Sample
    malformed: Sample
    suspect: Sample


@dataclass(frozen=True, slots=True)
class CaptureSeriesStatus:
    """A recording's play counts: the latest, the first day on which they more than halve, how far before the purchase they end.

    `days_behind` is None in a sandbox, where histories are invented and end on a day of their own.
    """

    song: str
    latest_count: int
    halved_on: date | None
    days_behind: int | None


def read_backlog(connection: Connection, *, operators_account: UUID | None) -> Backlog:
    """The open recordings that an accepted request or an operator wants."""
    row = fetch_row(connection, _SQL["backlog"], operators_account=operators_account)
    pauses = purchase_pauses.list_active(connection) if row["paused"] else []
    unpaid = connection.execute(_SQL["unpaid_accounts"]).fetchall() if row["waiting"] and not row["payable"] else []
    return Backlog(
        **row,
        unpaid_accounts=tuple(str(one["account"]) for one in unpaid),
        account_pauses=tuple(pause for pause in pauses if pause.scope.account is not None),
    )


def read_backfill_state(connection: Connection, *, hits_allowed: int, operators_account: UUID | None) -> BackfillState:
    """Everything that decides whether the backfill may buy; `domain/blockers` says what follows."""
    return BackfillState(
        songstats_ledger.vendor_state(connection),
        songstats_ledger.budget(connection, hits_allowed=hits_allowed),
        read_backlog(connection, operators_account=operators_account),
    )


def read_intake_progress(connection: Connection) -> SettlingProgress:
    """Requests that wait for intake."""
    return SettlingProgress(**fetch_row(connection, _SQL["answering"]))


def read_capture_progress(connection: Connection) -> SettlingProgress:
    """Captures that are not finished."""
    return SettlingProgress(**fetch_row(connection, _SQL["capturing"]))


def read_failed_rows(connection: Connection) -> FailedRows:
    """Rows that wait for an operator."""
    row = fetch_row(connection, _SQL["given_up"])
    return FailedRows(
        **{kind: Sample(row[kind], tuple(row[f"{kind}_songs"] or ())) for kind in ("exhausted", "malformed", "suspect")}
    )


def list_row_mismatches(connection: Connection) -> list[str]:
    """Describe each queue row that does not match its measurements."""
    return [row["what"] for row in connection.execute(_SQL["rows_against_measurements"])]


def count_recently_stored(connection: Connection) -> int:
    """How many recordings were stored in the last day."""
    return int(fetch_row(connection, _SQL["recently_stored"])["stored"])


def latest_series(connection: Connection, *, most: int = _MOST_SERIES) -> Sequence[CaptureSeriesStatus]:
    """The series of the recordings stored in the last day, the latest of them where there are many."""
    found = connection.execute(_SQL["latest_series"], {"most": most, "play_count": PLAY_COUNT})
    return [CaptureSeriesStatus(**row) for row in found]
