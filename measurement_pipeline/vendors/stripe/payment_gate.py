"""The payment gate: asks Stripe whether an account has a card, and where it can save one.

If Stripe gives no usable response, the decision is `unknown`: nothing is spent, and no account is refused.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import Protocol
from uuid import UUID

import stripe

from measurement_pipeline.domain.payment import (
    CARD_ON_FILE,
    SAVE_A_CARD,
    SUBSCRIBE,
    CheckoutLink,
    Decision,
    PaymentMethods,
    PaymentState,
    PaymentVerdict,
    no_card_reason,
)
from measurement_pipeline.domain.text import is_visible_ascii
from measurement_pipeline.vendors.errors import UnavailableError, UnexpectedResponseError, VendorError
from measurement_pipeline.vendors.stripe.checkout import CheckoutSessions
from measurement_pipeline.vendors.stripe.errors import to_vendor_error
from measurement_pipeline.vendors.stripe.responses import read_card, read_list, read_text, unexpected
from measurement_pipeline.vendors.stripe.transport import StripeTransport

# An account should have one customer. If it has more, a card on any of them counts.
_MAX_CUSTOMERS = 10
# One page of a customer's cards, newest first: the most that Stripe lists at once.
_MAX_CARDS = 100


class PaymentDecisionStore(Protocol):
    """Stores decisions. Its ages are measured by the database's clock."""

    def load(self, account: UUID) -> PaymentState:
        """Everything stored about an account's payment, in one read."""
        ...

    def record(self, account: UUID, decision: Decision) -> None:
        """Replace the stored decision by an allowed or denied one, with its link and customer."""
        ...


def check_payment_method(
    account: UUID,
    *,
    gate: "StripeGate",
    decisions: PaymentDecisionStore,
    want_checkout: bool,
    state: PaymentState | None = None,
) -> Decision:
    """Decide whether an account may spend: by a fresh stored decision, or else by asking Stripe.

    `want_checkout`: create a checkout link for an account without a card, unless one is open. `state`: what the caller has read
    from `decisions` already.
    """
    if state is None:
        state = decisions.load(account)
    if state.fresh_decision is not None:
        return state.fresh_decision
    decision = gate.decide(
        account,
        customer=state.customer,
        open_checkout=state.open_checkout,
        want_checkout=want_checkout,
        today=state.today,
    )
    if decision.verdict is not PaymentVerdict.UNKNOWN:
        decisions.record(account, decision)
    return decision


