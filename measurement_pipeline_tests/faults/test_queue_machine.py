"""Steps in any order: the real queue on PostgreSQL beside a plain model, compared after each step.

Runs remember their claims and calls as real ones do, even after they have lost them. Writes under a lost claim must change
nothing. Each step also checks the invariants of the tables.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.domain import backfill_queue as rules_of_rows
from measurement_pipeline.domain.backfill_queue import Claim, QueueRules, SettledRow, Settlement, Status
from measurement_pipeline.domain.measurement_job import ScopeByIsrc
from measurement_pipeline.domain.outcome import Cause, DailyCount, Judgement, Outcome
from measurement_pipeline.domain.payment import Decision
from measurement_pipeline.domain.payment import PaymentVerdict as Payment
from measurement_pipeline.postgres import account_shares, measurement_jobs
from measurement_pipeline.postgres import backfill_queue as queue
from measurement_pipeline.postgres import songstats_ledger as ledger
from measurement_pipeline.postgres.audit import audit
from measurement_pipeline.postgres.database import ReconnectingConnection, connect
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.postgres.songstats_ledger import ReceivedResponse, ReservationVerdict
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.queue_model import Model
from measurement_pipeline_tests.workbench import OPERATORS, isrcs

RANKS = dict(zip(isrcs(4), (9, 9, 5, 5), strict=True))
ACCOUNTS = (UUID(int=1), UUID(int=2))
PAYERS = (*ACCOUNTS, OPERATORS)
RUNS = ("run-1", "run-2")
# Long enough that nothing expires by itself during an example.
LONG = 3600.0
RULES = QueueRules(claim_timeout_seconds=LONG, max_attempts=2, operators_account=OPERATORS)
HITS_ALLOWED = 8


@dataclass(frozen=True)
class Reply:
    """A response of the vendor: its stored form, and its judgement."""

    status_code: int | None
    billable: bool | None
    kept_as: Cause | None
    judged: Judgement

    @property
    def body(self) -> bytes | None:
        return self.judged.cause.encode() if self.billable else None


def reply(status: int | None, outcome: Outcome | None, cause: Cause, *, billable: bool | None) -> Reply:
    return Reply(
        status, billable, None if status == 200 else cause, Judgement(outcome, billable, cause, "a description")
    )


STORED = reply(200, Outcome.STORED, Cause.STORED, billable=True)
MALFORMED = reply(200, Outcome.MALFORMED, Cause.MALFORMED, billable=True)
REPLIES = (
    STORED,
    MALFORMED,
    reply(200, Outcome.NO_HISTORY, Cause.NO_HISTORY, billable=True),
    reply(404, Outcome.NO_HISTORY, Cause.NO_HISTORY, billable=True),
    reply(400, Outcome.REJECTED, Cause.REJECTED, billable=True),
    reply(503, Outcome.TRANSIENT, Cause.TRANSIENT, billable=False),
    reply(None, Outcome.TRANSIENT, Cause.TIMEOUT, billable=None),
    reply(429, None, Cause.THROTTLED, billable=False),
    reply(401, None, Cause.REFUSED_KEY, billable=False),
    # A 403 without an explanation from `/status`.
    reply(403, None, Cause.TRANSIENT, billable=None),
)


@dataclass
class Answer:
    """A response that a run has stored and not settled yet. `attempts` comes from the reservation."""

    claim: Claim
    reply: Reply
    response: int | None
    attempts: int


@dataclass
class Memory:
    """The claims, calls and responses that a run believes it holds."""

    claims: list[Claim] = field(default_factory=list)
    calls: list[tuple[Claim, int, int]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def unread(self) -> list[Claim]:
        return [claim for claim in self.claims if claim.unread_response is not None]


some_run = st.sampled_from(RUNS)
some_songs = st.just(list(RANKS)) | st.lists(st.sampled_from(list(RANKS)), min_size=1, unique=True)
which = st.integers(0, 99)


@dataclass(frozen=True)
class Step:
    """An operation of the queue or an external event: its weight, its precondition, and its arguments."""

    method: Callable[..., None]
    weight: int
    when: Callable[[Any], bool]
    arguments: st.SearchStrategy[dict[str, Any]]

    def __repr__(self) -> str:
        return self.method.__name__


STEPS: list[Step] = []


def step(
    weight: int, *, when: Callable[[Any], bool] = lambda _: True, **arguments: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Like hypothesis' own `rule`, which omits half of the rules from each example: without a claim, nothing happens."""

    def mark(method: Callable[..., None]) -> Callable[..., None]:
        STEPS.append(Step(method, weight, when, st.fixed_dictionaries(arguments)))
        return method

    return mark


