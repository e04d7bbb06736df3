"""Whether an account may spend: records and messages of a payment decision. Pure.

`vendors/stripe` asks Stripe; `postgres/payment_decisions` stores the decision.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

ALLOWED_VALID_FOR = timedelta(minutes=10)
"""How long an allowed decision is valid before Stripe must be asked again."""

CHECKOUT_MARGIN = timedelta(minutes=30)
"""A checkout link with less time left is not returned again: a person needs time to open it."""

CARD_ON_FILE = "A card is on file."

NO_CARD = "No card is on file for this account."
NOT_A_CARD = "No card is on file for this account: only another payment method, such as a bank debit or Link."
CARD_EXPIRED = "No valid card is on file for this account: the newest one expired in {month:02d}/{year}."
SAVE_A_CARD = "Open the checkout link and save a card; nothing is charged. The request then goes on by itself."
SUBSCRIBE = "Open the checkout link and subscribe, with {days} days of trial. The request then goes on by itself."


class PaymentVerdict(StrEnum):
    """Whether an account may spend. Allowed and denied are stored; unknown never is."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SavedCard:
    """The expiry of a saved card, which can be charged through the last day of that month."""

    exp_year: int
    exp_month: int

    def is_expired(self, today: date) -> bool:
        """Whether the month of expiry has passed."""
        return (self.exp_year, self.exp_month) < (today.year, today.month)


@dataclass(frozen=True, slots=True)
class PaymentMethods:
    """The payment methods of one Stripe customer: cards, newest first, and whether any type of method is the default."""

    cards: Sequence[SavedCard]
    has_default: bool = False


def no_card_reason(found: Iterable[PaymentMethods], *, today: date) -> str | None:
    """Why an account with these payment methods has no card that can be charged; None if it has one.

    Only cards count. Expired cards do not: Stripe renews the date of a saved card by itself where the issuer allows it, so a
    date in the past means that the issuer declines the card.
    """
    methods = list(found)
    cards = [card for one in methods for card in one.cards]
    if any(not card.is_expired(today) for card in cards):
        return None
    if cards:
        return CARD_EXPIRED.format(month=cards[0].exp_month, year=cards[0].exp_year)
    return NOT_A_CARD if any(one.has_default for one in methods) else NO_CARD


# After so many unknown decisions in a row Stripe counts as unreachable, and the other accounts are not checked.
_MAX_UNKNOWN_IN_A_ROW = 2


@dataclass(frozen=True, slots=True)
class Decision:
    """The payment decision for an account.

    `reason`: one or two sentences for a person, without secrets. `checkout_url` and `checkout_expires_at` (UTC): set on a denial,
    if a link was requested or is still open. `customer`: the existing Stripe customer, if known. `retry_after_seconds`: set on an
    unknown decision, if Stripe said how long to wait.
    """

    verdict: PaymentVerdict
    reason: str
    checkout_url: str | None = None
    checkout_expires_at: datetime | None = None
    customer: str | None = None
    retry_after_seconds: float | None = None


class CheckoutLink(NamedTuple):
    """A Checkout page and the moment at which it closes (UTC)."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class PaymentState:
    """Everything stored about an account's payment, read at one moment of the database's clock.

    `fresh_decision`: an allowed decision not older than ALLOWED_VALID_FOR. `open_checkout`: the last link handed out, if more
    than CHECKOUT_MARGIN is left. `customer`: the account's Stripe customer. `today`: the date in UTC.
    """

    fresh_decision: Decision | None
    open_checkout: CheckoutLink | None
    customer: str | None
    today: date


def decide_accounts(accounts: Iterable[UUID], ask: Callable[[UUID], Decision]) -> dict[UUID, Decision]:
    """Decide each account once; after two unknown decisions in a row the rest are unknown without a call.

    A call that Stripe does not answer takes a minute, and a hundred of them would delay the waiting requests.
    """
    decisions: dict[UUID, Decision] = {}
    unknowns = 0
    for account in dict.fromkeys(accounts):
        if unknowns < _MAX_UNKNOWN_IN_A_ROW:
            decisions[account] = ask(account)
            unknowns = unknowns + 1 if decisions[account].verdict is PaymentVerdict.UNKNOWN else 0
        else:
            decisions[account] = Decision(
                PaymentVerdict.UNKNOWN, "Stripe gave no answer for other accounts, so it was not asked."
            )
    return decisions
