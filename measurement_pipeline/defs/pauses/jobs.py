"""The jobs with which a person pauses and resumes purchases."""

import dagster as dg

from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.pauses.ops import begin_pause, end_pause


@dg.job(
    description=(
        "Launch it by hand, with config: stops the purchases of an account, from a vendor, or all of them. Give `reason`, and "
        "`until` if the pause is to end by itself. Every explanation of why nothing is bought names it."
    ),
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
def pause_purchases() -> None:
    """Begin one pause."""
    begin_pause()


@dg.job(
    description="Launch it by hand: ends a pause that `pause_purchases` or `measurement-pipeline pause` began.",
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
def resume_purchases() -> None:
    """End one pause."""
    end_pause()
