"""Posts a line of text to a webhook, as Slack takes it.

The address is a secret (whoever knows it may post), so the request goes through httpx's transport alone: no redirect is followed,
no proxy of the environment is used, and no log line or error names the address.
"""

import httpx

_SECONDS = 5.0


class WebhookError(Exception):
    """The webhook did not take the message. The text says why, without its address."""


class Webhook:
    """One webhook. `transport` is for tests of what no receiver does."""

    def __init__(self, url: str, *, seconds: float = _SECONDS, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._timeout = httpx.Timeout(seconds).as_dict()
        self._transport = transport

    def post(self, text: str) -> None:
        """Raises `WebhookError` unless it is taken (2xx)."""
        request = httpx.Request("POST", self._url, json={"text": _escaped(text)}, extensions={"timeout": self._timeout})
        try:
            with self._transport or httpx.HTTPTransport() as transport:
                response = transport.handle_request(request)
                try:
                    begins = next(response.iter_bytes(), b"")
                finally:
                    response.close()
        except httpx.HTTPError as error:
            # Without its cause, whose text and request hold the address.
            raise WebhookError(f"ALERT_WEBHOOK_URL cannot be reached ({type(error).__name__})") from None
        if not response.is_success:
            redirect = ", and a redirect is not followed" if response.is_redirect else ""
            raise WebhookError(f"ALERT_WEBHOOK_URL answered {response.status_code}{redirect}")
        # Slack's "ok" is called text/html too, so the body decides.
        if begins.lstrip().startswith(b"<"):
            raise WebhookError(
                f"ALERT_WEBHOOK_URL answered {response.status_code} with a web page, not as a webhook does: look for a proxy or "
                "a captive portal"
            )


def _escaped(text: str) -> str:
    # Slack reads <…> as links and mentions of everybody, and asks for these three to be escaped.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
