"""Store and read payment decisions. Unknown decisions are never stored. The statements are in `accounts.sql`."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from measurement_pipeline.domain.payment import (
    ALLOWED_VALID_FOR,
    CHECKOUT_MARGIN,
    CheckoutLink,
    Decision,
    PaymentState,
    PaymentVerdict,
)
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.postgres.sql import statements

_SQL = statements("accounts")


@dataclass(frozen=True, slots=True)
class PaymentDecisions:
    """The payment gate's `PaymentDecisionStore`. Each call opens its own connection, so any thread can use it."""

    database_url: str

    def load(self, account: UUID) -> PaymentState:
        """Everything stored about an account's payment, in one statement."""
        with connect(self.database_url) as connection:
            return load(connection, account)

    def record(self, account: UUID, decision: Decision) -> None:
        """Store a decision. Raises `ValueError` for an unknown one, which neither allows nor denies."""
        if decision.verdict is PaymentVerdict.UNKNOWN:
            raise ValueError(f"an unknown payment decision must not be stored (account {account})")
        with connect(self.database_url) as connection, connection.transaction():
            ensure_account(connection, account)
            if decision.customer is not None:
                connection.execute(_SQL["set_customer"], {"account": account, "customer": decision.customer})
            connection.execute(
                _SQL["record"],
                {
                    "account": account,
                    "verdict": decision.verdict.value,
                    "checkout_url": decision.checkout_url,
                    "checkout_expires_at": decision.checkout_expires_at,
                },
            )


def load(connection: Connection, account: UUID) -> PaymentState:
    """Everything stored about an account's payment."""
    return load_states(connection, [account])[account]


def list_fresh(connection: Connection, accounts: Iterable[UUID]) -> dict[UUID, Decision]:
    """The fresh decisions on `accounts`; an account without one is missing."""
    states = load_states(connection, accounts)
    return {account: state.fresh_decision for account, state in states.items() if state.fresh_decision is not None}


def load_states(connection: Connection, accounts: Iterable[UUID]) -> dict[UUID, PaymentState]:
    """Everything stored about the payment of each account, in one statement."""
    parameters = {
        "accounts": list(accounts),
        "allowed_serves": ALLOWED_VALID_FOR.total_seconds(),
        "checkout_margin": CHECKOUT_MARGIN.total_seconds(),
    }
    return {
        row["account"]: PaymentState(
            fresh_decision=Decision(PaymentVerdict.ALLOWED, f"a card was on file at {row['checked_at']}")
            if row["is_fresh"]
            else None,
            open_checkout=CheckoutLink(row["checkout_url"], row["checkout_expires_at"])
            if row["is_checkout_open"]
            else None,
            customer=row["customer"],
            today=row["today"],
        )
        for row in connection.execute(_SQL["payment_state"], parameters)
    }


def ensure_account(connection: Connection, account: UUID, *, name: str | None = None) -> None:
    """Insert the account unless it exists."""
    connection.execute(_SQL["ensure"], {"account": account, "name": name})


def forget_checkouts(connection: Connection) -> None:
    """Forget all checkout pages: Stripe's double, which created them, may use another port now."""
    connection.execute(_SQL["forget_checkouts"])
