"""Monthly series of captures: which are due, and their start and stop. The statements are in `capture_series.sql`."""

from typing import Any
from uuid import UUID

from measurement_pipeline.domain.capture import (
    SERIES_INTERVAL,
    CaptureLimits,
    CaptureSpec,
    CaptureTicket,
    OverCap,
    Schedule,
)
from measurement_pipeline.postgres import captures
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("capture_series")


def list_due(connection: Connection, series: UUID | None = None) -> list[tuple[UUID, CaptureSpec]]:
    """The series that are due for a capture; with `series`, only that one."""
    parameters = {"every": SERIES_INTERVAL.days, "series": series}
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
    connection: Connection, series: UUID, spec: CaptureSpec, *, limits: CaptureLimits
) -> CaptureTicket | OverCap | None:
    """Open the next capture of a series; None if it is not due any more. The check and the start share a transaction."""
    with connection.transaction():
        captures.lock_account(connection, spec.account)
        if not list_due(connection, series):
            return None
        # `open_capture` would restart the series, although it may have been stopped at this moment.
        return captures.open_locked(connection, spec, limits=limits)


def list_all(connection: Connection, *, account: UUID | None = None) -> list[dict[str, Any]]:
    """All series with their latest capture, oldest series first."""
    return connection.execute(_SQL["list"], {"account": account}).fetchall()


def stop(connection: Connection, series: UUID) -> bool:
    """Stop a series; return whether it was running."""
    return connection.execute(_SQL["stop"], {"series": series}).fetchone() is not None
