"""Stripe is unavailable, or a card is removed, during a backfill: nothing is spent without a recent decision, and nothing
fails.

The real payment gate runs against the Stripe double. The test moves the decision's time in the database by ten minutes.
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
from measurement_pipeline_tests.faults import vendor_failures
from measurement_pipeline_tests.faults.invariants import assert_invariants_hold
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Gate, Workbench, isrcs

STRIPE = "/v1/"

# Description → how Stripe is unavailable. None of these is a denial.
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
    """A workbench with the real payment gate, whose account has a card at Stripe."""
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
    yield replace(bench, dependencies=BackfillDependencies(bench.dependencies.new_client, check_payment))
    gate.close()


def expire_decisions(bench: Workbench) -> datetime:
    """Expire every positive decision, by the database's clock; return the moment from which none is valid."""
    bench.sql("update payment_decisions set checked_at = checked_at - interval '11 minutes'")
    # A reservation in progress saw the old decisions. Reservations after this lock do not.
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
def run_in_progress(bench: Workbench, songs: list[str], *, hits: int) -> Iterator[None]:
    """Yield a run that has received `hits` responses; it continues to its end after the block."""
    gate = Gate(free=hits)
    dependencies = gate.delay_responses(bench.dependencies, bench.sandbox)
    thread = threading.Thread(
        target=vendor_failures.run_backfill, args=(bench, songs), kwargs={"dependencies": dependencies}
    )
    thread.start()
    try:
        wait_until(lambda: bench.sandbox.hits() > hits, what=f"{hits} hits")
        yield
    finally:
        gate.open()
        thread.join()


