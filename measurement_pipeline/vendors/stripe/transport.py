"""How Stripe's library reaches the network: one httpx client, with a limit on every wait.

It asks the configured host and no other: redirects are not followed, and proxies that the environment names are not used.

The library's own httpx client hands request bodies over in a way that httpx has deprecated, and
opens an asynchronous client beside the one that is used.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus

import httpx
import stripe

from measurement_pipeline.vendors.http import describe_foreign_response
from measurement_pipeline.vendors.stripe.errors import ForeignAnswerError

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 20.0


class HttpxTransport(stripe.HTTPClient):
    """Synchronous requests only. Failures of the network become stripe.APIConnectionError."""

    name = "httpx"

    def __init__(
        self, transport: httpx.BaseTransport | None = None, *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        super().__init__()
        # A transport of its own still trusts the authorities that SSL_CERT_FILE names; without trust_env that would be lost.
        self._client = httpx.Client(
            timeout=timeout_seconds,
            transport=transport or httpx.HTTPTransport(),
            follow_redirects=False,
            trust_env=False,
        )

    def request(  # type: ignore[override]  # the library's own clients return bytes as well
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request: body, status and headers of its answer.

        Raises stripe.APIConnectionError where no answer came, and ForeignAnswerError where it is not Stripe's own.
        """
        try:
            answer = self._client.request(method, url, headers=headers, content=post_data)
        except httpx.HTTPError as error:
            lost = stripe.APIConnectionError(type(error).__name__, should_retry=True)  # type: ignore[no-untyped-call]
            raise lost from error
        foreign = describe_foreign_response(
            answer.status_code, answer.headers, _without_key(answer.content, headers), is_vendor_error=_is_stripe_error
        )
        if foreign is None:
            return answer.content, answer.status_code, answer.headers
        if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or answer.is_server_error:
            # "Try again later" from a gateway too. The library fails on an error body that is not Stripe's.
            return b'{"error": {}}', answer.status_code, answer.headers
        logger.warning("not Stripe's own answer: %s", foreign)
        raise ForeignAnswerError(foreign)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _is_stripe_error(value: object) -> bool:
    """Stripe's errors are `{"error": {"type": "…", …}}`."""
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and isinstance(error.get("type"), str)


def _without_key(body: bytes, headers: Mapping[str, str]) -> bytes:
    key = headers.get("Authorization", "").removeprefix("Bearer ").encode()
    return body.replace(key, b"[key]") if key else body
