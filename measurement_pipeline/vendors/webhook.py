"""Posts one line of text to a webhook in Slack's format.

The URL is a secret, because anyone who has it may post. Logs and errors never contain it.
"""

import json

import httpx

from measurement_pipeline.vendors.errors import UnavailableError
from measurement_pipeline.vendors.http import VendorHttpClient

_TIMEOUT_SECONDS = 5.0


class Webhook:
    """One webhook. `transport` lets tests simulate a receiver."""

    def __init__(
        self, url: str, *, seconds: float = _TIMEOUT_SECONDS, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = url
        self._timeout_seconds = seconds
        self._transport = transport

    def post(self, text: str) -> None:
        """Send one message. Raises `UnavailableError`, whose text does not contain the URL, unless it is accepted (2xx)."""
        try:
            response = self._send(
                json.dumps({"text": _escape(text)}, separators=(",", ":"), ensure_ascii=False).encode()
            )
        except httpx.HTTPError as error:
            # Without its cause, whose text and request contain the URL.
            raise UnavailableError(f"ALERT_WEBHOOK_URL cannot be reached ({type(error).__name__})") from None
        except ValueError:
            raise UnavailableError("ALERT_WEBHOOK_URL is not an http(s) URL") from None
        if not response.is_success:
            redirect = ", and a redirect is not followed" if response.is_redirect else ""
            raise UnavailableError(f"ALERT_WEBHOOK_URL answered {response.status_code}{redirect}")
        # Slack sends its "ok" as text/html too, so only the body distinguishes a page from a receipt.
        if response.content.lstrip().startswith(b"<"):
            raise UnavailableError(
                f"ALERT_WEBHOOK_URL answered {response.status_code} with a web page instead of a receipt: check for a proxy or a "
                "captive portal"
            )

    def _send(self, content: bytes) -> httpx.Response:
        # Opened for each message: alerts are rare, and loading the certificate authorities early would delay every start.
        client = VendorHttpClient(self._url, transport=self._transport)
        try:
            return client.request(
                "POST",
                self._url,
                headers={"content-type": "application/json"},
                timeout_seconds=self._timeout_seconds,
                content=content,
            )
        finally:
            client.close()


def _escape(text: str) -> str:
    # Slack reads <…> as links and mentions of everyone, and requires these three characters to be escaped.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