def test_a_stripe_outage_defers_rows_and_the_backfill_resumes_afterwards(
    paying: Workbench, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(300 if long_form else 60)
    paying.submit_request(songs)
    with run_in_progress(paying, songs, hits=25):
        paying.sandbox.faults(STRIPE, status=500)
        moment = expire_decisions(paying)
    assert spent_since(paying, moment, paying.account) == 0, "a hit without a recent decision"
    assert paying.sandbox.hits() == len(paying.ledger())
    rows = paying.sql("select * from songstats_backfill_queue where status <> 'done'")
    assert {(row["status"], row["attempts"]) for row in rows} == {("pending", 0)}, "deferred rows cost no attempt"
    assert {row["last_error"] for row in rows} <= {"payment could not be checked", None}
    stored = paying.statuses()["stored"]
    assert stored == paying.sandbox.hits() < len(songs)
    outages = list(OUTAGES.values())[:: 1 if long_form else 4]
    for outage in outages:
        paying.sandbox.clear_faults()
        paying.sandbox.faults(STRIPE, **outage)
        vendor_failures.end_waits(paying)
        requests_before = len(paying.sandbox.requests(STRIPE))
        backfill_run = vendor_failures.run_backfill(paying, songs)
        assert backfill_run.summary.calls == 0
        assert list(backfill_run.summary.deferred) == ["payment could not be checked"]
        assert len(paying.sandbox.requests(STRIPE)) - requests_before <= 2, (
            "one payment check for each run, not for each recording"
        )
        assert paying.statuses() == {"stored": stored, "pending": len(songs) - stored}
    verdicts = paying.sql("select verdict from payment_decisions")
    assert [row["verdict"] for row in verdicts] == ["allowed"], (
        "an unknown result is never stored and never replaces a positive decision"
    )
    assert_invariants_hold(paying)
    paying.sandbox.clear_faults()
    vendor_failures.end_waits(paying)
    vendor_failures.drain(paying, songs, runs=1)
    assert paying.statuses() == {"stored": len(songs)}
    assert paying.sandbox.hits() == len(songs)
    vendor_failures.assert_ledger_matches_vendor_log(paying)
    record_proof("Stripe unreachable during a backfill", ["I1", "I6", "I10", "I11", "I12"], times=1 + len(outages))


def test_a_run_renews_an_expired_payment_decision_and_continues(
    paying: Workbench, long_form: bool, record_proof: ProofRecorder
):
    songs = isrcs(300 if long_form else 60)
    paying.submit_request(songs)
    with run_in_progress(paying, songs, hits=25):
        requests_before = len(paying.sandbox.requests(STRIPE))
        expire_decisions(paying)
    assert paying.statuses() == {"stored": len(songs)}
    assert 1 <= len(paying.sandbox.requests(STRIPE)) - requests_before <= 3, (
        "one payment check: a search and a list of the cards"
    )
    vendor_failures.assert_ledger_matches_vendor_log(paying)
    record_proof("a payment decision that expires during a run", ["I1", "I6", "I12"])


def test_a_removed_card_stops_only_its_account_until_a_card_is_back(
    paying: Workbench, long_form: bool, record_proof: ProofRecorder
):
    count = 150 if long_form else 25
    other = uuid4()
    paying.sandbox.card(str(other))
    ours, theirs = isrcs(count), isrcs(count, start=1000)
    both = isrcs(5, start=2000)
    job = paying.submit_request([*ours, *both], ranks=range(2 * count + 10, count + 5, -1))
    paying.submit_request([*theirs, *both], account=other, ranks=range(2 * count + 10, count + 5, -1))
    songs = [*ours, *theirs, *both]
    with run_in_progress(paying, songs, hits=16):
        paying.sandbox.card(str(paying.account), on_file=False)
        moment = expire_decisions(paying)
    assert spent_since(paying, moment, paying.account) == 0, "nothing is spent after the ten minutes"
    left = {row["song"] for row in paying.sql("select song from songstats_backfill_queue where status = 'pending'")}
    assert left
    assert left <= set(ours), "the other account's recordings continued, including shared ones"
    assert paying.statuses() == {"stored": len(songs) - len(left), "pending": len(left)}
    rows = paying.sql("select * from songstats_backfill_queue where status = 'pending'")
    assert {row["attempts"] for row in rows} == {0}
    assert {row["not_before"] for row in rows} == {None}, "the rows wait for a card, not for a time"
    hits = paying.sandbox.hits()
    for _ in range(3 if long_form else 1):
        assert vendor_failures.run_backfill(paying, songs).summary.calls == 0
        assert reclaim_backfill(paying.config, paying.dependencies).accounts_allowed_again == 0
        assert "no account with a saved card" in str(vendor_failures.plan_next(paying, songs).skip_reason)
    assert paying.sandbox.hits() == hits
    assert paying.sql("select state from measurement_jobs where id = %s", job)[0]["state"] == "accepted"
    assert_invariants_hold(paying)
    paying.sandbox.card(str(paying.account))
    assert reclaim_backfill(paying.config, paying.dependencies).accounts_allowed_again == 1
    vendor_failures.drain(paying, songs, runs=1)
    assert paying.statuses() == {"stored": len(songs)}
    assert paying.sandbox.hits() == len(songs)
    vendor_failures.assert_ledger_matches_vendor_log(paying)
    record_proof("a card removed during a backfill and saved again", ["I1", "I6", "I10", "I11", "I12", "I16"])


def test_a_card_removed_during_a_stripe_outage_denies_only_after_the_outage(
    paying: Workbench, record_proof: ProofRecorder
):
    songs = isrcs(30)
    paying.submit_request(songs)
    vendor_failures.run_backfill(paying, songs[:10])
    paying.sandbox.card(str(paying.account), on_file=False)
    paying.sandbox.faults(STRIPE, status=503)
    moment = expire_decisions(paying)
    vendor_failures.run_backfill(paying, songs)
    assert [row["verdict"] for row in paying.sql("select verdict from payment_decisions")] == ["allowed"]
    paying.sandbox.clear_faults()
    vendor_failures.end_waits(paying)
    vendor_failures.run_backfill(paying, songs)
    assert [row["verdict"] for row in paying.sql("select verdict from payment_decisions")] == ["denied"]
    assert spent_since(paying, moment, paying.account) == 0
    assert paying.statuses() == {"stored": 10, "pending": 20}
    assert_invariants_hold(paying)
    record_proof("a card removed while Stripe is unreachable", ["I1", "I10", "I11", "I12"])
