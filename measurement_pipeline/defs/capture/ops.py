"""The op that starts the captures of monthly series."""

import dagster as dg

from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.capture.series import start_due_captures
from measurement_pipeline.defs.steps import begin_step
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.domain.capture import NO_CAPTURES
from measurement_pipeline.services import MeasurementDatabase


@dg.op(
    description="Starts the captures of monthly series whose last one is 30 days old: one for each, however many were missed.",
)
@stops_in_one_line
def start_due_series(
    context: dg.OpExecutionContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    capture_config: dg.ResourceParam[CaptureConfig | None],
) -> None:
    """A deployment without captures starts none."""
    begin_step(context, measurement_database)
    if capture_config is None:
        context.add_output_metadata({"series due": 0, "captures started": 0, "reason": NO_CAPTURES})
        return
    started = start_due_captures(capture_config)
    context.add_output_metadata(
        {
            "series due": started.due,
            "captures started": started.started,
            "refused by the monthly cap": len(started.refused),
        }
    )
    if started.refused:
        # No client waits for an answer, so the failure alerts an operator. The next day's run tries the series again.
        raise dg.Failure("; ".join(started.refused), allow_retries=False)
