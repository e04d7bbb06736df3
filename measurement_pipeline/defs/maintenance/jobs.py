"""The jobs of the sweep."""

import dagster as dg

from measurement_pipeline.defs.capture.ops import start_due_series
from measurement_pipeline.defs.maintenance.ops import reclaim
from measurement_pipeline.defs.owners import OWNERS


@dg.job(
    description=(
        "Repairs, every hour, what crashes and transient failures left behind. `measurement-pipeline reclaim` repairs only "
        "the tables: no partitions, materializations, Spotify look-ups or statuses."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
def backfill_reclaim() -> None:
    """One sweep."""
    reclaim()


@dg.job(
    description="Once a day: the sweep, then the captures of monthly series that are due. The metadata of each op shows numbers.",
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
def daily_maintenance() -> None:
    """The sweep and the due series. The series start even if the sweep fails."""
    reclaim()
    start_due_series()
