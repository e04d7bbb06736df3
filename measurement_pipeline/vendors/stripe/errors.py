"""Converts exceptions of Stripe's library to `VendorError`s that name the setting to check.

Stripe's own messages are left out, because some of them repeat a part of the key.
"""

from collections.abc import Callable

import stripe

from measurement_pipeline.vendors.errors import (
    CredentialsRejectedError,
    RequestRejectedError,
    ThrottledError,
    UnavailableError,
    VendorError,
)
from measurement_pipeline.vendors.http import parse_retry_after

# What to check when Stripe rejects a parameter, by how its name begins.
_CHECK = {
    "allowed_payment_method_types": "that cards are enabled in Stripe's Dashboard",
    "line_items": "STRIPE_FREE_TIER_PRICE_ID",
    "subscription_data": "STRIPE_TRIAL_DAYS",
    "success_url": "CHECKOUT_SUCCESS_URL",
}


class ForeignResponseError(stripe.APIConnectionError):
    """Stripe did not send the response: a CDN, a proxy or a captive portal did. A retry is safe."""

    def __init__(self, description: str) -> None:
        super().__init__(description, should_retry=True)  # type: ignore[no-untyped-call]  # Stripe's library has no types here
        self.description = description


_EXPLANATIONS: dict[type[stripe.StripeError], str] = {
    stripe.AuthenticationError: "Stripe does not accept the key: check STRIPE_SECRET_KEY.",
    stripe.PermissionError: (
        "The key in STRIPE_SECRET_KEY lacks a permission: it must read customers and payment methods, and write customers and "
        "checkout sessions."
    ),
    stripe.RateLimitError: "Stripe limits the request rate; the request is sent again later.",
    stripe.APIConnectionError: "Stripe could not be reached: check STRIPE_API_BASE and the network.",
}


def explain(error: stripe.StripeError) -> str:
    """One sentence for an operator, without secrets."""
    if isinstance(error, stripe.InvalidRequestError) and error.param:
        checks = [check for start, check in _CHECK.items() if error.param.startswith(start)]
        hint = f": check {checks[0]}" if checks else ""
        return f"Stripe refused the request for its {error.param} ({error.code or 'invalid'}){hint}."
    if isinstance(error, ForeignResponseError):
        # Clients read this sentence, so it must not quote a proxy's page about the internal network.
        return "Something other than Stripe answered: check STRIPE_API_BASE and the network, a proxy for example."
    status = f"HTTP {error.http_status}, " if error.http_status else ""
    return _EXPLANATIONS.get(type(error)) or f"Stripe answered with an error ({status}{type(error).__name__})."


def explain_in_detail(error: stripe.StripeError) -> str:
    """As `explain`, plus the beginning of a foreign response. For operators, never for clients."""
    return f"{explain(error)} ({error.description})" if isinstance(error, ForeignResponseError) else explain(error)


def to_vendor_error(
    error: stripe.StripeError, *, explain: Callable[[stripe.StripeError], str] = explain
) -> VendorError:
    """The `VendorError` of the same meaning."""
    message = explain(error)
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return CredentialsRejectedError(message)
    if isinstance(error, stripe.InvalidRequestError | stripe.CardError):
        return RequestRejectedError(message, status_code=error.http_status or 400)
    kind = ThrottledError if isinstance(error, stripe.RateLimitError) else UnavailableError
    return kind(message, retry_after_seconds=_retry_after_seconds(error))


def _retry_after_seconds(error: stripe.StripeError) -> float | None:
    return parse_retry_after({name.lower(): value for name, value in dict(error.headers or {}).items()})
