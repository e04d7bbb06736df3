"""Takes requests off `measurement_jobs`: shape, then payment, then resolution into recordings to buy or a capture to make.

All questions to Stripe come first, none inside a transaction; then one transaction a request locks its row while it is
still as it was chosen, reads it, enqueues, and writes state and receipt. Each request stands alone: one that cannot be worked on
never holds up the others.

An attempt is counted, and committed, before what a client wrote is read. Requests that no attempt failed on are counted in
groups. Those that one failed on come last, each counted by itself: one that kills its process again kills no other's answer.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from uuid import UUID

from measurement_pipeline.domain.capture import NO_CAPTURES, CaptureSpec, CaptureTicket, OverCap, describe_over_cap
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

# A run takes seconds to start, and milliseconds for a request.
MAX_REQUESTS_PER_RUN = 1_000
# What one sweep looks at again.
MAX_UNPAID_PER_RUN = 10_000
# Stripe may have to be asked about each of them first, one after the other.
MAX_ACCOUNTS_PER_RUN = 100
# Attempts are counted for so many at once. Where the process is killed, so many are suspected and taken one by one.
_GROUP_SIZE = 50
# A run that gives no sign of life for the claim timeout is reported as failed.
_HEARTBEAT_SECONDS = 5.0

MAX_INTAKE_ATTEMPTS = 5
_RETRY_SECONDS = 60.0
# Of one that the server rolled back for a deadlock and accepts again.
_MAX_TRANSACTION_TRIES = 3


@dataclass(frozen=True, slots=True)
class RequestResult:
    """What became of one request in this round. `state` None: it waits, and `error` says for what."""

    id: UUID
    account: UUID
    state: State | None
    status_code: int | None = None
    error: str | None = None
    receipt: JobReceipt | None = None
    capture: CaptureTicket | None = None


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """Requests to answer, without what clients wrote, which is read when they are answered.

    `accounts`: the card of each decides about at least one of them. A capture needs no card.
    """

    requests: Sequence[WaitingRequest]
    accounts: list[UUID]


def load_batch(
    database_url: str,
    *,
    unpaid: bool = False,
    limit: int = MAX_REQUESTS_PER_RUN,
    max_accounts: int = MAX_ACCOUNTS_PER_RUN,
) -> RequestBatch:
    """The requests that are due: the queued ones of up to so many `accounts`, each account in turn.

    `unpaid`: those that wait for a card instead, of all accounts.
    """
    with connect(database_url) as connection:
        if unpaid:
            requests = measurement_jobs.waiting(connection, state=State.PAYMENT_REQUIRED, limit=limit)
            asking = {request.id for request in requests}
        else:
            requests = measurement_jobs.waiting(connection, state=State.QUEUED, limit=limit)
            first = set(islice(dict.fromkeys(request.account for request in requests), max_accounts))
            requests = [request for request in requests if request.account in first]
            asking = _ids_needing_card(connection, requests)
    # Those that fewest attempts failed on come first, so that one that kills its process does not do so before the others again.
    ordered = sorted(requests, key=lambda request: request.attempts)
    return RequestBatch(ordered, list(dict.fromkeys(request.account for request in ordered if request.id in asking)))


def _has_failed_attempt(request: WaitingRequest) -> bool:
    """Whether an attempt at it failed, or was killed."""
    return request.attempts > 0


def _ids_needing_card(connection: Connection, requests: Sequence[WaitingRequest]) -> set[UUID]:
    """Which of `requests` have a shape that payment is asked about.

    One that an attempt failed on is not read here, where it could keep the others from an answer. Its account is asked about.
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
            # PostgreSQL cannot hand out one of them. Answering them one by one will show which.
            asking.update(request.id for request in mine)
        measurement_jobs.end_attempts(connection, mine)
    return asking


def _parse_document(document: RequestDocument) -> MeasurementRequest | Refusal:
    if not document.fits:
        return Refusal(400, TOO_LARGE)
    return read_request(document.source, document.scope, document.platforms, document.schedule)


