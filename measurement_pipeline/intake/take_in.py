"""Takes requests off `measurement_jobs`: shape, then payment, then resolution into recordings to buy or a capture to make.

All questions to Stripe come first, none inside a transaction; then one transaction a request locks its row while it is
still as it was read, enqueues, and writes state and receipt. Each request stands alone: one that cannot be worked on
never holds up the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

from measurement_pipeline.domain.capture import NO_CAPTURES, over_cap
from measurement_pipeline.domain.measurement_job import (
    NO_ALBUM_KNOWN,
    NOTHING_RESOLVED,
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
    read_request,
    without_album,
)
from measurement_pipeline.domain.payment import Decision, Verdict, ask_in_turn
from measurement_pipeline.postgres import measurement_jobs, run_heartbeats, snapshots
from measurement_pipeline.postgres.database import Connection, DatabaseError, connect
from measurement_pipeline.postgres.measurement_jobs import Receipt, WaitingRequest
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.postgres.snapshots import Opened, OverCap, Wanted

# So that a thousand requests cost about ten runs.
REQUESTS_A_RUN = 100

MAX_INTAKE_ATTEMPTS = 5
_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one request in this round. `state` None: it waits, and `error` says for what."""

    id: UUID
    account: UUID
    state: State | None
    status_code: int | None = None
    error: str | None = None
    receipt: Receipt | None = None
    capture: Opened | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """Requests with their shapes read, and the accounts that have to be asked about."""

    requests: Sequence[WaitingRequest]
    readings: dict[UUID, MeasurementRequest | Refusal] = field(default_factory=dict)

    @property
    def accounts(self) -> list[UUID]:
        """Whose payment decides about at least one request of the round, each once. A capture needs no card."""
        readings = ((request.account, self.readings[request.id]) for request in self.requests)
        asking = (
            account for account, reading in readings if isinstance(reading, MeasurementRequest) and reading.needs_card
        )
        return list(dict.fromkeys(asking))


def open_round(database_url: str, *, unpaid: bool = False, limit: int = REQUESTS_A_RUN) -> Round:
    """The requests whose time has come: the queued ones, or, with `unpaid`, those that wait for a card."""
    states = [State.PAYMENT_REQUIRED if unpaid else State.QUEUED]
    with connect(database_url) as connection:
        requests = measurement_jobs.waiting(connection, states=states, limit=limit)
    return Round(requests, {r.id: read_request(r.source, r.scope, r.platforms, r.schedule) for r in requests})


def ask_about_payment(opened: Round, check: Callable[[UUID], Decision]) -> dict[UUID, Decision]:
    """What Stripe says of each account of the round. `check` returns a decision, and never raises for Stripe's sake."""
    return ask_in_turn(opened.accounts, check)


def take_in(
    database_url: str, opened: Round, decisions: dict[UUID, Decision], *, run: str, cap_usd: Decimal | None = None
) -> list[Taken]:
    """Answer every request of the round. `cap_usd`: what captures may cost an account a month; None: none are made here.

    Raises `DatabaseUnavailable` where the database goes away; an error of one request's own is put on its row.
    """
    taken = []
    decisions = _with_links(database_url, decisions)
    for request in opened.requests:
        with connect(database_url) as connection:
            run_heartbeats.beat(connection, run)
            reading, decision = opened.readings[request.id], decisions.get(request.account)
            answered = _take_one(connection, request, reading, decision, run=run, cap_usd=cap_usd)
        if answered is not None:
            taken.append(answered)
    # Of the round alone: what else there is to settle, the end of each backfill run and the sweep do.
    with connect(database_url) as connection:
        measurement_jobs.settle(connection, only=[request.id for request in opened.requests])
    return taken


def take_in_one(
    connection: Connection, job: UUID, decision: Decision | None, *, run: str, cap_usd: Decimal | None = None
) -> Taken | None:
    """Answer that one request, whether or not its time has come: for whoever has just made it and wants the answer now.

    `decision` is about its account, with its link. None: it is no longer queued, or somebody else has answered it meanwhile.
    Raises as `take_in` does.
    """
    answered = None
    for request in measurement_jobs.queued_one(connection, job):
        reading = read_request(request.source, request.scope, request.platforms, request.schedule)
        answered = _take_one(connection, request, reading, decision, run=run, cap_usd=cap_usd)
        measurement_jobs.settle(connection, only=[job])
    return answered


def _take_one(
    connection: Connection,
    request: WaitingRequest,
    reading: MeasurementRequest | Refusal,
    decision: Decision | None,
    *,
    run: str,
    cap_usd: Decimal | None,
) -> Taken | None:
    attempts = measurement_jobs.begin_attempt(connection, request, run=run)
    if attempts is None:
        return None
    if attempts > MAX_INTAKE_ATTEMPTS:
        # The last one never came back to say how it went: the process that worked on it was killed.
        return _put_off_or_give_up(connection, request, attempts - 1, "no attempt came to an end")
    try:
        with connection.transaction():
            if not measurement_jobs.lock(connection, request):
                return None
            return _answer(connection, request, reading, decision, cap_usd)
    except DatabaseError as error:
        if connection.closed:
            raise  # the database went away, which is no fault of the request's
        why = str(error).partition("\n")[0] or type(error).__name__
        return _put_off_or_give_up(connection, request, attempts, why)


def _with_links(database_url: str, decisions: Mapping[UUID, Decision]) -> dict[UUID, Decision]:
    """Denials with the checkout page that is on file for them: a decision that has been through a file carries none."""
    on_file = PaymentDecisions(database_url)
    found = {}
    for account, decision in decisions.items():
        link = None
        if decision.verdict is Verdict.DENIED and decision.checkout_url is None:
            link = on_file.open_checkout(account)
        found[account] = (
            decision if link is None else replace(decision, checkout_url=link[0], checkout_expires_at=link[1])
        )
    return found


