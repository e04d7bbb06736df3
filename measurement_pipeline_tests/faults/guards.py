"""The guards that keep each invariant, each with a plausible mistake that removes it.

A mistake changes a named SQL statement, a function, or the schema of the test's database while one test runs. The test that
catches it carries the guard's name: `@pytest.mark.fails_without("SKIP LOCKED")`. `guard_items` runs it with the mistake as
well.
"""
# ruff: noqa: SLF001 - a mistake changes private members

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from types import FunctionType
from typing import Any

import httpx
import pytest
import stripe

from measurement_pipeline.backfill.fetched_item import NO_RESERVATION, judge_item
from measurement_pipeline.backfill.reserver import Reserver
from measurement_pipeline.backfill.worker import BackfillWorker
from measurement_pipeline.capture.actor_runner import ActorRunner
from measurement_pipeline.domain import backfill_queue
from measurement_pipeline.domain.backfill_queue import Status, Streak
from measurement_pipeline.domain.outcome import Cause, Outcome
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.intake import process
from measurement_pipeline.postgres import apify_runs, captures, migrate, songstats_ledger
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.postgres.sql import statements
from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.errors import UnavailableError
from measurement_pipeline.vendors.songstats import historic_stats
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline.vendors.songstats.response import SongstatsResponse
from measurement_pipeline.vendors.stripe.payment_gate import StripeGate


@dataclass(frozen=True)
class Patcher:
    """Applies a mistake while one test runs. `database_url` is the test's database, if it has one."""

    monkeypatch: pytest.MonkeyPatch
    database_url: str | None

    def statement(self, module: str, name: str, pattern: str, replacement: str) -> None:
        """Replace every match of `pattern` in a named statement; a space matches any white space. Fails without a match."""
        named = statements(module)
        text, matches = re.subn(pattern.replace(" ", r"\s+"), replacement, named[name], flags=re.DOTALL)
        assert matches, f"statement `{name}` of {module}.sql has no {pattern!r}"
        self.monkeypatch.setitem(named, name, text)  # type: ignore[arg-type]

    def function(self, old: Any, new: Any) -> None:
        """Replace a function, method or class method in every module of this project that refers to it."""
        function = getattr(old, "__func__", old)
        assert isinstance(function, FunctionType), f"{old!r} is not a function"
        owner, _, name = function.__qualname__.rpartition(".")
        if owner:
            holder = getattr(sys.modules[function.__module__], owner)
            self.monkeypatch.setattr(holder, name, classmethod(new) if old is not function else new)
            return
        modules = [module for loaded, module in sys.modules.items() if loaded.startswith("measurement_pipeline")]
        for module in modules:
            if vars(module).get(name) is function:
                self.monkeypatch.setattr(module, name, new)

    def schema(self, change: str) -> None:
        """Change the schema of the test's database."""
        if self.database_url is not None:
            with connect(self.database_url) as connection:
                connection.execute(change)  # type: ignore[arg-type]

    def definition(self, query: str, statement: str, *changes: tuple[str, str]) -> None:
        """Apply `changes` to the definition that `query` returns, and run it as `statement`."""
        if self.database_url is not None:
            with connect(self.database_url) as connection:
                row = connection.execute(query).fetchone()  # type: ignore[arg-type]
                assert row is not None
                text = row["definition"]
                for pattern, replacement in changes:
                    text, matches = re.subn(pattern, replacement, text)
                    assert matches, f"{row['definition']} has no {pattern!r}"
                connection.execute(statement.format(text))  # type: ignore[arg-type]


Mistake = Callable[[Patcher], None]


def statement(module: str, name: str, *changes: tuple[str, str]) -> Mistake:
    """Change a named statement."""

    def make(patcher: Patcher) -> None:
        for pattern, replacement in changes:
            patcher.statement(module, name, pattern, replacement)

    return make


def function(old: Any, new: Any) -> Mistake:
    """Replace a function."""
    return lambda patcher: patcher.function(old, new)


def all_of(*mistakes: Mistake) -> Mistake:
    """Combine several changes into one mistake."""

    def make(patcher: Patcher) -> None:
        for mistake in mistakes:
            mistake(patcher)

    return make


# --- the claim ------------------------------------------------------------------------------------------------------------