def check_payments(opened: RequestBatch, check: Callable[[UUID], Decision]) -> dict[UUID, Decision]:
    """What Stripe says of each account of the round. `check` returns a decision, and never raises for Stripe's sake."""
    return decide_accounts(opened.accounts, check)


def process_batch(
    database_url: str,
    batch: RequestBatch,
    decisions: dict[UUID, Decision],
    *,
    run: str,
    cap_usd: Decimal | None = None,
) -> list[RequestResult]:
    """Answer every request of the round. `cap_usd`: what captures may cost an account a month; None: none are made here.

    Raises `DatabaseUnavailable` where the database goes away; an error of one request's own is put on its row.
    """
    taken = []
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
                    answered = _process_one(connection, request, begun[request.id], decision, cap_usd=cap_usd)
                    if answered is not None:
                        taken.append(answered)
        # Of the round alone: what else there is to settle, the end of each backfill run and the sweep do.
        measurement_jobs.settle(connection, only=[request.id for request in batch.requests])
    return taken


def _groups(requests: Sequence[WaitingRequest]) -> Iterator[Sequence[WaitingRequest]]:
    """Requests that no attempt failed on in groups, then the others, each alone."""
    yield from _split([request for request in requests if not _has_failed_attempt(request)], _GROUP_SIZE)
    yield from ([request] for request in requests if _has_failed_attempt(request))


def _split(requests: Sequence[WaitingRequest], size: int) -> Iterator[Sequence[WaitingRequest]]:
    return (requests[start : start + size] for start in range(0, len(requests), size))


def process_request(
    connection: Connection, job: UUID, decision: Decision | None, *, run: str, cap_usd: Decimal | None = None
) -> RequestResult | None:
    """Answer that one request, due or not: for a caller that has just made it and wants the answer now.

    `decision` is about its account, with its link. None: it is no longer queued, or something else has answered it meanwhile.
    Raises as `take_in` does.
    """
    request = measurement_jobs.queued_one(connection, job)
    if request is None:
        return None
    begun = measurement_jobs.begin_attempts(connection, [request], run=run)
    if job not in begun:
        return None
    answered = _process_one(connection, request, begun[job], decision, cap_usd=cap_usd)
    measurement_jobs.settle(connection, only=[job])
    return answered


def _process_one(
    connection: Connection,
    request: WaitingRequest,
    attempts: int,
    decision: Decision | None,
    *,
    cap_usd: Decimal | None,
) -> RequestResult | None:
    """Answer a request of which so many attempts began, this one counted."""
    if attempts > MAX_INTAKE_ATTEMPTS:
        # The last one never came back to say how it went: the process that worked on it was killed.
        return _postpone_or_fail(connection, request, attempts - 1, "no attempt came to an end")
    for tries_left in reversed(range(_MAX_TRANSACTION_TRIES)):
        try:
            with connection.transaction():
                if not measurement_jobs.lock(connection, request):
                    return None
                document = measurement_jobs.document(connection, request)
                return _answer_request(connection, request, document, decision, cap_usd)
        except DatabaseError as error:
            if connection.closed:
                raise  # the database went away, which is no fault of the request's
            if is_undone(error) and tries_left:
                continue
            why = first_line(error)
            if is_outage(error):
                # Not the request's fault either: it waits, and keeps its attempts.
                measurement_jobs.postpone(connection, request, seconds=_RETRY_SECONDS, error=why, attempt_back=True)
                return RequestResult(request.id, request.account, None, error=why)
            return _postpone_or_fail(connection, request, attempts, why)
    return None


def _with_checkout_links(connection: Connection, decisions: Mapping[UUID, Decision]) -> dict[UUID, Decision]:
    """Denials with the checkout page that is on file for them: a decision that has been through a file carries none."""
    found = {}
    for account, decision in decisions.items():
        link = None
        if decision.verdict is PaymentVerdict.DENIED and decision.checkout_url is None:
            link = payment_decisions.open_checkout(connection, account)
        found[account] = (
            decision if link is None else replace(decision, checkout_url=link[0], checkout_expires_at=link[1])
        )
    return found


