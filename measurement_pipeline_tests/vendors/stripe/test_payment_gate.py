"""The payment gate against the double of Stripe: allowed, denied and unknown."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from measurement_pipeline.domain.payment import CheckoutLink, Decision, PaymentState, PaymentVerdict
from measurement_pipeline.sandbox import PLAIN, SandboxClient, running
from measurement_pipeline.vendors.stripe.payment_gate import StripeGate, check_payment_method

SESSIONS = "/v1/checkout/sessions"
TODAY = date(2026, 3, 14)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def shared_double(clock: Clock) -> Iterator[SandboxClient]:
    # The clock stands still, so every search falls into the same second.
    with running(behaviour=replace(PLAIN, searches_per_second=0), clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
def double(shared_double: SandboxClient) -> Iterator[SandboxClient]:
    """Each test has its own account; its faults are cleared."""
    shared_double.forget_requests()
    yield shared_double
    shared_double.clear_faults()


def gate_to(double: SandboxClient, clock: Clock, **settings: Any) -> StripeGate:
    usual: dict[str, Any] = {
        "secret_key": double.stripe_key,
        "api_base": double.stripe_url,
        "success_url": "https://pipeline.test/thanks",
        "max_network_retries": 0,
        "now": clock,
    }
    return StripeGate(**usual | settings)


@pytest.fixture
def gate(double: SandboxClient, clock: Clock) -> Iterator[StripeGate]:
    gate = gate_to(double, clock)
    yield gate
    gate.close()


@pytest.fixture
def account() -> UUID:
    return uuid4()


def decide(
    gate: StripeGate,
    account: UUID,
    *,
    customer: str | None = None,
    open_checkout: CheckoutLink | None = None,
    want_checkout: bool = True,
    today: date = TODAY,
) -> Decision:
    return gate.decide(
        account, customer=customer, open_checkout=open_checkout, want_checkout=want_checkout, today=today
    )


def save_a_card(decision: Decision) -> None:
    """Save a card on the Checkout page."""
    assert decision.checkout_url is not None
    assert httpx.post(decision.checkout_url, trust_env=False).status_code == 303


def change_at_stripe(double: SandboxClient, method: str, path: str, **more: Any) -> dict[str, Any]:
    """A change at Stripe by another program."""
    headers = {"authorization": f"Bearer {double.stripe_key}"}
    answer = httpx.request(method, double.stripe_url + path, headers=headers, trust_env=False, **more)
    expected: dict[str, Any] = answer.raise_for_status().json()
    return expected


def calls(double: SandboxClient, path: str, method: str | None = None) -> int:
    return sum(1 for one in double.requests(path) if method in (None, one["method"]))


# Allowed and denied.


def test_an_account_with_a_card_is_allowed_and_its_customer_returned(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    customer = double.card(str(account))
    decision = decide(gate, account)
    assert (decision.verdict, decision.customer) == (PaymentVerdict.ALLOWED, customer)
    assert decision.checkout_url is None


def test_a_card_that_is_not_the_default_counts(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    denied = decide(gate, account)
    save_a_card(denied)
    assert decide(gate, account, customer=denied.customer).verdict is PaymentVerdict.ALLOWED


@pytest.mark.parametrize("kind", ["us_bank_account", "link"])
def test_a_default_that_is_not_a_card_does_not_count_and_the_denial_reports_it(
    double: SandboxClient, gate: StripeGate, account: UUID, kind: str
) -> None:
    double.payment_method(str(account), kind, default=True)
    decision = decide(gate, account)
    assert decision.verdict is PaymentVerdict.DENIED
    assert "another payment method" in decision.reason
    assert decision.checkout_url is not None


def test_a_card_beside_a_default_of_another_type_counts(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    customer = double.payment_method(str(account))
    double.payment_method(str(account), "us_bank_account", default=True)
    decision = decide(gate, account)
    assert (decision.verdict, decision.customer) == (PaymentVerdict.ALLOWED, customer)


@pytest.mark.parametrize("wallet", ["apple_pay", "google_pay", "link"])
def test_a_card_that_a_wallet_carries_counts(
    double: SandboxClient, gate: StripeGate, account: UUID, wallet: str
) -> None:
    double.payment_method(str(account), wallet=wallet)
    assert decide(gate, account).verdict is PaymentVerdict.ALLOWED


def test_a_card_counts_through_the_month_of_its_expiry_and_not_a_day_longer(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    double.payment_method(str(account), expires=(2026, 3), default=True)
    assert decide(gate, account, today=date(2026, 3, 31)).verdict is PaymentVerdict.ALLOWED
    decision = decide(gate, account, today=date(2026, 4, 1))
    assert decision.verdict is PaymentVerdict.DENIED
    assert "expired in 03/2026" in decision.reason
    save_a_card(decision)
    assert decide(gate, account, today=date(2026, 4, 1)).verdict is PaymentVerdict.ALLOWED


def test_a_valid_card_behind_newer_expired_ones_counts(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    double.payment_method(str(account))
    for _ in range(12):
        double.payment_method(str(account), expires=(2025, 1), default=True)
    assert decide(gate, account).verdict is PaymentVerdict.ALLOWED


@pytest.mark.parametrize("price", [None, "price_free"])
def test_our_checkout_page_offers_cards_and_nothing_else(
    double: SandboxClient, clock: Clock, account: UUID, price: str | None
) -> None:
    gate = gate_to(double, clock, free_tier_price_id=price)
    decision = decide(gate, account)
    assert decision.checkout_url is not None
    page = httpx.get(decision.checkout_url, trust_env=False).text
    assert "Save card" in page
    assert "Save bank account" not in page
    chosen = {"type": "us_bank_account"}
    assert httpx.post(decision.checkout_url, data=chosen, trust_env=False).status_code == 400
    save_a_card(decision)
    assert decide(gate, account).verdict is PaymentVerdict.ALLOWED
    gate.close()


def test_an_unknown_account_is_denied_with_a_link_that_saves_a_card(
    double: SandboxClient, gate: StripeGate, clock: Clock, account: UUID
) -> None:
    decision = decide(gate, account)
    assert decision.verdict is PaymentVerdict.DENIED
    assert "No card is on file" in decision.reason
    assert "checkout link" in decision.reason
    assert decision.customer is not None
    assert decision.checkout_expires_at == clock.now + timedelta(hours=24)
    save_a_card(decision)
    assert decide(gate, account, customer=decision.customer).verdict is PaymentVerdict.ALLOWED


def test_a_removed_card_denies_the_next_decision(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    customer = double.card(str(account))
    assert decide(gate, account, customer=customer).verdict is PaymentVerdict.ALLOWED
    double.card(str(account), on_file=False)
    assert decide(gate, account, customer=customer).verdict is PaymentVerdict.DENIED


def test_a_stored_customer_is_not_searched_for(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    customer = double.card(str(account))
    assert decide(gate, account, customer=customer).verdict is PaymentVerdict.ALLOWED
    assert calls(double, "/v1/customers/search") == 0


def test_search_looks_for_the_account_and_no_other(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    double.card(str(uuid4()))
    assert decide(gate, account).verdict is PaymentVerdict.DENIED


def test_a_card_on_another_customer_of_the_account_counts(
    double: SandboxClient, gate: StripeGate, clock: Clock, account: UUID
) -> None:
    with_card = double.card(str(account))
    bare = change_at_stripe(double, "POST", "/v1/customers", data={"metadata[accountId]": str(account)})["id"]
    assert bare != with_card
    clock.now += timedelta(seconds=PLAIN.search_lag)
    for remembered in (bare, None):
        decision = decide(gate, account, customer=remembered)
        assert (decision.verdict, decision.customer) == (PaymentVerdict.ALLOWED, with_card)


def test_a_deleted_customer_is_searched_for_and_replaced(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    first = decide(gate, account)
    assert first.customer is not None
    change_at_stripe(double, "DELETE", f"/v1/customers/{first.customer}")
    again = decide(
        gate,
        account,
        customer=first.customer,
        open_checkout=CheckoutLink("https://checkout.test/old", datetime.max.replace(tzinfo=UTC)),
    )
    assert again.verdict is PaymentVerdict.DENIED
    assert again.customer not in (None, first.customer)
    assert again.checkout_url not in (None, "https://checkout.test/old")
    save_a_card(again)
    assert decide(gate, account, customer=again.customer).verdict is PaymentVerdict.ALLOWED


def test_an_unknown_stored_customer_is_searched_for(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    customer = double.card(str(account))
    decision = decide(gate, account, customer="cus_of_another_key")
    assert (decision.verdict, decision.customer) == (PaymentVerdict.ALLOWED, customer)


def test_a_customer_that_search_does_not_show_yet_is_not_created_twice(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    denied = decide(gate, account)
    again = decide(gate, account)  # on a clock that stands still search sees nothing that was written
    assert denied.customer is not None
    assert (again.customer, again.checkout_url) == (denied.customer, denied.checkout_url)


# Checkout links.


def test_an_open_link_is_reused(double: SandboxClient, gate: StripeGate, clock: Clock, account: UUID) -> None:
    first = decide(gate, account)
    assert first.checkout_url
    assert first.checkout_expires_at
    created = calls(double, SESSIONS)
    again = decide(
        gate,
        account,
        customer=first.customer,
        open_checkout=CheckoutLink(first.checkout_url, first.checkout_expires_at),
        want_checkout=False,
    )
    assert again == first
    assert calls(double, SESSIONS) == created


def test_no_customer_and_no_link_are_created_unless_wanted(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    decision = decide(gate, account, want_checkout=False)
    assert decision == Decision(PaymentVerdict.DENIED, "No card is on file for this account.")
    assert calls(double, "/v1", "POST") == 0


def test_concurrent_requests_create_one_customer_and_one_link(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    with ThreadPoolExecutor(4) as pool:
        decisions = list(pool.map(lambda _: decide(gate, account), range(8)))
    assert len({decision.customer for decision in decisions}) == 1
    assert len({decision.checkout_url for decision in decisions}) == 1


def test_a_used_link_is_not_reused_for_the_same_key(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    first = decide(gate, account)
    for _ in range(2):
        save_a_card(first)
        double.card(str(account), on_file=False)
        second = decide(gate, account, customer=first.customer)
        assert second.verdict is PaymentVerdict.DENIED
        assert second.checkout_url != first.checkout_url
        first = second
    save_a_card(second)
    assert decide(gate, account, customer=second.customer).verdict is PaymentVerdict.ALLOWED


def test_an_expired_link_is_followed_by_a_new_one(
    double: SandboxClient, gate: StripeGate, clock: Clock, account: UUID
) -> None:
    first = decide(gate, account)
    clock.now += timedelta(hours=25)
    second = decide(gate, account, customer=first.customer)
    assert second.checkout_url != first.checkout_url
    assert second.checkout_expires_at == clock.now + timedelta(hours=24)


def test_changed_settings_make_another_link_and_no_error(
    double: SandboxClient, gate: StripeGate, clock: Clock, account: UUID
) -> None:
    first = decide(gate, account)
    changed = gate_to(double, clock, success_url="https://pipeline.test/other")
    second = decide(changed, account, customer=first.customer)
    changed.close()
    assert second.verdict is PaymentVerdict.DENIED
    assert second.checkout_url != first.checkout_url


def test_with_a_price_the_link_subscribes_to_it_with_a_trial(
    double: SandboxClient, clock: Clock, account: UUID
) -> None:
    gate = gate_to(double, clock, free_tier_price_id="price_free", trial_days=14)
    decision = decide(gate, account)
    assert decision.verdict is PaymentVerdict.DENIED
    assert "14 days of trial" in decision.reason
    [created] = [one for one in double.requests(SESSIONS) if one["method"] == "POST"]
    save_a_card(decision)
    assert decide(gate, account, customer=decision.customer).verdict is PaymentVerdict.ALLOWED
    gate.close()
    assert created["status"] == 200


# Unknown.

ODD_BODIES = [
    "", "null", "true", "5", '"x"', "[1]", "{}", "<html>",
    '{"error": "text"}', '{"error": null}', '{"error": []}', '{"error": {}}',
    '{"data": "x"}', '{"data": {}}', '{"data": [1]}', '{"data": [null]}', '{"data": [{}]}',
    '{"id": 5}', '{"id": "cus_2", "invoice_settings": {"default_payment_method": "pm"}}',
    '{"data": [{"id": "pm_1", "type": "card"}]}', '{"data": [{"id": "pm_1", "card": {"exp_month": "12", "exp_year": 2030}}]}',
    '{"deleted": "yes"}', '{"invoice_settings": {"default_payment_method": "pm"}}',
]  # fmt: skip


@pytest.mark.fails_without("unknown is not allowed: Stripe does not respond", parameters="False-fault5-HTTP 500")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 401}, "STRIPE_SECRET_KEY"),
        ({"status": 403}, "lacks a permission"),
        ({"status": 429}, "limits"),
        ({"status": 402}, "HTTP 402"),
        ({"status": 409}, "HTTP 409"),
        ({"status": 500}, "HTTP 500"),
        ({"status": 503}, "HTTP 503"),
        ({"close": True}, "could not be reached"),
        ({"reset": True}, "could not be reached"),
        ({"cut": 5}, "could not be reached"),
        ({"status": 200, "body": "<html>"}, "HTTP 200"),
        ({"status": 200, "body": "{}"}, "Unexpected response"),
        ({"status": 200, "body": "[]"}, ""),
        ({"status": 200, "body": '{"data": null}'}, "Unexpected response"),
        ({"status": 200, "body": '{"data": [{"object": "customer"}]}'}, ""),
    ],
)
@pytest.mark.parametrize("has_card", [True, False])
def test_without_a_usable_response_of_stripe_the_decision_is_unknown(
    *,
    double: SandboxClient,
    gate: StripeGate,
    account: UUID,
    fault: dict[str, Any],
    words: str,
    has_card: bool,
) -> None:
    double.card(str(account), on_file=has_card)
    double.faults("/v1", **fault)
    decision = decide(gate, account)
    assert decision.verdict is PaymentVerdict.UNKNOWN
    assert words in decision.reason
    assert double.stripe_key not in decision.reason
    assert decision.checkout_url is None


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
@pytest.mark.parametrize("customer", [None, "cus_1"])
def test_an_unexpected_body_never_allows_denies_or_raises(
    double: SandboxClient, gate: StripeGate, account: UUID, status: int, customer: str | None
) -> None:
    for body in ODD_BODIES:
        double.clear_faults()
        double.faults("/v1", status=status, body=body)
        assert decide(gate, account, customer=customer).verdict is PaymentVerdict.UNKNOWN, body


FOREIGN = ["challenge", "proxy", "portal", "portal redirect", "login", "gateway", "json"]


@pytest.mark.parametrize("page", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_foreign_response_is_unknown_and_creates_no_second_customer(
    double: SandboxClient, gate: StripeGate, account: UUID, page: str, method: str
) -> None:
    first = decide(gate, account)
    assert first.customer is not None
    double.faults("/v1", method=method, foreign=page)
    double.forget_requests()
    decision = decide(gate, account, customer=first.customer)
    assert decision.verdict is PaymentVerdict.UNKNOWN
    assert "STRIPE_SECRET_KEY" not in decision.reason
    assert "permission" not in decision.reason
    if page != "gateway":
        assert decision.reason.startswith("Something other than Stripe answered: check STRIPE_API_BASE")
        assert "begins with" not in decision.reason, "clients read it"
    assert calls(double, "/v1/customers", "POST") == 0
    double.clear_faults()
    assert decide(gate, account, customer=first.customer).customer == first.customer


@pytest.mark.parametrize("page", ["challenge", "proxy", "portal", "login"])
def test_a_foreign_search_response_creates_no_customer(
    double: SandboxClient, gate: StripeGate, account: UUID, page: str
) -> None:
    double.faults("/v1/customers/search", foreign=page)
    assert decide(gate, account).verdict is PaymentVerdict.UNKNOWN
    assert calls(double, "/v1/customers", "POST") == 0


@pytest.mark.fails_without("unknown is not allowed: a 404 that is not about the customer")
def test_stripes_404_without_a_code_does_not_mean_a_deleted_customer(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    customer = double.card(str(account))
    double.faults("/v1/customers/cus", status=404)
    assert decide(gate, account, customer=customer).verdict is PaymentVerdict.UNKNOWN
    assert calls(double, "/v1/customers", "POST") == 0


def test_a_page_is_quoted_in_the_log_without_the_key(
    double: SandboxClient, gate: StripeGate, account: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    double.faults("/v1", status=403, body=f"<html>{double.stripe_key} is bad", headers={"content-type": "text/html"})
    reason = decide(gate, account).reason
    assert "begins with" not in reason
    assert 'begins with "<html>[key] is bad"' in caplog.text
    assert double.stripe_key not in reason + caplog.text


def test_a_foreign_429_is_a_rate_limit_too(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    double.faults("/v1", status=429, foreign="challenge", retry_after=9)
    decision = decide(gate, account)
    assert "limits" in decision.reason
    assert decision.retry_after_seconds == 9


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/checkout/sessions"])
def test_a_denial_without_a_link_is_unknown_until_the_link_can_be_created(
    double: SandboxClient, gate: StripeGate, account: UUID, path: str
) -> None:
    double.faults(path, method="POST", status=503)
    assert decide(gate, account).verdict is PaymentVerdict.UNKNOWN
    double.clear_faults()
    assert decide(gate, account).verdict is PaymentVerdict.DENIED


def test_a_lost_response_does_not_create_a_second_customer(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    double.faults("/v1/customers", method="POST", count=1, close=True)
    assert decide(gate, account).verdict is PaymentVerdict.UNKNOWN
    decision = decide(gate, account)
    assert decision.customer == double.card(str(account))


def test_stripes_retry_after_is_returned(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    double.faults("/v1", status=429, retry_after=17)
    assert decide(gate, account).retry_after_seconds == 17


def test_a_double_on_this_machine_is_reached_without_a_proxy(
    double: SandboxClient, clock: Clock, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.card(str(account))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    gate = gate_to(double, clock)
    assert decide(gate, account).verdict is PaymentVerdict.ALLOWED
    gate.close()


def test_a_temporary_fault_is_retried_by_the_library(double: SandboxClient, clock: Clock, account: UUID) -> None:
    double.card(str(account))
    double.faults("/v1", status=503, count=1)
    gate = gate_to(double, clock, max_network_retries=2)
    assert decide(gate, account).verdict is PaymentVerdict.ALLOWED
    gate.close()


def test_a_wrong_key_is_unknown_and_shown_nowhere(
    double: SandboxClient, clock: Clock, account: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gate = gate_to(double, clock, secret_key="sk_test_wrong_0123456789")
    double.faults(
        "/v1",
        status=401,
        body='{"error": {"type": "invalid_request_error", "message": "Invalid API Key: sk_test_wrong_0123456789"}}',
    )
    decision = decide(gate, account)
    gate.close()
    assert decision.verdict is PaymentVerdict.UNKNOWN
    assert "STRIPE_SECRET_KEY" in decision.reason
    assert "0123456789" not in f"{decision!r} {gate!r} {caplog.text}"


@pytest.mark.parametrize("key", ["", "sk test", "sk_test\n", "schl\u00fcssel"])
def test_a_key_that_no_header_can_carry_is_rejected_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="Stripe key") as refused:
        StripeGate(secret_key=key, api_base="http://127.0.0.1:1", success_url="https://x.test")
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"success_url": "nowhere"}, "CHECKOUT_SUCCESS_URL"),
        ({"free_tier_price_id": "prod_mistaken"}, "STRIPE_FREE_TIER_PRICE_ID"),
    ],
)
def test_a_setting_that_stripe_rejects_is_named(
    double: SandboxClient, clock: Clock, account: UUID, settings: dict[str, Any], named: str
) -> None:
    gate = gate_to(double, clock, **settings)
    decision = decide(gate, account)
    gate.close()
    assert decision.verdict is PaymentVerdict.UNKNOWN
    assert named in decision.reason


def test_cards_that_the_dashboard_does_not_enable_are_named(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    error = {"type": "invalid_request_error", "param": "allowed_payment_method_types", "message": "none is eligible"}
    double.faults(SESSIONS, method="POST", status=400, body=json.dumps({"error": error}))
    decision = decide(gate, account)
    assert decision.verdict is PaymentVerdict.UNKNOWN
    assert "check that cards are enabled in Stripe's Dashboard" in decision.reason


def test_a_stripe_that_cannot_be_reached_is_unknown(clock: Clock, account: UUID) -> None:
    gate = StripeGate(
        secret_key="sk_test_x",
        api_base="http://127.0.0.1:1",
        success_url="https://x.test",
        max_network_retries=0,
    )
    assert decide(gate, account).verdict is PaymentVerdict.UNKNOWN
    gate.close()


# Stored decisions.


class StoredDecisions:
    """A `PaymentDecisionStore` in memory. `is_fresh`: whether a stored decision may be served. `loads` counts the reads."""

    def __init__(self) -> None:
        self.stored: dict[UUID, Decision] = {}
        self.is_fresh = False
        self.loads = 0

    def load(self, account: UUID) -> PaymentState:
        self.loads += 1
        stored = self.stored.get(account)
        link = None
        if stored and stored.checkout_url and stored.checkout_expires_at:
            link = CheckoutLink(stored.checkout_url, stored.checkout_expires_at)
        return PaymentState(
            fresh_decision=stored if self.is_fresh else None,
            open_checkout=link,
            customer=stored.customer if stored else None,
            today=TODAY,
        )

    def record(self, account: UUID, decision: Decision) -> None:
        self.stored[account] = decision


def test_a_fresh_decision_is_served_without_asking_stripe(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    decisions = StoredDecisions()
    double.card(str(account))
    first = check_payment_method(account, gate=gate, decisions=decisions, want_checkout=True)
    assert decisions.stored == {account: first}
    decisions.is_fresh = True
    double.forget_requests()
    again = check_payment_method(account, gate=gate, decisions=decisions, want_checkout=True)
    assert again == first
    assert double.requests("/v1") == []


def test_a_denial_is_stored_and_its_link_is_used_until_the_card_is_there(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    decisions = StoredDecisions()

    def check() -> Decision:
        return check_payment_method(account, gate=gate, decisions=decisions, want_checkout=True)

    first = check()
    assert first.verdict is PaymentVerdict.DENIED
    assert check().checkout_url == first.checkout_url
    save_a_card(first)
    allowed = check()
    assert allowed.verdict is PaymentVerdict.ALLOWED
    assert decisions.stored == {account: allowed}


def test_the_stored_state_is_read_once_and_not_at_all_if_the_caller_has_it(
    double: SandboxClient, gate: StripeGate, account: UUID
) -> None:
    decisions = StoredDecisions()
    first = check_payment_method(account, gate=gate, decisions=decisions, want_checkout=True)
    assert decisions.loads == 1
    state = decisions.load(account)
    again = check_payment_method(account, gate=gate, decisions=decisions, want_checkout=True, state=state)
    assert decisions.loads == 2, "the read of the test itself"
    assert again.checkout_url == first.checkout_url


def test_an_unknown_is_never_stored(double: SandboxClient, gate: StripeGate, account: UUID) -> None:
    decisions = StoredDecisions()
    double.faults("/v1", status=500)
    decision = check_payment_method(account, gate=gate, decisions=decisions, want_checkout=True)
    assert decision.verdict is PaymentVerdict.UNKNOWN
    assert decisions.stored == {}
