"""Hits: reserved before a call, stored after it, counted; and the deployment's breaker, pause and pace."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID, uuid4

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from measurement_pipeline.domain.backfill_queue import Claim
from measurement_pipeline.domain.outcome import Cause
from measurement_pipeline.domain.payment import PaymentVerdict as Payment
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres import songstats_ledger as ledger
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.postgres.songstats_ledger import ReceivedResponse, Reservation, ReservationVerdict
from measurement_pipeline_tests.postgres.conftest import OPERATORS, Tables, isrcs


def reserve(
    tables: Tables, claims: Sequence[Claim], *, hits: int = 900, run: str = "run-1", operators: UUID | None = OPERATORS
) -> list[Reservation]:
    return tables.in_loop(lambda c: ledger.reserve(c, claims, run=run, hits_allowed=hits, operators_account=operators))


def verdicts(reservations: Sequence[Reservation]) -> list[ReservationVerdict]:
    return [one.verdict for one in reservations]


def answered(
    reservation: Reservation, cause: Cause | None = None, *, status: int = 200, billable: bool | None = True
) -> ReceivedResponse:
    assert reservation.ledger is not None
    body = b"{}" if billable else None
    return ReceivedResponse(reservation.ledger, status, billable, cause, {"date": "today"}, body)


def store_responses(tables: Tables, *received: ReceivedResponse) -> dict[int, int]:
    return tables.in_loop(lambda c: ledger.keep(c, received))


def hits_spent(
    tables: Tables, count: int, *, age: str = "0", billable: bool | None = True, cause: str = "stored"
) -> None:
    """Insert past hits, settled in the order of their ids."""
    tables.sql("insert into songs (isrc) values ('AA6Q79999999') on conflict do nothing")
    account = tables.decide(uuid4())
    tables.sql(
        "insert into songstats_quota_ledger (song, account, run_id, lease, reserved_at, settled_at, billable, reason)"
        " select 'AA6Q79999999', %s, 'past', 1, now() - %s::interval, clock_timestamp() - %s::interval, %s, %s"
        " from generate_series(1, %s)",
        account, age, age, billable, cause, count,
    )  # fmt: skip


# --- reserve ------------------------------------------------------------------------------------------------------------


def test_each_claim_reserves_a_hit_in_order_and_counts_an_attempt(tables: Tables):
    songs = isrcs(3)
    job = tables.wanted(songs)
    claims = tables.claim(songs)
    result = reserve(tables, claims)
    assert verdicts(result) == [ReservationVerdict.RESERVED] * 3
    rows = tables.sql("select * from songstats_quota_ledger order by id")
    assert [row["id"] for row in rows] == [one.ledger for one in result]
    assert [(row["song"], row["lease"], row["run_id"], row["job"]) for row in rows] == [
        (claim.song, claim.lease, "run-1", job) for claim in claims
    ]
    assert {(row["settled_at"], row["billable"], row["reason"]) for row in rows} == {(None, None, None)}
    assert [one.attempts for one in result] == [1, 1, 1]


def test_repeated_reservations_of_a_run_count_one_attempt(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    claims = tables.claim([song])
    assert [reserve(tables, claims)[0].attempts for _ in range(3)] == [1, None, None]
    assert tables.row(song)["attempts"] == 1
    tables.abandon([song])
    assert reserve(tables, tables.claim([song], run="run-2"), run="run-2")[0].attempts == 2


def test_the_last_hits_go_to_the_first_claims_and_the_others_get_a_reason(tables: Tables):
    songs = isrcs(5)
    tables.wanted(songs)
    hits_spent(tables, 7)
    result = reserve(tables, tables.claim(songs), hits=9)
    assert verdicts(result) == [ReservationVerdict.RESERVED] * 2 + [ReservationVerdict.BUDGET] * 3
    assert [tables.row(song)["attempts"] for song in songs] == [1, 1, 0, 0, 0], (
        "a row without a reservation has no attempt"
    )


@pytest.mark.fails_without("the cap of an account")
def test_an_account_gets_no_more_hits_than_its_cap_and_a_free_call_does_not_count(tables: Tables):
    songs = isrcs(6)
    account = tables.decide(uuid4())
    tables.enqueue(songs)
    tables.request(songs[:4], account=account)
    tables.request(songs[4:])
    tables.sql("update accounts set monthly_hit_cap = 2 where id = %s", account)
    claims = tables.claim(songs)
    found = reserve(tables, claims)
    reserved, capped = ReservationVerdict.RESERVED, ReservationVerdict.CAPPED
    assert verdicts(found) == [reserved, reserved, capped, capped, reserved, reserved]
    assert [tables.row(song)["attempts"] for song in songs] == [1, 1, 0, 0, 1, 1]
    store_responses(tables, answered(found[0], Cause.THROTTLED, status=429, billable=False))
    assert verdicts(reserve(tables, claims[2:4])) == [reserved, capped]


@pytest.mark.parametrize("hits", [0, 3])
def test_no_hit_is_reserved_over_the_limit(tables: Tables, hits: int):
    (song,) = isrcs(1)
    tables.wanted([song])
    hits_spent(tables, 5)
    assert verdicts(reserve(tables, tables.claim([song]), hits=hits)) == [ReservationVerdict.BUDGET]


@pytest.mark.fails_without("the budget counts hits of unknown outcome", parameters="1 day-None-True")
@pytest.mark.parametrize(
    ("age", "billable", "counts"),
    [
        ("29 days 23 hours", True, True), ("30 days 1 hour", True, False), ("1 day", None, True), ("1 day", False, False),
    ],
)  # fmt: skip
def test_a_hit_counts_for_thirty_days_unless_it_is_known_to_be_free(
    tables: Tables, age: str, *, billable: bool | None, counts: bool
):
    hits_spent(tables, 4, age=age, billable=billable)
    with connect(tables.database_url) as connection:
        budget = ledger.budget(connection, hits_allowed=10)
    assert (budget.hits, budget.left) == ((4, 6) if counts else (0, 10))


def test_eight_runs_at_once_spend_exactly_the_budget(tables: Tables):
    """A count whose snapshot is older than the wait for the lock would let more through."""
    runs, allowed = 8, 50
    songs = isrcs(runs * 10)
    tables.wanted(songs)
    shares = [songs[n::runs] for n in range(runs)]
    claims = [tables.claim(share, run=f"run-{n}") for n, share in enumerate(shares)]
    barrier = threading.Barrier(runs)
    seen: list[ReservationVerdict] = []

    def spend(n: int) -> None:
        async def one_by_one(connection: AsyncConnection[DictRow]) -> None:
            for claim in claims[n]:
                result = await ledger.reserve(
                    connection, [claim], run=f"run-{n}", hits_allowed=allowed, operators_account=None
                )
                seen.extend(verdicts(result))

        barrier.wait()
        tables.in_loop(one_by_one)

    threads = [threading.Thread(target=spend, args=(n,)) for n in range(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen.count(ReservationVerdict.RESERVED) == allowed
    assert seen.count(ReservationVerdict.BUDGET) == len(songs) - allowed
    assert tables.sql("select count(*) as n from songstats_quota_ledger") == [{"n": allowed}]


def test_a_row_of_another_run_is_lost(tables: Tables):
    mine, taken_over, released = songs = isrcs(3)
    tables.wanted(songs)
    claims = tables.claim(songs)
    tables.abandon([taken_over])
    tables.claim([taken_over], run="run-2")
    tables.sql(
        "update songstats_backfill_queue set status = 'pending', claimed_by = null, heartbeat_at = null where song = %s",
        released,
    )
    result = dict(zip([claim.song for claim in claims], verdicts(reserve(tables, claims)), strict=True))
    assert result == {
        mine: ReservationVerdict.RESERVED,
        taken_over: ReservationVerdict.NO_LONGER_CLAIMED,
        released: ReservationVerdict.NO_LONGER_CLAIMED,
    }


@pytest.mark.fails_without("the lease predicate of the reserve")
def test_a_run_reserves_nothing_under_its_earlier_lease(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    former = tables.claim([song])
    tables.abandon([song])
    present = tables.claim([song])
    assert verdicts(reserve(tables, former)) == [ReservationVerdict.NO_LONGER_CLAIMED]
    assert verdicts(reserve(tables, present)) == [ReservationVerdict.RESERVED]


@pytest.mark.fails_without("a response to an earlier owner's call is read and not bought again")
def test_a_recording_answered_after_a_takeover_is_not_bought_again(tables: Tables):
    """Its former owner was slow, not dead: the response came after the takeover and before the new owner's call."""
    (song,) = isrcs(1)
    tables.wanted([song])
    (slow,) = reserve(tables, tables.claim([song]))
    tables.abandon([song])
    taken_over = tables.claim([song], run="run-2")
    assert taken_over[0].unread_response is None
    stored = store_responses(tables, answered(slow))
    assert verdicts(reserve(tables, taken_over, run="run-2")) == [ReservationVerdict.NO_LONGER_CLAIMED]
    with connect(tables.database_url) as connection:
        assert backfill_queue.release(connection, run="run-2") == 1
    assert [claim.unread_response for claim in tables.claim([song], run="run-3")] == list(stored.values())


