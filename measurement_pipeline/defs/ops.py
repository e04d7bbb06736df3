"""The steps of the jobs: each unpacks what Dagster hands it, calls a use case, and reports what came of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from uuid import UUID

import dagster as dg

from measurement_pipeline.backfill.reclaim import reclaim_backfill
from measurement_pipeline.backfill.run import BackfillRun
from measurement_pipeline.defs import captures, failures, materializations, resources, retry_policies, tags
from measurement_pipeline.defs.heartbeat import heartbeats
from measurement_pipeline.defs.partitions import register_requested
from measurement_pipeline.defs.progress import ProgressLog
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.domain.payment import Decision, decide_accounts
from measurement_pipeline.domain.text import counted
from measurement_pipeline.intake import process as intake
from measurement_pipeline.postgres import backfill_queue, payment_decisions, run_heartbeats
from measurement_pipeline.postgres.database import connect

# One run at a time spends hits; dagster.yaml sets the limit and that it is held by the run.
POOL = "songstats"

_LINES_AN_EVENT = 100


def _begin_step(context: dg.OpExecutionContext) -> str:
    """The measurement database's address, checked; and a heartbeat, since an op may take long before it writes one."""
    url = resources.own_database(context.resources)
    with connect(url) as connection:
        run_heartbeats.renew(connection, context.run_id)
    return url


def _log(context: dg.OpExecutionContext, lines: Sequence[str]) -> None:
    """Log `lines` a hundred to an event: Dagster's storage takes milliseconds for each event."""
    for start in range(0, len(lines), _LINES_AN_EVENT):
        context.log.info("\n".join(lines[start : start + _LINES_AN_EVENT]))


def _recordings(context: dg.OpExecutionContext) -> list[str]:
    """What the run covers, never nothing. Raises `Failure`."""
    try:
        found = list(context.partition_keys)
    except (dg.DagsterInvalidInvocationError, dg.DagsterInvariantViolationError) as error:
        raise failures.refused_launch(context.run.tags) from error
    if not found:
        raise failures.refused_launch(context.run.tags)
    return found


@dg.op(
    required_resource_keys={"measurement_database"},
    out={"opened": dg.Out(intake.RequestBatch), "accounts": dg.Out(list[UUID])},
    description="Reads the requests that wait, and whose card has to be on file for them. Answers none yet.",
)
@stops_in_one_line
def read_requests(context: dg.OpExecutionContext) -> tuple[intake.RequestBatch, list[UUID]]:
    """Waiting requests, of each account in turn."""
    opened = intake.load_batch(_begin_step(context))
    requests = [request.id for request in opened.requests]
    context.instance.add_run_tags(context.run_id, tags.of_accounts_and_jobs(opened.accounts, requests))
    context.log.info(f"{counted(len(requests), 'request')} of {counted(len(opened.accounts), 'account')} waiting")
    return opened, opened.accounts


@dg.op(
    required_resource_keys={"measurement_database", "backfill_config"},
    description="Finds the accounts that would pay for the run's recordings.",
)
@stops_in_one_line
def find_payers(context: dg.OpExecutionContext) -> list[UUID]:
    """Accounts whose accepted requests want what the run covers, and the operators' own."""
    songs = _recordings(context)
    with retry_policies.retry_on_error(context.retry_number):
        terms = resources.backfill_config(context.resources)
        with connect(_begin_step(context)) as connection:
            payers = backfill_queue.payers(connection, songs)
            requests = backfill_queue.requests(connection, songs)
    if terms.rules.operators_account is not None and tags.is_operators(context.run):
        payers.append(terms.rules.operators_account)
    context.instance.add_run_tags(context.run_id, tags.of_accounts_and_jobs(payers, requests))
    return payers


@dg.op(
    required_resource_keys={"measurement_database", "backfill_config", "stripe"},
    description=(
        "The payment gate: asks Stripe whether each account has a card on file. Yes serves for 10 minutes; no hands out a "
        "Checkout link; an answer that cannot be had is neither, and what depends on it waits."
    ),
)
@stops_in_one_line
def check_payment_method(context: dg.OpExecutionContext, accounts: list[UUID]) -> dict[UUID, Decision]:
    """What Stripe says of each account; never raises for Stripe's sake."""
    terms, database_url = resources.backfill_config(context.resources), _begin_step(context)
    with connect(database_url) as connection:
        decisions = payment_decisions.fresh_of(connection, accounts)
    asked = [account for account in accounts if account not in decisions]
    # A Stripe that is slow to answer takes minutes.
    with heartbeats(database_url, context.run_id, every_seconds=terms.heartbeat_seconds):
        decisions |= decide_accounts(asked, resources.stripe(context.resources).decide)
    _log(context, [f"account {account}: {d.verdict} ({d.reason})" for account, d in decisions.items()])
    context.add_output_metadata({str(account): str(decision.verdict) for account, decision in decisions.items()})
    # Between ops a value lies in a file: the checkout link, which is as good as a login, has no business there.
    return {account: replace(d, checkout_url=None, checkout_expires_at=None) for account, d in decisions.items()}


