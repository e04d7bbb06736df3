"""The payment gate: asks Stripe whether an account has a card, and where it could save one.

Nothing is spent on an unknown, and nobody is refused for one: whatever keeps Stripe from answering
comes back as such. Keeping decisions is the caller's, through `Decisions`.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import Protocol
from uuid import UUID

import stripe
from stripe.params.checkout import SessionCreateParams

from measurement_pipeline.domain.payment import (
    CARD_ON_FILE,
    SAVE_A_CARD,
    SUBSCRIBE,
    Decision,
    PaymentMethods,
    PaymentVerdict,
    no_card_reason,
)
from measurement_pipeline.vendors.stripe.errors import in_words, retry_after
from measurement_pipeline.vendors.stripe.responses import (
    OddAnswerError,
    is_replayed,
    read_card,
    read_list,
    read_text,
    read_time,
)
from measurement_pipeline.vendors.stripe.transport import HttpxTransport

# An account should have one customer. Where it has more, a card on any of them counts.
_CUSTOMERS_LOOKED_AT = 10
# One page of a customer's cards, the newest first: the most that Stripe lists at once.
_CARDS_LOOKED_AT = 100
_SESSIONS_TRIED = 4


class PaymentDecisionStore(Protocol):
    """What is remembered of earlier answers, by the database's clock."""

    def fresh(self, account: UUID) -> Decision | None:
        """An allowed decision not older than ALLOWED_SERVES; None otherwise."""
        ...

    def today(self) -> date:
        """The date in UTC."""
        ...

    def open_checkout(self, account: UUID) -> tuple[str, datetime] | None:
        """The last checkout link and when it closes, unless CHECKOUT_MARGIN or less is left."""
        ...

    def customer(self, account: UUID) -> str | None:
        """The account's Stripe customer, where one is known."""
        ...

    def record(self, account: UUID, decision: Decision) -> None:
        """Keep an allowed or denied decision in place of the last, with its link and customer."""
        ...


def check_payment_method(
    account: UUID, *, gate: "StripeGate", decisions: PaymentDecisionStore, want_checkout: bool
) -> Decision:
    """Say whether an account may spend, from what is remembered or else from Stripe.

    `want_checkout`: make a checkout link for an account without a card, where none is open.
    """
    remembered = decisions.fresh(account)
    if remembered is not None:
        return remembered
    decision = gate.decide(
        account,
        customer=decisions.customer(account),
        open_checkout=decisions.open_checkout(account),
        want_checkout=want_checkout,
        today=decisions.today(),
    )
    if decision.verdict is not PaymentVerdict.UNKNOWN:
        decisions.record(account, decision)
    return decision


