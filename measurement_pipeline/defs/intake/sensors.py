"""The sensor that takes requests off the table: small ones in its tick, the others by a run."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.intake.jobs import measurement_job_intake
from measurement_pipeline.defs.owners import OWNERS
from measurement_pipeline.defs.partitions import register_requested
from measurement_pipeline.defs.tick_wait import TickWait
from measurement_pipeline.defs.unfinished_runs import fail_dead_runs, new_plan_id
from measurement_pipeline.domain.text import counted
from measurement_pipeline.intake.process import MAX_REQUESTS_PER_RUN, RequestResult
from measurement_pipeline.intake.small_requests import MAX_REQUESTS, process_small_requests
from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.services import MeasurementDatabase, Stripe

# A poll is one indexed statement: 0.3 ms.
_POLL_SECONDS = 0.2


@dg.sensor(
    job=measurement_job_intake,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Watches `measurement_jobs` for queued requests. Processes a few small ones at once: checks payment, and enqueues their "
        "recordings. Launches one run of `measurement_job_intake` for all others, unless one is unfinished. Registers the "
        "recordings of accepted requests as partitions of `songstats_history`."
    ),
    owners=OWNERS,
)
def measurement_job_sensor(
    context: dg.SensorEvaluationContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
    capture_config: dg.ResourceParam[CaptureConfig | None],
    stripe: dg.ResourceParam[Stripe],
    tick_wait: dg.ResourceParam[TickWait],
) -> dg.RunRequest | dg.SkipReason:
    """Process what waits, and wait for more until the end of the tick. Launch one run for up to a thousand other requests."""
    deadline = tick_wait.deadline()
    database_url = measurement_database.verified_url()
    limits = None if capture_config is None else capture_config.limits
    processed: list[RequestResult] = []
    with measurement_database.connect() as connection:
        is_work_waiting = partial(measurement_jobs.is_work_waiting, connection)
        while True:
            if is_work_waiting():
                waiting, runs = _count_waiting(connection), list[dg.DagsterRun]()
                if waiting:
                    runs = fail_dead_runs(
                        context.instance, measurement_database, backfill_config, job_name=measurement_job_intake.name
                    )
                if waiting and not runs and waiting <= MAX_REQUESTS:
                    processed += process_small_requests(
                        database_url, stripe.decide, actor=context.sensor_name, limits=limits
                    )
                    waiting = _count_waiting(connection)
                # Not in the sensor that plans: it returns early while the budget is spent, a pause lasts or the breaker is open.
                if register_requested(context.instance, database_url):
                    tick_wait.queue_changed.set()
                if runs:
                    return dg.SkipReason(
                        f"run {runs[0].run_id} of intake is unfinished; {counted(waiting, 'request waits', 'requests wait')}"
                    )
                if waiting:
                    return dg.RunRequest(tags={tags.PLAN: new_plan_id(context)})
            if not tick_wait.wait(deadline, is_work_waiting, poll_seconds=_POLL_SECONDS):
                return dg.SkipReason(_describe(processed))


def _count_waiting(connection: Connection) -> int:
    return measurement_jobs.waiting_count(connection, limit=MAX_REQUESTS_PER_RUN + 1)


def _describe(processed: Sequence[RequestResult]) -> str:
    if not processed:
        return "no request is waiting"
    states = Counter("waiting" if result.state is None else result.state.value for result in processed)
    return f"processed {counted(len(processed), 'request')}: " + ", ".join(
        f"{count} {state}" for state, count in states.items()
    )