class QueueMachine(RuleBasedStateMachine):
    """The queue, what its runs remember, and the model."""

    examples = 0

    def __init__(self, database_url: str) -> None:
        super().__init__()
        self.url = database_url
        self.loop = asyncio.Runner()
        self.connect()
        self.sql(
            "truncate songs, accounts, measurement_jobs, songstats_quota_ledger, song_measurements, operator_acts cascade"
        )
        self.sql("update vendor_state set breaker = 'closed', breaker_kind = null, paused_until = null, throttled = 0")
        self.sql("insert into songs (isrc) select unnest(%s::text[])", list(RANKS))
        self.sql(
            "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
            " select song, 'spotify', %s, '2026-01-01', 'import', value from unnest(%s::text[], %s::int[]) as t (song, value)",
            queue.PLAY_COUNT, list(RANKS), list(RANKS.values()),
        )  # fmt: skip
        self.model = Model(RANKS, RULES.max_attempts, HITS_ALLOWED, OPERATORS)
        self.memory = {run: Memory() for run in RUNS}
        # The reply behind each response, by the response's id.
        self.replies: dict[int, Reply] = {}
        self.parser = 1
        for account in PAYERS:
            self.decides(account, Payment.ALLOWED)

    def teardown(self) -> None:
        type(self).examples += 1
        self.disconnect()
        self.loop.close()

    def connect(self) -> None:
        self.connection = connect(self.url)
        self.line = ReconnectingConnection(self.url, patience_seconds=0)

    def disconnect(self) -> None:
        self.connection.close()
        self.loop.run(self.line.close())

    def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        rows = self.connection.execute(statement, parameters)  # type: ignore[call-overload]
        return list(rows) if rows.description else []

    @initialize()
    def request_everything(self) -> None:
        self.submit_request(list(RANKS), ACCOUNTS[0])

    @rule(data=st.data())
    def continue_run(self, data: st.DataObject) -> None:
        possible = [one for one in STEPS for _ in range(one.weight) if one.when(self)]
        chosen = data.draw(st.sampled_from(possible))
        chosen.method(self, **data.draw(chosen.arguments, label=chosen.method.__name__))

    def has(self, what: str) -> bool:
        return any(getattr(memory, what) for memory in self.memory.values())

    def is_hindered(self) -> bool:
        return not (self.model.may_call and self.model.fresh == {*PAYERS} and all(self.model.allowed.values()))

    def any_due(self) -> bool:
        return any(self.model.is_due(song) for song in self.model.rows)

    def any_row(self, *statuses: Status) -> bool:
        return any(row.status in statuses for row in self.model.rows.values())

    def one_of(self, what: str, at: int) -> tuple[str, Any]:
        """One of the claims, calls or responses that any run remembers, and that run."""
        result = [(run, one) for run, memory in self.memory.items() for one in getattr(memory, what)]
        return result[at % len(result)]

    # --- a run --------------------------------------------------------------------------------------------------------

    @step(
        12,
        when=lambda self: self.any_due(),
        run=some_run,
        songs=some_songs,
        limit=st.integers(1, 4),
        impatient=st.booleans(),
    )
    @step(1, run=some_run, songs=some_songs, limit=st.integers(1, 4), impatient=st.booleans())
    def claims(self, run: str, songs: list[str], limit: int, impatient: bool) -> None:
        result = queue.claim(self.connection, songs, run=run, limit=limit, rules=RULES, ignore_not_before=impatient)
        expected = self.model.claim(songs, run=run, limit=limit, impatient=impatient)
        assert [(c.song, c.lease, c.attempts, c.unread_response, c.has_history) for c in result] == [
            (song, self.model.rows[song].lease, self.model.rows[song].attempts, self.model.unread(song), False)
            for song in expected
        ]
        self.memory[run].claims += result

    @step(2, when=lambda self: self.has("claims"), at=which, alone=st.booleans())
    def renew_heartbeat(self, at: int, alone: bool) -> None:
        run, one = self.one_of("claims", at)
        claims = [one] if alone else self.memory[run].claims
        rows = self.loop.run(self.line.execute(lambda c: queue.heartbeat(c, claims, run=run)))
        assert rows == self.model.heartbeat([(c.song, c.lease) for c in claims], run=run)

    @step(12, when=lambda self: self.has("claims"), at=which, count=st.integers(1, 4))
    def reserves(self, at: int, count: int) -> None:
        """Reserve hits for recordings to buy, from any start. A stored response needs no hit."""
        run, one = self.one_of("claims", at)
        rest = self.memory[run].claims
        turned = {c.song: c for c in reversed([*rest[rest.index(one) :], *rest]) if c.unread_response is None}
        claims = [*turned.values()][::-1][:count]
        result = self.loop.run(
            self.line.execute(
                lambda c: ledger.reserve(c, claims, run=run, hits_allowed=HITS_ALLOWED, operators_account=OPERATORS)
            )
        )
        for claim, got in zip(claims, result, strict=True):
            assert got.verdict is self.model.may_reserve(claim.song, claim.lease, run=run)
            if got.verdict is ReservationVerdict.RESERVED:
                assert got.ledger is not None
                assert got.attempts == self.model.reserve(got.ledger, claim.song, claim.lease, run=run)
                hit = self.model.hits[got.ledger]
                assert (got.account, got.job) == (hit.account, hit.job)
                self.memory[run].calls.append((claim, got.ledger, got.attempts or max(claim.attempts, 1)))

    @step(12, when=lambda self: self.has("calls"), at=which, reply=st.sampled_from(REPLIES), times=st.integers(1, 2))
    def is_answered(self, at: int, reply: Reply, times: int) -> None:
        """Stored twice if the confirmation of the first commit was lost."""
        run, call = self.one_of("calls", at)
        self.memory[run].calls.remove(call)
        claim, hit, attempts = call
        received = ReceivedResponse(hit, reply.status_code, reply.billable, reply.kept_as, {}, reply.body)
        stored = [self.loop.run(self.line.execute(lambda c: ledger.keep(c, [received]))) for _ in range(times)]
        assert all(one == stored[0] for one in stored)
        response = stored[0].get(hit)
        assert (response is not None) is (reply.body is not None)
        self.model.store_response(hit, billable=reply.billable, cause=reply.kept_as, response=response)
        if response is not None:
            self.replies[response] = reply
        self.memory[run].answers.append(Answer(claim, reply, response, attempts))

    @step(12, when=lambda self: self.has("answers"), at=which, comes_back=st.booleans())
    def settles(self, at: int, comes_back: bool) -> None:
        run, answer = self.one_of("answers", at)
        self.memory[run].answers.remove(answer)
        self.settle(run, answer.claim, answer.reply, answer.response, answer.attempts, comes_back=comes_back)

    @step(8, when=lambda self: self.has("unread"), at=which)
    def read_stored_responses(self, at: int) -> None:
        run, claim = self.one_of("unread", at)
        self.settle(run, claim, self.replies[claim.unread_response], claim.unread_response, max(claim.attempts, 1))

    def settle(
        self, run: str, claim: Claim, reply: Reply, response: int | None, attempts: int, *, comes_back: bool = False
    ) -> None:
        judgement = reply.judged
        if reply is MALFORMED and self.parser > 1:
            judgement = STORED.judged
        settlement = rules_of_rows.settle(
            judgement,
            attempts=attempts,
            max_attempts=RULES.max_attempts,
            retry_soon_seconds=LONG if comes_back else None,
        )
        self.write(run, claim, settlement, cause=judgement.cause, response=response)

    def write(
        self, run: str, claim: Claim, settlement: Settlement, *, cause: Cause | None = None, response: int | None = None
    ) -> None:
        points = (
            (DailyCount(date(2026, 1, 1), 1), DailyCount(date(2026, 1, 2), 2))
            if settlement.outcome is Outcome.STORED
            else ()
        )
        settling = SettledRow(claim, settlement, cause=cause, response_id=response, play_counts=points)
        result = self.loop.run(
            self.line.execute(lambda c: queue.settle(c, [settling], run=run, parser_version=self.parser))
        )
        is_mine = self.model.settle(
            claim.song, claim.lease, settlement, run=run, cause=cause, response=response, parser=self.parser
        )
        assert result == ({claim.song} if is_mine else set())
        self.memory[run].claims = [one for one in self.memory[run].claims if one is not claim]

    @step(2, when=lambda self: self.has("claims"), at=which, wait=st.sampled_from([None, LONG]), refused=st.booleans())
    def defer_or_fail(self, at: int, wait: float | None, refused: bool) -> None:
        """No card, or PostgreSQL refused the row."""
        run, claim = self.one_of("claims", at)
        failed, deferred = Settlement(Status.FAILED, Outcome.TRANSIENT), Settlement(Status.PENDING, None, wait)
        self.write(run, claim, failed if refused else deferred)

    @step(2, when=lambda self: self.any_row(Status.IN_PROGRESS), run=some_run)
    def releases(self, run: str) -> None:
        assert queue.release(self.connection, run=run) == self.model.release(run=run)

    @step(1, run=some_run)
    def kill_and_restart(self, run: str) -> None:
        """The new run remembers nothing. The old claims last until their heartbeat expires."""
        self.memory[run] = Memory()
        self.disconnect()
        self.connect()

    # --- requests and payment -----------------------------------------------------------------------------------------

    @step(2, songs=some_songs, account=st.sampled_from(ACCOUNTS))
    def submit_request(self, songs: list[str], account: UUID) -> None:
        """Enqueue as intake does: only after a positive decision."""
        if not self.model.allowed[account]:
            return
        scope = ScopeByIsrc(tuple(songs))
        with self.connection.transaction():
            job = measurement_jobs.submit(self.connection, account=account, source="historical", scope={"isrcs": songs})
            assert measurement_jobs.resolve(self.connection, job, scope) == len(songs)
            receipt = measurement_jobs.enqueue(self.connection, job)
        assert (receipt.asked, receipt.enqueued, receipt.skipped) == self.model.enqueue(job, account, songs)

    def decides(self, account: UUID, verdict: Payment) -> None:
        PaymentDecisions(self.url).record(account, Decision(verdict, "so it was decided"))
        self.model.allowed[account] = verdict is Payment.ALLOWED
        self.model.fresh.add(account)

    # --- external events ----------------------------------------------------------------------------------------------

    @step(6, when=lambda self: self.any_row(Status.IN_PROGRESS), songs=some_songs)
    def silence_owners(self, songs: list[str]) -> None:
        self.sql(
            "update songstats_backfill_queue set heartbeat_at = now() - interval '2 hours'"
            " where song = any(%s) and status = 'in_progress'",
            songs,
        )
        for song in songs:
            if song in self.model.rows:
                row = self.model.rows[song]
                row.silent = row.status is Status.IN_PROGRESS

    @step(4, when=lambda self: any(row.waits for row in self.model.rows.values()))
    def end_waits(self) -> None:
        self.sql(
            "update songstats_backfill_queue set not_before = now() - interval '1 second' where not_before is not null"
        )
        for row in self.model.rows.values():
            row.waits = False

    @step(
        2,
        what=st.sampled_from(["no card", "old decisions", "old decisions", "breaker", "pause"]),
        account=st.sampled_from(PAYERS),
        songs=some_songs,
    )
    def block_calls(self, what: str, account: UUID, songs: list[str]) -> None:
        match what:
            case "no card":
                self.decides(account, Payment.DENIED)
            case "old decisions":
                self.sql("update payment_decisions set checked_at = now() - interval '11 minutes'")
                self.model.fresh.clear()
            case "breaker":
                opening = partial(ledger.open_breaker, kind="streak", reason="why", suspects=songs)
                self.loop.run(self.line.execute(opening))
                self.model.mark_suspect(songs)
                self.model.is_open = False
            case _:
                pausing = partial(ledger.pause, retry_after=LONG, why="429", is_unusable=False)
                assert self.loop.run(self.line.execute(pausing)) > LONG / 2
                self.model.paused = True

    @step(12, when=lambda self: self.is_hindered(), each=st.booleans())
    def unblock_calls(self, each: bool) -> None:
        done = operator_actions.close_breaker(self.connection, actor="an operator")
        assert done == ["breaker closed"] * (not self.model.is_open) + ["pause lifted"] * self.model.paused
        self.model.is_open, self.model.paused = True, False
        for account in PAYERS if each else ACCOUNTS[:1]:
            self.decides(account, Payment.ALLOWED)

    # --- reclaim and operator actions ---------------------------------------------------------------------------------

    @step(1, when=lambda self: self.parser == 1)
    def install_newer_parser(self) -> None:
        self.parser = 2

    @step(
        4, part=st.sampled_from(["reclaim", "exhaust", "open hits", "requests"]), spared=st.sampled_from([None, *RUNS])
    )
    def reclaim(self, part: str, spared: str | None) -> None:
        match part:
            case "reclaim":
                result = queue.reclaim(self.connection, RULES, parser_version=self.parser)
                assert result == self.model.reclaim(parser=self.parser)
            case "exhaust":
                assert queue.exhaust(self.connection, RULES, spared_run=spared) == self.model.exhaust(spared=spared)
            case "open hits":
                assert (
                    ledger.settle_open(self.connection, claim_timeout_seconds=LONG) == self.model.settle_orphaned_hits()
                )
            case _:
                assert set(measurement_jobs.settle(self.connection)) == self.model.settle_requests()

    @step(6, when=lambda self: self.any_row(Status.DONE, Status.FAILED), songs=some_songs, rebuy=st.booleans())
    def requeue_as_operator(self, songs: list[str], rebuy: bool) -> None:
        result = operator_actions.requeue(self.connection, songs, rebuy=rebuy, actor="an operator")
        assert sorted(result) == sorted(self.model.requeue(songs, rebuy=rebuy))

    # --- invariants after each step -----------------------------------------------------------------------------------

    @invariant()
    def tables_match_the_model(self) -> None:
        rows = {row.pop("song"): row for row in self.sql(
            "select song, status, outcome, lease, attempts, attempt_run, claimed_by, operator_launched, suspect,"
            " coalesce(heartbeat_at < now() - interval '1 hour', false) as silent,"
            " coalesce(not_before > now(), false) as waits, coalesce(requeued_at, created_at) as age"
            " from songstats_backfill_queue"
        )}  # fmt: skip
        self.requeued_rows_are_the_youngest({song: row.pop("age") for song, row in rows.items()})
        assert rows == {
            song: {
                "status": row.status, "outcome": row.outcome, "lease": row.lease, "attempts": row.attempts,
                "attempt_run": row.attempt_run, "claimed_by": row.owner, "operator_launched": row.launched,
                "suspect": row.suspect, "silent": row.silent, "waits": row.waits,
            }
            for song, row in self.model.rows.items()
        }  # fmt: skip
        hits = self.sql("select * from songstats_quota_ledger")
        assert {
            hit["id"]: (
                hit["song"],
                hit["run_id"],
                hit["lease"],
                hit["settled_at"] is None,
                hit["billable"],
                hit["reason"],
            )
            for hit in hits
        } == {
            number: (hit.song, hit.run, hit.lease, hit.is_open, hit.billable, hit.cause)
            for number, hit in self.model.hits.items()
        }
        responses = self.sql("select id, song, ledger, parser_version from songstats_responses")
        assert {r["id"]: (r["song"], r["ledger"], r["parser_version"]) for r in responses} == {
            number: (r.song, r.hit, r.read_by) for number, r in self.model.responses.items()
        }
        stored = self.sql("select distinct song from song_measurements where data_source = 'songstats'")
        assert {row["song"] for row in stored} == self.model.histories
        requests = self.sql("select id, state from measurement_jobs")
        assert {r["id"]: r["state"] for r in requests} == {
            job: "done" if request.is_done else "accepted" for job, request in self.model.requests.items()
        }

    def requeued_rows_are_the_youngest(self, ages: dict[str, Any]) -> None:
        """A requeued row does not overtake rows that waited. The others keep their age."""
        before = [row.age for row in self.model.rows.values() if row.age is not None]
        for song, row in self.model.rows.items():
            if row.age is None or row.is_requeued:
                assert all(ages[song] > age for age in before)
            else:
                assert ages[song] == row.age
            row.age, row.is_requeued = ages[song], False

    @invariant()
    def spending_stays_within_the_limit(self) -> None:
        assert self.model.hits_left >= 0
        assert ledger.budget(self.connection, hits_allowed=HITS_ALLOWED).left == self.model.hits_left

    @invariant()
    def due_rows_match_the_model(self) -> None:
        due = [row.song for row in account_shares.due(self.connection, RULES)]
        # A plan considers breaker and pause before it reads the rows.
        if self.model.may_call:
            assert set(due) == {song for song in self.model.rows if self.model.is_due(song)}

    @invariant()
    def invariants_hold(self) -> None:
        breaches = audit(self.connection, max_attempts=RULES.max_attempts, at_rest=False)
        assert [f"{one.invariant}: {breach}" for one in breaches for breach in one.breaches] == []


def test_any_order_of_steps_leaves_the_tables_as_the_model_predicts(
    database_url: str, record_proof: ProofRecorder, *, long_form: bool
):
    class Machine(QueueMachine):
        def __init__(self) -> None:
            super().__init__(database_url)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=120 if long_form else 12,
            stateful_step_count=50 if long_form else 30,
            derandomize=not long_form,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    held = ["I1", "I2", "I3", "I4", "I5", "I6", "I8", "I9", "I10", "I11", "I12", "I14"]
    record_proof("steps in random order, including stale owners", held, times=Machine.examples)
