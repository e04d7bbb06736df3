"""The queue: due rows, ownership, and every change of a row."""

import itertools
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg.errors import LockNotAvailable

from measurement_pipeline.domain.backfill_queue import Claim, SettledRow, Settlement, Status
from measurement_pipeline.domain.outcome import Cause, DailyCount, Outcome
from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.postgres import account_shares, backfill_queue, measurement_jobs, songs, songstats_ledger
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.postgres.songstats_ledger import ReceivedResponse
from measurement_pipeline_tests.postgres.conftest import OPERATORS, RULES, Tables, isrcs

# --- due rows -----------------------------------------------------------------------------------------------------------

STATES = ("pending", "alive", "abandoned", "done", "failed")
WAITS = (None, "-1 hour", "1 hour")
PAYERS = ("no request", "allowed", "denied", "undecided", "unpaid request", "denied, then allowed")


def is_due(kind: tuple[str, str | None, int, bool, str, bool], operators: str) -> bool:
    """Whether a row of this kind is due, by the design."""
    state, wait, attempts, unread, payer, launched = kind
    return (
        state in {"pending", "abandoned"}
        and wait != "1 hour"
        and (
            unread  # it is paid for
            or (
                attempts < RULES.max_attempts
                and (payer in {"allowed", "denied, then allowed"} or (launched and operators == "allowed"))
            )
        )
    )


def every_kind_of_row(tables: Tables, operators: str) -> dict[str, bool]:
    """Insert a row of each kind; return for each song whether it is due."""
    kinds = list(itertools.product(STATES, WAITS, (4, 5), (False, True), PAYERS, (False, True)))
    songs = isrcs(len(kinds))
    tables.sql("insert into songs (isrc) select unnest(%s::text[])", songs)
    status = {"alive": "in_progress", "abandoned": "in_progress"}
    heartbeat_ages = {"alive": "-30 seconds", "abandoned": "-61 seconds"}
    columns = list(
        zip(
            *[
                (
                    status.get(state, state), {"done": "stored", "failed": "transient"}.get(state),
                    "another run" if state in heartbeat_ages else None, heartbeat_ages.get(state), wait, attempts, launched,
                )
                for state, wait, attempts, _, _, launched in kinds
            ],
            strict=True,
        )
    )  # fmt: skip
    tables.sql(
        "insert into songstats_backfill_queue"
        " (song, rank_score, status, outcome, claimed_by, heartbeat_at, not_before, attempts, operator_launched)"
        " select song, hashtext(song), status, outcome, owner, now() + heartbeat, now() + wait, attempts, launched from unnest("
        "%s::text[], %s::text[], %s::text[], %s::text[], %s::interval[], %s::interval[], %s::int[], %s::boolean[])"
        " as t (song, status, outcome, owner, heartbeat, wait, attempts, launched)",
        songs, *[list(column) for column in columns],
    )  # fmt: skip
    allowed, denied = tables.decide(uuid4()), tables.decide(uuid4(), PaymentVerdict.DENIED)
    for payer in PAYERS[1:]:
        requested = [song for song, kind in zip(songs, kinds, strict=True) if kind[4] == payer]
        match payer:
            case "allowed":
                tables.request(requested, account=allowed)
            case "denied":
                tables.request(requested, account=denied)
            case "undecided":
                tables.request(requested, account=uuid4())
            case "unpaid request":
                tables.request(requested, account=allowed, state="payment_required")
                tables.request(requested, account=allowed, state="done")
            case _:
                tables.request(requested, account=denied, created_at="2020-01-01")
                tables.request(requested, account=allowed)
    respond(tables, *[song for song, kind in zip(songs, kinds, strict=True) if kind[3]], parser_version=None)
    respond(tables, *[song for song, kind in zip(songs, kinds, strict=True) if not kind[3]], parser_version=1)
    if operators != "undecided":
        tables.decide(OPERATORS, PaymentVerdict(operators))
    return {song: is_due(kind, operators) for song, kind in zip(songs, kinds, strict=True)}


def respond(tables: Tables, *songs: str, parser_version: int | None, body: bytes = b"{}") -> int:
    """Store a billed response for each of `songs`; return the id of the last."""
    account = tables.sql("select id from accounts limit 1")[0]["id"]
    stored = tables.sql(
        "with call as (insert into songstats_quota_ledger (song, account, run_id, lease, settled_at, billable)"
        " select unnest(%s::text[]), %s, 'earlier', 1, now(), true returning id, song)"
        " insert into songstats_responses (song, ledger, status_code, sha256, body, parser_version)"
        " select song, id, 200, '', %s, %s from call returning id",
        list(songs), account, body, parser_version,
    )  # fmt: skip
    return int(stored[-1]["id"])