class StripeGate:
    """Stripe, as far as the free tier needs it.

    `api_base` is scheme and host. `success_url` is where Checkout sends a person afterwards.
    Without `free_tier_price_id` Checkout saves a card and charges nothing; with it, it subscribes
    to that price with `trial_days` of trial. `now` only tells one hour's idempotency keys from the
    next's.
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
        if not re.fullmatch(r"[!-~]+", secret_key):
            raise ValueError("the Stripe key is empty or holds characters that no header can carry")
        # At lower levels the library repeats what Stripe said of the key.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._http = http_client or HttpxTransport()
        self._stripe = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_base.rstrip("/")},
            http_client=self._http,
            max_network_retries=max_network_retries,
        )
        self._success_url = success_url
        self._price = free_tier_price_id
        self._trial_days = trial_days
        self._now = now

    def close(self) -> None:
        """Close the connections."""
        self._http.close()  # type: ignore[no-untyped-call]  # stripe leaves it without types

    def decide(
        self,
        account: UUID,
        *,
        customer: str | None,
        open_checkout: tuple[str, datetime] | None,
        want_checkout: bool,
        today: date,
    ) -> Decision:
        """Ask Stripe. `customer` and `open_checkout` are what is remembered of the account; `today` decides which cards expired.

        Never raises for what Stripe or the network does: that is an unknown with its reason.
        """
        try:
            return self._decide(account, customer, open_checkout, want_checkout=want_checkout, today=today)
        except stripe.StripeError as error:
            wait = retry_after(error)
            return Decision(PaymentVerdict.UNKNOWN, in_words(error), retry_after_seconds=wait)
        except OddAnswerError as odd:
            return Decision(PaymentVerdict.UNKNOWN, f"Stripe's answer could not be read: {odd}.")

    def _decide(
        self,
        account: UUID,
        known: str | None,
        link: tuple[str, datetime] | None,
        *,
        want_checkout: bool,
        today: date,
    ) -> Decision:
        found: dict[str, PaymentMethods | None] = {}
        for customer in self._customers(account, known):
            methods = found[customer] = self._payment_methods(customer)
            if methods is not None and no_card_reason([methods], today=today) is None:
                return Decision(PaymentVerdict.ALLOWED, CARD_ON_FILE, customer=customer)
        reason = no_card_reason(filter(None, found.values()), today=today)
        assert reason is not None
        living = next((customer for customer, methods in found.items() if methods is not None), None)
        gone = known if known and found[known] is None else None
        if gone:  # and its checkout session with it
            link = None
        if link is None and want_checkout:
            living = living or self._create_customer(account, gone)
            link = self._open_session(account, living)
        if link is None:
            return Decision(PaymentVerdict.DENIED, reason, customer=living)
        what_to_do = SUBSCRIBE.format(days=self._trial_days) if self._price else SAVE_A_CARD
        return Decision(PaymentVerdict.DENIED, f"{reason} {what_to_do}", *link, customer=living)

    def _customers(self, account: UUID, known: str | None) -> Iterator[str]:
        """The account's customers: the remembered one, and search only where that has no card.

        Search lags behind what was written and is limited, but it also finds a customer that
        something else made for the account, and that may be the one with the card.
        """
        if known:
            yield known
        found = self._stripe.v1.customers.search(
            # The id goes into a query language: it is a UUID, and nothing else may come here.
            {"query": f"metadata['accountId']:'{account}'", "limit": _CUSTOMERS_LOOKED_AT}
        )
        for customer in read_list(found, "a search for customers"):
            identity = read_text(customer, "id")
            if identity != known:
                yield identity

    def _payment_methods(self, customer: str) -> PaymentMethods | None:
        """What a customer has saved; None where the customer is no longer there.

        The list is read even where a default is set: a default can be a bank debit or expired, and a card that is the default
        is in the list too. Cards saved through a wallet or through Link's card form are of type card and are listed.
        """
        try:
            found = self._stripe.v1.customers.retrieve(customer)
        except stripe.InvalidRequestError as error:
            # Stripe names a missing customer by this code. Its 404 without the code is about the address.
            if error.http_status == HTTPStatus.NOT_FOUND and error.code == "resource_missing":
                return None
            raise
        if read_text(found, "id") != customer:
            raise OddAnswerError("another customer than the one asked for")
        if getattr(found, "deleted", False):
            return None
        listing = self._stripe.v1.payment_methods.list(
            {"customer": customer, "type": "card", "limit": _CARDS_LOOKED_AT}
        )
        cards = [read_card(card) for card in read_list(listing, "a list of payment methods")]
        default = getattr(getattr(found, "invoice_settings", None), "default_payment_method", None)
        return PaymentMethods(cards, has_default=bool(default))

    def _create_customer(self, account: UUID, gone: str | None) -> str:
        # Two requests that race make one customer. One made after another was deleted needs a key
        # of its own, or the key would bring the deleted one back.
        key = f"customer:{account}" + (f":after:{gone}" if gone else "")
        made = self._stripe.v1.customers.create({"metadata": {"accountId": str(account)}}, {"idempotency_key": key})
        return read_text(made, "id")

    def _open_session(self, account: UUID, customer: str) -> tuple[str, datetime]:
        """A checkout session that is open: its URL, and when it closes."""
        params = self._session_params(account, customer)
        # Requests that race make one session. The parameters are in the key, since a key that comes
        # with others is an error; so is the hour, since Stripe repeats even a failure for its key.
        described = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:16]
        first_key = key = f"checkout:{account}:{described}:{self._now():%Y-%m-%dT%H}"
        for _ in range(_SESSIONS_TRIED):
            session = self._stripe.v1.checkout.sessions.create(params, {"idempotency_key": key})
            identity = read_text(session, "id")
            if is_replayed(session):  # as it was when it was made: it may have been used meanwhile
                session = self._stripe.v1.checkout.sessions.retrieve(identity)
            if read_text(session, "status") == "open":
                return read_text(session, "url"), read_time(session, "expires_at")
            key = f"{first_key}:after:{identity}"
        raise OddAnswerError("each new checkout session is closed already")

    def _session_params(self, account: UUID, customer: str) -> SessionCreateParams:
        params: SessionCreateParams = {
            # Without it Checkout offers whatever the account's Dashboard enables, and a bank debit does not open the gate.
            "allowed_payment_method_types": ["card"],
            "customer": customer,
            "client_reference_id": str(account),
            "metadata": {"accountId": str(account)},
            "success_url": self._success_url,
        }
        if self._price is None:
            return {**params, "mode": "setup", "currency": "usd"}
        return {
            **params,
            "mode": "subscription",
            "line_items": [{"price": self._price, "quantity": 1}],
            "subscription_data": {
                "trial_period_days": self._trial_days,
                "metadata": {"accountId": str(account)},
            },
        }
