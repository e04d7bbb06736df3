"""How Stripe's library reaches the network: one httpx client, with a limit on every wait.

It asks the configured host and no other: redirects are not followed, and proxies that the environment names are not used.

The library's own httpx client hands request bodies over in a way that httpx has deprecated, and
opens an asynchronous client beside the one that is used.
"""

from collections.abc import Mapping

import httpx
import stripe

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
        """Send one request: body, status and headers of its answer."""
        try:
            answer = self._client.request(method, url, headers=headers, content=post_data)
        except httpx.HTTPError as error:
            lost = stripe.APIConnectionError(type(error).__name__, should_retry=True)  # type: ignore[no-untyped-call]
            raise lost from error
        return _readable(answer), answer.status_code, answer.headers

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _readable(answer: httpx.Response) -> bytes:
    """The body, or an error without words where something other than Stripe refused in its stead.

    The library breaks on errors of another shape than Stripe's, and looks at the status only after that.
    """
    if answer.is_success:
        return answer.content
    try:
        body = answer.json()
    except ValueError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    return answer.content if isinstance(error, dict) else b'{"error": {}}'
