"""Connects Stripe's library to `VendorHttpClient`: the configured host only, with a time limit.

The library's own httpx client passes request bodies in a deprecated way, and opens an asynchronous client that is never used.
"""

import logging
from collections.abc import Mapping

import httpx
import stripe

from measurement_pipeline.vendors.errors import is_retryable_status
from measurement_pipeline.vendors.http import VendorHttpClient, describe_foreign_response
from measurement_pipeline.vendors.stripe.errors import ForeignResponseError

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 20.0


class StripeTransport(stripe.HTTPClient):
    """Synchronous requests. Network failures become stripe.APIConnectionError. Raises ValueError for an invalid base URL."""

    name = "httpx"

    def __init__(self, api_base: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        super().__init__()
        self._client = VendorHttpClient(api_base)
        self._timeout_seconds = timeout_seconds

    def request(  # type: ignore[override]  # the library's own clients return bytes as well
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request, and return the body, status and headers of its response.

        Raises stripe.APIConnectionError if there is no response, and ForeignResponseError if Stripe did not send it.
        """
        content = None if post_data is None else post_data.encode()
        try:
            response = self._client.request(
                method, url, headers=headers, timeout_seconds=self._timeout_seconds, content=content
            )
        except httpx.HTTPError as error:
            lost = stripe.APIConnectionError(type(error).__name__, should_retry=True)  # type: ignore[no-untyped-call]
            raise lost from error
        body = _redact_key(response.content, headers)
        foreign = describe_foreign_response(
            response.status_code, response.headers, body, is_vendor_error=_is_stripe_error
        )
        if foreign is None:
            return response.content, response.status_code, response.headers
        if is_retryable_status(response.status_code):
            # "Try again later" from a gateway counts too. The library fails on an error body that is not Stripe's.
            return b'{"error": {}}', response.status_code, response.headers
        logger.warning("not Stripe's own response: %s", foreign)
        raise ForeignResponseError(foreign)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _is_stripe_error(value: object) -> bool:
    """Stripe's errors are `{"error": {"type": "…", …}}`."""
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and isinstance(error.get("type"), str)


def _redact_key(body: bytes, headers: Mapping[str, str]) -> bytes:
    key = headers.get("Authorization", "").removeprefix("Bearer ").encode()
    return body.replace(key, b"[key]") if key else body