@pytest.mark.fails_without("unknown is not allowed: an account without a decision", parameters="allowed")
@pytest.mark.fails_without("terminal states: a claim takes no settled row", parameters="allowed")
@pytest.mark.parametrize("operators", ["allowed", "denied", "undecided"])
def test_due_rows_are_those_of_the_design_and_claims_take_the_same(tables: Tables, operators: str):
    rows = every_kind_of_row(tables, operators)
    expected = {song for song, due in rows.items() if due}
    with connect(tables.database_url) as connection:
        due = account_shares.due(connection, RULES)
        assert {row.song for row in due} == expected
        assert [row.song for row in due] == [
            r.song for r in sorted(due, key=lambda r: (-r.rank_score, r.waiting_since, r.song))
        ]
        claimed = backfill_queue.claim(connection, list(rows), run="run-1", limit=10_000, rules=RULES)
        assert [claim.song for claim in claimed] == [row.song for row in due], "the same rows in the same order"
        assert account_shares.due(connection, RULES) == []
        assert backfill_queue.claim(connection, list(rows), run="run-2", limit=10_000, rules=RULES) == []


@pytest.mark.parametrize(
    ("state", "is_open"),
    [
        ("breaker = 'open', breaker_kind = 'key'", False),
        ("paused_until = now() + interval '1 minute'", False),
        ("paused_until = now() - interval '1 second'", True),
        ("throttled = 3", True),
    ],
)
def test_no_row_is_claimed_during_an_open_breaker_or_a_pause(tables: Tables, state: str, *, is_open: bool):
    songs = isrcs(2)
    tables.wanted(songs)
    tables.sql(f"update vendor_state set {state}")
    assert bool(tables.claim(songs)) is is_open


def test_equal_ranks_are_ordered_by_age_and_a_requeued_row_is_new(tables: Tables):
    songs = isrcs(4)
    tables.wanted(songs)
    tables.sql("update songstats_backfill_queue set rank_score = 7, created_at = now() - interval '1 day'")
    tables.sql("update songstats_backfill_queue set created_at = now() - interval '2 days' where song = %s", songs[2])
    tables.sql("update songstats_backfill_queue set requeued_at = now() where song = %s", songs[0])
    with connect(tables.database_url) as connection:
        assert [row.song for row in account_shares.due(connection, RULES)] == [songs[2], songs[1], songs[3], songs[0]]
    assert [claim.song for claim in tables.claim(songs)] == [songs[2], songs[1], songs[3], songs[0]]


# --- the claim ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_a_claim_takes_the_best_ranked_rows_up_to_its_limit(tables: Tables, limit: int):
    songs = isrcs(30)
    tables.wanted(songs)
    assert [claim.song for claim in tables.claim(songs[::-1], limit=limit)] == songs[:limit]
    assert len(tables.sql("select 1 from songstats_backfill_queue where status = 'in_progress'")) == limit


def test_a_claim_takes_only_the_given_rows(tables: Tables):
    songs = isrcs(5)
    tables.wanted(songs)
    assert [claim.song for claim in tables.claim([songs[3], "AA6Q79999999"])] == [songs[3]]


@pytest.mark.fails_without("the materialized claim")
def test_a_claim_respects_its_limit_under_any_query_plan(tables: Tables):
    """This includes the plan that repeats the search for the first unclaimed rows for each row."""
    songs = isrcs(30)
    tables.wanted(songs)
    with connect(tables.database_url) as connection:
        for dependencies in ("hashagg", "hashjoin", "mergejoin", "material", "sort"):
            connection.execute(f"set enable_{dependencies} = off")
        claimed = backfill_queue.claim(connection, songs, run="run-1", limit=7, rules=RULES)
    assert [claim.song for claim in claimed] == songs[:7]
    assert len(tables.sql("select 1 from songstats_backfill_queue where status = 'in_progress'")) == 7


@pytest.mark.fails_without("SKIP LOCKED")
def test_the_second_of_two_concurrent_claims_neither_waits_nor_shares(tables: Tables):
    songs = isrcs(6)
    tables.wanted(songs)
    with connect(tables.database_url) as first, first.transaction(), connect(tables.database_url) as second:
        second.execute("set lock_timeout = '500ms'")
        first_claims = backfill_queue.claim(first, songs, run="run-1", limit=3, rules=RULES)
        try:
            shared = backfill_queue.claim(second, songs, run="run-2", limit=2, rules=RULES)
        except LockNotAvailable:
            pytest.fail("the second claim waited for the first")
        assert [claim.song for claim in first_claims] == songs[:3]
        assert [claim.song for claim in shared] == songs[3:5]


