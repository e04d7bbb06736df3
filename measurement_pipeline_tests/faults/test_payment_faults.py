"""Stripe away, or a card gone, in the middle of a drain: nothing is spent without a fresh yes, and nothing is failed for it.

The real gate against the double of Stripe. Ten minutes pass by moving the decision's time in the database.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.backfill.reclaim import reclaim_backfill
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.vendors.stripe.payment_gate import StripeGate, check_payment_method
from measurement_pipeline_tests.faults import storm
from measurement_pipeline_tests.faults.matrix import Proves
from measurement_pipeline_tests.faults.reckoning import nothing_breaks
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.workbench import Gate, Workbench, isrcs

STRIPE = "/v1/"

# In words → how Stripe is away. None of these is a no.
OUTAGES: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "429": {"status": 429, "retry_after": 30},
    "the key refused": {"status": 401},
    "the key not allowed to": {"status": 403},
    "closed before an answer": {"close": True},
    "reset": {"reset": True},
    "cut short": {"cut": 20},
    "HTML": {"body": "<html>maintenance</html>"},
    "a page of a CDN": {"foreign": "challenge"},
    "a page of a proxy": {"foreign": "proxy"},
    "another shape": {"body": '{"data": null}'},
    "no HTTP": {"raw": "ICY 200 OK\r\n\r\n"},
}


@pytest.fixture
def paying(bench: Workbench) -> Iterator[Workbench]:
    """A workbench with the real gate, whose account has a card on file at Stripe."""
    gate = StripeGate(
        secret_key=bench.sandbox.stripe_key,
        api_base=bench.sandbox.stripe_url,
        success_url="https://example.com/",
        max_network_retries=0,
    )
    decisions = PaymentDecisions(bench.database_url)

    def check_payment(account: UUID) -> Any:
        return check_payment_method(account, gate=gate, decisions=decisions, want_checkout=True).verdict

    bench.sandbox.card(str(bench.account))
    yield replace(bench, means=BackfillDependencies(bench.means.new_client, check_payment))
    gate.close()


def ten_minutes_pass(bench: Workbench) -> datetime:
    """Every yes is too old from the returned moment on, by the database's clock."""
    bench.sql("update payment_decisions set checked_at = checked_at - interval '11 minutes'")
    # Whoever was just reserving saw the decisions as they were: what is reserved after this lock was given did not.
    bench.sql("select pg_advisory_xact_lock(hashtextextended('songstats_quota', 0))")
    (row,) = bench.sql("select clock_timestamp() as now")
    moment: datetime = row["now"]
    return moment


def spent_since(bench: Workbench, moment: datetime, account: UUID) -> int:
    (row,) = bench.sql(
        "select count(*) n from songstats_quota_ledger where reserved_at > %s and account = %s", moment, account
    )
    return int(row["n"])


@contextmanager
def under_way(bench: Workbench, songs: list[str], *, hits: int) -> Iterator[None]:
    """A run in the middle of its work, with so many answers behind it; it goes on once the block has ended, to its end."""
    gate = Gate(free=hits)
    means = gate.means(bench.means, bench.sandbox)
    thread = threading.Thread(target=storm.run, args=(bench, songs), kwargs={"means": means})
    thread.start()
    try:
        until(lambda: bench.sandbox.hits() > hits, what=f"{hits} hits")
        yield
    finally:
        gate.open()
        thread.join()


def test_stripe_down_in_the_middle_of_a_drain_defers_and_back_again_goes_on(
    paying: Workbench, long_form: bool, proves: Proves
):
    songs = isrcs(300 if long_form else 60)
    paying.ask_for(songs)
    with under_way(paying, songs, hits=25):
        paying.sandbox.faults(STRIPE, status=500)
        moment = ten_minutes_pass(paying)
    assert spent_since(paying, moment, paying.account) == 0, "no hit without a fresh yes"
    assert paying.sandbox.hits() == len(paying.ledger())
    rows = paying.sql("select * from songstats_backfill_queue where status <> 'done'")
    assert {(row["status"], row["attempts"]) for row in rows} == {("pending", 0)}, "deferred, which costs no attempt"
    assert {row["last_error"] for row in rows} <= {"payment could not be checked", None}
    stored = paying.statuses()["stored"]
    assert stored == paying.sandbox.hits() < len(songs)
    outages = list(OUTAGES.values())[:: 1 if long_form else 4]
    for outage in outages:
        paying.sandbox.clear_faults()
        paying.sandbox.faults(STRIPE, **outage)
        storm.time_passes(paying)
        asked = len(paying.sandbox.requests(STRIPE))
        coverage = storm.run(paying, songs)
        assert coverage.summary.calls == 0
        assert list(coverage.summary.deferred) == ["payment could not be checked"]
        assert len(paying.sandbox.requests(STRIPE)) - asked <= 2, "one question a run, not one a recording"
        assert paying.statuses() == {"stored": stored, "pending": len(songs) - stored}
    verdicts = paying.sql("select verdict from payment_decisions")
    assert [row["verdict"] for row in verdicts] == ["allowed"], "an unknown is never kept, nor does it undo a yes"
    nothing_breaks(paying)
    paying.sandbox.clear_faults()
    storm.time_passes(paying)
    storm.drain(paying, songs, runs=1)
    assert paying.statuses() == {"stored": len(songs)}
    assert paying.sandbox.hits() == len(songs)
    storm.each_request_has_its_row(paying)
    proves("Stripe away in the middle of a drain", ["I1", "I6", "I10", "I11", "I12"], times=1 + len(outages))


