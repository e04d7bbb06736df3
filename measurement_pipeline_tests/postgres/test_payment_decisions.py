"""Stripe's last decision of an account, by the database's clock: allowed, denied with its link, never unknown."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions, ensure_account, forget_checkouts
from measurement_pipeline_tests.postgres.conftest import Tables

ALLOWED = Decision(PaymentVerdict.ALLOWED, "a card", customer="cus_1")


def denied(url: str | None = None, *, hours: float = 24) -> Decision:
    return Decision(PaymentVerdict.DENIED, "no card", url, datetime.now(UTC) + timedelta(hours=hours) if url else None)


@pytest.fixture
def decisions(database_url: str) -> PaymentDecisions:
    return PaymentDecisions(database_url)


@pytest.fixture
def account() -> UUID:
    return uuid4()


def test_an_unchecked_account_has_no_decision(decisions: PaymentDecisions, account: UUID):
    assert decisions.load(account).fresh_decision is None
    assert decisions.load(account).open_checkout is None
    assert decisions.load(account).customer is None


@pytest.mark.parametrize(
    ("age", "serves"), [("0", True), ("9 minutes 50 seconds", True), ("10 minutes 1 second", False)]
)
def test_an_allowed_decision_is_valid_for_ten_minutes(
    decisions: PaymentDecisions, account: UUID, tables: Tables, age: str, *, serves: bool
):
    decisions.record(account, ALLOWED)
    tables.sql("update payment_decisions set checked_at = clock_timestamp() - %s::interval", age)
    result = decisions.load(account).fresh_decision
    assert (result is not None and result.verdict is PaymentVerdict.ALLOWED) is serves


def test_a_denied_decision_is_never_valid(decisions: PaymentDecisions, account: UUID):
    decisions.record(account, denied("https://pay.example/1"))
    assert decisions.load(account).fresh_decision is None


def test_an_unknown_decision_is_rejected_and_the_earlier_one_stays(
    decisions: PaymentDecisions, account: UUID, tables: Tables
):
    decisions.record(account, ALLOWED)
    with pytest.raises(ValueError, match=f"unknown payment decision must not be stored .*{account}"):
        decisions.record(account, Decision(PaymentVerdict.UNKNOWN, "Stripe is away"))
    assert decisions.load(account).fresh_decision is not None
    with pytest.raises(ValueError, match="unknown"):
        decisions.record(uuid4(), Decision(PaymentVerdict.UNKNOWN, "Stripe is away"))
    assert len(tables.sql("select 1 from accounts")) == 1


def test_the_open_link_of_a_denied_decision_is_stored_until_the_next(decisions: PaymentDecisions, account: UUID):
    decisions.record(account, denied("https://pay.example/1"))
    decisions.record(account, denied())
    link = decisions.load(account).open_checkout
    assert link is not None
    assert link[0] == "https://pay.example/1"
    decisions.record(account, denied("https://pay.example/2"))
    link = decisions.load(account).open_checkout
    assert link is not None
    assert link[0] == "https://pay.example/2"


@pytest.mark.parametrize(("hours", "is_open"), [(0.49, False), (0.6, True), (-1, False)])
def test_a_link_about_to_expire_is_not_returned_again(
    decisions: PaymentDecisions, account: UUID, hours: float, *, is_open: bool
):
    decisions.record(account, denied("https://pay.example/1", hours=hours))
    assert (decisions.load(account).open_checkout is not None) is is_open


def test_an_allowed_decision_deletes_the_link(decisions: PaymentDecisions, account: UUID, tables: Tables):
    decisions.record(account, denied("https://pay.example/1"))
    decisions.record(account, ALLOWED)
    decisions.record(account, denied())
    assert decisions.load(account).open_checkout is None
    assert tables.sql("select verdict, checkout_url from payment_decisions") == [
        {"verdict": "denied", "checkout_url": None}
    ]


def test_an_older_answer_does_not_replace_a_newer_one(decisions: PaymentDecisions, account: UUID, tables: Tables):
    decisions.record(account, ALLOWED)
    tables.sql("update payment_decisions set checked_at = clock_timestamp() + interval '1 minute'")
    decisions.record(account, denied())
    assert tables.sql("select verdict from payment_decisions") == [{"verdict": "allowed"}]


def test_the_customer_is_stored_and_replaced(decisions: PaymentDecisions, account: UUID):
    decisions.record(account, ALLOWED)
    decisions.record(account, denied())
    assert decisions.load(account).customer == "cus_1"
    decisions.record(account, Decision(PaymentVerdict.ALLOWED, "a card", customer="cus_2"))
    assert decisions.load(account).customer == "cus_2"


def test_an_account_keeps_its_first_name(connection: Connection, account: UUID, tables: Tables):
    for name in (None, "Label", "Other", None):
        ensure_account(connection, account, name=name)
    assert tables.sql("select name from accounts") == [{"name": "Label"}]


def test_links_of_earlier_doubles_are_deleted(decisions: PaymentDecisions, account: UUID, connection: Connection):
    decisions.record(account, denied("https://pay.example/1"))
    forget_checkouts(connection)
    assert decisions.load(account).open_checkout is None