def _answer_request(
    connection: Connection,
    request: WaitingRequest,
    document: RequestDocument,
    decision: Decision | None,
    cap_usd: Decimal | None,
) -> RequestResult:
    reading = _parse_document(document)
    if isinstance(reading, Refusal):
        return _refuse_request(connection, request, State.REJECTED, reading.status_code, reading.error)
    if reading.source is Source.CURRENT:
        return _request_capture(connection, request, reading, cap_usd)
    if _is_unknown_catalog(connection, request, reading.scope):
        # Before payment: nobody is to save a card for what cannot be had.
        return _refuse_request(connection, request, State.REJECTED, 400, UNKNOWN_CATALOG)
    if decision is None or decision.verdict is PaymentVerdict.UNKNOWN:
        wait = _RETRY_SECONDS if decision is None else max(decision.retry_after_seconds or 0.0, _RETRY_SECONDS)
        why = "payment was not asked about" if decision is None else decision.reason
        measurement_jobs.postpone(connection, request, seconds=wait, error=why, attempt_back=True)
        return RequestResult(request.id, request.account, None, error=why)
    if decision.verdict is PaymentVerdict.DENIED:
        # Only one that has been shown where to save a card, however long intake itself was away.
        if document.out_of_patience and request.state is State.PAYMENT_REQUIRED:
            return _refuse_request(connection, request, State.REJECTED, 402, UNPAID_TOO_LONG)
        return _refuse_request(
            connection, request, State.PAYMENT_REQUIRED, 402, decision.reason, checkout_url=decision.checkout_url
        )
    if not measurement_jobs.resolve(connection, request.id, reading.scope):
        return _refuse_request(connection, request, State.REJECTED, 400, NOTHING_RESOLVED)
    receipt = measurement_jobs.enqueue(connection, request.id)
    return RequestResult(request.id, request.account, State.ACCEPTED, 202, receipt=receipt)


def _request_capture(
    connection: Connection, request: WaitingRequest, reading: MeasurementRequest, cap_usd: Decimal | None
) -> RequestResult:
    if cap_usd is None:
        # Whoever runs the deployment can change that; the request is not to blame.
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
    opened = captures.open_capture(connection, wanted, cap_usd=cap_usd)
    if isinstance(opened, OverCap):
        why = describe_over_cap(cap=opened.cap, spent=opened.spent, cost=opened.asked)
        return _refuse_request(connection, request, State.REJECTED, 429, why, cost_usd=opened.asked)
    asked, skipped = _count_left_out(connection, request, scope)
    measurement_jobs.accept_capture(
        connection,
        request,
        snapshot=opened.snapshot,
        cost_usd=opened.cost_usd,
        reused=opened.reused,
        asked=asked,
        skipped=skipped,
        error=left_out_message(skipped, of=asked) if asked and skipped else None,
    )
    return RequestResult(request.id, request.account, State.ACCEPTED, 202, capture=opened)


def _is_unknown_catalog(connection: Connection, request: WaitingRequest, scope: Scope) -> bool:
    """Whether it is a catalogue that is not the account's, or none at all."""
    return isinstance(scope, ScopeByCatalog) and not measurement_jobs.is_theirs(
        connection, scope.catalog_id, account=request.account
    )


def _count_left_out(
    connection: Connection, request: WaitingRequest, scope: Scope
) -> tuple[int, int] | tuple[None, None]:
    """How many recordings the scope names, and how many of these are on no album that is known. Named albums leave none out."""
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
        why = f"given up after {attempts} attempts: {error}"
        return _refuse_request(connection, request, State.FAILED, 500, why)
    seconds = _RETRY_SECONDS * 2 ** (attempts - 1)
    measurement_jobs.postpone(connection, request, seconds=seconds, error=error, attempt_back=False)
    return RequestResult(request.id, request.account, None, error=error)
