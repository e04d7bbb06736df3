"""Monthly series: the next capture of each whose last one is 30 days old, once, whatever was missed meanwhile."""

from dataclasses import dataclass

from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.domain.capture import CaptureTicket, OverCap, describe_over_cap
from measurement_pipeline.postgres import capture_series
from measurement_pipeline.postgres.database import connect


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """How many captures were started, and of which series the month allowed none: they are asked again tomorrow."""

    due: int
    started: int
    refused: tuple[str, ...]


def start_due_captures(terms: CaptureConfig) -> SeriesResult:
    """Start what is due. Raises what the database raises."""
    started, refused = 0, []
    with connect(terms.database_url) as connection:
        due = capture_series.list_due(connection)
        for series, wanted in due:
            match capture_series.start_if_due(connection, series, wanted, cap_usd=terms.cap_usd):
                case CaptureTicket():
                    started += 1
                case OverCap(cap, spent, asked):
                    refused.append(
                        f"series {series} of account {wanted.account}: {describe_over_cap(cap=cap, spent=spent, cost=asked)}"
                    )
                case None:
                    pass
    return SeriesResult(len(due), started, tuple(refused))