@pytest.mark.fails_without("an open breaker stops reservations", parameters="breaker = 'open', breaker_kind = 'streak'")
@pytest.mark.parametrize(
    "state", ["breaker = 'open', breaker_kind = 'streak'", "paused_until = clock_timestamp() + interval '1 minute'"]
)
def test_no_hit_is_reserved_during_an_open_breaker_or_a_pause(tables: Tables, state: str):
    songs = isrcs(2)
    tables.wanted(songs)
    claims = tables.claim(songs)
    tables.sql(f"update vendor_state set {state}")
    assert verdicts(reserve(tables, claims)) == [ReservationVerdict.BREAKER_OPEN_OR_PAUSED] * 2
    assert tables.sql("select * from songstats_quota_ledger") == []


def test_a_removed_card_denies_the_reservation(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    claims = tables.claim([song])
    tables.sql("update payment_decisions set verdict = 'denied'")
    assert reserve(tables, claims, operators=None) == [Reservation(ReservationVerdict.UNPAID, None, None, None, None)]


@pytest.mark.fails_without("a payment decision is valid for ten minutes", parameters="10 minutes 1 second-stale")
@pytest.mark.parametrize(
    ("age", "verdict"),
    [("9 minutes 50 seconds", ReservationVerdict.RESERVED), ("10 minutes 1 second", ReservationVerdict.STALE)],
)
def test_a_payment_decision_allows_reservations_for_ten_minutes(tables: Tables, age: str, verdict: ReservationVerdict):
    (song,) = isrcs(1)
    tables.enqueue([song])
    account = tables.decide(uuid4(), age=age)
    tables.request([song], account=account)
    (row,) = reserve(tables, tables.claim([song]))
    assert (row.verdict, row.account) == (verdict, account)
    assert (row.ledger is None) is (verdict is ReservationVerdict.STALE)


def test_the_earliest_accepted_request_pays(tables: Tables):
    (song,) = isrcs(1)
    tables.enqueue([song])
    tables.request([song], account=tables.decide(uuid4(), Payment.DENIED), created_at="2020-01-01")
    tables.request([song], state="payment_required", created_at="2021-01-01")
    early, late = tables.decide(uuid4()), tables.decide(uuid4())
    tables.request([song], account=late, created_at="2023-01-01")
    job = tables.request([song], account=early, created_at="2022-01-01")
    (row,) = reserve(tables, tables.claim([song]))
    assert (row.account, row.job) == (early, job)


def test_the_operators_account_pays_only_without_a_paying_request(tables: Tables):
    requested, launched = songs = isrcs(2)
    tables.enqueue(songs)
    tables.sql("update songstats_backfill_queue set operator_launched = true")
    tables.decide(OPERATORS)
    client = tables.decide(uuid4())
    job = tables.request([requested], account=client)
    claims = tables.claim(songs)
    result = dict(zip([claim.song for claim in claims], reserve(tables, claims), strict=True))
    assert (result[requested].account, result[requested].job) == (client, job)
    assert (result[launched].account, result[launched].job) == (OPERATORS, None)


def test_the_operators_account_pays_only_for_launched_rows(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    tables.decide(OPERATORS)
    claims = tables.claim([song])
    tables.sql("update measurement_jobs set state = 'withdrawn'")
    assert verdicts(reserve(tables, claims)) == [ReservationVerdict.UNPAID]


# --- store --------------------------------------------------------------------------------------------------------------


def test_a_response_and_its_hit_are_stored_together_without_a_valid_lease(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    (reservation,) = reserve(tables, tables.claim([song]))
    tables.abandon([song])
    tables.claim([song], run="run-2")
    stored = store_responses(
        tables, ReceivedResponse(int(reservation.ledger or 0), 200, True, None, {"etag": "x"}, b"\x00paid for")
    )
    (response,) = tables.sql("select * from songstats_responses")
    assert stored == {reservation.ledger: response["id"]}
    assert (response["song"], response["body"], response["headers"]) == (song, b"\x00paid for", {"etag": "x"})
    assert response["sha256"] == sha256(b"\x00paid for").hexdigest()
    (hit,) = tables.sql("select * from songstats_quota_ledger")
    assert (hit["status_code"], hit["billable"], hit["reason"]) == (200, True, None)
    assert hit["settled_at"] is not None
    result = tables.in_loop(lambda c: ledger.response(c, response["id"]))
    assert (result.status_code, result.body) == (200, b"\x00paid for")


def test_a_response_stored_twice_has_one_row(tables: Tables):
    songs = isrcs(3)
    tables.wanted(songs)
    received = [answered(one) for one in reserve(tables, tables.claim(songs))]
    first = store_responses(tables, *received)
    assert store_responses(tables, *received) == first
    assert len(first) == len(tables.sql("select id from songstats_responses")) == 3


def test_a_late_response_counts_again_after_its_hit_was_returned(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    (reservation,) = reserve(tables, tables.claim([song]))
    store_responses(tables, answered(reservation, Cause.TIMEOUT, billable=None))
    with connect(tables.database_url) as connection:
        (now,) = connection.execute("select clock_timestamp() as now").fetchall()
        day = timedelta(days=1)
        settled = ledger.settle_unbilled(connection, since=now["now"] - day, until=now["now"] + day, calls=1)
        assert settled == [reservation.ledger]
        assert ledger.budget(connection, hits_allowed=5).left == 5
    store_responses(tables, answered(reservation, Cause.STORED))
    (hit,) = tables.sql("select billable, reconciled_at, reason from songstats_quota_ledger")
    assert hit == {"billable": True, "reconciled_at": None, "reason": "stored"}


def test_an_unbilled_response_is_counted_and_not_stored(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    (reservation,) = reserve(tables, tables.claim([song]))
    assert store_responses(tables, answered(reservation, Cause.THROTTLED, status=429, billable=False)) == {}
    with connect(tables.database_url) as connection:
        assert ledger.budget(connection, hits_allowed=5).left == 5
    assert tables.sql("select reason, status_code from songstats_quota_ledger") == [
        {"reason": "throttled", "status_code": 429}
    ]


@pytest.mark.parametrize(("cause", "status"), [(Cause.THROTTLED, 429), (Cause.REFUSED_KEY, 401)])
def test_a_run_that_dies_after_recording_a_429_leaves_no_attempt(tables: Tables, cause: Cause, status: int):
    throttled, other = songs = isrcs(2)
    tables.wanted(songs)
    claims = tables.claim(songs)
    result = dict(zip([claim.song for claim in claims], reserve(tables, claims), strict=True))
    received = answered(result[throttled], cause, status=status, billable=False)
    for _ in range(2):
        store_responses(tables, received, answered(result[other], Cause.TRANSIENT, status=503, billable=False))
    assert [(tables.row(song)["attempts"], tables.row(song)["attempt_run"]) for song in songs] == [
        (0, None),
        (1, "run-1"),
    ]
    tables.abandon(songs)
    taken_over = tables.claim(songs, run="run-2")
    reserve(tables, taken_over, run="run-2")
    store_responses(tables, received)
    assert [tables.row(song)["attempts"] for song in songs] == [1, 2], "it does not give back another run's attempt"


def test_a_missing_response_is_an_error(tables: Tables):
    with pytest.raises(LookupError, match="no songstats_responses row 7"):
        tables.in_loop(lambda c: ledger.response(c, 7))


def test_a_dead_runs_reservation_is_settled_as_unknown_and_counts(tables: Tables):
    dead, taken_over, alive, stored = songs = isrcs(4)
    tables.wanted(songs)
    claims = tables.claim(songs)
    result = dict(zip([claim.song for claim in claims], reserve(tables, claims), strict=True))
    store_responses(tables, answered(result[stored]))
    tables.abandon([dead, taken_over, stored])
    tables.claim([taken_over], run="run-2")
    with connect(tables.database_url) as connection:
        assert ledger.settle_open(connection, claim_timeout_seconds=60.0) == 2
        assert ledger.settle_open(connection, claim_timeout_seconds=60.0) == 0
        assert (
            ledger.budget(connection, hits_allowed=10).hits,
            ledger.budget(connection, hits_allowed=10).in_flight,
        ) == (4, 1)
    reasons = {
        row["song"]: (row["reason"], row["billable"]) for row in tables.sql("select * from songstats_quota_ledger")
    }
    assert reasons == {
        dead: ("crashed: unknown", None),
        taken_over: ("crashed: unknown", None),
        alive: (None, None),
        stored: (None, True),
    }


def test_a_late_response_corrects_a_hit_settled_as_unknown(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    (reservation,) = reserve(tables, tables.claim([song]))
    tables.abandon([song])
    with connect(tables.database_url) as connection:
        ledger.settle_open(connection, claim_timeout_seconds=60.0)
    store_responses(tables, answered(reservation))
    assert tables.sql("select billable, reason from songstats_quota_ledger") == [{"billable": True, "reason": None}]
    assert tables.claim([song], run="run-2")[0].unread_response is not None


# --- budget -------------------------------------------------------------------------------------------------------------


def test_the_budget_reports_when_the_next_hit_becomes_available(tables: Tables):
    """Two over the limit: the third oldest has to age before there is one to spend."""
    for days in (29, 20, 10, 5):
        hits_spent(tables, 1, age=f"{days} days")
    with connect(tables.database_url) as connection:
        budget = ledger.budget(connection, hits_allowed=2)
    assert (budget.hits, budget.left, budget.calls_ever) == (4, 0, 4)
    assert budget.next_hit_frees_at is not None
    assert abs(budget.next_hit_frees_at - datetime.now(UTC) - timedelta(days=20)) < timedelta(minutes=5)


def test_without_allowed_hits_none_becomes_available(tables: Tables):
    with connect(tables.database_url) as connection:
        budget = ledger.budget(connection, hits_allowed=0)
    assert (budget.left, budget.next_hit_frees_at, budget.calls_ever) == (0, None, 0)


# --- breaker, pause, pace -----------------------------------------------------------------------------------------------


def test_an_open_breaker_keeps_its_first_reason(tables: Tables):
    done, _ = songs = isrcs(2)
    tables.enqueue(songs)
    tables.sql("update songstats_backfill_queue set status = 'done', outcome = 'rejected' where song = %s", done)
    tables.in_loop(lambda c: ledger.open_breaker(c, kind="streak", reason="first", suspects=songs))
    tables.in_loop(lambda c: ledger.open_breaker(c, kind="key", reason="second"))
    with connect(tables.database_url) as connection:
        state = ledger.vendor_state(connection)
        assert (state.breaker, state.breaker_kind, state.reason) == ("open", "streak", "first")
        assert ledger.close_breaker(connection, kind="key") is False, (
            "a probe does not close a breaker that a person must close"
        )
        assert ledger.close_breaker(connection) is True
        assert ledger.close_breaker(connection) is False
        state = ledger.vendor_state(connection)
    assert (state.breaker, state.breaker_kind, state.reason, state.opened_at) == ("closed", None, None, None)
    assert [tables.row(song)["suspect"] for song in songs] == [True, False], "unsettled rows are not marked suspect"


def test_responses_since_the_breaker_was_closed_are_listed_latest_first(tables: Tables):
    hits_spent(tables, 1, age="2 hours", cause="stored")
    hits_spent(tables, 2, age="1 hour", cause="rejected")
    hits_spent(tables, 1, age="30 minutes", cause="throttled", billable=False)
    assert [cause for cause, _ in tables.in_loop(ledger.recent_causes)] == ["rejected", "rejected", "stored"]
    tables.in_loop(lambda c: ledger.open_breaker(c, kind="streak", reason="why"))
    with connect(tables.database_url) as connection:
        ledger.close_breaker(connection)
    assert tables.in_loop(ledger.recent_causes) == []
    hits_spent(tables, 1, cause="no history")
    assert [cause for cause, _ in tables.in_loop(ledger.recent_causes)] == ["no history"]


def pause(tables: Tables, retry_after: float | None) -> float:
    return tables.in_loop(lambda c: ledger.pause(c, retry_after=retry_after, why="it says so", is_unusable=False))


def end_pause(tables: Tables) -> None:
    tables.sql("update vendor_state set paused_until = now() - interval '1 second'")


def test_pauses_grow_until_a_response(tables: Tables):
    seen = []
    for _ in range(4):
        seen.append(round(pause(tables, None)))
        end_pause(tables)
    tables.in_loop(ledger.unthrottle)
    seen.append(round(pause(tables, None)))
    assert seen == [5, 10, 20, 40, 5]


def test_calls_in_flight_together_start_one_pause(tables: Tables):
    assert [round(pause(tables, None)) for _ in range(5)] == [5] * 5
    with connect(tables.database_url) as connection:
        assert ledger.vendor_state(connection).pauses_in_a_row == 1


def test_only_a_longer_retry_after_changes_a_pause(tables: Tables):
    assert round(pause(tables, 100.0)) == 100
    assert round(pause(tables, 10.0)) == 100
    assert round(pause(tables, 200.0)) == 200
    with connect(tables.database_url) as connection:
        state = ledger.vendor_state(connection)
    assert state.paused_until is not None
    assert 190 < state.pause_seconds_left <= 200
    assert state.paused_until - state.now > timedelta(seconds=190)


def test_a_repeated_retry_after_grows(tables: Tables):
    seen = []
    for _ in range(3):
        seen.append(round(pause(tables, 1.0)))
        end_pause(tables)
    assert seen == [1, 10, 20]


def test_the_longest_retry_after_can_be_read_back(tables: Tables):
    pause(tables, 30 * 86_400.0)
    with connect(tables.database_url) as connection:
        assert ledger.vendor_state(connection).pause_seconds_left > 29 * 86_400


def slots(tables: Tables, calls: int, rate: float) -> float:
    return tables.in_loop(lambda c: ledger.take_call_slots(c, calls, requests_per_second=rate))


def test_all_calls_of_the_deployment_follow_one_pace(tables: Tables):
    assert slots(tables, 4, 0.5) == 0
    assert 7 < slots(tables, 1, 0.5) <= 8
    assert 9 < slots(tables, 3, 0.5) <= 10
    assert 15 < slots(tables, 1, 0.5) <= 16


def test_idle_time_allows_no_burst(tables: Tables):
    tables.sql("update vendor_state set next_call_at = now() - interval '1 hour'")
    assert slots(tables, 1, 0.1) == 0
    assert 9 < slots(tables, 1, 0.1) <= 10


def test_concurrent_slots_do_not_overlap(tables: Tables):
    async def take() -> list[float]:
        async def one() -> float:
            opened = await AsyncConnection.connect(tables.database_url, autocommit=True, row_factory=dict_row)
            async with opened as connection:
                return await ledger.take_call_slots(connection, 1, requests_per_second=0.2)

        return await asyncio.gather(*(one() for _ in range(5)))

    waits = sorted(asyncio.run(take()))
    assert all(round((wait - waits[0]) / 5) == n for n, wait in enumerate(waits))


def test_a_slot_in_the_future_is_reduced_to_the_longest_wait_of_a_run(tables: Tables):
    tables.sql("update vendor_state set next_call_at = now() + interval '3 days'")
    assert 29 < slots(tables, 1, 5.0) <= 30
    assert 29 < slots(tables, 1, 5.0) <= 30
    (row,) = tables.sql("select extract(epoch from next_call_at - clock_timestamp())::float as ahead from vendor_state")
    assert row["ahead"] <= 30.2


def test_the_wait_for_the_next_call_is_read_without_booking_a_slot(tables: Tables):
    def wait() -> float:
        return tables.in_loop(lambda c: ledger.seconds_to_the_next_slot(c, requests_per_second=0.01))

    assert wait() == 0
    slots(tables, 1, 0.01)
    assert 99 < wait() <= 100
    assert 99 < wait() <= 100
    tables.sql("update vendor_state set next_call_at = now() + interval '3 days'")
    assert wait() == 0, "no run books so far ahead: the clock was set back"


def test_a_streak_dated_in_the_future_is_ignored(tables: Tables):
    song, account = "AA6Q72000001", uuid4()
    tables.sql("insert into songs (isrc) values (%s) on conflict do nothing", song)
    tables.sql("insert into accounts (id) values (%s)", account)
    tables.sql(
        "insert into songstats_quota_ledger (song, account, run_id, lease, settled_at, billable, reason)"
        " select %s, %s, 'then', 0, now() + interval '1 day', true, 'no history' from generate_series(1, 30)",
        song,
        account,
    )
    assert tables.in_loop(ledger.recent_causes) == []


def test_an_empty_response_during_a_429_pause_starts_its_own_growth(tables: Tables):
    pause(tables, None)
    tables.sql("update vendor_state set paused_until = now() + interval '1 second'")
    left = tables.in_loop(lambda c: ledger.pause(c, retry_after=None, why="it says nothing", is_unusable=True))
    assert round(left) == 5
