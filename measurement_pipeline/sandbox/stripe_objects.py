"""Objects of the Stripe double: customers, payment methods, Checkout sessions, and a search with a delay.

Objects are dictionaries in the form of the JSON response. Routes, keys and parameters are in `stripe_double`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from measurement_pipeline.sandbox.memory import Memory
from measurement_pipeline.sandbox.scenarios import Behaviour

Object = dict[str, Any]
SESSION_LIFE = timedelta(hours=24)
PAYMENT_METHOD_TYPES = ("card", "link", "us_bank_account")
"""Payment method types that the account enables. Checkout offers all of them unless the session limits them."""


class StripeError(Exception):
    """An error response in Stripe's format."""

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
    """Stripe's response to an unknown id: 404 in the path, 400 in a parameter."""
    return StripeError(status, f"No such {what}: '{value}'", code="resource_missing", param=param)


class StripeObjects:
    """One Stripe account in test mode."""

    def __init__(
        self, behaviour: Behaviour, base_url: Callable[[], str], clock: Callable[[], datetime], memory: Memory
    ) -> None:
        self._behaviour = behaviour
        self._base_url = base_url
        self._clock = clock
        self._customers = memory.table("stripe customers")
        self._methods = memory.table("stripe payment methods")
        self._sessions = memory.table("stripe checkout sessions")
        self._numbers = memory.table("stripe numbers")
        # State of search: each written customer with the time from which search shows it.
        self._index = memory.table("stripe search")
        self._searches: deque[datetime] = deque()

    def create_customer(self, fields: Mapping[str, Any], *, search_at_once: bool = False) -> Object:
        """Creates a customer. An account's first customer has the same id in every process with the same seed."""
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
        """A customer, also a deleted one. Raises `StripeError` if it does not exist."""
        if identity not in self._customers:
            raise missing("customer", identity, param, status)
        found: Object = self._customers[identity]
        return found

    def living_customer(self, identity: str) -> Object:
        """A customer that a parameter names. Raises `StripeError` for a deleted one too."""
        customer = self.customer(identity, param="customer", status=400)
        if customer.get("deleted"):
            raise missing("customer", identity, "customer")
        return customer

    def living_customers(self) -> list[Object]:
        """Customers that are not deleted, newest first. Unlike search, listing has no delay."""
        return [one for one in reversed(self._customers.documents()) if not one.get("deleted")]

    def delete_customer(self, identity: str) -> Object:
        """Deletes a customer and its payment methods; search shows it after the delay."""
        if self.customer(identity).get("deleted"):
            raise missing("customer", identity, "id", 404)
        self._remove_payment_methods(identity)
        deleted = {"id": identity, "object": "customer", "deleted": True}
        self._customers[identity] = deleted
        self._index[identity] = [*self._index[identity], (self._search_time().isoformat(), None)]
        return deleted

    def search_customers(self, name: str, value: str, limit: int) -> list[Object]:
        """Customers with this metadata, newest first, as search shows them.

        Raises `StripeError` 429 above the limit per second.
        """
        now = self._clock()
        allowed = self._behaviour.searches_per_second
        while self._searches and self._searches[0] <= now - timedelta(seconds=1):
            self._searches.popleft()
        if allowed and len(self._searches) >= allowed:
            raise StripeError(429, "Too many search requests.", code="rate_limit")
        self._searches.append(now)
        seen = [_as_seen(versions, now) for versions in reversed(self._index.documents())]
        return [customer for customer in seen if customer and customer["metadata"].get(name) == value][:limit]

    def payment_methods(self, customer: str, kind: str | None = None) -> list[Object]:
        """The payment methods of a customer, newest first; of one type, or of all."""
        found = reversed(self._methods.documents())
        return [one for one in found if one["customer"] == customer and kind in (None, one["type"])]

    def create_session(self, fields: Mapping[str, Any]) -> Object:
        """Creates a Checkout session, open for 24 hours. Its customer must not be deleted."""
        identity = self._new_id("cs_test")
        now = self._clock()
        allowed = (
            list(fields["allowed_payment_method_types"].values()) if "allowed_payment_method_types" in fields else None
        )
        session = {
            "id": identity,
            "object": "checkout.session",
            "allowed_payment_method_types": allowed,
            "cancel_url": fields.get("cancel_url"),
            "client_reference_id": fields.get("client_reference_id"),
            "created": int(now.timestamp()),
            "currency": fields.get("currency"),
            "customer": self.living_customer(fields["customer"])["id"] if "customer" in fields else None,
            "expires_at": int((now + SESSION_LIFE).timestamp()),
            "livemode": False,
            "metadata": dict(fields.get("metadata", {})),
            "mode": fields["mode"],
            "payment_method_types": [kind for kind in PAYMENT_METHOD_TYPES if allowed is None or kind in allowed],
            "payment_status": "no_payment_required",
            "setup_intent": self._new_id("seti") if fields["mode"] == "setup" else None,
            "status": "open",
            "subscription": None,
            "success_url": fields["success_url"],
        }
        self._sessions[identity] = session
        return self._shown(session)

    def session(self, identity: str) -> Object:
        """A session in its current state. Raises `StripeError` if it does not exist."""
        if identity not in self._sessions:
            raise missing("checkout.session", identity, "session", 404)
        session: Object = self._sessions[identity]
        if session["status"] == "open" and session["expires_at"] <= self._clock().timestamp():
            self._sessions[identity] = session = session | {"status": "expired"}
        return self._shown(session)

    def expire_session(self, identity: str) -> Object:
        """Expires an open session. Raises `StripeError` if it is not open."""
        session = self._open_session(identity)
        self._sessions[identity] = session = session | {"status": "expired"}
        return self._shown(session)

    def complete_session(self, identity: str, kind: str | None = None) -> Object:
        """Completes a session like the hosted page, with a payment method of type `kind`, by default the first offered one.

        The customer's default does not change; a subscription has its own payment method. Raises `StripeError` if the session
        is not open or does not offer that type.
        """
        session = self._open_session(identity)
        kind = kind or session["payment_method_types"][0]
        if kind not in session["payment_method_types"]:
            raise StripeError(400, f"This session does not offer {kind}.")
        if session["customer"] is None:
            session["customer"] = self.create_customer({})["id"]
        customer = self.living_customer(session["customer"])
        self._add_payment_method(customer["id"], kind)
        if session["mode"] == "subscription":
            session["subscription"] = self._new_id("sub")
        self._written(customer)
        self._sessions[identity] = session = session | {"status": "complete"}
        return self._shown(session)

    def set_card(self, account: str, *, card: bool) -> Object:
        """Gives an account's customer a default card, or removes all payment methods; search shows it at once."""
        customer = self._of_account(account)
        if not card:
            self._remove_payment_methods(customer["id"])
            return self._default(customer, None)
        cards = self.payment_methods(customer["id"], "card") or [self._add_payment_method(customer["id"], "card")]
        return self._default(customer, cards[0]["id"])

    def give_payment_method(
        self, account: str, kind: str, *, expires: tuple[int, int] | None, wallet: str | None, default: bool
    ) -> Object:
        """Adds a payment method to an account's customer; search shows it at once. Returns the customer."""
        customer = self._of_account(account)
        method = self._add_payment_method(customer["id"], kind, expires=expires, wallet=wallet)
        return self._default(
            customer, method["id"] if default else customer["invoice_settings"]["default_payment_method"]
        )

    def _of_account(self, account: str) -> Object:
        living = [one for one in self._customers.documents() if one.get("metadata", {}).get("accountId") == account]
        return living[0] if living else self.create_customer({"metadata": {"accountId": account}})

    def _default(self, customer: Object, method: str | None) -> Object:
        customer["invoice_settings"]["default_payment_method"] = method
        self._customers[customer["id"]] = customer
        self._written(customer, search_at_once=True)
        return customer

    def _shown(self, session: Object) -> Object:
        """The session with the current address of its page, because the doubles may use another port after a restart."""
        is_open = session["status"] == "open"
        return session | {"url": f"{self._base_url()}/checkout/{session['id']}" if is_open else None}

    def _open_session(self, identity: str) -> Object:
        session = self.session(identity)
        if session["status"] != "open":
            raise StripeError(400, f"This session is not open: it is {session['status']}.")
        return session

    def _add_payment_method(
        self, customer: str, kind: str, *, expires: tuple[int, int] | None = None, wallet: str | None = None
    ) -> Object:
        now = self._clock()
        year, month = expires or (now.year + 3, 12)
        details: Object = {}
        if kind == "card":
            details = {"brand": "visa", "exp_month": month, "exp_year": year, "last4": "4242"}
            details["wallet"] = None if wallet is None else {"type": wallet}
        method: Object = {
            "id": self._new_id("pm"),
            "object": "payment_method",
            kind: details,
            "created": int(now.timestamp()),
            "customer": customer,
            "livemode": False,
            "metadata": {},
            "type": kind,
        }
        self._methods[method["id"]] = method
        return method

    def _remove_payment_methods(self, customer: str) -> None:
        for method in self.payment_methods(customer):
            del self._methods[method["id"]]

    def _written(self, customer: Object, *, search_at_once: bool = False) -> None:
        seen_from = self._clock() if search_at_once else self._search_time()
        self._index[customer["id"]] = [*self._index.get(customer["id"], []), (seen_from.isoformat(), customer)]

    def _search_time(self) -> datetime:
        return self._clock() + timedelta(seconds=self._behaviour.search_lag)

    def _new_id(self, prefix: str) -> str:
        return self._id(prefix, str(self._numbers.count("made")))

    def _id(self, prefix: str, of: str) -> str:
        digest = blake2b(f"{self._behaviour.seed}:{of}".encode(), digest_size=10)
        return f"{prefix}_{digest.hexdigest()}"


def _as_seen(versions: list[tuple[str, Object | None]], now: datetime) -> Object | None:
    seen = [version for seen_from, version in versions if datetime.fromisoformat(seen_from) <= now]
    return seen[-1] if seen else None
