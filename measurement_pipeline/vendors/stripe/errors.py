"""Why Stripe gave no answer, in words that name the setting to look at.

Stripe's own messages are left out: some of them repeat a part of the key.
"""

import stripe

# What to check when Stripe refuses a parameter of ours, by how its name begins.
_CHECK = {
    "allowed_payment_method_types": "that cards are enabled in Stripe's Dashboard",
    "line_items": "STRIPE_FREE_TIER_PRICE_ID",
    "subscription_data": "STRIPE_TRIAL_DAYS",
    "success_url": "CHECKOUT_SUCCESS_URL",
}


class ForeignAnswerError(stripe.APIConnectionError):
    """Something other than Stripe answered: a CDN, a proxy, a captive portal. Nothing is known, and a retry is safe."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer, should_retry=True)  # type: ignore[no-untyped-call]  # stripe leaves it without types
        self.answer = answer


_WORDS: dict[type[stripe.StripeError], str] = {
    stripe.AuthenticationError: "Stripe does not accept the key: check STRIPE_SECRET_KEY.",
    stripe.PermissionError: (
        "The key in STRIPE_SECRET_KEY lacks a permission: it has to read customers and payment methods, and to "
        "write customers and checkout sessions."
    ),
    stripe.RateLimitError: "Stripe limits how often it may be asked; it will be asked again later.",
    stripe.APIConnectionError: "Stripe could not be reached: check STRIPE_API_BASE and the network.",
}


def in_words(error: stripe.StripeError) -> str:
    """One sentence for an operator, free of secrets."""
    if isinstance(error, stripe.InvalidRequestError) and error.param:
        checks = [check for start, check in _CHECK.items() if error.param.startswith(start)]
        hint = f": check {checks[0]}" if checks else ""
        return f"Stripe refused the request for its {error.param} ({error.code or 'invalid'}){hint}."
    if isinstance(error, ForeignAnswerError):
        # Clients read this sentence: what a proxy's page says of the network inside is not theirs.
        return "Something other than Stripe answered: check STRIPE_API_BASE and the network, a proxy for example."
    status = f"HTTP {error.http_status}, " if error.http_status else ""
    return _WORDS.get(type(error)) or f"Stripe answered with an error ({status}{type(error).__name__})."


def in_detail(error: stripe.StripeError) -> str:
    """As `in_words`, with what a foreign answer began with: for `doctor`, never for a client."""
    return f"{in_words(error)} ({error.answer})" if isinstance(error, ForeignAnswerError) else in_words(error)


def retry_after(error: stripe.StripeError) -> float | None:
    """Seconds that Stripe asks to wait; None where it does not say."""
    text = dict(error.headers or {}).get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() else None
