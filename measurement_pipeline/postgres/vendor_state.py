"""Throttle pauses of the capture vendors, shared by the whole deployment. The statements are in `vendor_state.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("vendor_state")


@dataclass(frozen=True, slots=True)
class Pause:
    """A vendor that is left alone for a while."""

    until: datetime
    reason: str


def pause(connection: Connection, vendor: str, *, seconds: float, reason: str) -> None:
    """Leave a vendor alone for so long: the whole deployment does."""
    connection.execute(_SQL["pause"], {"vendor": vendor, "seconds": seconds, "reason": reason})


def resume(connection: Connection, vendors: Sequence[str]) -> list[str]:
    """End the pauses of vendors; of which ones there was one."""
    return [row["vendor"] for row in connection.execute(_SQL["resume"], {"vendors": list(vendors)})]


def get_pause(connection: Connection, vendor: str) -> Pause | None:
    """Whether a vendor is left alone now, until when and why."""
    row = connection.execute(_SQL["get_pause"], {"vendor": vendor}).fetchone()
    return None if row is None else Pause(row["paused_until"], row["pause_reason"])
