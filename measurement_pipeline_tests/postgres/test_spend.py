"""Reports from the ledger: causes, outcomes, waste, the origin of a request's recordings, and hits still needed."""

from uuid import UUID, uuid4

import pytest

from measurement_pipeline.domain.payment import PaymentVerdict
from measurement_pipeline.domain.spend import sum_calls
from measurement_pipeline.postgres import spend
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.postgres.conftest import RULES, isrcs

SONGS = isrcs(9)


@pytest.fixture
def ledger(tables):
    """`call("stored", …)` writes one row, for a request of a new account unless one is given."""
    account = uuid4()
    tables.decide(account)
    tables.enqueue(SONGS)
    first = tables.request(SONGS[:1], account=account)

    def call(reason, *, song=SONGS[0], billable=True, job=first, age="0", is_open=False, status=200):
        tables.sql(
            "insert into songstats_quota_ledger"
            " (song, account, job, run_id, lease, reserved_at, settled_at, billable, reason, status_code)"
            " select %s, request.account, request.id, 'run-1', 0, now() - %s::interval,"
            "   case when not %s then now() - %s::interval end, %s, %s, %s"
            " from measurement_jobs as request where request.id = %s",
            song, age, is_open, age, billable, reason, status, job,
        )  # fmt: skip

    call.job = first
    return call


def spent(tables, **options):
    with connect(tables.database_url) as connection:
        return spend.list_calls(connection, **{"days": 30, **options})


def test_each_call_is_listed_with_its_cause_and_whether_it_counts(tables, ledger):
    ledger("stored", song=SONGS[0])
    ledger("no history", song=SONGS[1])
    ledger("throttled", song=SONGS[2], billable=False)
    ledger("timeout: unknown", song=SONGS[2], billable=None)
    ledger(None, song=SONGS[3])
    ledger(None, song=SONGS[4], billable=None, is_open=True)
    result = {(line.cause, line.counted.value): line.calls for line in spent(tables)}
    assert result == {
        ("stored", "yes"): 1,
        ("no history", "yes"): 1,
        ("throttled", "no"): 1,
        ("timeout: unknown", "unknown"): 1,
        ("response stored, not parsed yet", "yes"): 1,
        ("in flight", "unknown"): 1,
    }
    assert sum_calls(spent(tables)).hits == 5


@pytest.mark.parametrize(
    ("calls", "wasted"),
    [
        (["stored"], 0),
        (["no history"], 0),
        (["stored", "stored"], 1),
        (["no history", "no history"], 1),
        (["no history", "stored"], 0),
        (["stored", "no history"], 1),
        (["rejected"], 1),
        (["malformed", "stored"], 1),
        (["timeout: unknown", "crashed: unknown", "stored"], 2),
    ],
)
def test_a_hit_is_wasted_without_a_history_or_the_first_no_history(tables, ledger, calls, wasted):
    for reason in calls:
        ledger(reason, billable=None if "unknown" in reason else True)
    assert sum_calls(spent(tables)).wasted == wasted


def test_free_calls_and_unread_responses_are_not_wasted(tables, ledger):
    ledger("throttled", billable=False)
    ledger("transient", billable=False)
    ledger("refused key", billable=False)
    ledger(None)
    ledger(None, billable=None, is_open=True)
    assert sum_calls(spent(tables)).wasted == 0


def test_a_second_response_is_wasted_even_if_another_account_paid_for_the_first(tables, ledger):
    other = tables.request(SONGS[:1], account=tables.decide(uuid4()))
    ledger("stored", job=other, age="40 days")
    ledger("stored")
    assert sum_calls(spent(tables)).stored == 0
    assert sum_calls(spent(tables)).wasted == 1
    assert sum_calls(spent(tables, days=60)).stored == 1


def test_the_database_clock_decides_the_window(tables, ledger):
    ledger("stored", song=SONGS[0], age="29 days 23 hours")
    ledger("stored", song=SONGS[1], age="30 days 1 hour")
    assert sum_calls(spent(tables)).calls == 1
    assert sum_calls(spent(tables, days=31)).calls == 2
    with connect(tables.database_url) as connection:
        frees = spend.read_budget_release(connection)
    assert (frees.in_a_day, frees.in_a_week) == (1, 1)


def test_an_account_reads_only_its_own_calls(tables, ledger):
    mine = tables.decide(uuid4())
    ledger("stored", song=SONGS[1], job=tables.request(SONGS[1:2], account=mine))
    ledger("rejected")
    assert [(line.account, line.cause) for line in spent(tables, account=mine)] == [(mine, "stored")]


def test_each_recording_of_a_request_has_one_origin(tables, ledger):
    other = tables.request(SONGS)
    ledger("stored", song=SONGS[0], job=other, age="1 day")
    mine: UUID = tables.request(SONGS[:7], created_at="now")
    ledger("stored", song=SONGS[1], job=mine)
    ledger("no history", song=SONGS[2], job=mine)
    ledger("stored", song=SONGS[3], job=other, age="-1 second")
    done = [*SONGS[:4], SONGS[4]]
    tables.sql("update songstats_backfill_queue set status = 'done', outcome = 'stored' where song = any(%s)", done)
    tables.sql("update songstats_backfill_queue set status = 'failed', outcome = 'exhausted' where song = %s", SONGS[5])
    with connect(tables.database_url) as connection:
        result = spend.get_origin(connection, mine)
        calls = spend.list_calls_of_job(connection, mine)
    assert result == spend.Origin(asked=7, bought=2, bought_for_others=1, owned=2, failed=1, still_open=1, withdrawn=0)
    tables.sql("update measurement_jobs set state = 'withdrawn' where id = %s", mine)
    with connect(tables.database_url) as connection:
        result = spend.get_origin(connection, mine)
    assert (result.bought, result.still_open, result.withdrawn) == (2, 0, 1)
    assert sum_calls(calls).hits == 2, "another request's hits are on its own receipt"


def test_calls_in_flight_and_unread_responses_need_no_further_hit(tables, ledger):
    tables.request(SONGS[:5])
    tables.request(SONGS[5:7], account=tables.decide(uuid4(), PaymentVerdict.DENIED))
    tables.claim(SONGS[:2])
    ledger(None, song=SONGS[0], billable=None, is_open=True)
    tables.sql("update songstats_quota_ledger set lease = 1")
    ledger(None, song=SONGS[2])
    tables.sql(
        "insert into songstats_responses (song, ledger, status_code, sha256, body)"
        " select song, id, 200, '', '' from songstats_quota_ledger where song = %s",
        SONGS[2],
    )
    with connect(tables.database_url) as connection:
        result = spend.read_remaining(connection, RULES)
    assert result.to_buy == 5, "nine rows, one in flight, one unread, two without a request"
    assert result.unpaid == 2, "the account that requested those has no card"
    assert (result.recent_hits, result.recent_seconds) == (2, 60.0)


def test_months_are_in_utc_and_sum_to_the_total(tables, ledger):
    ledger("stored", song=SONGS[0])
    ledger("throttled", song=SONGS[1], billable=False, status=429)
    ledger("timeout: unknown", song=SONGS[2], billable=None, status=None)
    ledger(None, song=SONGS[3], billable=None, is_open=True, status=None)
    ledger("stored", song=SONGS[4], age="40 days")
    with connect(tables.database_url) as connection:
        result = spend.read_month(connection)
    assert (result.calls, result.counted, result.unknown, result.cost_nothing) == (4, 1, 2, 1)
    assert (result.answered, result.asked) == (1, 3)
    assert result.begins.day == 1
