"""Does Stripe accept the secret key? Reads one customer, which is free and changes nothing."""

import stripe

from measurement_pipeline.vendors.credentials import CredentialCheck, check_credentials
from measurement_pipeline.vendors.stripe.errors import explain_in_detail, to_vendor_error
from measurement_pipeline.vendors.stripe.responses import read_list
from measurement_pipeline.vendors.stripe.transport import StripeTransport


def check_secret_key(*, secret_key: str, api_base: str, timeout_seconds: float) -> CredentialCheck:
    """Read one customer, as the payment gate must: a restricted key needs that permission."""

    def list_one_customer() -> None:
        transport = StripeTransport(api_base, timeout_seconds=timeout_seconds)
        client = stripe.StripeClient(
            secret_key, base_addresses={"api": api_base.rstrip("/")}, http_client=transport, max_network_retries=0
        )
        try:
            read_list(client.v1.customers.list({"limit": 1}), "a list of customers")
        except stripe.StripeError as error:
            raise to_vendor_error(error, explain=explain_in_detail) from None
        finally:
            transport.close()

    return check_credentials("Stripe", list_one_customer)


def is_test_mode_key(secret_key: str) -> bool:
    """Whether the key belongs to test mode, in which every card is invented."""
    return secret_key.startswith(("sk_test_", "rk_test_"))