CLAIM: Mapping[str, Mistake] = {
    "SKIP LOCKED": statement("backfill_queue", "claim", ("skip locked", "")),
    # The candidates as a subquery of the update, which the planner may evaluate once for each row.
    "the materialized claim": statement(
        "backfill_queue",
        "claim",
        (
            r"with (\w+) as materialized \((?P<rows>.*?)\n\),\n(?P<update>.*?)from \1 where (?P<song>\w+\.song) = \S+",
            r"with \g<update> where \g<song> in (\g<rows>)",
        ),
    ),
    "a claim takes over only silent rows": statement(
        "backfill_queue", "claim", (r"and \w+\.heartbeat_at < clock_timestamp\(\) - make_interval\([^)]*\)s\)", "")
    ),
    "terminal states: a claim takes no settled row": statement(
        "backfill_queue",
        "claim",
        (r"(\w+\.status) = 'pending'", r"\1 <> 'in_progress'"),
        ("status = 'in_progress',", "status = 'in_progress', outcome = null,"),
    ),
    "terminal states: a requeue takes no stored row": statement(
        "backfill_queue", "requeue", (r"and \w+\.outcome is distinct from 'stored'", "")
    ),
    "terminal states: each status has its own outcomes": lambda patcher: patcher.definition(
        "select pg_get_constraintdef(oid) as definition from pg_constraint"
        " where conname = 'songstats_backfill_queue_outcome_of_status'",
        "alter table songstats_backfill_queue drop constraint songstats_backfill_queue_outcome_of_status,"
        " add constraint songstats_backfill_queue_outcome_of_status {}",
        (r"(WHEN 'failed'::text THEN \().*? AND", r"\1"),
    ),
    "the cap on attempts": statement(
        "backfill_queue", "claim", (r"(\w+\.attempts) < %\(max_attempts\)s", r"\1 <= %(max_attempts)s")
    ),
}

# --- the lease ------------------------------------------------------------------------------------------------------------

_LEASE = (r" and \w+\.lease = \w+\.lease", "")

LEASE: Mapping[str, Mistake] = {
    "the lease predicate of the heartbeat": statement("backfill_queue", "heartbeat", _LEASE),
    "the lease predicate of settling": statement("backfill_queue", "settle", _LEASE),
    "the lease predicate of the reserve": statement("songstats_ledger", "reserve", _LEASE),
    "measurements are stored under the lease": statement(
        "backfill_queue",
        "settle",
        (r"inner join (\w+) on \w+\.song = \1\.song cross join lateral", "cross join lateral"),
    ),
}

# --- hits -----------------------------------------------------------------------------------------------------------------

_NO_LOCK = statement("songstats_ledger", "reserve_lock", (".+", "select 1"))
_BILLABLE = ("billable is distinct from false", "billable")


def _reserve_after_the_call(patcher: Patcher) -> None:
    reserve, keep = Reserver.reserve, BackfillWorker._keep

    async def reserve_nothing(_reserver: Reserver, claims: Sequence[Any]) -> Any:
        return [(claim, NO_RESERVATION) for claim in claims], {}

    async def reserve_and_keep(worker: BackfillWorker, batch: Sequence[Any]) -> Any:
        reserved, _ = await reserve(worker._reserver, [item.claim for item in batch])
        by_claim = dict(reserved)
        return await keep(worker, [replace(item, reservation=by_claim[item.claim]) for item in batch])

    patcher.function(reserve, reserve_nothing)
    patcher.function(keep, reserve_and_keep)


def _settle_before_keeping(patcher: Patcher) -> None:
    keep, settle_batch = BackfillWorker._keep, BackfillWorker._settle_batch

    async def settle_and_keep(worker: BackfillWorker, batch: Sequence[Any]) -> Any:
        await settle_batch(worker, [judge_item(item) for item in batch])
        return await keep(worker, batch)

    async def do_nothing(_worker: BackfillWorker, _batch: Sequence[Any]) -> None:
        pass

    patcher.function(keep, settle_and_keep)
    patcher.function(settle_batch, do_nothing)


def _buy_what_is_owned(patcher: Patcher) -> None:
    start = BackfillWorker._sort_claims

    async def start_all(worker: BackfillWorker, claims: Sequence[Any]) -> None:
        await start(worker, [replace(claim, has_history=False) for claim in claims])

    patcher.function(start, start_all)


def _follow_redirects(patcher: Patcher) -> None:
    send = SongstatsClient._send

    class Following(httpx.AsyncBaseTransport):
        def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
            self._transport = transport

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await self._transport.handle_async_request(request)
            if not response.has_redirect_location:
                return response
            await response.aclose()
            onward = httpx.Request("GET", response.headers["location"], headers=request.headers)
            return await self._transport.handle_async_request(onward)

    async def follow(client: SongstatsClient, transport: httpx.AsyncBaseTransport, request: httpx.Request) -> Any:
        return await send(client, Following(transport), request)

    patcher.function(send, follow)