def _answer(
    connection: Connection,
    request: WaitingRequest,
    reading: MeasurementRequest | Refusal,
    decision: Decision | None,
    cap_usd: Decimal | None,
) -> Taken:
    if isinstance(reading, Refusal):
        return _refuse(connection, request, State.REJECTED, reading.status_code, reading.error)
    if reading.source is Source.CURRENT:
        return _open_capture(connection, request, reading, cap_usd)
    if _is_anothers(connection, request, reading.scope):
        # Before payment: nobody is to save a card for what cannot be had.
        return _refuse(connection, request, State.REJECTED, 400, UNKNOWN_CATALOG)
    if decision is None or decision.verdict is Verdict.UNKNOWN:
        wait = _RETRY_SECONDS if decision is None else max(decision.retry_after_seconds or 0.0, _RETRY_SECONDS)
        why = "payment was not asked about" if decision is None else decision.reason
        measurement_jobs.postpone(connection, request, seconds=wait, error=why, attempt_back=True)
        return Taken(request.id, request.account, None, error=why)
    if decision.verdict is Verdict.DENIED:
        # Only one that has been shown where to save a card, however long intake itself was away.
        if request.out_of_patience and request.state is State.PAYMENT_REQUIRED:
            return _refuse(connection, request, State.REJECTED, 402, UNPAID_TOO_LONG)
        return _refuse(
            connection, request, State.PAYMENT_REQUIRED, 402, decision.reason, checkout_url=decision.checkout_url
        )
    if not measurement_jobs.resolve(connection, request.id, reading.scope):
        return _refuse(connection, request, State.REJECTED, 400, NOTHING_RESOLVED)
    receipt = measurement_jobs.enqueue(connection, request.id)
    return Taken(request.id, request.account, State.ACCEPTED, 202, receipt=receipt)


def _open_capture(
    connection: Connection, request: WaitingRequest, reading: MeasurementRequest, cap_usd: Decimal | None
) -> Taken:
    if cap_usd is None:
        # Whoever runs the deployment can change that; the request is not to blame.
        measurement_jobs.postpone(connection, request, seconds=None, error=NO_CAPTURES, attempt_back=True)
        return Taken(request.id, request.account, None, error=NO_CAPTURES)
    scope = reading.scope
    if _is_anothers(connection, request, scope):
        return _refuse(connection, request, State.REJECTED, 400, UNKNOWN_CATALOG)
    album_ids = snapshots.albums_of(connection, scope)
    if not album_ids:
        return _refuse(connection, request, State.REJECTED, 400, NO_ALBUM_KNOWN)
    catalog = scope.catalog_id if isinstance(scope, ScopeByCatalog) else None
    isrcs = scope.isrcs if isinstance(scope, ScopeByIsrc) else None
    wanted = Wanted(request.account, album_ids, catalog, isrcs, schedule=reading.schedule)
    opened = snapshots.open_capture(connection, wanted, cap_usd=cap_usd)
    if isinstance(opened, OverCap):
        why = over_cap(cap=opened.cap, spent=opened.spent, asked=opened.asked)
        return _refuse(connection, request, State.REJECTED, 429, why, cost_usd=opened.asked)
    asked, skipped = _left_out(connection, request, scope)
    measurement_jobs.accept_capture(
        connection,
        request,
        snapshot=opened.snapshot,
        cost_usd=opened.cost_usd,
        reused=opened.reused,
        asked=asked,
        skipped=skipped,
        error=without_album(skipped, of=asked) if asked and skipped else None,
    )
    return Taken(request.id, request.account, State.ACCEPTED, 202, capture=opened)


def _is_anothers(connection: Connection, request: WaitingRequest, scope: Scope) -> bool:
    """Whether it is a catalogue that is not the account's, or none at all."""
    return isinstance(scope, ScopeByCatalog) and not measurement_jobs.is_theirs(
        connection, scope.catalog_id, account=request.account
    )


def _left_out(connection: Connection, request: WaitingRequest, scope: Scope) -> tuple[int, int] | tuple[None, None]:
    """How many recordings the scope names, and how many of these are on no album that is known. Named albums leave none out."""
    if isinstance(scope, ScopeByAlbum):
        return None, None
    songs = measurement_jobs.songs_of(connection, scope, account=request.account) or []
    return len(songs), snapshots.without_album(connection, songs)


def _refuse(
    connection: Connection,
    request: WaitingRequest,
    state: State,
    status_code: int,
    error: str,
    *,
    checkout_url: str | None = None,
    cost_usd: Decimal | None = None,
) -> Taken:
    measurement_jobs.answer(
        connection,
        request,
        state=state,
        status_code=status_code,
        error=error,
        checkout_url=checkout_url,
        cost_usd=cost_usd,
    )
    return Taken(request.id, request.account, state, status_code, error)


def _put_off_or_give_up(connection: Connection, request: WaitingRequest, attempts: int, error: str) -> Taken:
    if attempts >= MAX_INTAKE_ATTEMPTS:
        why = f"given up after {attempts} attempts: {error}"
        return _refuse(connection, request, State.FAILED, 500, why)
    seconds = _RETRY_SECONDS * 2 ** (attempts - 1)
    measurement_jobs.postpone(connection, request, seconds=seconds, error=error, attempt_back=False)
    return Taken(request.id, request.account, None, error=error)
