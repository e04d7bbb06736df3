"""Monthly series of captures: which are due, and their start and stop. The statements are in `capture_series.sql`."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from measurement_pipeline.domain.capture import SERIES_EVERY, CaptureSpec, CaptureTicket, OverCap, Schedule
from measurement_pipeline.postgres import captures
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("capture_series")


def list_due(connection: Connection, series: UUID | None = None) -> list[tuple[UUID, CaptureSpec]]:
    """The series to be captured now; `series`: whether that one is."""
    parameters = {"every": SERIES_EVERY.days, "series": series}
    return [
        (
            row["id"],
            CaptureSpec(
                account=row["account"],
                album_ids=tuple(row["album_ids"]),
                catalog=row["catalog"],
                isrcs=None if row["isrcs"] is None else tuple(row["isrcs"]),
                platforms=tuple(row["platforms"]),
                schedule=Schedule.MONTHLY,
            ),
        )
        for row in connection.execute(_SQL["due"], parameters)
    ]


def start_if_due(
    connection: Connection, series: UUID, spec: CaptureSpec, *, cap_usd: Decimal
) -> CaptureTicket | OverCap | None:
    """The next capture of a series; None where somebody has started it meanwhile. In one transaction with its own check."""
    with connection.transaction():
        captures.lock_account(connection, spec.account)
        if not list_due(connection, series):
            return None
        # Not as a series asked for anew: one that was stopped at this moment stays so.
        return captures.open_locked(connection, spec, cap_usd=cap_usd)


def list_all(connection: Connection, *, account: UUID | None = None) -> list[dict[str, Any]]:
    """All series with their last captures, the oldest series first."""
    return connection.execute(_SQL["list"], {"account": account}).fetchall()


def stop(connection: Connection, series: UUID) -> bool:
    """Capture nothing more for a series; whether there was one that went on."""
    return connection.execute(_SQL["stop"], {"series": series}).fetchone() is not None