HITS: Mapping[str, Mistake] = {
    "the advisory lock of the reserve": _NO_LOCK,
    # The counting statement takes the lock itself, after its snapshot.
    "the advisory lock is a separate statement": all_of(
        _NO_LOCK,
        statement(
            "songstats_ledger",
            "reserve",
            (
                r"(count\(\*\) as hits_left from songstats_quota_ledger)",
                r"\1 cross join (select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0))) as locked",
            ),
        ),
    ),
    "the budget counts open hits": statement("songstats_ledger", "reserve", _BILLABLE),
    "the cap of an account": statement("songstats_ledger", "reserve", (r"and \w+\.is_within_cap", "")),
    "the budget counts hits of unknown outcome": statement("songstats_ledger", "budget", _BILLABLE),
    "reserve before the call": _reserve_after_the_call,
    "a response is stored before it is parsed": _settle_before_keeping,
    "a response to an earlier owner's call is read and not bought again": statement(
        "songstats_ledger", "reserve", (r"and not exists \(select from songstats_unread_responses .*?\)", "")
    ),
    "intake skips owned recordings": statement(
        "measurement_jobs",
        "enqueue",
        (r"case when \w+\.owned then 'done' else 'pending' end", "'pending'"),
        (r"case when \w+\.owned then 'stored' end", "null"),
    ),
    "a run skips owned recordings": _buy_what_is_owned,
    "a repeated payload adds no measurement": statement(
        "backfill_queue", "settle", (r"where \w+\.value is distinct from \w+\.value", "")
    ),
    "no redirect is followed": _follow_redirects,
}

# --- payment --------------------------------------------------------------------------------------------------------------


def _unknown_is_allowed(patcher: Patcher) -> None:
    ask = StripeGate.decide

    def decide_and_allow(gate: StripeGate, *arguments: Any, **options: Any) -> Any:
        decision = ask(gate, *arguments, **options)
        return (
            replace(decision, verdict=PaymentVerdict.ALLOWED)
            if decision.verdict is PaymentVerdict.UNKNOWN
            else decision
        )

    patcher.function(ask, decide_and_allow)


def _any_404_is_a_missing_customer(patcher: Patcher) -> None:
    payment_methods = StripeGate._payment_methods

    def without_the_code(gate: StripeGate, customer: str) -> Any:
        try:
            return payment_methods(gate, customer)
        except stripe.InvalidRequestError as error:
            if error.http_status == 404:
                return None
            raise

    patcher.function(payment_methods, without_the_code)


def _accept_unknown_payment(patcher: Patcher) -> None:
    answer = process._answer_request

    def answer_as_if_allowed(connection: Any, request: Any, document: Any, decision: Any, limits: Any) -> Any:
        if decision is not None and decision.verdict is PaymentVerdict.UNKNOWN:
            decision = replace(decision, verdict=PaymentVerdict.ALLOWED)
        return answer(connection, request, document, decision, limits)

    patcher.function(answer, answer_as_if_allowed)


PAYMENT: Mapping[str, Mistake] = {
    "unknown is not allowed: Stripe does not respond": _unknown_is_allowed,
    "unknown is not allowed: a 404 that is not about the customer": _any_404_is_a_missing_customer,
    "unknown is not allowed: intake accepts a request": _accept_unknown_payment,
    "unknown is not allowed: an account without a decision": lambda patcher: patcher.definition(
        "select pg_get_functiondef('songstats_payers'::regproc) as definition",
        "{}",
        (r"(?<!CROSS )JOIN payment_decisions", "LEFT JOIN payment_decisions"),
        (r"verdict = 'allowed'::text", "verdict is distinct from 'denied'"),
    ),
    "a payment decision is valid for ten minutes": statement(
        "songstats_ledger",
        "reserve",
        (
            r"(\w+\.checked_at) > clock_timestamp\(\) - make_interval\(secs => %\(allowed_serves\)s\)",
            r"\1 is not null",
        ),
    ),
}

# --- the vendor and the deployment ----------------------------------------------------------------------------------------


async def _no_causes(*_arguments: Any, **_options: Any) -> list[tuple[str, str]]:
    return []


def _a_429_is_an_attempt(patcher: Patcher) -> None:
    settle = backfill_queue.settle
    patcher.function(settle, lambda *read, **given: replace(settle(*read, **given), attempt_back=False))


def _a_429_may_be_billed(patcher: Patcher) -> None:
    judge = historic_stats.judge

    def judge_as_unknown(*read: Any, **given: Any) -> Any:
        judgement = judge(*read, **given)
        return replace(judgement, billable=None) if judgement.cause is Cause.THROTTLED else judgement

    patcher.function(judge, judge_as_unknown)