def test_concurrent_runs_claim_the_rows_without_overlap(tables: Tables):
    songs = isrcs(60)
    tables.wanted(songs)
    barrier = threading.Barrier(6)
    claimed: list[tuple[str, str]] = []

    def take(run: str) -> None:
        with connect(tables.database_url) as connection:
            barrier.wait()
            for _ in range(4):
                result = backfill_queue.claim(connection, songs, run=run, limit=4, rules=RULES)
                assert len(result) <= 4
                claimed.extend((claim.song, run) for claim in result)

    threads = [threading.Thread(target=take, args=(f"run-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len({song for song, _ in claimed}) > 0
    owners = {
        row["song"]: row["claimed_by"] for row in tables.sql("select song, claimed_by from songstats_backfill_queue")
    }
    assert all(owners[song] == run for song, run in claimed)


def test_a_claim_reports_unread_responses_and_stored_recordings(tables: Tables):
    plain, unread, owned, popular = songs = isrcs(4)
    tables.wanted(songs)
    respond(tables, unread, parser_version=None, body=b"older")
    response = respond(tables, unread, parser_version=None, body=b"newer")
    respond(tables, plain, parser_version=1)
    for song, source in ((owned, "songstats"), (popular, "import")):
        tables.sql(
            "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
            " values (%s, 'spotify', 'platform_displayed_play_count', '2026-01-01', %s, 1)",
            song, source,
        )  # fmt: skip
    result = {claim.song: (claim.unread_response, claim.has_history) for claim in tables.claim(songs)}
    assert result == {plain: (None, False), unread: (response, False), owned: (None, True), popular: (None, False)}


def test_an_operators_claim_does_not_wait(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    tables.sql("update songstats_backfill_queue set not_before = now() + interval '1 hour'")
    assert tables.claim([song]) == []
    assert len(tables.claim([song], ignore_not_before=True)) == 1


@pytest.mark.fails_without("the cap on attempts")
def test_a_run_may_claim_a_row_again_after_its_last_attempt(tables: Tables):
    """Its retry within seconds is the same attempt; another run's would exceed the limit."""
    (song,) = isrcs(1)
    tables.wanted([song])
    tables.sql("update songstats_backfill_queue set attempts = 5, attempt_run = 'run-1'")
    assert tables.claim([song], run="run-2") == []
    assert [claim.attempts for claim in tables.claim([song], run="run-1")] == [5]


def test_each_claim_raises_the_lease(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    leases = []
    for run in ("run-1", "run-2", "run-3"):
        leases += [claim.lease for claim in tables.claim([song], run=run)]
        tables.abandon([song])
    assert leases == [1, 2, 3]


# --- fencing ------------------------------------------------------------------------------------------------------------


def settled(claim: Claim, outcome: Outcome = Outcome.STORED, **more: Any) -> SettledRow:
    status = Status.DONE if outcome in {Outcome.STORED, Outcome.NO_HISTORY, Outcome.REJECTED} else Status.FAILED
    return SettledRow(claim, Settlement(status, outcome), **more)


def settle(tables: Tables, *settlings: SettledRow, run: str = "run-1", parser_version: int = 1) -> set[str]:
    return tables.in_loop(lambda c: backfill_queue.settle(c, settlings, run=run, parser_version=parser_version))


def history(count: int, *, first: int = 100) -> tuple[DailyCount, ...]:
    return tuple(DailyCount(date(2026, 1, 1) + timedelta(days=n), first + n) for n in range(count))


def measurements(tables: Tables) -> list[dict[str, Any]]:
    return tables.sql("select * from song_measurements order by song, metric, captured_at, learnt_at")


def test_an_owner_without_the_lease_changes_nothing(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    (stale,) = tables.claim([song], run="run-1")
    response = respond(tables, song, parser_version=None)
    tables.abandon([song])
    (fresh,) = tables.claim([song], run="run-2")
    before = tables.row(song)
    assert tables.in_loop(lambda c: backfill_queue.heartbeat(c, [stale], run="run-1")) == set()
    assert settle(tables, settled(stale, play_counts=history(3), response_id=response), run="run-1") == set()
    with connect(tables.database_url) as connection:
        assert backfill_queue.release(connection, run="run-1") == 0
    assert tables.row(song) == before
    assert measurements(tables) == []
    assert tables.sql("select parser_version from songstats_responses") == [{"parser_version": None}]
    assert settle(tables, settled(fresh, play_counts=history(3), response_id=response), run="run-2") == {song}


@pytest.mark.fails_without("the lease predicate of settling")
@pytest.mark.fails_without("the lease predicate of the heartbeat")
def test_a_second_claim_of_a_run_fences_its_first(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    (former,) = tables.claim([song])
    tables.abandon([song])
    (present,) = tables.claim([song])
    assert tables.in_loop(lambda c: backfill_queue.heartbeat(c, [former], run="run-1")) == set()
    assert tables.in_loop(lambda c: backfill_queue.heartbeat(c, [former, present], run="run-1")) == {song}
    assert settle(tables, settled(former, play_counts=history(1))) == set()
    assert settle(tables, settled(present)) == {song}


def test_a_lease_gives_no_access_to_another_runs_row(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    (claim,) = tables.claim([song], run="run-1")
    assert tables.in_loop(lambda c: backfill_queue.heartbeat(c, [claim], run="run-2")) == set()
    assert settle(tables, settled(claim), run="run-2") == set()


@pytest.mark.fails_without("a claim takes over only silent rows")
def test_an_owner_with_heartbeats_keeps_its_row_and_a_silent_one_loses_it(tables: Tables):
    alive, silent = songs = isrcs(2)
    tables.wanted(songs)
    claims = tables.claim(songs)
    tables.abandon(songs)
    (held,) = [claim for claim in claims if claim.song == alive]
    assert tables.in_loop(lambda c: backfill_queue.heartbeat(c, [held], run="run-1")) == {alive}
    assert [claim.song for claim in tables.claim(songs, run="run-2")] == [silent]


# --- settling -----------------------------------------------------------------------------------------------------------


@pytest.mark.fails_without("measurements are stored under the lease")
def test_rows_and_measurements_commit_together_under_each_rows_lease(tables: Tables):
    mine, lost = songs = isrcs(2)
    tables.wanted(songs)
    claims = {claim.song: claim for claim in tables.claim(songs)}
    tables.abandon([lost])
    tables.claim([lost], run="run-2")
    result = settle(tables, *(settled(claims[song], play_counts=history(2)) for song in songs))
    assert result == {mine}
    assert {row["song"] for row in measurements(tables)} == {mine}
    assert tables.outcomes() == {mine: "stored", lost: "in_progress"}


def test_points_are_stored_at_midnight_utc_with_their_response(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    database = tables.sql("select current_database() as name")[0]["name"]
    tables.sql(f"alter database {database} set timezone to 'Pacific/Auckland'")
    (claim,) = tables.claim([song])
    response = respond(tables, song, parser_version=None)
    settle(
        tables,
        settled(
            claim, cause=Cause.STORED, status_code=200, response_id=response,
            play_counts=(DailyCount(date(2026, 1, 1), 0), DailyCount(date(2026, 1, 2), 2**40)),
            popularity=(DailyCount(date(2026, 1, 1), 12),),
        ),
        parser_version=7,
    )  # fmt: skip
    rows = measurements(tables)
    assert [(r["metric"], r["captured_at"].isoformat(), r["value"]) for r in rows] == [
        ("platform_displayed_play_count", "2026-01-01T00:00:00+00:00", 0),
        ("platform_displayed_play_count", "2026-01-02T00:00:00+00:00", 2**40),
        ("popularity", "2026-01-01T00:00:00+00:00", 12),
    ]
    assert {(r["platform"], r["data_source"], r["raw_ref"]) for r in rows} == {
        ("spotify", "songstats", f"songstats_responses/{response}")
    }
    assert tables.sql("select parser_version from songstats_responses") == [{"parser_version": 7}]
    assert tables.sql("select reason from songstats_quota_ledger") == [{"reason": "stored"}]
    row = tables.row(song)
    assert (row["status"], row["outcome"], row["last_status_code"], row["last_error"]) == ("done", "stored", 200, None)
    assert (row["claimed_by"], row["heartbeat_at"], row["not_before"]) == (None, None, None)


def settle_again(tables: Tables, song: str, counts: tuple[DailyCount, ...]) -> None:
    """Settle the same recording once more, as after a requeue."""
    tables.sql("update songstats_backfill_queue set status = 'pending', outcome = null")
    (claim,) = tables.claim([song])
    assert settle(tables, settled(claim, play_counts=counts)) == {song}


@pytest.mark.fails_without("a repeated payload adds no measurement")
def test_the_same_payload_twice_adds_nothing(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    for _ in range(3):
        settle_again(tables, song, history(5))
    assert [row["value"] for row in measurements(tables)] == [100, 101, 102, 103, 104]


def test_a_restatement_is_stored_beside_the_earlier_value(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    settle_again(tables, song, history(2))
    settle_again(tables, song, (DailyCount(date(2026, 1, 1), 90), *history(3)[1:]))
    settle_again(tables, song, history(3))  # and back
    values = {(row["captured_at"].day, row["value"]) for row in measurements(tables)}
    assert [row["value"] for row in measurements(tables) if row["captured_at"].day == 1] == [100, 90, 100]
    assert values == {(1, 100), (1, 90), (2, 101), (3, 102)}
    settle_again(tables, song, history(3))
    assert len(measurements(tables)) == 5


def test_a_restatement_after_a_clock_change_is_the_newest_and_is_stored_once(tables: Tables):
    (song,) = isrcs(1)
    tables.wanted([song])
    settle_again(tables, song, history(1))
    tables.sql("update song_measurements set learnt_at = now() + interval '2 days'")
    for _ in range(2):
        settle_again(tables, song, (DailyCount(date(2026, 1, 1), 90),))
    assert [row["value"] for row in tables.sql("select value from song_measurements order by learnt_at")] == [100, 90]


@pytest.mark.parametrize("wait", [None, 120.0])
def test_a_deferred_row_is_pending_again_after_its_wait(tables: Tables, wait: float | None):
    (song,) = isrcs(1)
    tables.wanted([song])
    (claim,) = tables.claim([song])
    settle(
        tables,
        SettledRow(
            claim, Settlement(Status.PENDING, None, not_before_seconds=wait), error="try later", status_code=503
        ),
    )
    row = tables.row(song)
    assert (row["status"], row["last_error"], row["last_status_code"]) == ("pending", "try later", 503)
    waiting = tables.sql(
        "select extract(epoch from not_before - now())::float as seconds from songstats_backfill_queue"
    )
    assert waiting[0]["seconds"] is None if wait is None else 110 < waiting[0]["seconds"] <= 120
    assert bool(tables.claim([song])) is (wait is None)


@pytest.mark.parametrize(("counted_by", "left"), [("run-1", 2), ("run-0", 3), (None, 3)])
def test_only_the_run_that_counted_an_attempt_gives_it_back(tables: Tables, counted_by: str | None, left: int):
    (song,) = isrcs(1)
    tables.wanted([song])
    tables.sql("update songstats_backfill_queue set attempts = 3, attempt_run = %s", counted_by)
    (claim,) = tables.claim([song])
    settle(tables, SettledRow(claim, Settlement(Status.PENDING, None, attempt_back=True)))
    still = None if counted_by == "run-1" else counted_by
    assert (tables.row(song)["attempts"], tables.row(song)["attempt_run"]) == (left, still)


# --- release ------------------------------------------------------------------------------------------------------------


def test_a_run_releases_only_its_own_unsettled_rows(tables: Tables):
    mine, done, other = songs = isrcs(3)
    tables.wanted(songs)
    claims = {claim.song: claim for claim in tables.claim([mine, done])}
    settle(tables, settled(claims[done]))
    tables.claim([other], run="run-2")
    tables.sql("update songstats_backfill_queue set attempts = 2 where song = %s", mine)
    with connect(tables.database_url) as connection:
        assert backfill_queue.release(connection, run="run-1") == 1
    assert tables.outcomes() == {mine: "pending", done: "stored", other: "in_progress"}
    assert tables.row(mine)["attempts"] == 2, "a call may have been made"
    assert tables.in_loop(lambda c: backfill_queue.heartbeat(c, [claims[mine]], run="run-1")) == set()


def test_rows_failed_by_an_unexpected_error_are_requeued_until_they_are_exhausted(tables: Tables):
    some, none = songs = isrcs(2)
    tables.wanted(songs)
    refused = Settlement(Status.FAILED, Outcome.TRANSIENT)
    settle(tables, *(SettledRow(claim, refused, error="disk full") for claim in tables.claim(songs)), run="run-1")
    tables.sql("update songstats_backfill_queue set attempts = 5 where song = %s", none)
    with connect(tables.database_url) as connection:
        assert tables.outcomes() == dict.fromkeys(songs, "transient")
        assert backfill_queue.reclaim(connection, RULES, parser_version=1) == (1, 0)
        assert backfill_queue.exhaust(connection, RULES) == 1
    assert tables.outcomes() == {some: "pending", none: "exhausted"}
    assert tables.row(none)["last_error"] == "disk full"
    assert tables.row(some)["requeued_at"] is not None


def test_rows_without_attempts_are_exhausted_even_after_crashes(tables: Tables):
    pending, abandoned, alive, waiting, unread, fresh = songs = isrcs(6)
    tables.wanted(songs)
    tables.claim([abandoned, alive])
    tables.abandon([abandoned])
    respond(tables, unread, parser_version=None)
    tables.sql("update songstats_backfill_queue set attempts = 5 where song <> %s", fresh)
    tables.sql("update songstats_backfill_queue set not_before = now() + interval '4 seconds' where song = %s", waiting)
    with connect(tables.database_url) as connection:
        assert backfill_queue.exhaust(connection, RULES) == 2
    assert tables.outcomes() == {
        pending: "exhausted", abandoned: "exhausted", alive: "in_progress", waiting: "pending", unread: "pending",
        fresh: "pending",
    }  # fmt: skip
    assert "before a response" in tables.row(pending)["last_error"]


@pytest.mark.parametrize(("read_by", "version", "back"), [(1, 1, False), (1, 2, True), (2, 1, False)])
def test_only_a_newer_parser_reads_an_unreadable_response_again(
    tables: Tables, read_by: int, version: int, *, back: bool
):
    (song,) = isrcs(1)
    tables.wanted([song])
    respond(tables, song, parser_version=read_by)
    response = respond(tables, song, parser_version=read_by)
    (claim,) = tables.claim([song])
    settle(tables, settled(claim, Outcome.MALFORMED), parser_version=read_by)
    with connect(tables.database_url) as connection:
        assert backfill_queue.reclaim(connection, RULES, parser_version=version) == (0, int(back))
    assert tables.outcomes() == {song: "pending" if back else "malformed"}
    assert [claim.unread_response for claim in tables.claim([song])] == ([response] if back else [])


def test_a_failed_row_with_an_unread_response_is_requeued(tables: Tables):
    """The response to a former owner's call arrived after the row was settled."""
    of = insert_each_outcome(tables)
    respond(tables, of["malformed"], parser_version=1)
    for outcome in ("malformed", "exhausted"):
        respond(tables, of[outcome], parser_version=None)
    with connect(tables.database_url) as connection:
        assert backfill_queue.reclaim(connection, RULES, parser_version=1) == (2, 0)
        assert backfill_queue.reclaim(connection, RULES, parser_version=1) == (0, 0)
    result = {claim.song: claim.unread_response for claim in tables.claim(list(of.values()))}
    assert set(result) == {of["malformed"], of["exhausted"]}
    assert all(result.values())


def insert_each_outcome(tables: Tables) -> dict[str, str]:
    """Insert a row of each outcome; return the song by outcome."""
    outcomes = [outcome for outcome in Outcome if outcome is not Outcome.TRANSIENT]
    songs = isrcs(len(outcomes))
    tables.wanted(songs)
    claims = {claim.song: claim for claim in tables.claim(songs)}
    settle(tables, *(settled(claims[song], outcome) for song, outcome in zip(songs, outcomes, strict=True)))
    tables.sql("update songstats_backfill_queue set attempts = 5, suspect = outcome in ('rejected', 'malformed')")
    return dict(zip(map(str, outcomes), songs, strict=True))


@pytest.mark.fails_without("terminal states: a requeue takes no stored row")
def test_an_operator_requeues_settled_rows_but_never_stored_ones(tables: Tables):
    of = insert_each_outcome(tables)
    respond(tables, of["malformed"], parser_version=1)
    with connect(tables.database_url) as connection:
        back = backfill_queue.requeue(connection, list(of.values()), rebuy=False)
    assert sorted(back) == sorted(set(of.values()) - {of["stored"]})
    row = tables.row(of["exhausted"])
    assert (row["status"], row["attempts"], row["operator_launched"], row["suspect"]) == ("pending", 0, True, False)
    assert tables.row(of["stored"])["status"] == "done"


@pytest.mark.parametrize("rebuy", [False, True])
def test_a_malformed_response_is_bought_again_only_with_rebuy(tables: Tables, *, rebuy: bool):
    of = insert_each_outcome(tables)
    response = respond(tables, of["malformed"], parser_version=1)
    with connect(tables.database_url) as connection:
        backfill_queue.requeue(connection, [of["malformed"]], rebuy=rebuy)
    (claim,) = tables.claim([of["malformed"]])
    assert claim.unread_response == (None if rebuy else response)


def test_rows_are_selected_by_all_given_conditions(tables: Tables):
    of = insert_each_outcome(tables)
    account = tables.sql("select id from accounts limit 1")[0]["id"]
    catalog = tables.sql("insert into catalogs (account, name) values (%s, 'c') returning id", account)[0]["id"]
    tables.sql("insert into catalog_songs values (%s, %s)", catalog, of["no_history"])
    tables.sql(
        "update songstats_backfill_queue set updated_at = now() - interval '2 days' where song = %s", of["exhausted"]
    )
    with connect(tables.database_url) as connection:

        def choose(**conditions: Any) -> set[str]:
            return {str(outcome) for outcome in backfill_queue.choose(connection, **conditions).values()}

        assert choose() == {"no_history", "rejected", "malformed", "exhausted"}
        assert choose(outcome=Outcome.REJECTED) == {"rejected"}
        assert choose(outcome=Outcome.STORED) == set()
        assert choose(suspect=True) == {"rejected", "malformed"}
        assert choose(suspect=True, outcome=Outcome.MALFORMED) == {"malformed"}
        assert choose(catalog=catalog) == {"no_history"}
        assert choose(isrcs=[of["exhausted"], of["stored"]]) == {"exhausted"}
        assert choose(older_than_seconds=86_400) == {"exhausted"}


def test_an_operators_launch_inserts_absent_rows_and_marks_the_others(tables: Tables):
    there, absent = isrcs(2)
    tables.enqueue([there], ranks=[9])
    tables.sql("insert into songs (isrc) values (%s)", absent)
    tables.decide(OPERATORS)
    with connect(tables.database_url) as connection:
        backfill_queue.launch(connection, [absent, there])
        backfill_queue.launch(connection, [absent, there])
    assert [claim.song for claim in tables.claim([there, absent])] == [there, absent]
    assert tables.row(there)["rank_score"] == 9


# --- reads --------------------------------------------------------------------------------------------------------------


def test_a_row_is_alive_while_its_owner_writes_heartbeats(tables: Tables):
    alive, silent, pending = songs = isrcs(3)
    tables.wanted(songs)
    tables.claim([alive, silent])
    tables.abandon([silent])
    with connect(tables.database_url) as connection:
        result = backfill_queue.rows(connection, [*songs, "AA6Q79999999"], RULES)
    assert {song: (row.status, row.is_alive) for song, row in result.items()} == {
        alive: (Status.IN_PROGRESS, True), silent: (Status.IN_PROGRESS, False), pending: (Status.PENDING, False),
    }  # fmt: skip


def test_paying_accounts_are_those_of_accepted_requests_for_unsettled_rows(tables: Tables):
    done, pending, failed = songs = isrcs(3)
    tables.enqueue(songs)
    accounts = {name: uuid4() for name in ("of done", "of pending", "of failed", "denied", "unpaid")}
    tables.decide(accounts["denied"], PaymentVerdict.DENIED)
    jobs = {
        "of done": tables.request([done], account=accounts["of done"]),
        "of pending": tables.request([pending], account=accounts["of pending"]),
        "of failed": tables.request([failed], account=accounts["of failed"]),
        "denied": tables.request([pending], account=accounts["denied"]),
        "unpaid": tables.request([pending], account=accounts["unpaid"], state="payment_required"),
    }
    tables.sql("update songstats_backfill_queue set status = 'done', outcome = 'stored' where song = %s", done)
    tables.sql("update songstats_backfill_queue set status = 'failed', outcome = 'transient' where song = %s", failed)
    with connect(tables.database_url) as connection:
        assert set(backfill_queue.payers(connection, songs)) == {
            accounts[n] for n in ("of pending", "of failed", "denied")
        }
        assert set(backfill_queue.requests(connection, [pending])) == {jobs["of pending"], jobs["denied"]}


def test_counts_by_status_sum_to_all_rows(tables: Tables):
    of = insert_each_outcome(tables)
    more = isrcs(3, start=50)
    tables.wanted(more)
    tables.claim(more[:1])
    tables.sql("update songstats_backfill_queue set not_before = now() + interval '1 hour' where song = %s", more[1])
    with connect(tables.database_url) as connection:
        counts = backfill_queue.counts(connection)
        assert backfill_queue.done(connection) == {
            of["stored"]: Outcome.STORED, of["no_history"]: Outcome.NO_HISTORY, of["rejected"]: Outcome.REJECTED,
        }  # fmt: skip
        assert [row["song"] for row in backfill_queue.upcoming(connection, limit=2)] == more[:2]
    assert sum(counts[name] for name in ("pending", "in_progress", "done", "failed")) == len(of) + 3
    assert counts["done"] + counts["failed"] == sum(counts[o] for o in Outcome)
    assert (counts["waiting"], counts["suspect"]) == (1, 2)


# --- plans of the statements --------------------------------------------------------------------------------------------

ROWS = 100_000


@pytest.fixture(scope="module")
def deep_queue(server, template: str) -> Iterator[Tables]:
    """A hundred thousand rows just enqueued for one request, before any ANALYZE."""
    name = server.create_database(template=template)
    tables = Tables(server.url(name))
    account = tables.decide(uuid4())
    (job,) = tables.sql("insert into measurement_jobs (account, state) values (%s, 'accepted') returning id", account)
    tables.sql(
        "insert into songs (isrc) select 'AA6Q7' || lpad(n::text, 7, '0') from generate_series(1, %s) as n", ROWS
    )
    tables.sql("insert into measurement_job_songs (job, song) select %s, isrc from songs", job["id"])
    tables.sql("insert into songstats_backfill_queue (song, rank_score) select isrc, hashtext(isrc) from songs")
    yield tables
    server.drop(name)


def rows_touched(plan: dict[str, Any]) -> float:
    """Rows that the scans of an executed plan read, returned or filtered out, over all their loops."""
    here = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Join Filter", 0)
    own = here * plan["Actual Loops"] if "Scan" in plan["Node Type"] or "Join Filter" in plan else 0
    return own + sum(rows_touched(child) for child in plan.get("Plans", []))


def executed(tables: Tables, statement: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The plan of a statement that was executed and rolled back."""
    with connect(tables.database_url) as connection, connection.transaction(force_rollback=True):
        rows = connection.execute("explain (analyze, format json, timing off) " + statement, parameters)  # type: ignore[operator]
        (row,) = rows.fetchall()
    plan: dict[str, Any] = row["QUERY PLAN"][0]["Plan"]
    return plan


@pytest.mark.parametrize("analysed", [False, True])
def test_the_work_of_each_statement_is_proportional_to_its_parameters(deep_queue: Tables, *, analysed: bool):
    """Work is counted in rows read: it reveals a scan of the whole queue for a hundred songs, or a scan per row."""
    tables = deep_queue
    if analysed:
        tables.sql("analyze")
    rules = {"claim_timeout": 60.0, "max_attempts": 5, "operators_account": OPERATORS}
    songs = [row["isrc"] for row in tables.sql("select isrc from songs order by hashtext(isrc) desc limit 500")]
    with connect(tables.database_url) as connection:
        account_shares.assign_changed(connection, RULES)
        (account,) = account_shares.waiting_accounts(connection, RULES, most=500)
    assert account.waiting == 500
    planning = {**rules, "covered": songs, "most": 500}
    waiting = executed(tables, account_shares._SQL["waiting"], planning)  # noqa: SLF001 - the statement itself is inspected
    assert rows_touched(waiting) < 10 * 500
    entitled = {"accounts": [account.account], "by_rank": [500], "by_age": [50]}
    planned = executed(tables, account_shares._SQL["next_rows"], {**planning, **entitled})  # noqa: SLF001
    assert planned["Actual Rows"] >= 500
    assert rows_touched(planned) < 10 * 500
    claiming = {**rules, "songs": songs, "run": "run-1", "limit": 400, "ignore_not_before": False}
    claim = executed(tables, backfill_queue._SQL["claim"], claiming)  # noqa: SLF001
    assert claim["Actual Rows"] == 400
    assert rows_touched(claim) < 20 * len(songs)
    claims = tables.claim(songs[:64])
    held = {"run": "run-1", "songs": [c.song for c in claims], "leases": [c.lease for c in claims]}
    heartbeat = executed(tables, backfill_queue._SQL["heartbeat"], held)  # noqa: SLF001
    assert rows_touched(heartbeat) < 20 * len(claims)
    reserving = {**held, "allowed_serves": 600.0, "operators_account": OPERATORS, "hits_allowed": 900}
    reserve = executed(tables, songstats_ledger._SQL["reserve"], reserving)  # noqa: SLF001
    assert rows_touched(reserve) < 40 * len(claims)
    with connect(tables.database_url) as connection:
        assert backfill_queue.release(connection, run="run-1") == 64


@pytest.mark.parametrize("analysed", [False, True])
def test_ranking_reads_only_the_latest_counts_of_requested_recordings(deep_queue: Tables, *, analysed: bool):
    tables = deep_queue
    if analysed:
        tables.sql("analyze")
    waiting = [row["song"] for row in tables.sql("select song from songstats_backfill_queue order by song limit 100")]
    ranked = executed(tables, songs._SQL["refresh_ranks"], {"songs": waiting})  # noqa: SLF001
    assert rows_touched(ranked) < 20 * len(waiting)
    unqueued = isrcs(100)
    enqueued = executed(tables, measurement_jobs._SQL["enqueue"], {"job": tables.request(unqueued)})  # noqa: SLF001
    assert rows_touched(enqueued) < 20 * len(unqueued)


def test_a_response_stored_again_after_a_lost_commit_has_one_row(tables: Tables):
    """The connection is lost after the commit, and the run retries."""
    (song,) = isrcs(1)
    tables.wanted([song])
    claims = tables.claim([song])
    (reservation,) = tables.in_loop(
        lambda c: songstats_ledger.reserve(c, claims, run="run-1", hits_allowed=1, operators_account=None)
    )
    assert reservation.ledger is not None
    received = ReceivedResponse(reservation.ledger, 200, True, None, {"date": "today"}, b"{}")
    first = tables.in_loop(lambda c: songstats_ledger.keep(c, [received]))
    assert tables.in_loop(lambda c: songstats_ledger.keep(c, [received])) == first
    assert len(tables.sql("select 1 from songstats_responses")) == 1
