"""What Stripe last said of an account. Only answers are kept; an unknown has nowhere to go. Statements: `accounts.sql`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from measurement_pipeline.domain.payment import ALLOWED_VALID_FOR, CHECKOUT_MARGIN, Decision, PaymentVerdict
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.postgres.sql import statements

_SQL = statements("accounts")


@dataclass(frozen=True, slots=True)
class PaymentDecisions:
    """The `Decisions` that `payments.gate` asks for. Each call connects and commits, so that it can be used from any thread."""

    database_url: str

    def fresh(self, account: UUID) -> Decision | None:
        """An allowed decision that may still be spent on, by the database's clock."""
        with connect(self.database_url) as connection:
            return fresh(connection, account)

    def today(self) -> date:
        """Today's date in UTC by the database's clock: it decides which cards have expired."""
        with connect(self.database_url) as connection:
            found = connection.execute(_SQL["today"]).fetchone()
        assert found is not None
        today: date = found["today"]
        return today

    def open_checkout(self, account: UUID) -> tuple[str, datetime] | None:
        """The checkout page that a denied account was last given, if it stays open for a while: its URL and when it closes."""
        with connect(self.database_url) as connection:
            return open_checkout(connection, account)

    def customer(self, account: UUID) -> str | None:
        """The account's Stripe customer, once known."""
        with connect(self.database_url) as connection:
            found = connection.execute(_SQL["customer"], {"account": account}).fetchone()
        return None if found is None else found["stripe_customer_id"]

    def record(self, account: UUID, decision: Decision) -> None:
        """Keep an answer. Raises `ValueError` for an unknown: it is neither a yes nor a no."""
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


def fresh(connection: Connection, account: UUID) -> Decision | None:
    """An allowed decision that may still be spent on, by the database's clock."""
    return fresh_of(connection, [account]).get(account)


def fresh_of(connection: Connection, accounts: Iterable[UUID]) -> dict[UUID, Decision]:
    """The allowed decisions about `accounts` that may still be spent on; an account without one is not there."""
    parameters = {"accounts": list(accounts), "allowed_serves": ALLOWED_VALID_FOR.total_seconds()}
    return {
        row["account"]: Decision(PaymentVerdict.ALLOWED, f"a card was on file at {row['checked_at']}")
        for row in connection.execute(_SQL["fresh"], parameters)
    }


def open_checkout(connection: Connection, account: UUID) -> tuple[str, datetime] | None:
    """The checkout page that a denied account was last given, if it stays open for a while: its URL and when it closes."""
    parameters = {"account": account, "margin": CHECKOUT_MARGIN.total_seconds()}
    found = connection.execute(_SQL["open_checkout"], parameters).fetchone()
    return None if found is None else (found["checkout_url"], found["checkout_expires_at"])


def ensure_account(connection: Connection, account: UUID, *, name: str | None = None) -> None:
    """Make the account's row if it is not there yet."""
    connection.execute(_SQL["ensure"], {"account": account, "name": name})


def forget_checkouts(connection: Connection) -> None:
    """Hand out no checkout page again that was made before now: for doubles of Stripe that may have moved to another port."""
    connection.execute(_SQL["forget_checkouts"])
