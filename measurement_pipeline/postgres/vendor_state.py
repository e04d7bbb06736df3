"""Throttle pauses of the capture vendors, shared by the whole deployment. The statements are in `vendor_state.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.sql import statements

_SQL = statements("vendor_state")


@dataclass(frozen=True, slots=True)
class Pause:
    """A throttle pause of a vendor."""

    until: datetime
    reason: str


def pause(connection: Connection, vendor: str, *, seconds: float, reason: str) -> None:
    """Pause all calls of this deployment to a vendor for `seconds`."""
    connection.execute(_SQL["pause"], {"vendor": vendor, "seconds": seconds, "reason": reason})


def resume(connection: Connection, vendors: Sequence[str]) -> list[str]:
    """End the pauses of `vendors`; return the vendors that were paused."""
    return [row["vendor"] for row in connection.execute(_SQL["resume"], {"vendors": list(vendors)})]


def get_pause(connection: Connection, vendor: str) -> Pause | None:
    """The current pause of a vendor, or None."""
    row = connection.execute(_SQL["get_pause"], {"vendor": vendor}).fetchone()
    return None if row is None else Pause(row["paused_until"], row["pause_reason"])
