"""What every op does first, and how it logs many lines."""

from collections.abc import Sequence

import dagster as dg

from measurement_pipeline.postgres import run_heartbeats
from measurement_pipeline.services import MeasurementDatabase

_LINES_PER_EVENT = 100


def begin_step(context: dg.OpExecutionContext, database: MeasurementDatabase) -> str:
    """Verify the database, write a heartbeat, and return the address. An op may take long before its first own heartbeat."""
    with database.connect() as connection:
        run_heartbeats.renew(connection, context.run_id)
    return database.url


def log_lines(context: dg.OpExecutionContext, lines: Sequence[str]) -> None:
    """Log `lines` a hundred to an event: Dagster's storage takes milliseconds for each event."""
    for start in range(0, len(lines), _LINES_PER_EVENT):
        context.log.info("\n".join(lines[start : start + _LINES_PER_EVENT]))
