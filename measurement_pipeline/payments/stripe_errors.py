"""Why Stripe gave no answer, in words that name the setting to look at.

Stripe's own messages are left out: some of them repeat a part of the key.
"""

import stripe

# Parameters of ours that a setting decides, by how their names begin.
_SETTING_OF = {
    "line_items": "STRIPE_FREE_TIER_PRICE_ID",
    "subscription_data": "STRIPE_TRIAL_DAYS",
    "success_url": "CHECKOUT_SUCCESS_URL",
}


def in_words(error: stripe.StripeError) -> str:
    """One sentence for an operator, free of secrets."""
    match error:
        case stripe.AuthenticationError():
            return "Stripe does not accept the key: check STRIPE_SECRET_KEY."
        case stripe.PermissionError():
            return (
                "The key in STRIPE_SECRET_KEY lacks a permission: it has to read customers and "
                "payment methods, and to write customers and checkout sessions."
            )
        case stripe.RateLimitError():
            return "Stripe limits how often it may be asked; it will be asked again later."
        case stripe.APIConnectionError():
            return "Stripe could not be reached: check STRIPE_API_BASE and the network."
        case stripe.InvalidRequestError(param=str(param)):
            settings = [name for start, name in _SETTING_OF.items() if param.startswith(start)]
            hint = f": check {settings[0]}" if settings else ""
            return f"Stripe refused the request for its {param} ({error.code or 'invalid'}){hint}."
        case _ if error.http_status is not None:
            return f"Stripe answered with HTTP {error.http_status} ({type(error).__name__})."
        case _:
            return f"Stripe could not be asked ({type(error).__name__})."


def retry_after(error: stripe.StripeError) -> float | None:
    """Seconds that Stripe asks to wait; None where it does not say."""
    text = dict(error.headers or {}).get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() else None
