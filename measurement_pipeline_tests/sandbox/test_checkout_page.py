"""The hosted checkout page: a person opens the link, presses the button, and the card is saved."""

from typing import Any

import httpx
import pytest

from measurement_pipeline.sandbox import SandboxClient

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SUCCESS = "https://example.com/saved?session={CHECKOUT_SESSION_ID}"


def test_pressing_the_button_lists_a_card_and_leads_on(client: Any) -> None:
    customer = client.v1.customers.create({})
    session = client.v1.checkout.sessions.create(
        {"customer": customer.id, "mode": "setup", "currency": "usd", "success_url": SUCCESS}
    )
    page = httpx.get(session.url)
    assert page.status_code == 200
    assert "Save card" in page.text
    assert client.v1.payment_methods.list({"customer": customer.id, "type": "card"}).data == []

    pressed = httpx.post(session.url)

    assert pressed.status_code == 303
    assert pressed.headers["location"] == f"https://example.com/saved?session={session.id}"
    cards = client.v1.payment_methods.list({"customer": customer.id, "type": "card", "limit": 1})
    assert [card.type for card in cards.data] == ["card"]
    complete = client.v1.checkout.sessions.retrieve(session.id)
    assert (complete.status, complete.url) == ("complete", None)


def test_setup_does_not_change_the_default(client: Any) -> None:
    customer = client.v1.customers.create({})
    session = client.v1.checkout.sessions.create(
        {"customer": customer.id, "mode": "setup", "currency": "usd", "success_url": SUCCESS}
    )
    httpx.post(session.url)

    settings = client.v1.customers.retrieve(customer.id).invoice_settings
    assert settings.default_payment_method is None


def test_without_a_list_the_page_offers_whatever_the_dashboard_enables(client: Any) -> None:
    customer = client.v1.customers.create({})
    session = client.v1.checkout.sessions.create(
        {"customer": customer.id, "mode": "setup", "currency": "usd", "success_url": SUCCESS}
    )
    assert "Save bank account" in httpx.get(session.url).text

    assert httpx.post(session.url, data={"type": "us_bank_account"}).status_code == 303

    saved = client.v1.payment_methods.list({"customer": customer.id})
    assert [method.type for method in saved.data] == ["us_bank_account"]
    assert client.v1.payment_methods.list({"customer": customer.id, "type": "card"}).data == []


def test_the_page_offers_only_the_listed_types(client: Any) -> None:
    customer = client.v1.customers.create({})
    session = client.v1.checkout.sessions.create(
        {"customer": customer.id, "mode": "setup", "allowed_payment_method_types": ["card"], "success_url": SUCCESS}
    )
    page = httpx.get(session.url).text
    assert "Save card" in page
    assert "Save bank account" not in page

    assert httpx.post(session.url, data={"type": "us_bank_account"}).status_code == 400
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"


def test_a_subscription_stores_the_card_and_does_not_change_the_default(client: Any) -> None:
    customer = client.v1.customers.create({})
    session = client.v1.checkout.sessions.create(
        {
            "customer": customer.id,
            "mode": "subscription",
            "line_items": [{"price": "price_free", "quantity": 1}],
            "subscription_data": {"trial_period_days": 30},
            "success_url": SUCCESS,
        }
    )
    httpx.post(session.url)

    (card,) = client.v1.payment_methods.list({"customer": customer.id, "type": "card"}).data
    settings = client.v1.customers.retrieve(customer.id).invoice_settings
    assert card.type == "card"
    assert settings.default_payment_method is None
    complete = client.v1.checkout.sessions.retrieve(session.id)
    assert str(complete.subscription).startswith("sub_")


def test_the_button_works_once(client: Any) -> None:
    customer = client.v1.customers.create({})
    session = client.v1.checkout.sessions.create(
        {"customer": customer.id, "mode": "setup", "currency": "usd", "success_url": SUCCESS}
    )
    httpx.post(session.url)

    assert httpx.post(session.url).status_code == 400
    assert "on file" in httpx.get(session.url).text
    assert len(client.v1.payment_methods.list({"customer": customer.id, "type": "card"}).data) == 1


def test_an_expired_session_saves_nothing(client: Any) -> None:
    customer = client.v1.customers.create({})
    session = client.v1.checkout.sessions.create(
        {"customer": customer.id, "mode": "setup", "currency": "usd", "success_url": SUCCESS}
    )
    client.v1.checkout.sessions.expire(session.id)

    assert httpx.get(session.url).status_code == 410
    assert httpx.post(session.url).status_code == 400
    assert client.v1.payment_methods.list({"customer": customer.id, "type": "card"}).data == []


def test_an_unknown_session_is_not_found_and_not_echoed_as_html(sandbox: SandboxClient) -> None:
    answer = httpx.get(f"{sandbox.stripe_url}/checkout/<script>")

    assert answer.status_code == 404
    assert "<script>" not in answer.text