class StripeGate:
    """The Stripe calls that the payment gate needs.

    `api_base` is scheme and host. Checkout redirects to `success_url`. Without `free_tier_price_id` Checkout saves a card and
    charges nothing. With it, Checkout subscribes to that price with `trial_days` of trial. `now` only separates the idempotency
    keys of different hours.
    """

    def __init__(
        self,
        *,
        secret_key: str,
        api_base: str,
        success_url: str,
        free_tier_price_id: str | None = None,
        trial_days: int = 30,
        http_client: stripe.HTTPClient | None = None,
        max_network_retries: int = 2,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not is_visible_ascii(secret_key):
            raise ValueError("the Stripe key is empty or contains characters that an HTTP header cannot carry")
        # At lower levels the library logs Stripe's messages about the key.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._http = http_client or StripeTransport(api_base)
        self._stripe = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_base.rstrip("/")},
            http_client=self._http,
            max_network_retries=max_network_retries,
        )
        self._checkout = CheckoutSessions(
            self._stripe,
            success_url=success_url,
            free_tier_price_id=free_tier_price_id,
            trial_days=trial_days,
            now=now,
        )
        self._instruction = SAVE_A_CARD if free_tier_price_id is None else SUBSCRIBE.format(days=trial_days)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()  # type: ignore[no-untyped-call]  # Stripe's library has no types here

    def decide(
        self,
        account: UUID,
        *,
        customer: str | None,
        open_checkout: CheckoutLink | None,
        want_checkout: bool,
        today: date,
    ) -> Decision:
        """Ask Stripe. `customer` and `open_checkout` are stored values; `today` decides which cards have expired.

        Never raises for an error of Stripe or the network: the decision is `unknown`, with the reason.
        """
        try:
            return self._decide(account, customer, open_checkout, want_checkout=want_checkout, today=today)
        except stripe.StripeError as error:
            return _unknown(to_vendor_error(error))
        except UnexpectedResponseError as error:
            return _unknown(error)

    def _decide(
        self,
        account: UUID,
        known_customer: str | None,
        link: CheckoutLink | None,
        *,
        want_checkout: bool,
        today: date,
    ) -> Decision:
        methods_of: dict[str, PaymentMethods | None] = {}
        for customer in self._customers(account, known_customer):
            methods = methods_of[customer] = self._payment_methods(customer)
            if methods is not None and no_card_reason([methods], today=today) is None:
                return Decision(PaymentVerdict.ALLOWED, CARD_ON_FILE, customer=customer)
        reason = no_card_reason(filter(None, methods_of.values()), today=today)
        assert reason is not None
        existing = next((customer for customer, methods in methods_of.items() if methods is not None), None)
        deleted = known_customer if known_customer and methods_of[known_customer] is None else None
        if deleted:  # its checkout session was deleted with it
            link = None
        if link is None and want_checkout:
            existing = existing or self._create_customer(account, deleted)
            link = self._checkout.open_session(account, existing)
        if link is None:
            return Decision(PaymentVerdict.DENIED, reason, customer=existing)
        return Decision(
            PaymentVerdict.DENIED, f"{reason} {self._instruction}", link.url, link.expires_at, customer=existing
        )

    def _customers(self, account: UUID, known_customer: str | None) -> Iterator[str]:
        """The account's customers: the stored one first, then the ones that a search finds.

        Search lags behind writes and has a low rate limit. But it also finds a customer that another program created for the
        account, and that customer may be the one with the card.
        """
        if known_customer:
            yield known_customer
        response = self._stripe.v1.customers.search(
            # The value becomes part of a query language, so only a UUID may be inserted.
            {"query": f"metadata['accountId']:'{account}'", "limit": _MAX_CUSTOMERS}
        )
        for customer in read_list(response, "a search for customers"):
            customer_id = read_text(customer, "id")
            if customer_id != known_customer:
                yield customer_id

    def _payment_methods(self, customer: str) -> PaymentMethods | None:
        """A customer's saved payment methods; None if the customer was deleted.

        The list is read even if a default is set: a default can be a bank debit or expired, and the list contains a card that is
        the default. Cards saved through a wallet or through Link's card form are of type card and are listed.
        """
        try:
            response = self._stripe.v1.customers.retrieve(customer)
        except stripe.InvalidRequestError as error:
            # Stripe marks a missing customer with this code. Its 404 without the code is about the URL.
            if error.http_status == HTTPStatus.NOT_FOUND and error.code == "resource_missing":
                return None
            raise
        if read_text(response, "id") != customer:
            raise unexpected("another customer than the requested one")
        if getattr(response, "deleted", False):
            return None
        listing = self._stripe.v1.payment_methods.list({"customer": customer, "type": "card", "limit": _MAX_CARDS})
        cards = [read_card(card) for card in read_list(listing, "a list of payment methods")]
        default = getattr(getattr(response, "invoice_settings", None), "default_payment_method", None)
        return PaymentMethods(cards, has_default=bool(default))

    def _create_customer(self, account: UUID, deleted: str | None) -> str:
        # Concurrent requests create one customer. A replacement for a deleted customer needs another key, because Stripe would
        # return the deleted one for the same key.
        key = f"customer:{account}" + (f":after:{deleted}" if deleted else "")
        customer = self._stripe.v1.customers.create({"metadata": {"accountId": str(account)}}, {"idempotency_key": key})
        return read_text(customer, "id")


def _unknown(error: VendorError) -> Decision:
    wait = error.retry_after_seconds if isinstance(error, UnavailableError) else None
    return Decision(PaymentVerdict.UNKNOWN, f"{str(error).rstrip('.')}.", retry_after_seconds=wait)
