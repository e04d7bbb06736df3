"""The op `reclaim`: repairs, every hour, what crashes and transient failures left behind."""

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.reclaim import reclaim_backfill
from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.defs.backfill import materializations
from measurement_pipeline.defs.capture.materializations import (
    emit_missing_capture_materializations,
    restore_capture_statuses,
    retry_deferred_mappings,
)
from measurement_pipeline.defs.partitions import register_requested
from measurement_pipeline.defs.resources import Apify, Spotify, capture_services
from measurement_pipeline.defs.steps import begin_step
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.intake import process
from measurement_pipeline.services import MeasurementDatabase, Songstats, Stripe, backfill_dependencies


@dg.op(
    description=(
        "Repairs what crashes and transient failures left behind: failed rows that may be retried, unsettled hits, unpaid "
        "requests whose account has a card by now, a refused key that works again, and stored recordings that are not shown."
    ),
)
@stops_in_one_line
def reclaim(
    context: dg.OpExecutionContext,
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
    songstats: dg.ResourceParam[Songstats],
    stripe: dg.ResourceParam[Stripe],
    capture_config: dg.ResourceParam[CaptureConfig | None],
    apify: dg.ResourceParam[Apify],
    spotify: dg.ResourceParam[Spotify],
) -> None:
    """Sweep once. A database error fails the run, because a sweep that could not finish is no success."""
    database_url = begin_step(context, measurement_database)
    captures = capture_services(capture_config, apify, spotify)
    reclaimed = reclaim_backfill(backfill_config, backfill_dependencies(songstats, stripe))
    unpaid = process.load_batch(database_url, unpaid=True, limit=process.MAX_UNPAID_PER_RUN)
    decisions = process.check_payments(unpaid, stripe.decide)
    limits = None if capture_config is None else capture_config.limits
    results = process.process_batch(database_url, unpaid, decisions, run=context.run_id, limits=limits)
    registered = register_requested(context.instance, database_url)
    emitted = materializations.emit_missing_materializations(context, backfill_config)
    remapped = 0
    if captures is not None:
        remapped = retry_deferred_mappings(context, captures)
        emitted += emit_missing_capture_materializations(context, captures)
    # Last: until the run ends, Dagster shows these partitions as materializing.
    restored = materializations.restore_partition_statuses(context, backfill_config)
    if captures is not None:
        restored += restore_capture_statuses(context, captures)
    context.add_output_metadata(
        {
            "failed rows requeued": reclaimed.transient,
            "malformed responses to parse again": reclaimed.malformed,
            "rows out of attempts": reclaimed.exhausted,
            "hits settled as unknown": reclaimed.reservations,
            "hits returned to the budget": reclaimed.returned,
            "hits of unknown outcome": reclaimed.reconciliation,
            "requests settled": reclaimed.jobs_settled,
            "accounts with a card again": reclaimed.accounts_allowed_again,
            "unpaid requests checked": len(unpaid.requests),
            "unpaid requests accepted": sum(result.receipt is not None for result in results),
            "partitions registered late": registered,
            "materializations emitted late": emitted,
            "partitions no longer shown as failed": restored,
            "captures mapped again": remapped,
            "times corrected after the clock was set back": reclaimed.times_corrected,
            "breaker": reclaimed.breaker or "closed, or open until a person closes it",
        }
    )
