"""Intake with the real payment gate, against the double of Stripe."""

from uuid import uuid4

import pytest

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.services import Services, create_services
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.intake.conftest import Desk, isrcs


@pytest.fixture
def environment(database_url: str, sandbox: SandboxClient) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "SONGSTATS_BASE_URL": sandbox.songstats_url,
        "SONGSTATS_API_KEY": sandbox.songstats_key,
        "STRIPE_API_BASE": sandbox.stripe_url,
        "STRIPE_SECRET_KEY": sandbox.stripe_key,
    }


@pytest.fixture
def services(environment: dict[str, str]) -> Services:
    return create_services(Settings.read(environment))


def test_a_client_without_a_card_saves_one_and_the_request_goes_on(
    desk: Desk, services: Services, sandbox: SandboxClient
):
    account = uuid4()
    job = desk.ask({"isrcs": isrcs(2)}, account=account)
    desk.take(services.stripe.decide)
    row = desk.job(job)
    assert (row["state"], row["status_code"]) == ("payment_required", 402)
    assert row["checkout_url"].startswith(sandbox.stripe_url)
    assert "card" in row["error"]
    assert desk.queue() == {}
    sandbox.card(str(account))
    desk.take(services.stripe.decide, unpaid=True)
    row = desk.job(job)
    assert (row["state"], row["status_code"], row["checkout_url"], row["error"]) == ("accepted", 202, None, None)
    assert desk.receipt(job) == (2, 2, 0, 0)


def test_an_account_with_a_card_is_accepted_at_once_and_stripe_is_asked_once(
    desk: Desk, services: Services, sandbox: SandboxClient
):
    account = uuid4()
    sandbox.card(str(account))
    jobs = [desk.ask({"isrcs": isrcs(1, start=n)}, account=account) for n in range(3)]
    desk.take(services.stripe.decide)
    assert {desk.job(job)["state"] for job in jobs} == {"accepted"}
    asked = len(sandbox.requests("/v1"))
    jobs.append(desk.ask({"isrcs": isrcs(1, start=9)}, account=account))
    desk.take(services.stripe.decide)
    assert desk.job(jobs[-1])["state"] == "accepted"
    assert len(sandbox.requests("/v1")) == asked, "a decision serves for ten minutes"


def test_an_open_checkout_session_is_handed_out_again(desk: Desk, services: Services, sandbox: SandboxClient):
    account = uuid4()
    jobs = []
    for _ in range(3):
        jobs.append(desk.ask({"isrcs": isrcs(1)}, account=account))
        desk.take(services.stripe.decide)
        desk.take(services.stripe.decide, unpaid=True)
    assert len({desk.job(job)["checkout_url"] for job in jobs}) == 1
    made = [one for one in sandbox.requests("/v1/checkout/sessions") if one["method"] == "POST"]
    assert len(made) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_stripe_down_leaves_the_request_queued(desk: Desk, services: Services, sandbox: SandboxClient, status: int):
    account = uuid4()
    sandbox.card(str(account))
    job = desk.ask({"isrcs": isrcs(1)}, account=account)
    sandbox.faults("/v1", status=status)
    desk.take(services.stripe.decide)
    row = desk.job(job)
    assert (row["state"], row["status_code"], row["attempts"]) == ("queued", None, 0)
    assert row["not_before"] is not None
    assert "Stripe" in row["error"]
    assert desk.queue() == {}
    assert desk.sql("select * from payment_decisions") == []
    sandbox.clear_faults()
    desk.sql("update measurement_jobs set not_before = null")
    desk.take(services.stripe.decide)
    assert desk.job(job)["state"] == "accepted"


def test_a_key_that_stripe_does_not_accept_is_neither_a_yes_nor_a_no(desk: Desk, environment: dict[str, str]):
    services = create_services(Settings.read({**environment, "STRIPE_SECRET_KEY": "rk_test_wrong"}))
    job = desk.ask({"isrcs": isrcs(1)})
    desk.take(services.stripe.decide)
    row = desk.job(job)
    assert row["state"] == "queued"
    assert "STRIPE_SECRET_KEY" in row["error"]
    assert "rk_test_wrong" not in row["error"]


def test_with_a_price_checkout_offers_a_subscription_with_a_trial(
    desk: Desk, environment: dict[str, str], sandbox: SandboxClient
):
    services = create_services(
        Settings.read({**environment, "STRIPE_FREE_TIER_PRICE_ID": "price_free", "STRIPE_TRIAL_DAYS": "14"})
    )
    job = desk.ask({"isrcs": isrcs(1)})
    desk.take(services.stripe.decide)
    row = desk.job(job)
    assert row["state"] == "payment_required"
    assert "14 days" in row["error"]
    assert row["checkout_url"].startswith(sandbox.stripe_url)
