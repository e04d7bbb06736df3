"""Intake with the real payment gate and the Stripe double."""

from uuid import uuid4

import pytest

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.services import Services, create_services
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.intake.conftest import IntakeBench, isrcs


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


def test_a_request_continues_after_its_client_saves_a_card(
    intake_bench: IntakeBench, services: Services, sandbox: SandboxClient
):
    account = uuid4()
    job = intake_bench.submit({"isrcs": isrcs(2)}, account=account)
    intake_bench.process(services.stripe.decide)
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"]) == ("payment_required", 402)
    assert row["checkout_url"].startswith(sandbox.stripe_url)
    assert "card" in row["error"]
    assert intake_bench.queue() == {}
    sandbox.card(str(account))
    intake_bench.process(services.stripe.decide, unpaid=True)
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"], row["checkout_url"], row["error"]) == ("accepted", 202, None, None)
    assert intake_bench.receipt(job) == (2, 2, 0, 0)


def test_an_account_with_a_card_is_accepted_with_one_request_to_stripe(
    intake_bench: IntakeBench, services: Services, sandbox: SandboxClient
):
    account = uuid4()
    sandbox.card(str(account))
    jobs = [intake_bench.submit({"isrcs": isrcs(1, start=n)}, account=account) for n in range(3)]
    intake_bench.process(services.stripe.decide)
    assert {intake_bench.job(job)["state"] for job in jobs} == {"accepted"}
    requests_before = len(sandbox.requests("/v1"))
    jobs.append(intake_bench.submit({"isrcs": isrcs(1, start=9)}, account=account))
    intake_bench.process(services.stripe.decide)
    assert intake_bench.job(jobs[-1])["state"] == "accepted"
    assert len(sandbox.requests("/v1")) == requests_before, "a decision is valid for ten minutes"


def test_an_open_checkout_session_is_reused(intake_bench: IntakeBench, services: Services, sandbox: SandboxClient):
    account = uuid4()
    jobs = []
    for _ in range(3):
        jobs.append(intake_bench.submit({"isrcs": isrcs(1)}, account=account))
        intake_bench.process(services.stripe.decide)
        intake_bench.process(services.stripe.decide, unpaid=True)
    assert len({intake_bench.job(job)["checkout_url"] for job in jobs}) == 1
    created = [one for one in sandbox.requests("/v1/checkout/sessions") if one["method"] == "POST"]
    assert len(created) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_unavailable_stripe_leaves_the_request_queued(
    intake_bench: IntakeBench, services: Services, sandbox: SandboxClient, status: int
):
    account = uuid4()
    sandbox.card(str(account))
    job = intake_bench.submit({"isrcs": isrcs(1)}, account=account)
    sandbox.faults("/v1", status=status)
    intake_bench.process(services.stripe.decide)
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"], row["attempts"]) == ("queued", None, 0)
    assert row["not_before"] is not None
    assert "Stripe" in row["error"]
    assert intake_bench.queue() == {}
    assert intake_bench.sql("select * from payment_decisions") == []
    sandbox.clear_faults()
    intake_bench.sql("update measurement_jobs set not_before = null")
    intake_bench.process(services.stripe.decide)
    assert intake_bench.job(job)["state"] == "accepted"


def test_a_rejected_stripe_key_is_an_unknown_decision(intake_bench: IntakeBench, environment: dict[str, str]):
    services = create_services(Settings.read({**environment, "STRIPE_SECRET_KEY": "rk_test_wrong"}))
    job = intake_bench.submit({"isrcs": isrcs(1)})
    intake_bench.process(services.stripe.decide)
    row = intake_bench.job(job)
    assert row["state"] == "queued"
    assert "STRIPE_SECRET_KEY" in row["error"]
    assert "rk_test_wrong" not in row["error"]


def test_with_a_price_checkout_offers_a_subscription_with_a_trial(
    intake_bench: IntakeBench, environment: dict[str, str], sandbox: SandboxClient
):
    services = create_services(
        Settings.read({**environment, "STRIPE_FREE_TIER_PRICE_ID": "price_free", "STRIPE_TRIAL_DAYS": "14"})
    )
    job = intake_bench.submit({"isrcs": isrcs(1)})
    intake_bench.process(services.stripe.decide)
    row = intake_bench.job(job)
    assert row["state"] == "payment_required"
    assert "14 days" in row["error"]
    assert row["checkout_url"].startswith(sandbox.stripe_url)
