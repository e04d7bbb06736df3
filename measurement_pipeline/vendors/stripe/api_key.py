"""Does Stripe take the key? One read that costs nothing and changes nothing; no account is asked about."""

from dataclasses import dataclass

import stripe

from measurement_pipeline.vendors.stripe.errors import in_detail, in_words
from measurement_pipeline.vendors.stripe.responses import OddAnswerError, read_list
from measurement_pipeline.vendors.stripe.transport import HttpxTransport


@dataclass(frozen=True, slots=True)
class KeyStanding:
    """Whether Stripe takes the key: True, False, or None where it could not be found out. `words` hold no part of it."""

    works: bool | None
    words: str


def check_key(*, secret_key: str, api_base: str, timeout_seconds: float) -> KeyStanding:
    """Ask for one customer: what the payment gate needs to read, so that a restricted key is told from a dead one."""
    http = HttpxTransport(timeout_seconds=timeout_seconds)
    client = stripe.StripeClient(
        secret_key, base_addresses={"api": api_base.rstrip("/")}, http_client=http, max_network_retries=0
    )
    try:
        read_list(client.v1.customers.list({"limit": 1}), "a list of customers")
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        return KeyStanding(False, in_words(error))
    except stripe.StripeError as error:
        return KeyStanding(None, in_detail(error))
    except OddAnswerError as odd:
        return KeyStanding(None, f"Stripe's answer could not be read: {odd}.")
    finally:
        http.close()
    return KeyStanding(True, "Stripe takes the key")


def is_test_mode_key(secret_key: str) -> bool:
    """Whether the key is one with which every card is invented."""
    return secret_key.startswith(("sk_test_", "rk_test_"))
