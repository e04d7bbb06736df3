"""The ops of a backfill run: find who pays, then claim, buy and store each recording."""

from collections.abc import Iterator
from contextlib import closing
from uuid import UUID

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.run import BackfillRun
from measurement_pipeline.defs import retry_policies, tags
from measurement_pipeline.defs.backfill import materializations, results
from measurement_pipeline.defs.backfill.progress import ProgressLog
from measurement_pipeline.defs.expected_failures import refused_launch
from measurement_pipeline.defs.reporting import try_report
from measurement_pipeline.defs.steps import begin_step
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.services import MeasurementDatabase, Songstats, Stripe, backfill_dependencies

# One run at a time spends hits: dagster.yaml sets the limit, and that the run holds the slot.
POOL = "songstats"


def _recordings(context: dg.OpExecutionContext) -> list[str]:
    """The ISRCs that the run covers, at least one. Raises `Failure`."""
    try:
        isrcs = list(context.partition_keys)
    except (dg.DagsterInvalidInvocationError, dg.DagsterInvariantViolationError) as error:
        raise refused_launch(context.run.tags) from error
    if not isrcs:
        raise refused_launch(context.run.tags)
    return isrcs


@dg.op(description="Finds the accounts that would pay for the run's recordings.")
@stops_in_one_line
def find_payers(
    context: dg.OpExecutionContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
) -> list[UUID]:
    """Accounts whose accepted requests want the recordings, and the operators' account in an operator's run."""
    isrcs = _recordings(context)
    with retry_policies.retry_on_error(context.retry_number):
        database_url = begin_step(context, measurement_database)
        with connect(database_url) as connection:
            payers = backfill_queue.payers(connection, isrcs)
            requests = backfill_queue.requests(connection, isrcs)
    if backfill_config.rules.operators_account is not None and tags.is_operators(context.run):
        payers.append(backfill_config.rules.operators_account)
    context.instance.add_run_tags(context.run_id, tags.of_accounts_and_jobs(payers, requests))
    return payers


@dg.op(
    ins={"paid_for": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing, is_required=False),
    pool=POOL,
    description=(
        "Buys each recording's history once: claims the row, reserves a hit, calls Songstats, stores the response, parses it, "
        "and stores the measurements. One materialization for each ISRC. A deferred ISRC stays missing and is planned again."
    ),
)
@stops_in_one_line
def backfill_recordings(
    context: dg.OpExecutionContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
    songstats: dg.ResourceParam[Songstats],
    stripe: dg.ResourceParam[Stripe],
) -> Iterator[dg.Output[None]]:
    """Yields no output: each settled recording has a materialization of its own."""
    with retry_policies.retry_on_error(context.retry_number):
        begin_step(context, measurement_database)
        run = BackfillRun(
            list(context.partition_keys),
            run=context.run_id,
            is_operator=tags.is_operators(context.run),
            config=backfill_config,
            dependencies=backfill_dependencies(songstats, stripe),
            is_retry=context.retry_number > 0,
            already_reported=materializations.materialized_by_this_run(context)
            if context.retry_number
            else frozenset(),
            retry_soon_seconds=results.retry_soon_seconds(context.retry_number),
        )
        reporter = materializations.Reporter(context, backfill_config)

        def log(line: str) -> None:
            try_report(lambda: context.log.info(line))

        progress = ProgressLog(log)
        try:
            # Closed in every case, cancelled or failed: `close` waits until the responses of in-flight calls are stored.
            with closing(run.batches()) as batches:
                for batch in batches:
                    reporter.report(batch)
                    progress.show(lambda: run.progress)
        finally:
            reporter.report(run.unreported, is_last=True)
            log(run.progress)
        unreported = reporter.unreported
        try_report(lambda: materializations.emit_totals(context, run.summary, unreported=unreported))
        results.raise_for(run.summary, retry_number=context.retry_number)
    yield from ()
