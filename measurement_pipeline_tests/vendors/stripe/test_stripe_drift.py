"""The gate, the double and Stripe's library are of one version of the API: an update of the library shows here what changed."""

import typing
from collections.abc import Mapping
from uuid import uuid4

import pytest
import stripe
from stripe.params import CustomerCreateParams, CustomerListParams, CustomerSearchParams, PaymentMethodListParams
from stripe.params.checkout import SessionCreateParams

from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.sandbox.stripe_double import API_VERSION
from measurement_pipeline.sandbox.stripe_objects import PAYMENT_METHOD_TYPES
from measurement_pipeline.sandbox.stripe_params import ACCEPTED
from measurement_pipeline.vendors.stripe.api_key import check_secret_key
from measurement_pipeline.vendors.stripe.payment_gate import StripeGate, check_payment_method
from measurement_pipeline.vendors.stripe.transport import StripeTransport
from measurement_pipeline_tests.vendors.stripe.stripe_parameters import hints, parameters

KNOWN: dict[str, type] = {
    "GET /v1/customers/search": CustomerSearchParams,
    "GET /v1/customers": CustomerListParams,
    "POST /v1/customers": CustomerCreateParams,
    "GET /v1/payment_methods": PaymentMethodListParams,
    "POST /v1/checkout/sessions": SessionCreateParams,
}


class Versions(StripeTransport):
    """Records the requested version of the API."""

    def __init__(self, api_base: str) -> None:
        super().__init__(api_base)
        self.asked: set[str | None] = set()

    def request(  # type: ignore[override]
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        self.asked.add(headers.get("Stripe-Version"))
        return super().request(method, url, headers, post_data)


@pytest.mark.parametrize("endpoint", sorted(ACCEPTED))
def test_the_double_accepts_no_parameter_that_stripes_library_does_not_know(endpoint: str) -> None:
    known = parameters(KNOWN[endpoint]) if endpoint in KNOWN else set()
    assert known >= ACCEPTED[endpoint]


def test_the_types_of_the_library_show_what_this_version_removed_and_brought() -> None:
    known = parameters(SessionCreateParams)
    assert "allowed_payment_method_types[]" in known
    assert "line_items[][price_data][product_data][metadata][*]" in known
    assert not any(path.startswith("payment_method_types") for path in known)


def test_the_payment_methods_of_the_double_are_types_that_the_library_knows() -> None:
    hint = hints(SessionCreateParams)["allowed_payment_method_types"]
    known = {
        literal for union in typing.get_args(hint) for one in typing.get_args(union) for literal in typing.get_args(one)
    }
    assert known >= set(PAYMENT_METHOD_TYPES)


@pytest.mark.parametrize("price", [None, "price_free"])
def test_the_gate_requests_the_doubles_version_with_known_parameters(
    sandbox: SandboxClient, database_url: str, price: str | None
) -> None:
    http = Versions(sandbox.stripe_url)
    gate = StripeGate(
        secret_key=sandbox.stripe_key,
        api_base=sandbox.stripe_url,
        success_url="https://pipeline.test/thanks",
        free_tier_price_id=price,
        http_client=http,
    )
    decisions = PaymentDecisions(database_url)
    account = uuid4()
    for _ in range(2):  # without a customer, and with one
        check_payment_method(account, gate=gate, decisions=decisions, want_checkout=True)
    gate.close()
    assert check_secret_key(secret_key=sandbox.stripe_key, api_base=sandbox.stripe_url, timeout_seconds=60).is_accepted
    assert http.asked == {API_VERSION}
    received = sandbox.requests("/v1")
    assert {one["status"] for one in received} == {200}
    called = {f"{one['method']} {one['path']}" for one in received}
    assert set(KNOWN) <= called, "each endpoint with parameters was called"


def test_the_double_implements_the_version_that_the_library_pins() -> None:
    assert stripe.api_version == API_VERSION
