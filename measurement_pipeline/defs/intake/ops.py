"""The ops of intake: read the waiting requests, and answer each."""

from collections import Counter
from uuid import UUID

import dagster as dg

from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.steps import begin_step, log_lines
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.domain.payment import Decision
from measurement_pipeline.domain.text import counted
from measurement_pipeline.intake import process
from measurement_pipeline.services import MeasurementDatabase


@dg.op(
    out={"batch": dg.Out(process.RequestBatch), "accounts": dg.Out(list[UUID])},
    description="Reads the waiting requests and the accounts that must have a card on file for them. Answers none yet.",
)
@stops_in_one_line
def read_requests(
    context: dg.OpExecutionContext, measurement_database: dg.ResourceParam[MeasurementDatabase]
) -> tuple[process.RequestBatch, list[UUID]]:
    """Waiting requests, in turn between accounts."""
    batch = process.load_batch(begin_step(context, measurement_database))
    requests = [request.id for request in batch.requests]
    context.instance.add_run_tags(context.run_id, tags.of_accounts_and_jobs(batch.accounts, requests))
    context.log.info(f"{counted(len(requests), 'request')} of {counted(len(batch.accounts), 'account')} waiting")
    return batch, batch.accounts


@dg.op(
    description=(
        "Answers each request: rejected with the reason, waiting for a card with a Checkout link, or accepted. The recordings of "
        "an accepted request enter the queue in the order of their play counts. A request for current counts becomes a capture."
    ),
)
@stops_in_one_line
def enqueue_backfill(
    context: dg.OpExecutionContext,
    batch: process.RequestBatch,
    decisions: dict[UUID, Decision],
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    capture_config: dg.ResourceParam[CaptureConfig | None],
) -> None:
    """One transaction for each request, so that a bad one never delays the others."""
    limits = None if capture_config is None else capture_config.limits
    database_url = begin_step(context, measurement_database)
    results = process.process_batch(database_url, batch, decisions, run=context.run_id, limits=limits)
    states = Counter("waiting" if result.state is None else result.state.value for result in results)
    log_lines(
        context,
        [
            f"request {result.id} of account {result.account}: {result.state or 'waiting'} "
            f"({result.receipt or result.capture or result.error})"
            for result in results
        ],
    )
    enqueued = sum(result.receipt.enqueued for result in results if result.receipt)
    captures = sum(result.capture is not None and not result.capture.reused for result in results)
    context.add_output_metadata({**states, "recordings enqueued": enqueued, "captures requested": captures})
