"""Monthly series: starts the next capture of each series whose last one is 30 days old. Missed months are not made up for."""

from dataclasses import dataclass

from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.domain.capture import CaptureTicket, OverCap, describe_over_cap
from measurement_pipeline.postgres import capture_series
from measurement_pipeline.postgres.database import connect


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """Series that were due, captures that started, and series that exceed the monthly cap, which are retried tomorrow."""

    due: int
    started: int
    refused: tuple[str, ...]


def start_due_captures(config: CaptureConfig) -> SeriesResult:
    """Start the captures that are due. Raises the database's errors."""
    started, refused = 0, []
    with connect(config.database_url) as connection:
        due = capture_series.list_due(connection)
        for series, spec in due:
            match capture_series.start_if_due(connection, series, spec, limits=config.limits):
                case CaptureTicket():
                    started += 1
                case OverCap() as over:
                    refused.append(f"series {series} of account {spec.account}: {describe_over_cap(over)}")
                case None:
                    pass
    return SeriesResult(len(due), started, tuple(refused))
