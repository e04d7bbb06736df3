"""Checkout sessions: the page on which an account saves its card."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import stripe
from stripe.params.checkout import SessionCreateParams

from measurement_pipeline.domain.payment import CheckoutLink
from measurement_pipeline.vendors.stripe.responses import is_replayed, read_text, read_time, unexpected

_MAX_SESSIONS_TRIED = 4


class CheckoutSessions:
    """Creates Checkout sessions. `StripeGate` describes the parameters."""

    def __init__(
        self,
        client: stripe.StripeClient,
        *,
        success_url: str,
        free_tier_price_id: str | None,
        trial_days: int,
        now: Callable[[], datetime],
    ) -> None:
        self._stripe = client
        self._success_url = success_url
        self._price_id = free_tier_price_id
        self._trial_days = trial_days
        self._now = now

    def open_session(self, account: UUID, customer: str) -> CheckoutLink:
        """Return the link of an open session."""
        params = self._params(account, customer)
        # Concurrent requests create one session. The key contains the parameters, because Stripe rejects a known key with other
        # parameters, and the hour, because Stripe repeats even a failure for a known key.
        params_hash = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:16]
        first_key = key = f"checkout:{account}:{params_hash}:{self._now():%Y-%m-%dT%H}"
        for _ in range(_MAX_SESSIONS_TRIED):
            session = self._stripe.v1.checkout.sessions.create(params, {"idempotency_key": key})
            session_id = read_text(session, "id")
            if is_replayed(session):  # a replay shows the session as it was created: it may have been used since
                session = self._stripe.v1.checkout.sessions.retrieve(session_id)
            if read_text(session, "status") == "open":
                return CheckoutLink(read_text(session, "url"), read_time(session, "expires_at"))
            key = f"{first_key}:after:{session_id}"
        raise unexpected("each new checkout session is closed already")

    def _params(self, account: UUID, customer: str) -> SessionCreateParams:
        params: SessionCreateParams = {
            # Without it Checkout offers whatever the account's Dashboard enables, and a bank debit does not open the gate.
            "allowed_payment_method_types": ["card"],
            "customer": customer,
            "client_reference_id": str(account),
            "metadata": {"accountId": str(account)},
            "success_url": self._success_url,
        }
        if self._price_id is None:
            return {**params, "mode": "setup", "currency": "usd"}
        return {
            **params,
            "mode": "subscription",
            "line_items": [{"price": self._price_id, "quantity": 1}],
            "subscription_data": {
                "trial_period_days": self._trial_days,
                "metadata": {"accountId": str(account)},
            },
        }
