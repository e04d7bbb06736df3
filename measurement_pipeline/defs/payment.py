"""The op `check_payment_method`: the payment gate of intake and of every backfill run."""

from dataclasses import replace
from uuid import UUID

import dagster as dg

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.defs.heartbeat import heartbeats
from measurement_pipeline.defs.steps import begin_step, log_lines
from measurement_pipeline.defs.stopping import stops_in_one_line
from measurement_pipeline.domain.payment import Decision, decide_accounts
from measurement_pipeline.postgres import payment_decisions
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.services import MeasurementDatabase, Stripe


@dg.op(
    description=(
        "The payment gate: asks Stripe whether each account has a card on file. A confirmation is valid for 10 minutes. "
        "A refusal creates a Checkout link. While Stripe cannot be reached, the requests and recordings that need the "
        "answer wait."
    ),
)
@stops_in_one_line
def check_payment_method(
    context: dg.OpExecutionContext,
    accounts: list[UUID],
    measurement_database: dg.ResourceParam[MeasurementDatabase],
    backfill_config: dg.ResourceParam[BackfillConfig],
    stripe: dg.ResourceParam[Stripe],
) -> dict[UUID, Decision]:
    """Decide for each account. An error of Stripe is the decision `unknown`, never an exception."""
    database_url = begin_step(context, measurement_database)
    with connect(database_url) as connection:
        decisions = payment_decisions.list_fresh(connection, accounts)
    undecided = [account for account in accounts if account not in decisions]
    # A slow Stripe takes minutes.
    with heartbeats(database_url, context.run_id, every_seconds=backfill_config.heartbeat_seconds):
        decisions |= decide_accounts(undecided, stripe.decide)
    log_lines(context, [f"account {account}: {d.verdict} ({d.reason})" for account, d in decisions.items()])
    context.add_output_metadata({str(account): str(decision.verdict) for account, decision in decisions.items()})
    # Dagster writes op outputs to files, and a Checkout link is as good as a login.
    return {account: replace(d, checkout_url=None, checkout_expires_at=None) for account, d in decisions.items()}
