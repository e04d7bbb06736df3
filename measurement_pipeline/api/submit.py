"""One request over HTTP becomes a row of `measurement_jobs`, and is taken in as any other row is, while the client waits.

Stripe is asked before there is a row: where it gives no answer nothing was asked for, and a client that is told 503 cannot be
charged for a request it believes refused. What takes too long goes on without the client: the row is there, and if not this
process then the sensor's run takes it in; both lock it, so that it is taken in once.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from measurement_pipeline.api.auth import Caller
from measurement_pipeline.api.errors import ApiError, ErrorCode
from measurement_pipeline.domain.capture import NO_CAPTURES
from measurement_pipeline.domain.measurement_job import (
    MeasurementRequest,
    Refusal,
    read_request,
)
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.intake.process import process_request
from measurement_pipeline.postgres import measurement_jobs, payment_decisions
from measurement_pipeline.postgres.database import Connection, DatabaseError
from measurement_pipeline.postgres.errors import is_transient

logger = logging.getLogger(__name__)
T = TypeVar("T")

_PAYMENT_RETRY_SECONDS = 60.0
CAPTURES_RETRY_SECONDS = 3600.0
KEY_REUSED = "That Idempotency-Key came with another request before: expected the same body, or a new key"


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request whose shape is right, as it was sent."""

    source: str
    scope: dict[str, Any]
    schedule: str
    parsed: MeasurementRequest

    @property
    def digest(self) -> bytes:
        """What makes two bodies the same: what they ask, not how they are written."""
        scope = self.parsed.scope
        written = json.dumps([self.source, type(scope).__name__, asdict(scope), self.schedule], default=str)
        return hashlib.sha256(written.encode()).digest()


def parse_request(source: object, scope: object, platforms: object, schedule: object) -> ParsedRequest:
    """The request in a body. Raises `Problem` (400), with the words of the table path: what is refused so leaves no row."""
    reading = read_request(source, scope, platforms, schedule)
    if isinstance(reading, Refusal):
        raise ApiError(reading.status_code, ErrorCode.INVALID_REQUEST, reading.error)
    assert isinstance(scope, dict)
    given = {key: value for key, value in scope.items() if value is not None}
    return ParsedRequest(reading.source.value, given, reading.schedule.value, reading)


async def submit(caller: Caller, request: ParsedRequest, *, key: str | None) -> dict[str, Any]:
    """The answer to a request, as its row has it (`measurement_jobs.answer_to`); `state` queued: it is still to come.

    Raises `Problem` (409, 503), and `DatabaseUnavailable`.
    """
    state = caller.state
    deadline = asyncio.get_running_loop().time() + state.config.answer_within_seconds
    earlier, decision = await run_in_threadpool(_find_earlier, caller, request, key)
    if earlier is not None:
        return earlier
    needs_card = request.parsed.needs_card
    if not needs_card and state.config.cap_usd is None:
        raise ApiError(503, ErrorCode.CAPTURES_DISABLED, NO_CAPTURES, retry_after=CAPTURES_RETRY_SECONDS)
    if needs_card and decision is None:
        decision = await wait_until(state.payment_threads, deadline, lambda: state.config.decide(caller.account))
        if decision is not None and decision.verdict is PaymentVerdict.UNKNOWN:
            wait = decision.retry_after_seconds or _PAYMENT_RETRY_SECONDS
            raise ApiError(
                503,
                ErrorCode.PAYMENT_UNKNOWN,
                f"{decision.reason} Nothing was asked for: send it again later.",
                retry_after=wait,
            )
    while (job := await run_in_threadpool(_insert_job, caller, request, key)) is None:
        # Somebody sent the same key at the same moment, and was first: the answer is that one's, a refusal too; unless a third
        # has taken a refused one's key already.
        earlier, _ = await run_in_threadpool(_find_earlier, caller, request, key, anew=False)
        if earlier is not None:
            return earlier
    if decision is not None or not needs_card:
        try:
            answer = await wait_until(state.intake_threads, deadline, lambda: _process(caller, job, decision))
        except DatabaseError as error:
            # The row is there, and the sensor's run takes it in: that is the answer, where the database can still be read.
            if not is_transient(error):
                raise
            answer = None
        if answer is not None:
            return answer
    return await run_in_threadpool(_read_job, caller, job)


async def wait_until(threads: ThreadPoolExecutor, deadline: float, work: Callable[[], T]) -> T | None:
    """What `work` returns, or None where it does not come before `deadline`; begun, it goes on by itself."""
    future = threads.submit(work)
    heard = asyncio.wrap_future(future)
    done, _ = await asyncio.wait([heard], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
    if done:
        return heard.result()
    future.add_done_callback(_log_failure)
    # What no thread has begun is not begun any more: nobody waits for it, and the sensor's run takes the row in.
    future.cancel()
    heard.cancel()
    return None


def _log_failure(future: Future[Any]) -> None:
    """Say what nobody waits for any more; the row says what became of the request."""
    error = None if future.cancelled() else future.exception()
    if error is not None:
        logger.error("what went on without its client failed", exc_info=error)


def _find_earlier(
    caller: Caller, request: ParsedRequest, key: str | None, *, anew: bool = True
) -> tuple[dict[str, Any] | None, Decision | None]:
    """The answer to an earlier request with that key, and a decision about the account that may still be spent on.

    `anew`: an answer that told the client to come back is none, and lets go of the key.
    """

    def look_up(connection: Connection) -> tuple[dict[str, Any] | None, Decision | None]:
        found = None
        if key is not None:
            if anew:
                measurement_jobs.release_key(connection, account=caller.account, key=key, digest=request.digest)
            found = measurement_jobs.of_key(connection, account=caller.account, key=key)
        if found is None:
            return None, payment_decisions.fresh(connection, caller.account)
        job, digest = found
        if digest != request.digest:
            raise ApiError(409, ErrorCode.IDEMPOTENCY_KEY_REUSED, KEY_REUSED, id=str(job))
        return measurement_jobs.answer_to(connection, job, account=caller.account), None

    return caller.state.write_with_retry(look_up)


def _insert_job(caller: Caller, request: ParsedRequest, key: str | None) -> UUID | None:
    insert = partial(
        measurement_jobs.submit_once,
        account=caller.account,
        source=request.source,
        scope=request.scope,
        schedule=request.schedule,
        key=key,
        digest=None if key is None else request.digest,
    )
    try:
        return caller.state.write_with_retry(insert)
    except measurement_jobs.RequestTooLargeError as error:
        # Its text in the table may be somewhat longer than the body was.
        raise ApiError(413, ErrorCode.BODY_TOO_LARGE, str(error)) from error


def _process(caller: Caller, job: UUID, decision: Decision | None) -> dict[str, Any]:
    office = caller.state
    with office.connection_without_timeout() as connection:
        process_request(connection, job, decision, run=office.name, cap_usd=office.config.cap_usd)
        return _fetch_row(connection, caller, job)


def _read_job(caller: Caller, job: UUID) -> dict[str, Any]:
    with caller.state.connection() as connection:
        return _fetch_row(connection, caller, job)


def _fetch_row(connection: Connection, caller: Caller, job: UUID) -> dict[str, Any]:
    row = measurement_jobs.answer_to(connection, job, account=caller.account)
    if row is None:
        raise LookupError(f"measurement_jobs has no row {job}")
    return row
