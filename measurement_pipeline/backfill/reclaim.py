"""The hourly reclaim of the backfill: failed and abandoned rows, unsettled hits, a refused key that works again.

What a person decides (requeue, closing a breaker) is in `operator_actions`; `vendor_probe` tests whether the vendor is back.
"""

from dataclasses import dataclass

from measurement_pipeline.backfill import vendor_probe
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.reconcile import reconcile
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.postgres import backfill_queue, clock, measurement_jobs, run_heartbeats, songstats_ledger
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.vendors.songstats.historic_stats import PARSER_VERSION


@dataclass(frozen=True, slots=True)
class ReclaimResult:
    """How many of each were repaired. `breaker`: the result of the probe, if a key breaker was open.

    `returned`: hits of unknown outcome that Songstats did not bill; `reconciliation` gives the figures, or what is missing.
    """

    transient: int
    malformed: int
    exhausted: int
    reservations: int
    jobs_settled: int
    accounts_allowed_again: int
    returned: int
    reconciliation: str
    breaker: str | None
    times_corrected: int


def reclaim_backfill(config: BackfillConfig, dependencies: BackfillDependencies) -> ReclaimResult:
    """Repair what a crash or a transient failure left behind. Raises database errors, so that a failed reclaim is visible."""
    breaker = vendor_probe.close_key_breaker(config, dependencies)
    with connect(config.database_url) as connection:
        denied = measurement_jobs.unpaid_accounts(connection)
    allowed = [account for account in denied if dependencies.check_payment(account) is PaymentVerdict.ALLOWED]
    with connect(config.database_url) as connection, connection.transaction():
        run_heartbeats.delete_old(connection)
        # First: times in the future would hide rows from the steps below.
        corrected = clock.correct_future_times(connection)
        transient, malformed = backfill_queue.reclaim(connection, config.rules, parser_version=PARSER_VERSION)
        exhausted = backfill_queue.exhaust(connection, config.rules)
        reservations = songstats_ledger.settle_open(
            connection, claim_timeout_seconds=config.rules.claim_timeout_seconds
        )
        jobs_settled = len(measurement_jobs.settle(connection))
    reconciled = reconcile(config, dependencies)
    return ReclaimResult(
        transient=transient,
        malformed=malformed,
        exhausted=exhausted,
        reservations=reservations,
        jobs_settled=jobs_settled,
        accounts_allowed_again=len(allowed),
        returned=reconciled.returned,
        reconciliation=reconciled.reason,
        breaker=breaker,
        times_corrected=corrected,
    )
