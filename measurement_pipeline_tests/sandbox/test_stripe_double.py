"""The Stripe double, checked with Stripe's own client."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
import stripe

from measurement_pipeline.sandbox import PLAIN, SandboxClient, running
from measurement_pipeline_tests.sandbox.clients import stripe_client
from measurement_pipeline_tests.sandbox.clock import Clock

# stripe's HTTPXClient passes its form to httpx in the deprecated way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SUCCESS = "https://example.com/saved?session={CHECKOUT_SESSION_ID}"


def of_account(account: str) -> dict[str, object]:
    return {"query": f"metadata['accountId']:'{account}'", "limit": 1}


def setup_session(customer: str) -> dict[str, object]:
    return {
        "customer": customer,
        "mode": "setup",
        "currency": "usd",
        "client_reference_id": "job-1",
        "metadata": {"accountId": "a"},
        "success_url": SUCCESS,
    }


def test_a_customer_is_created_retrieved_and_found_by_its_account(
    client: Any,
) -> None:
    account = str(uuid4())
    created = client.v1.customers.create({"metadata": {"accountId": account}})

    retrieved = client.v1.customers.retrieve(created.id)
    assert retrieved.metadata["accountId"] == account
    assert retrieved.invoice_settings.default_payment_method is None
    result = client.v1.customers.search(of_account(account))
    assert [customer.id for customer in result.data] == [created.id]
    assert client.v1.customers.search(of_account(str(uuid4()))).data == []


def test_search_lags_behind_writes(clock: Clock) -> None:
    account = str(uuid4())
    behaviour = replace(PLAIN, search_lag=60)
    with running(behaviour=behaviour, clock=clock) as sandbox, stripe_client(sandbox) as client:
        customer = client.v1.customers.create({"metadata": {"accountId": account}})
        clock.advance(seconds=59)
        assert client.v1.customers.search(of_account(account)).data == []
        clock.advance(seconds=1)
        assert len(client.v1.customers.search(of_account(account)).data) == 1

        client.v1.customers.delete(customer.id)
        assert len(client.v1.customers.search(of_account(account)).data) == 1
        clock.advance(seconds=60)
        assert client.v1.customers.search(of_account(account)).data == []


def test_search_is_limited_to_a_number_of_reads_per_second(clock: Clock) -> None:
    behaviour = replace(PLAIN, searches_per_second=3)
    with running(behaviour=behaviour, clock=clock) as sandbox, stripe_client(sandbox) as client:
        for _ in range(3):
            client.v1.customers.search(of_account("a"))
        with pytest.raises(stripe.RateLimitError):
            client.v1.customers.search(of_account("a"))
        clock.advance(seconds=1)
        client.v1.customers.search(of_account("a"))


@pytest.mark.parametrize(
    "query",
    [
        "",
        "accountId:'a'",
        "metadata['accountId']:'a' OR metadata['accountId']:'b'",
        "metadata['accountId']:'a",
        "metadata['accountId'] = 'a'",
        "metadata[accountId]:'a'",
    ],
)
def test_a_malformed_search_is_rejected(client: Any, query: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.customers.search({"query": query})
    assert refusal.value.param == "query"


def test_a_deleted_customer_is_marked_as_deleted(client: Any) -> None:
    customer = client.v1.customers.create({"metadata": {"accountId": str(uuid4())}})
    client.v1.customers.delete(customer.id)

    retrieved = client.v1.customers.retrieve(customer.id)
    assert retrieved.to_dict() == {"id": customer.id, "object": "customer", "deleted": True}
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        client.v1.payment_methods.list({"customer": customer.id, "type": "card"})
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        client.v1.checkout.sessions.create(setup_session(customer.id))


def test_an_unknown_object_is_missing(client: Any) -> None:
    v1 = client.v1
    for retrieve, wanted in (
        (v1.customers.retrieve, "cus_unknown"),
        (v1.checkout.sessions.retrieve, "cs_test_nothing"),
        (v1.payment_methods.list, {"customer": "cus_unknown", "type": "card"}),
    ):
        with pytest.raises(stripe.InvalidRequestError) as refusal:
            retrieve(wanted)
        assert refusal.value.code == "resource_missing"


def test_the_same_idempotency_key_makes_one_customer(client: Any) -> None:
    account = str(uuid4())
    options = {"idempotency_key": f"customer:{account}"}
    first = client.v1.customers.create({"metadata": {"accountId": account}}, options)
    second = client.v1.customers.create({"metadata": {"accountId": account}}, options)

    assert second.id == first.id
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert client.v1.customers.create({"metadata": {"accountId": account}}).id != first.id


def test_an_idempotency_key_with_other_parameters_is_an_error(client: Any) -> None:
    options = {"idempotency_key": f"key:{uuid4()}"}
    customer = client.v1.customers.create({"name": "one"}, options)

    with pytest.raises(stripe.IdempotencyError):
        client.v1.customers.create({"name": "two"}, options)
    with pytest.raises(stripe.IdempotencyError):
        client.v1.checkout.sessions.create(setup_session(customer.id), options)


def test_an_idempotency_key_is_valid_for_a_day(clock: Clock) -> None:
    with running(behaviour=PLAIN, clock=clock) as sandbox, stripe_client(sandbox) as client:
        options = {"idempotency_key": "key"}
        first = client.v1.customers.create({"name": "one"}, options)
        clock.advance(hours=23)
        assert client.v1.customers.create({"name": "one"}, options).id == first.id
        clock.advance(hours=2)
        assert client.v1.customers.create({"name": "one"}, options).id != first.id


def test_a_retried_create_after_a_lost_response_creates_one_object(sandbox: SandboxClient) -> None:
    account = str(uuid4())
    sandbox.faults("/v1/customers", method="POST", close=True, count=1)
    with stripe_client(sandbox, retries=2) as client:
        customer = client.v1.customers.create(
            {"metadata": {"accountId": account}}, {"idempotency_key": f"customer:{account}"}
        )
        query = {"query": f"metadata['accountId']:'{account}'"}
        result = client.v1.customers.search(query)

    assert [one.id for one in result.data] == [customer.id]
    assert [r["status"] for r in sandbox.requests("/v1/customers")][:2] == [None, 200]


def test_a_wrong_key_is_rejected_and_not_repeated(sandbox: SandboxClient) -> None:
    with (
        stripe_client(sandbox, key="sk_test_wrong") as client,
        pytest.raises(stripe.AuthenticationError) as refusal,
    ):
        client.v1.customers.retrieve("cus_1")
    assert refusal.value.http_status == 401
    assert "sk_test_wrong" not in str(refusal.value)
    assert httpx.get(f"{sandbox.stripe_url}/v1/customers/cus_1").status_code == 401


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, stripe.RateLimitError), (500, stripe.APIError), (503, stripe.APIError)],
)
def test_a_fault_uses_stripes_error_format(
    sandbox: SandboxClient, client: Any, status: int, error: type[stripe.StripeError]
) -> None:
    sandbox.faults("/v1/customers", status=status, count=1)

    with pytest.raises(error) as raised:
        client.v1.customers.retrieve("cus_1")
    assert raised.value.http_status == status


def test_every_answer_has_a_request_id(client: Any) -> None:
    customer = client.v1.customers.create({})
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.customers.retrieve("cus_unknown")

    assert customer.last_response.request_id.startswith("req_")
    assert refusal.value.request_id != customer.last_response.request_id


def test_an_unknown_parameter_is_rejected(client: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.customers.create({"metdata": {"accountId": "a"}})
    assert refusal.value.code == "parameter_unknown"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"payment_method_types": ["card"]}, "payment_method_types"),
        ({"subscription_data": {"trial_days": 30}}, "subscription_data[trial_days]"),
        ({"line_items": [{"price": "price_1", "amount": 1}]}, "line_items[0][amount]"),
        ({"allowed_payment_method_types": ["card", "cash"]}, "allowed_payment_method_types[1]"),
    ],
)
def test_a_parameter_of_another_version_is_rejected_at_any_depth(
    client: Any, more: dict[str, object], param: str
) -> None:
    customer = client.v1.customers.create({})
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.checkout.sessions.create(setup_session(customer.id) | more)
    assert refusal.value.http_status == 400
    assert refusal.value.param == param


def test_another_version_of_the_api_is_rejected(client: Any) -> None:
    client.v1.customers.create({}, {"stripe_version": "2026-11-25.endive"})
    with pytest.raises(stripe.InvalidRequestError, match="implements API version"):
        client.v1.customers.create({}, {"stripe_version": "2026-08-26.dahlia"})


def test_an_unknown_path_gets_stripes_error(client: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        client.v1.charges.retrieve("ch_1")


def test_a_setup_session_is_open_and_charges_nothing(sandbox: SandboxClient, client: Any) -> None:
    customer = client.v1.customers.create({})
    session = client.v1.checkout.sessions.create(setup_session(customer.id))

    assert (session.mode, session.status) == ("setup", "open")
    assert session.payment_status == "no_payment_required"
    assert session.customer == customer.id
    assert session.client_reference_id == "job-1"
    assert session.url == f"{sandbox.stripe_url}/checkout/{session.id}"
    assert session.expires_at - session.created == 24 * 3600
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"


def test_a_session_expires_after_a_day(clock: Clock) -> None:
    with running(behaviour=PLAIN, clock=clock) as sandbox, stripe_client(sandbox) as client:
        customer = client.v1.customers.create({})
        session = client.v1.checkout.sessions.create(setup_session(customer.id))
        clock.advance(hours=24)

        expired = client.v1.checkout.sessions.retrieve(session.id)
        assert (expired.status, expired.url) == ("expired", None)
        assert httpx.get(session.url).status_code == 410
        assert httpx.post(session.url).status_code == 400


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"mode": None}, "mode"),
        ({"mode": "payment"}, "mode"),
        ({"currency": None}, "currency"),
        ({"success_url": None}, "success_url"),
        ({"success_url": "javascript:alert(1)"}, "success_url"),
        ({"customer": "cus_unknown"}, "customer"),
        ({"mode": "subscription"}, "line_items"),
        (
            {"mode": "subscription", "line_items": [{"price": "prod_1", "quantity": 1}]},
            "line_items[0][price]",
        ),
    ],
)
def test_an_invalid_session_is_rejected(client: Any, change: dict[str, object], param: str) -> None:
    customer = client.v1.customers.create({})
    wanted = setup_session(customer.id) | change
    params = {name: value for name, value in wanted.items() if value is not None}

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.checkout.sessions.create(params)
    assert refusal.value.param == param


def test_an_account_can_be_given_a_card_and_lose_it_again() -> None:
    account = str(uuid4())
    behaviour = replace(PLAIN, search_lag=3600)
    with running(behaviour=behaviour) as sandbox, stripe_client(sandbox) as client:
        identity = sandbox.card(account)

        (row,) = client.v1.customers.search(of_account(account)).data
        assert row.id == identity
        (card,) = client.v1.payment_methods.list({"customer": identity, "type": "card"}).data
        assert row.invoice_settings.default_payment_method == card.id

        assert sandbox.card(account, on_file=False) == identity
        (row,) = client.v1.customers.search(of_account(account)).data
        assert row.invoice_settings.default_payment_method is None
        assert client.v1.payment_methods.list({"customer": identity, "type": "card"}).data == []


def test_an_accounts_customer_has_the_same_id_after_a_restart() -> None:
    account = str(uuid4())

    def identity() -> str:
        with running(behaviour=PLAIN) as sandbox:
            return sandbox.card(account)

    assert identity() == identity()


ACCOUNT_ID = "6f8f57f1-6c4c-4e0a-9d53-0c5a3f9f0f01"


@pytest.mark.parametrize(
    ("account", "body"),
    [("unknown", {"card": True}), (ACCOUNT_ID, {"card": "yes"}), (ACCOUNT_ID, {})],
)
def test_an_invalid_account_or_card_is_rejected(sandbox: SandboxClient, account: str, body: dict[str, object]) -> None:
    answer = httpx.post(f"{sandbox.stripe_url}/_accounts/{account}/card", json=body)

    assert answer.status_code == 400


def test_existing_customers_are_listed_at_once_newest_first(client: Any) -> None:
    first, second, gone = (client.v1.customers.create({"metadata": {"accountId": str(uuid4())}}).id for _ in range(3))
    client.v1.customers.delete(gone)
    assert [one.id for one in client.v1.customers.list({"limit": 2}).data] == [second, first]
