"""Processes small waiting requests at once, in the sensor's tick: a run takes seconds to start. Leaves all others to a run.

Left to a run: large requests, those with a failed attempt, more than a few at once, and those of accounts for which Stripe gives
no answer within seconds. Processing is safe beside a run or the HTTP API, because each request is processed under its row lock.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from uuid import UUID

from measurement_pipeline.domain.capture import CaptureLimits
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.intake.process import RequestResult, load_batch, process_request
from measurement_pipeline.postgres.database import connect

MAX_REQUESTS = 20
_MAX_ACCOUNTS = 4
# A tick has 60 s, and other requests wait for it.
_PAYMENT_SECONDS = 3.0

# A thread that Stripe keeps waiting longer stores its decision later, for the run.
_payment_threads = ThreadPoolExecutor(_MAX_ACCOUNTS, thread_name_prefix="payment check")


def process_small_requests(
    database_url: str,
    decide: Callable[[UUID], Decision],
    *,
    actor: str,
    limits: CaptureLimits | None,
    payment_seconds: float = _PAYMENT_SECONDS,
) -> list[RequestResult]:
    """Process the small waiting requests. Raises as `process_batch` does, and what `decide` raises."""
    batch = load_batch(database_url, limit=MAX_REQUESTS, max_accounts=_MAX_ACCOUNTS, only_small=True)
    decisions = _decide_in_time(batch.accounts, decide, payment_seconds)
    undecided = set(batch.accounts) - decisions.keys()
    results = []
    with connect(database_url) as connection:
        for request in batch.requests:
            if request.account in undecided:
                continue
            decision = decisions.get(request.account)
            result = process_request(connection, request.id, decision, run=actor, limits=limits)
            if result is not None:
                results.append(result)
    return results


def _decide_in_time(
    accounts: Sequence[UUID], decide: Callable[[UUID], Decision], seconds: float
) -> dict[UUID, Decision]:
    """The payment decisions that are known after `seconds`. An unknown one is left out: a run asks again."""
    futures = {account: _payment_threads.submit(decide, account) for account in accounts}
    done, late = wait(futures.values(), timeout=seconds)
    for future in late:
        future.cancel()
    decisions = {account: future.result() for account, future in futures.items() if future in done}
    return {account: one for account, one in decisions.items() if one.verdict is not PaymentVerdict.UNKNOWN}
