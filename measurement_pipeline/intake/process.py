"""Processes the requests in `measurement_jobs`: shape, then payment, then the recordings to buy or the capture to make.

All calls to Stripe come first, and none inside a transaction. Then each request has one transaction, which locks its row if it is
unchanged, reads it, enqueues, and writes state and receipt. A request that cannot be processed never delays the others.

An attempt is counted, and committed, before the client's document is read. Requests without a failed attempt are counted in
groups. The others come last, each counted on its own: a request that kills its process again affects no other.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from uuid import UUID

from measurement_pipeline.domain.backoff import exponential_backoff
from measurement_pipeline.domain.capture import (
    NO_CAPTURES,
    CaptureLimits,
    CaptureSpec,
    CaptureTicket,
    OverCap,
    describe_over_cap,
)
from measurement_pipeline.domain.measurement_job import (
    NO_ALBUM_KNOWN,
    NOTHING_RESOLVED,
    TOO_LARGE,
    UNKNOWN_CATALOG,
    UNPAID_TOO_LONG,
    MeasurementRequest,
    Refusal,
    Scope,
    ScopeByAlbum,
    ScopeByCatalog,
    ScopeByIsrc,
    Source,
    State,
    left_out_message,
    read_request,
)
from measurement_pipeline.domain.payment import Decision, PaymentVerdict, decide_accounts
from measurement_pipeline.postgres import captures, measurement_jobs, payment_decisions, run_heartbeats
from measurement_pipeline.postgres.database import Connection, DatabaseError, connect
from measurement_pipeline.postgres.errors import first_line, is_outage, is_undone
from measurement_pipeline.postgres.measurement_jobs import JobReceipt, RequestDocument, WaitingRequest

# A run takes seconds to start and milliseconds for each request.
MAX_REQUESTS_PER_RUN = 1_000
# Requests that one reclaim checks again.
MAX_UNPAID_PER_RUN = 10_000
# Each may need a call to Stripe first, one after the other.
MAX_ACCOUNTS_PER_RUN = 100
# Attempts are counted for this many requests at once. If the process is killed, these are then processed one by one.
_GROUP_SIZE = 50
# A run without a heartbeat for the claim timeout is reported as failed.
_HEARTBEAT_SECONDS = 5.0

MAX_INTAKE_ATTEMPTS = 5
_RETRY_SECONDS = 60.0
# Above the last wait, which MAX_INTAKE_ATTEMPTS limits.
_MAX_RETRY_SECONDS = 3600.0
# For a transaction that the server rolled back because of a deadlock or serialization failure.
_MAX_TRANSACTION_TRIES = 3


@dataclass(frozen=True, slots=True)
class RequestResult:
    """The result of one request. `state` None: it waits, and `error` says for what."""

    id: UUID
    account: UUID
    state: State | None
    status_code: int | None = None
    error: str | None = None
    receipt: JobReceipt | None = None
    capture: CaptureTicket | None = None


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """Requests to process, without their documents, which are read later.

    `accounts`: those whose card decides about at least one request. A capture needs no card.
    """

    requests: Sequence[WaitingRequest]
    accounts: list[UUID]


def load_batch(
    database_url: str,
    *,
    unpaid: bool = False,
    limit: int = MAX_REQUESTS_PER_RUN,
    max_accounts: int = MAX_ACCOUNTS_PER_RUN,
    only_small: bool = False,
) -> RequestBatch:
    """The due requests: the queued ones of up to `max_accounts` accounts, each account in turn.

    `unpaid`: instead, the requests of all accounts that wait for a card. `only_small`: of the selected ones only those that take
    well under a second, and no earlier attempt.
    """
    with connect(database_url) as connection:
        if unpaid:
            requests = measurement_jobs.waiting(connection, state=State.PAYMENT_REQUIRED, limit=limit)
            asking = {request.id for request in requests}
        else:
            requests = measurement_jobs.waiting(connection, state=State.QUEUED, limit=limit)
            first = set(islice(dict.fromkeys(request.account for request in requests), max_accounts))
            requests = [request for request in requests if request.account in first]
            if only_small:
                small = measurement_jobs.select_small(connection, requests)
                requests = [request for request in requests if request.id in small and not _has_failed_attempt(request)]
            asking = _ids_needing_card(connection, requests)
    # Fewest failed attempts first, so that a request that kills its process does not do so again before the others.
    ordered = sorted(requests, key=lambda request: request.attempts)
    return RequestBatch(ordered, list(dict.fromkeys(request.account for request in ordered if request.id in asking)))


def _has_failed_attempt(request: WaitingRequest) -> bool:
    """Whether an attempt failed or was killed."""
    return request.attempts > 0


def _ids_needing_card(connection: Connection, requests: Sequence[WaitingRequest]) -> set[UUID]:
    """The ids of the requests whose shape needs a payment decision.

    A request with a failed attempt is not read here, because it could fail the others too. Its account is checked.
    """
    historical = [request for request in requests if request.is_historical]
    asking = {request.id for request in historical if _has_failed_attempt(request)}
    for group in _split([request for request in historical if not _has_failed_attempt(request)], _GROUP_SIZE):
        begun = measurement_jobs.begin_attempts(connection, group)
        mine = [request for request in group if request.id in begun]
        try:
            for job, document in measurement_jobs.documents(connection, mine):
                reading = _parse_document(document)
                if isinstance(reading, MeasurementRequest) and reading.needs_card:
                    asking.add(job)
        except DatabaseError:
            if connection.closed:
                raise
            # PostgreSQL cannot return one of the documents. Processing them one by one will show which.
            asking.update(request.id for request in mine)
        measurement_jobs.end_attempts(connection, mine)
    return asking


def _parse_document(document: RequestDocument) -> MeasurementRequest | Refusal:
    if not document.fits:
        return Refusal(400, TOO_LARGE)
    return read_request(
        document.source,
        document.scope,
        document.platforms,
        document.schedule,
        limit=document.limit,
        coverage=document.coverage,
        callback_url=document.callback_url,
    )


def check_payments(opened: RequestBatch, check: Callable[[UUID], Decision]) -> dict[UUID, Decision]:
    """The payment decision for each account of the batch. `check` never raises for what Stripe does."""
    return decide_accounts(opened.accounts, check)


def process_batch(
    database_url: str,
    batch: RequestBatch,
    decisions: dict[UUID, Decision],
    *,
    run: str,
    limits: CaptureLimits | None = None,
) -> list[RequestResult]:
    """Process every request of the batch. `limits`: price and caps of captures; None: captures are disabled.

    Raises `DatabaseUnavailable` if the database becomes unreachable. Any other error is written to the request's row.
    """
    results = []
    with connect(database_url) as connection:
        decisions = _with_checkout_links(connection, decisions)
        for group in _groups(batch.requests):
            run_heartbeats.renew(connection, run)
            beat_at = time.monotonic()
            begun = measurement_jobs.begin_attempts(connection, group, run=run)
            for request in group:
                if time.monotonic() - beat_at > _HEARTBEAT_SECONDS:
                    run_heartbeats.renew(connection, run)
                    beat_at = time.monotonic()
                if request.id in begun:
                    decision = decisions.get(request.account)
                    result = _process_one(connection, request, begun[request.id], decision, limits=limits)
                    if result is not None:
                        results.append(result)
        # Only this batch: the end of each backfill run and the reclaim settle the others.
        measurement_jobs.settle(connection, only=[request.id for request in batch.requests])
    return results


def _groups(requests: Sequence[WaitingRequest]) -> Iterator[Sequence[WaitingRequest]]:
    """Requests without a failed attempt in groups, then the others, each alone."""
    yield from _split([request for request in requests if not _has_failed_attempt(request)], _GROUP_SIZE)
    yield from ([request] for request in requests if _has_failed_attempt(request))


def _split(requests: Sequence[WaitingRequest], size: int) -> Iterator[Sequence[WaitingRequest]]:
    return (requests[start : start + size] for start in range(0, len(requests), size))


def process_request(
    connection: Connection, job: UUID, decision: Decision | None, *, run: str, limits: CaptureLimits | None = None
) -> RequestResult | None:
    """Process one request now, due or not; for a caller that has just made it.

    `decision` is about its account, with the checkout link. Returns None if it is no longer queued, or another session has
    processed it meanwhile. Raises as `process_batch` does.
    """
    request = measurement_jobs.queued_one(connection, job)
    if request is None:
        return None
    begun = measurement_jobs.begin_attempts(connection, [request], run=run)
    if job not in begun:
        return None
    result = _process_one(connection, request, begun[job], decision, limits=limits)
    measurement_jobs.settle(connection, only=[job])
    return result


def _process_one(
    connection: Connection,
    request: WaitingRequest,
    attempts: int,
    decision: Decision | None,
    *,
    limits: CaptureLimits | None,
) -> RequestResult | None:
    """Process a request. `attempts` counts this one."""
    if attempts > MAX_INTAKE_ATTEMPTS:
        # The last attempt has no result: its process was killed.
        return _postpone_or_fail(connection, request, attempts - 1, "no attempt finished")
    for tries_left in reversed(range(_MAX_TRANSACTION_TRIES)):
        try:
            with connection.transaction():
                if not measurement_jobs.lock(connection, request):
                    return None
                document = measurement_jobs.document(connection, request)
                return _answer_request(connection, request, document, decision, limits)
        except DatabaseError as error:
            if connection.closed:
                raise  # the database is unreachable; the request is not the cause
            if is_undone(error) and tries_left:
                continue
            why = first_line(error)
            if is_outage(error):
                # The request is not the cause: it waits and keeps its attempts.
                measurement_jobs.postpone(connection, request, seconds=_RETRY_SECONDS, error=why, attempt_back=True)
                return RequestResult(request.id, request.account, None, error=why)
            return _postpone_or_fail(connection, request, attempts, why)
    return None


def _with_checkout_links(connection: Connection, decisions: Mapping[UUID, Decision]) -> dict[UUID, Decision]:
    """Add the stored checkout link to denials: a decision passed between ops carries none."""
    linked = {}
    for account, decision in decisions.items():
        link = None
        if decision.verdict is PaymentVerdict.DENIED and decision.checkout_url is None:
            link = payment_decisions.load(connection, account).open_checkout
        linked[account] = (
            decision if link is None else replace(decision, checkout_url=link.url, checkout_expires_at=link.expires_at)
        )
    return linked


def _answer_request(
    connection: Connection,
    request: WaitingRequest,
    document: RequestDocument,
    decision: Decision | None,
    limits: CaptureLimits | None,
) -> RequestResult:
    reading = _parse_document(document)
    if isinstance(reading, Refusal):
        return _refuse_request(connection, request, State.REJECTED, reading.status_code, reading.error)
    if reading.source is Source.CURRENT:
        return _request_capture(connection, request, reading, limits)
    if _is_unknown_catalog(connection, request, reading.scope):
        # Before payment, so that no one saves a card for a catalogue that does not exist.
        return _refuse_request(connection, request, State.REJECTED, 400, UNKNOWN_CATALOG)
    if decision is None or decision.verdict is PaymentVerdict.UNKNOWN:
        wait = _RETRY_SECONDS if decision is None else max(decision.retry_after_seconds or 0.0, _RETRY_SECONDS)
        why = "payment was not checked yet" if decision is None else decision.reason
        measurement_jobs.postpone(connection, request, seconds=wait, error=why, attempt_back=True)
        return RequestResult(request.id, request.account, None, error=why)
    if decision.verdict is PaymentVerdict.DENIED:
        # Only a request that was answered with a checkout link, however long intake itself was down.
        if document.is_expired and request.state is State.PAYMENT_REQUIRED:
            return _refuse_request(connection, request, State.REJECTED, 402, UNPAID_TOO_LONG)
        return _refuse_request(
            connection, request, State.PAYMENT_REQUIRED, 402, decision.reason, checkout_url=decision.checkout_url
        )
    if reading.aim.is_everything:
        resolved = measurement_jobs.resolve(connection, request.id, reading.scope)
    else:
        resolved = measurement_jobs.resolve_part(
            connection, request.id, reading.scope, account=request.account, aim=reading.aim
        )
    if not resolved:
        return _refuse_request(connection, request, State.REJECTED, 400, NOTHING_RESOLVED)
    receipt = measurement_jobs.enqueue(connection, request.id)
    return RequestResult(request.id, request.account, State.ACCEPTED, 202, receipt=receipt)


def _request_capture(
    connection: Connection, request: WaitingRequest, reading: MeasurementRequest, limits: CaptureLimits | None
) -> RequestResult:
    if limits is None:
        # The operator can enable captures; the request is not the cause.
        measurement_jobs.postpone(connection, request, seconds=None, error=NO_CAPTURES, attempt_back=True)
        return RequestResult(request.id, request.account, None, error=NO_CAPTURES)
    scope = reading.scope
    if _is_unknown_catalog(connection, request, scope):
        return _refuse_request(connection, request, State.REJECTED, 400, UNKNOWN_CATALOG)
    album_ids = captures.resolve_albums(connection, scope)
    if not album_ids:
        return _refuse_request(connection, request, State.REJECTED, 400, NO_ALBUM_KNOWN)
    catalog = scope.catalog_id if isinstance(scope, ScopeByCatalog) else None
    isrcs = scope.isrcs if isinstance(scope, ScopeByIsrc) else None
    wanted = CaptureSpec(request.account, album_ids, catalog, isrcs, schedule=reading.schedule)
    opened = captures.open_capture(connection, wanted, limits=limits)
    if isinstance(opened, OverCap):
        why = describe_over_cap(opened)
        return _refuse_request(connection, request, State.REJECTED, 429, why, cost_usd=opened.asked)
    requested, skipped = _count_left_out(connection, request, scope)
    measurement_jobs.accept_capture(
        connection,
        request,
        snapshot=opened.snapshot,
        cost_usd=opened.cost_usd,
        reused=opened.reused,
        asked=requested,
        skipped=skipped,
        error=left_out_message(skipped, of=requested) if requested and skipped else None,
    )
    return RequestResult(request.id, request.account, State.ACCEPTED, 202, capture=opened)


def _is_unknown_catalog(connection: Connection, request: WaitingRequest, scope: Scope) -> bool:
    """Whether the scope names a catalogue that does not exist or belongs to another account."""
    return isinstance(scope, ScopeByCatalog) and not measurement_jobs.is_theirs(
        connection, scope.catalog_id, account=request.account
    )


def _count_left_out(
    connection: Connection, request: WaitingRequest, scope: Scope
) -> tuple[int, int] | tuple[None, None]:
    """How many recordings the scope names, and how many are on no known album. A scope of albums leaves none out."""
    if isinstance(scope, ScopeByAlbum):
        return None, None
    songs = measurement_jobs.songs_of(connection, scope, account=request.account) or []
    return len(songs), captures.count_without_album(connection, songs)


def _refuse_request(
    connection: Connection,
    request: WaitingRequest,
    state: State,
    status_code: int,
    error: str,
    *,
    checkout_url: str | None = None,
    cost_usd: Decimal | None = None,
) -> RequestResult:
    measurement_jobs.answer(
        connection,
        request,
        state=state,
        status_code=status_code,
        error=error,
        checkout_url=checkout_url,
        cost_usd=cost_usd,
    )
    return RequestResult(request.id, request.account, state, status_code, error)


def _postpone_or_fail(connection: Connection, request: WaitingRequest, attempts: int, error: str) -> RequestResult:
    if attempts >= MAX_INTAKE_ATTEMPTS:
        why = f"failed after {attempts} attempts: {error}"
        return _refuse_request(connection, request, State.FAILED, 500, why)
    seconds = exponential_backoff(attempts - 1, first_seconds=_RETRY_SECONDS, max_seconds=_MAX_RETRY_SECONDS)
    measurement_jobs.postpone(connection, request, seconds=seconds, error=error, attempt_back=False)
    return RequestResult(request.id, request.account, None, error=error)
