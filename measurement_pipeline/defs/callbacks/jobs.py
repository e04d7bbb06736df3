"""The op and the job that send callbacks."""

import dagster as dg

from measurement_pipeline.callbacks.send import send_due
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.steps import begin_step
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.services import Callbacks, MeasurementDatabase


@dg.op(description="Sends the due callbacks of requests, signed. A failed one is tried again later, for three days.")
@stops_in_one_line
def send_callbacks_due(
    context: dg.OpExecutionContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    callbacks: dg.ResourceParam[Callbacks],
) -> None:
    """Send once. An unavailable receiver is the client's matter and fails nothing here."""
    database_url = begin_step(context, measurement_database)
    result = send_due(database_url, callbacks.new_sender(), secret=callbacks.require_secret())
    context.add_output_metadata(
        {"delivered": result.delivered, "failed, tried again": result.failed, "abandoned": result.abandoned}
    )


@dg.job(
    description="Sends the callbacks of requests that have ended or need a card. `callback_sensor` launches it.",
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
def send_callbacks() -> None:
    """Send what is due."""
    send_callbacks_due()
