"""The hourly sweep of the backfill: failed and abandoned rows, hits that nobody settled, a refused key that works again.

What a person decides (requeue, closing a breaker) is `overrides`.
"""

import asyncio
from dataclasses import dataclass

from measurement_pipeline.backfill.run import Means
from measurement_pipeline.backfill.terms import Terms
from measurement_pipeline.domain.payment import Verdict
from measurement_pipeline.postgres import backfill_queue, measurement_jobs, run_heartbeats, songstats_ledger
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.songstats.historic_stats import PARSER_VERSION, key_works


@dataclass(frozen=True, slots=True)
class Swept:
    """How many of each were put right. `breaker` says how a key breaker's probe went, where one was open."""

    transient: int
    malformed: int
    exhausted: int
    reservations: int
    jobs_settled: int
    accounts_allowed_again: int
    breaker: str | None


def sweep(terms: Terms, means: Means) -> Swept:
    """Put right what a crash or a passing failure left behind. Raises what the database raises: a sweep that cannot is loud."""
    breaker = _probe_refused_key(terms, means)
    with connect(terms.database_url) as connection:
        denied = measurement_jobs.unpaid_accounts(connection)
    allowed = [account for account in denied if means.check_payment(account) is Verdict.ALLOWED]
    with connect(terms.database_url) as connection, connection.transaction():
        run_heartbeats.forget(connection)
        transient, malformed = backfill_queue.reclaim(connection, terms.rules, parser_version=PARSER_VERSION)
        return Swept(
            transient=transient,
            malformed=malformed,
            exhausted=backfill_queue.exhaust(connection, terms.rules),
            reservations=songstats_ledger.settle_open(
                connection, claim_timeout_seconds=terms.rules.claim_timeout_seconds
            ),
            jobs_settled=len(measurement_jobs.settle(connection)),
            accounts_allowed_again=len(allowed),
            breaker=breaker,
        )


def _probe_refused_key(terms: Terms, means: Means) -> str | None:
    """Close a key breaker once `GET /status` (free) is answered; a streak breaker is a person's to close."""
    with connect(terms.database_url) as connection:
        state = songstats_ledger.deployment(connection)
    if state.breaker != "open" or state.breaker_kind != "key":
        return None
    works = asyncio.run(_ask_status(means))
    if not works:
        return "the key is still refused" if works is False else "Songstats could not be asked"
    with connect(terms.database_url) as connection:
        songstats_ledger.close_breaker(connection, kind="key")
    return "the key works again: closed"


async def _ask_status(means: Means) -> bool | None:
    async with means.new_client() as client:
        return key_works(await client.fetch_status())