def _retry_after_is_a_ceiling(patcher: Patcher) -> None:
    pause_seconds = backfill_queue.pause_seconds

    def the_shorter(retry_after: float | None, *, pauses_before: int) -> float:
        guess = pause_seconds(None, pauses_before=pauses_before)
        return guess if retry_after is None else min(retry_after, guess)

    patcher.function(pause_seconds, the_shorter)


def _any_body_counts(cls: type[SongstatsResponse], status: int, headers: Any, body: bytes) -> SongstatsResponse:
    return cls(status, headers, body)


_NO_STAMP = function(migrate._require_kind, lambda _found, _kind: None)

VENDOR: Mapping[str, Mistake] = {
    "the streak breaker": function(backfill_queue.count_streak, lambda _causes: Streak()),
    "the streak continues across runs": function(songstats_ledger.recent_causes, _no_causes),
    "an open breaker stops reservations": statement(
        "songstats_ledger", "reserve", ("join songstats_call_gate as gate", "join (select true as is_open) as gate")
    ),
    "a 429 costs no attempt": _a_429_is_an_attempt,
    "a 429 costs no budget": _a_429_may_be_billed,
    "Retry-After is a minimum": _retry_after_is_a_ceiling,
    "a status counts only in Songstats' own response": function(SongstatsResponse.received, _any_body_counts),
    "an unreadable response is not done": lambda patcher: patcher.monkeypatch.setitem(
        backfill_queue.STATUS_OF_OUTCOME, Outcome.MALFORMED, Status.DONE
    ),
    "the deployment stamp, at every start": _NO_STAMP,
    "the deployment stamp, before a migration": _NO_STAMP,
}

# --- captures -------------------------------------------------------------------------------------------------------------


def _start_before_the_row(runner: ActorRunner, chunk: int, album_ids: Sequence[str]) -> bool:
    started = runner._actor.start_run(album_ids)
    row = apify_runs.record_intent(
        runner._connection, runner._snapshot, chunk, album_ids, cost_usd=Decimal(0), run=runner._run_id
    )
    apify_runs.record_start(runner._connection, row, actor_run=started.id, status=started.status)
    return runner._record_status(row, started)


def _a_lost_start_is_no_start(patcher: Patcher) -> None:
    start = ApifyClient.start_run

    def start_or_not(actor: ApifyClient, album_ids: Sequence[str]) -> Any:
        try:
            return start(actor, album_ids)
        except UnavailableError as error:
            error.may_have_been_received = False
            raise

    patcher.function(start, start_or_not)


def _any_run_is_the_lost_one(patcher: Patcher) -> None:
    find = ApifyClient.find_run

    def find_any(actor: ApifyClient, album_ids: Sequence[str], *, since: Any, exclude: Any) -> Any:
        del exclude
        return find(actor, album_ids, since=since, exclude=frozenset())

    patcher.function(find, find_any)


def _keep_and_map_in_one_transaction(patcher: Patcher) -> None:
    run = ActorRunner.run

    def in_one_transaction(runner: ActorRunner, parts: Sequence[Sequence[str]]) -> None:
        with runner._connection.transaction():
            run(runner, parts)

    patcher.function(run, in_one_transaction)


CAPTURES: Mapping[str, Mistake] = {
    # Since the deployment has a cap too, either of the two locks keeps an account within its own.
    "captures: the account's lock": all_of(
        function(captures.lock_account, lambda _connection, _account: None),
        function(captures.lock_deployment, lambda _connection: None),
    ),
    "captures: one actor run per part": lambda patcher: patcher.definition(
        "select pg_get_indexdef('apify_runs_one_a_chunk'::regclass) as definition",
        "drop index apify_runs_one_a_chunk; {}",
        ("UNIQUE ", ""),
    ),
    "captures: an actor run has a row before its start": function(ActorRunner._start, _start_before_the_row),
    "captures: a start with a lost response may have been billed": _a_lost_start_is_no_start,
    "captures: a lost run is searched for before a second start": function(
        ApifyClient.find_run, lambda *_run, **_of: None
    ),
    "captures: another capture's run is not the lost one": _any_run_is_the_lost_one,
    "captures: a result is stored before it is mapped": _keep_and_map_in_one_transaction,
    "captures: only the claim's owner stores a result": statement(
        "apify_runs", "hold", (r"and claimed_by = %\(run\)s", "")
    ),
}

GUARDS: Mapping[str, Mistake] = {**CLAIM, **LEASE, **HITS, **PAYMENT, **VENDOR, **CAPTURES}


@contextmanager
def left_out(name: str, *, database_url: str | None) -> Iterator[None]:
    """Remove the guard until the block ends."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        GUARDS[name](Patcher(monkeypatch, database_url))
        yield