@dg.op(
    required_resource_keys={"measurement_database", "capture_config"},
    description=(
        "Answers each request: refused with the reason, waiting for a card with a Checkout link, or accepted, its recordings "
        "put on the queue in the order of their play counts; or, for current counts, answered by a capture."
    ),
)
@stops_in_one_line
def enqueue_backfill(
    context: dg.OpExecutionContext, opened: intake.RequestBatch, decisions: dict[UUID, Decision]
) -> None:
    """One transaction a request, so that a bad one never holds up the others."""
    cap_usd = resources.cap_usd(context.resources)
    taken = intake.process_batch(_begin_step(context), opened, decisions, run=context.run_id, cap_usd=cap_usd)
    answers = Counter("waiting" if one.state is None else one.state.value for one in taken)
    _log(
        context,
        [
            f"request {one.id} of account {one.account}: {one.state or 'waiting'} ({one.receipt or one.capture or one.error})"
            for one in taken
        ],
    )
    enqueued = sum(one.receipt.enqueued for one in taken if one.receipt)
    asked_for = sum(one.capture is not None and not one.capture.reused for one in taken)
    context.add_output_metadata({**answers, "recordings enqueued": enqueued, "captures asked for": asked_for})


@dg.op(
    required_resource_keys={"measurement_database", "backfill_config", "songstats", "stripe"},
    ins={"paid_for": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing, is_required=False),
    pool=POOL,
    description=(
        "Buys each recording's history once: claims it, sets a hit aside, calls Songstats, keeps the response, reads it, stores "
        "the measurements. One materialization an ISRC; what is deferred stays missing and is asked for again by the sensor."
    ),
)
@stops_in_one_line
def backfill_recordings(context: dg.OpExecutionContext) -> Iterator[dg.Output[None]]:
    """Yields no output: what was settled is said by one materialization an ISRC."""
    with retry_policies.retry_on_error(context.retry_number):
        _begin_step(context)
        terms = resources.backfill_config(context.resources)
        coverage = BackfillRun(
            list(context.partition_keys),
            run=context.run_id,
            is_operator=tags.is_operators(context.run),
            config=terms,
            dependencies=resources.backfill_means(context.resources),
            is_retry=context.retry_number > 0,
            already_reported=materializations.materialized_by_this_run(context)
            if context.retry_number
            else frozenset(),
            retry_soon_seconds=failures.retry_soon_seconds(context.retry_number),
        )
        reporter = materializations.Reporter(context, terms)

        def log(line: str) -> None:
            materializations.is_reported(lambda: context.log.info(line))

        progress = ProgressLog(log)
        try:
            # Closed in every case, cancelled or failed: that waits until the calls in flight are kept and settled.
            with closing(coverage.batches()) as batches:
                for batch in batches:
                    reporter.report(batch)
                    progress.show(lambda: coverage.progress)
        finally:
            reporter.report(coverage.unreported, is_last=True)
            log(coverage.progress)
        unreported = reporter.unreported
        materializations.is_reported(
            lambda: materializations.emit_totals(context, coverage.summary, unreported=unreported)
        )
        failures.raise_for(coverage.summary, retry_number=context.retry_number)
    yield from ()


@dg.op(
    required_resource_keys={
        "measurement_database",
        "backfill_config",
        "songstats",
        "stripe",
        "capture_config",
        "apify",
        "spotify",
    },
    description=(
        "Puts right what a crash or a passing failure left behind: failed rows that may be tried again, hits nobody settled, "
        "unpaid requests whose card is there now, a refused key that works again, and recordings stored but never shown."
    ),
)
@stops_in_one_line
def reclaim(context: dg.OpExecutionContext) -> None:
    """The hourly sweep. An error of the database fails the run: a sweep that could not sweep is no success."""
    database_url = _begin_step(context)
    terms = resources.backfill_config(context.resources)
    swept = reclaim_backfill(terms, resources.backfill_means(context.resources))
    unpaid = intake.load_batch(database_url, unpaid=True, limit=intake.MAX_UNPAID_PER_RUN)
    decisions = intake.check_payments(unpaid, resources.stripe(context.resources).decide)
    cap_usd = resources.cap_usd(context.resources)
    taken = intake.process_batch(database_url, unpaid, decisions, run=context.run_id, cap_usd=cap_usd)
    registered = register_requested(context.instance, database_url)
    shown = materializations.emit_missing_materializations(context, terms)
    mapped_again = 0
    capturing = resources.captures(context.resources)
    if capturing is not None:
        mapped_again = captures.retry_deferred_mappings(context, capturing)
        shown += captures.emit_missing_materializations(context, capturing)
    # Last: until the run ends, Dagster shows these partitions as being made.
    shown_as_before = materializations.restore_partition_statuses(context, terms)
    if capturing is not None:
        shown_as_before += captures.restore_partition_statuses(context, capturing)
    context.add_output_metadata(
        {
            "failed rows put back": swept.transient,
            "malformed responses to read again": swept.malformed,
            "rows out of attempts": swept.exhausted,
            "hits settled as unknown": swept.reservations,
            "hits returned to the budget": swept.returned,
            "hits of unknown outcome": swept.reconciliation,
            "requests settled": swept.jobs_settled,
            "accounts with a card again": swept.accounts_allowed_again,
            "unpaid requests looked at": len(unpaid.requests),
            "of these accepted": sum(one.receipt is not None for one in taken),
            "partitions registered late": registered,
            "materializations reported late": shown,
            "partitions no longer shown as failed": shown_as_before,
            "captures mapped again": mapped_again,
            "times corrected after the clock was set back": swept.times_corrected,
            "breaker": swept.breaker or "closed or not ours to close",
        }
    )
