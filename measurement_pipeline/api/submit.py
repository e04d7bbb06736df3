"""Submit a request: insert its row into `measurement_jobs`, then process it like any other row while the client waits.

Stripe is asked before the row is inserted. If Stripe gives no answer there is no row, so a client that gets 503 is never charged
for a request that it believes failed. If processing takes too long the client gets an answer and the processing continues. If
this process stops, the sensor's run processes the row. Both lock the row, so it is processed once.
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
from measurement_pipeline.api.job_models import MeasurementJobRequest
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
KEY_REUSED = "The Idempotency-Key was used with another body: send the same body, or a new key"


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A valid request: the parsed form, and source, scope and schedule for the row."""

    source: str
    scope: dict[str, Any]
    schedule: str
    parsed: MeasurementRequest
    callback_url: str | None = None

    @property
    def digest(self) -> bytes:
        """Hash of the request's meaning, so that two spellings of the same request are equal."""
        scope = self.parsed.scope
        parts = [self.source, type(scope).__name__, asdict(scope), self.schedule]
        # Added only where given, so that keys from before it existed still fit.
        if not self.parsed.aim.is_everything:
            parts.append(asdict(self.parsed.aim))
        if self.callback_url is not None:
            parts.append(self.callback_url)
        text = json.dumps(parts, default=str)
        return hashlib.sha256(text.encode()).digest()


def parse_request(body: MeasurementJobRequest) -> ParsedRequest:
    """Parse a body. Raises `ApiError` (400) with the same message as a row in the table would get. It inserts no row."""
    parsed = read_request(
        body.source,
        body.scope,
        body.platforms,
        body.schedule,
        limit=body.limit,
        coverage=body.coverage,
        callback_url=body.callback_url,
    )
    if isinstance(parsed, Refusal):
        raise ApiError(parsed.status_code, ErrorCode.INVALID_REQUEST, parsed.error)
    assert isinstance(body.scope, dict)
    scope_without_nulls = {key: value for key, value in body.scope.items() if value is not None}
    return ParsedRequest(parsed.source.value, scope_without_nulls, parsed.schedule.value, parsed, body.callback_url)


async def submit(caller: Caller, request: ParsedRequest, *, key: str | None) -> dict[str, Any]:
    """Submit a request and return its row (`measurement_jobs.answer_to`). State `queued`: processing has not finished yet.

    Raises `ApiError` (409, 503) and `DatabaseUnavailable`.
    """
    state = caller.state
    deadline = asyncio.get_running_loop().time() + state.config.answer_within_seconds
    earlier, decision = await run_in_threadpool(_find_earlier, caller, request, key)
    if earlier is not None:
        return earlier
    needs_card = request.parsed.needs_card
    if not needs_card and state.config.capture_limits is None:
        raise ApiError(503, ErrorCode.CAPTURES_DISABLED, NO_CAPTURES, retry_after=CAPTURES_RETRY_SECONDS)
    if needs_card and decision is None:
        # `decide` reads the stored decision again: another request of the account can have stored one while this one waited for
        # a thread. Stripe limits its searches to 20 a second.
        decision = await wait_until(deadline, state.payment_threads, lambda: state.config.decide(caller.account))
        if decision is not None and decision.verdict is PaymentVerdict.UNKNOWN:
            raise ApiError(
                503,
                ErrorCode.PAYMENT_UNKNOWN,
                f"{decision.reason} The request was not accepted: send it again later.",
                retry_after=decision.retry_after_seconds or _PAYMENT_RETRY_SECONDS,
            )
    while (job := await run_in_threadpool(_insert_job, caller, request, key)) is None:
        # Another request with the same key was inserted first, so return that one's answer, even if it is an error. There is none
        # if a third request has already taken over the key of a rejected one: then insert again.
        earlier, _ = await run_in_threadpool(_find_earlier, caller, request, key, release=False)
        if earlier is not None:
            return earlier
    if decision is not None or not needs_card:
        try:
            row = await wait_until(deadline, state.intake_threads, lambda: _process(caller, job, decision))
        except DatabaseError as error:
            # The row exists and the sensor's run will process it. Answer so if the database can still be read.
            if not is_transient(error):
                raise
            row = None
        if row is not None:
            return row
    return await run_in_threadpool(_read_job, caller, job)


async def wait_until(deadline: float, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T | None:
    """Return the result of `work`, or None at `deadline`. Work that has started continues; other work is cancelled."""
    future = threads.submit(work)
    result = asyncio.wrap_future(future)
    done, _ = await asyncio.wait([result], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
    if done:
        return result.result()
    future.add_done_callback(_log_failure)
    # Work that no thread has started is useless now: no client waits for it, and the sensor's run processes the row.
    future.cancel()
    result.cancel()
    return None


def _log_failure(future: Future[Any]) -> None:
    """Log an error that no client waits for. The row shows the state of the request."""
    error = None if future.cancelled() else future.exception()
    if error is not None:
        logger.error("processing failed after its client got an answer", exc_info=error)


def _find_earlier(
    caller: Caller, request: ParsedRequest, key: str | None, *, release: bool = True
) -> tuple[dict[str, Any] | None, Decision | None]:
    """Return the row of an earlier request with that key, else a fresh payment decision for the account.

    `release`: first release the key of a request whose answer was to retry later.
    """

    def find(connection: Connection) -> tuple[dict[str, Any] | None, Decision | None]:
        earlier = None
        if key is not None:
            if release:
                measurement_jobs.release_key(connection, account=caller.account, key=key, digest=request.digest)
            earlier = measurement_jobs.of_key(connection, account=caller.account, key=key)
        if earlier is None:
            return None, payment_decisions.load(connection, caller.account).fresh_decision
        job, digest = earlier
        if digest != request.digest:
            raise ApiError(409, ErrorCode.IDEMPOTENCY_KEY_REUSED, KEY_REUSED, id=str(job))
        return measurement_jobs.answer_to(connection, job, account=caller.account), None

    return caller.state.write_with_retry(find)


def _insert_job(caller: Caller, request: ParsedRequest, key: str | None) -> UUID | None:
    insert = partial(
        measurement_jobs.submit_once,
        account=caller.account,
        source=request.source,
        scope=request.scope,
        schedule=request.schedule,
        aim=request.parsed.aim,
        callback_url=request.callback_url,
        key=key,
        digest=None if key is None else request.digest,
    )
    try:
        return caller.state.write_with_retry(insert)
    except measurement_jobs.RequestTooLargeError as error:
        # The text in the table can be longer than the body was.
        raise ApiError(413, ErrorCode.BODY_TOO_LARGE, str(error)) from error


def _process(caller: Caller, job: UUID, decision: Decision | None) -> dict[str, Any]:
    state = caller.state
    with state.connection_without_timeout() as connection:
        process_request(connection, job, decision, run=state.name, limits=state.config.capture_limits)
        return _fetch_row(connection, caller, job)


def _read_job(caller: Caller, job: UUID) -> dict[str, Any]:
    return caller.state.read(partial(_fetch_row, caller=caller, job=job))


def _fetch_row(connection: Connection, caller: Caller, job: UUID) -> dict[str, Any]:
    row = measurement_jobs.answer_to(connection, job, account=caller.account)
    if row is None:
        raise LookupError(f"measurement_jobs has no row {job}")
    return row
