"""The job of intake."""

import dagster as dg

from measurement_pipeline.defs.intake.ops import enqueue_backfill, read_requests
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.payment import check_payment_method


@dg.job(
    description=(
        "Processes the waiting requests of `measurement_jobs`: validates them, checks payment, and enqueues their recordings. "
        "`measurement_job_sensor` launches it. Launching it by hand does the same at once."
    ),
    # Every job runs in one process: its ops share a claim, and a process for each op would cost seconds.
    executor_def=dg.in_process_executor,
    owners=OWNERS,
)
def measurement_job_intake() -> None:
    """Read, ask Stripe, enqueue."""
    batch, accounts = read_requests()
    enqueue_backfill(batch, check_payment_method(accounts))