def test_a_yes_that_grows_old_in_the_middle_of_a_run_is_asked_for_again_and_the_run_goes_on(
    paying: Workbench, long_form: bool, proves: Proves
):
    songs = isrcs(300 if long_form else 60)
    paying.ask_for(songs)
    with under_way(paying, songs, hits=25):
        asked = len(paying.sandbox.requests(STRIPE))
        ten_minutes_pass(paying)
    assert paying.statuses() == {"stored": len(songs)}
    assert 1 <= len(paying.sandbox.requests(STRIPE)) - asked <= 3, "one question: a search and a look at the cards"
    storm.each_request_has_its_row(paying)
    proves("a yes of Stripe's that grows old in the middle of a run", ["I1", "I6", "I12"])


def test_a_card_removed_in_the_middle_of_a_drain_stops_its_account_alone_until_it_is_back(
    paying: Workbench, long_form: bool, proves: Proves
):
    count = 150 if long_form else 25
    other = uuid4()
    paying.sandbox.card(str(other))
    ours, theirs = isrcs(count), isrcs(count, start=1000)
    both = isrcs(5, start=2000)
    job = paying.ask_for([*ours, *both], ranks=range(2 * count + 10, count + 5, -1))
    paying.ask_for([*theirs, *both], account=other, ranks=range(2 * count + 10, count + 5, -1))
    songs = [*ours, *theirs, *both]
    with under_way(paying, songs, hits=16):
        paying.sandbox.card(str(paying.account), on_file=False)
        moment = ten_minutes_pass(paying)
    assert spent_since(paying, moment, paying.account) == 0, "nothing is spent once the ten minutes are over"
    left = {row["song"] for row in paying.sql("select song from songstats_backfill_queue where status = 'pending'")}
    assert left
    assert left <= set(ours), "the other account's recordings went on, those that both want among them"
    assert paying.statuses() == {"stored": len(songs) - len(left), "pending": len(left)}
    rows = paying.sql("select * from songstats_backfill_queue where status = 'pending'")
    assert {row["attempts"] for row in rows} == {0}
    assert {row["not_before"] for row in rows} == {None}, "they wait for a card, not for a time"
    hits = paying.sandbox.hits()
    for _ in range(3 if long_form else 1):
        assert storm.run(paying, songs).summary.calls == 0
        assert reclaim_backfill(paying.terms, paying.means).accounts_allowed_again == 0
        assert "an account with a card" in str(storm.planned(paying, songs).skip_reason)
    assert paying.sandbox.hits() == hits
    assert paying.sql("select state from measurement_jobs where id = %s", job)[0]["state"] == "accepted"
    nothing_breaks(paying)
    paying.sandbox.card(str(paying.account))
    assert reclaim_backfill(paying.terms, paying.means).accounts_allowed_again == 1
    storm.drain(paying, songs, runs=1)
    assert paying.statuses() == {"stored": len(songs)}
    assert paying.sandbox.hits() == len(songs)
    storm.each_request_has_its_row(paying)
    proves("a card removed in the middle of a drain, and back again", ["I1", "I6", "I10", "I11", "I12", "I16"])


def test_a_card_removed_while_stripe_is_away_is_no_no_until_stripe_says_so(paying: Workbench, proves: Proves):
    songs = isrcs(30)
    paying.ask_for(songs)
    storm.run(paying, songs[:10])
    paying.sandbox.card(str(paying.account), on_file=False)
    paying.sandbox.faults(STRIPE, status=503)
    moment = ten_minutes_pass(paying)
    storm.run(paying, songs)
    assert [row["verdict"] for row in paying.sql("select verdict from payment_decisions")] == ["allowed"]
    paying.sandbox.clear_faults()
    storm.time_passes(paying)
    storm.run(paying, songs)
    assert [row["verdict"] for row in paying.sql("select verdict from payment_decisions")] == ["denied"]
    assert spent_since(paying, moment, paying.account) == 0
    assert paying.statuses() == {"stored": 10, "pending": 20}
    nothing_breaks(paying)
    proves("a card removed while Stripe is away", ["I1", "I10", "I11", "I12"])
