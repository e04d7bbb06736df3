"""Where requests to Stripe go: to the configured host, and to no host that a response or the environment names."""

from collections.abc import Iterator
from datetime import date
from uuid import uuid4

import pytest

from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.sandbox import PLAIN, SandboxClient, running
from measurement_pipeline.vendors.stripe.payment_gate import StripeGate


@pytest.fixture
def elsewhere() -> Iterator[SandboxClient]:
    """Another host that accepts the same key. Requests that arrive there are counted."""
    with running(behaviour=PLAIN) as opened:
        yield opened


def decide(api_base: str, key: str) -> Decision:
    gate = StripeGate(
        secret_key=key, api_base=api_base, success_url="https://pipeline.test/thanks", max_network_retries=0
    )
    try:
        return gate.decide(uuid4(), customer=None, open_checkout=None, want_checkout=True, today=date(2026, 3, 14))
    finally:
        gate.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_to_another_host_is_not_followed(
    sandbox: SandboxClient, elsewhere: SandboxClient, status: int, method: str
):
    away = {"location": f"{elsewhere.stripe_url}/v1/customers/search"}
    sandbox.faults("/v1", method=method, status=status, headers=away)
    assert decide(sandbox.stripe_url, sandbox.stripe_key).verdict is PaymentVerdict.UNKNOWN
    assert sandbox.requests("/v1", since=0)[-1]["method"] == method
    assert elsewhere.requests() == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_from_the_environment_is_not_used(
    sandbox: SandboxClient, elsewhere: SandboxClient, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv(name, elsewhere.stripe_url)
    assert decide("http://stripe.invalid", sandbox.stripe_key).verdict is PaymentVerdict.UNKNOWN
    assert elsewhere.requests() == []
