"""What the Stripe double holds: customers, cards, Checkout sessions, and a search that lags.

Objects are the dictionaries that go out as JSON. Routes, keys and parameters are `stripe_double`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from measurement_pipeline.sandbox.behaviour import Behaviour

Object = dict[str, Any]
SESSION_LIFE = timedelta(hours=24)


class StripeError(Exception):
    """An answer that is an error, in Stripe's words."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        fields = {"type": kind, "message": message, "code": code, "param": param}
        self.error = {name: value for name, value in fields.items() if value is not None}


def missing(what: str, value: str, param: str, status: int = 400) -> StripeError:
    """Stripe's answer to an id it does not have: 404 for one in the path, 400 for a parameter."""
    return StripeError(status, f"No such {what}: '{value}'", code="resource_missing", param=param)


class StripeObjects:
    """One Stripe account in test mode."""

    def __init__(self, behaviour: Behaviour, base_url: Callable[[], str], clock: Callable[[], datetime]) -> None:
        self._behaviour = behaviour
        self._base_url = base_url
        self._clock = clock
        self._customers: dict[str, Object] = {}
        self._cards: dict[str, Object] = {}
        self._sessions: dict[str, Object] = {}
        self._made = 0
        # What search sees: each customer as it was written, with the time from which search does.
        self._index: dict[str, list[tuple[datetime, Object | None]]] = {}
        self._searches: deque[datetime] = deque()

    def create_customer(self, fields: Mapping[str, Any], *, search_at_once: bool = False) -> Object:
        """A new customer. An account's first has the same id in any process with the same seed."""
        metadata = dict(fields.get("metadata", {}))
        account = metadata.get("accountId")
        identity = self._id("cus", f"account:{account}") if account else self._new_id("cus")
        if identity in self._customers:
            identity = self._new_id("cus")
        customer = {
            "id": identity,
            "object": "customer",
            "created": int(self._clock().timestamp()),
            "description": fields.get("description"),
            "email": fields.get("email"),
            "invoice_settings": {"default_payment_method": None},
            "livemode": False,
            "metadata": metadata,
            "name": fields.get("name"),
        }
        self._customers[identity] = customer
        self._written(customer, search_at_once=search_at_once)
        return customer

    def customer(self, identity: str, *, param: str = "id", status: int = 404) -> Object:
        """A customer, deleted ones included. Raises `StripeError` where there is none."""
        if identity not in self._customers:
            raise missing("customer", identity, param, status)
        return self._customers[identity]

    def living_customer(self, identity: str) -> Object:
        """A customer that a parameter names. Raises `StripeError` for a deleted one too."""
        customer = self.customer(identity, param="customer", status=400)
        if customer.get("deleted"):
            raise missing("customer", identity, "customer")
        return customer

    def living_customers(self) -> list[Object]:
        """Those that were not deleted, newest first. Listing sees at once what search sees late."""
        return [one for one in reversed(self._customers.values()) if not one.get("deleted")]

    def delete_customer(self, identity: str) -> Object:
        """Deletes a customer and its cards; search notices only after the lag."""
        if self.customer(identity).get("deleted"):
            raise missing("customer", identity, "id", 404)
        self._remove_cards(identity)
        self._customers[identity] = {"id": identity, "object": "customer", "deleted": True}
        self._index[identity].append((self._search_time(), None))
        return self._customers[identity]

    def search_customers(self, name: str, value: str, limit: int) -> list[Object]:
        """Customers whose metadata has it, newest first, as search sees them.

        Raises `StripeError` 429 beyond the limit a second.
        """
        now = self._clock()
        allowed = self._behaviour.searches_per_second
        while self._searches and self._searches[0] <= now - timedelta(seconds=1):
            self._searches.popleft()
        if allowed and len(self._searches) >= allowed:
            raise StripeError(429, "Too many search requests.", code="rate_limit")
        self._searches.append(now)
        seen = [self._as_seen(identity, now) for identity in reversed(self._index)]
        return [customer for customer in seen if customer and customer["metadata"].get(name) == value][:limit]

    def cards(self, customer: str) -> list[Object]:
        """The card payment methods of a customer, newest first."""
        return [card for card in reversed(self._cards.values()) if card["customer"] == customer]

    def create_session(self, fields: Mapping[str, Any]) -> Object:
        """A Checkout session, open for 24 hours. The customer it names must live."""
        identity = self._new_id("cs_test")
        now = self._clock()
        session = {
            "id": identity,
            "object": "checkout.session",
            "cancel_url": fields.get("cancel_url"),
            "client_reference_id": fields.get("client_reference_id"),
            "created": int(now.timestamp()),
            "currency": fields.get("currency"),
            "customer": self.living_customer(fields["customer"])["id"] if "customer" in fields else None,
            "expires_at": int((now + SESSION_LIFE).timestamp()),
            "livemode": False,
            "metadata": dict(fields.get("metadata", {})),
            "mode": fields["mode"],
            "payment_status": "no_payment_required",
            "setup_intent": self._new_id("seti") if fields["mode"] == "setup" else None,
            "status": "open",
            "subscription": None,
            "success_url": fields["success_url"],
            "url": f"{self._base_url()}/checkout/{identity}",
        }
        self._sessions[identity] = session
        return session

    def session(self, identity: str) -> Object:
        """A session as it is now. Raises `StripeError` where there is none."""
        if identity not in self._sessions:
            raise missing("checkout.session", identity, "session", 404)
        session = self._sessions[identity]
        if session["status"] == "open" and session["expires_at"] <= self._clock().timestamp():
            session |= {"status": "expired", "url": None}
        return session

    def expire_session(self, identity: str) -> Object:
        """Ends an open session. Raises `StripeError` where it is not open."""
        session = self._open_session(identity)
        session |= {"status": "expired", "url": None}
        return session

    def complete_session(self, identity: str) -> Object:
        """What the hosted page does once a card was entered.

        Setup mode lists the card and leaves the default alone; a subscription makes it the default.
        Raises `StripeError` where the session is not open.
        """
        session = self._open_session(identity)
        if session["customer"] is None:
            session["customer"] = self.create_customer({})["id"]
        customer = self.living_customer(session["customer"])
        card = self._add_card(customer["id"])
        if session["mode"] == "subscription":
            customer["invoice_settings"]["default_payment_method"] = card["id"]
            session["subscription"] = self._new_id("sub")
        self._written(customer)
        session |= {"status": "complete", "url": None}
        return session

    def set_card(self, account: str, *, card: bool) -> Object:
        """Gives an account's customer a card, or takes its cards away; search sees it at once."""
        living = [one for one in self._customers.values() if one.get("metadata", {}).get("accountId") == account]
        customer = living[0] if living else self.create_customer({"metadata": {"accountId": account}})
        default = None
        if card:
            default = (self.cards(customer["id"]) or [self._add_card(customer["id"])])[0]["id"]
        else:
            self._remove_cards(customer["id"])
        customer["invoice_settings"]["default_payment_method"] = default
        self._written(customer, search_at_once=True)
        return customer

    def _open_session(self, identity: str) -> Object:
        session = self.session(identity)
        if session["status"] != "open":
            raise StripeError(400, f"This session is not open: it is {session['status']}.")
        return session

    def _add_card(self, customer: str) -> Object:
        now = self._clock()
        card: Object = {
            "id": self._new_id("pm"),
            "object": "payment_method",
            "card": {"brand": "visa", "exp_month": 12, "exp_year": now.year + 3, "last4": "4242"},
            "created": int(now.timestamp()),
            "customer": customer,
            "livemode": False,
            "metadata": {},
            "type": "card",
        }
        self._cards[card["id"]] = card
        return card

    def _remove_cards(self, customer: str) -> None:
        self._cards = {identity: card for identity, card in self._cards.items() if card["customer"] != customer}

    def _written(self, customer: Object, *, search_at_once: bool = False) -> None:
        seen_from = self._clock() if search_at_once else self._search_time()
        self._index.setdefault(customer["id"], []).append((seen_from, deepcopy(customer)))

    def _search_time(self) -> datetime:
        return self._clock() + timedelta(seconds=self._behaviour.search_lag)

    def _as_seen(self, identity: str, now: datetime) -> Object | None:
        versions = [version for seen_from, version in self._index[identity] if seen_from <= now]
        return versions[-1] if versions else None

    def _new_id(self, prefix: str) -> str:
        self._made += 1
        return self._id(prefix, str(self._made))

    def _id(self, prefix: str, of: str) -> str:
        digest = blake2b(f"{self._behaviour.seed}:{of}".encode(), digest_size=10)
        return f"{prefix}_{digest.hexdigest()}"
