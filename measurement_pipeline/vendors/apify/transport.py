"""How Apify's library reaches the network: one attempt a call, over `outbound`, and its refusals as this package's errors.

Left to itself the library follows redirects, uses the environment's proxies, and repeats what failed, a start included.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import httpx
from apify_client.http_clients import HttpClient

from measurement_pipeline.vendors.apify.errors import (
    ApifyError,
    RejectedError,
    ThrottledError,
    TokenRefusedError,
    UnavailableError,
)
from measurement_pipeline.vendors.http import (
    VendorHttpClient,
    describe_error,
    describe_foreign_response,
    may_have_been_received,
    parse_retry_after,
)

_TOKEN_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN}
# The request is not at fault: the same one may be answered the next time.
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY}
# They come as a 402, and end by themselves as other runs do.
_BUSY = {"actor-memory-limit-exceeded", "concurrent-runs-limit-exceeded"}
_LONGEST_WORDS = 300


class OutboundTransport(HttpClient):
    """The library's own place for another HTTP client. Raises ApifyError for whatever is no success."""

    def __init__(self, token: str, outbound: VendorHttpClient) -> None:
        super().__init__(
            token=token, max_retries=0, timeout_max=timedelta(days=1), user_agent_suffix="measurement-pipeline"
        )
        self._token = token
        self._outbound = outbound

    def send_request(
        self,
        *,
        method: str,
        url: str,
        headers: dict[str, str],
        content: bytes | Iterator[bytes] | None,
        timeout: float | None,
        stream: bool,  # noqa: ARG002  # an answer is always read whole
    ) -> httpx.Response:
        """One request. What the library would make of its failure never happens: that is raised here already."""
        if timeout is None or not isinstance(content, bytes | None):
            raise TypeError("a request has a whole body and a time within which it must be answered")
        try:
            answer = self._outbound.request(method, url, headers=headers, timeout_seconds=timeout, content=content)
        except httpx.HTTPError as error:
            # Without its cause, whose request holds the token.
            raise UnavailableError(
                f"Apify gave no answer ({describe_error(error)})",
                may_have_been_received=method == "POST" and may_have_been_received(error),
            ) from None
        body = answer.content.replace(self._token.encode("ascii"), b"[token]")
        foreign = describe_foreign_response(answer.status_code, answer.headers, body, is_vendor_error=_is_apify_error)
        if foreign is not None and answer.status_code != HTTPStatus.TOO_MANY_REQUESTS:
            raise UnavailableError(f"not Apify's own answer: {foreign}", may_have_been_received=method == "POST")
        if answer.is_success:
            return answer
        raise self._refusal(method, answer)

    def _refusal(self, method: str, answer: httpx.Response) -> ApifyError:
        kind, words = _error(answer.content)
        status = answer.status_code
        said = f"HTTP {status}" + (f", {kind}" if kind else "") + (f": {words}" if words else "")
        said = said.replace(self._token, "[token]")[:_LONGEST_WORDS]
        if status == HTTPStatus.TOO_MANY_REQUESTS or kind.strip().lower() in _BUSY:
            return ThrottledError(f"Apify asks to wait ({said})", retry_after_seconds=parse_retry_after(answer.headers))
        if status in _TOKEN_REFUSED:
            return TokenRefusedError(f"Apify refuses the token, or its account: check APIFY_TOKEN ({said})")
        if answer.is_client_error and status not in _PASSING:
            return RejectedError(f"Apify refuses the request ({said})", status_code=status)
        redirect = "; a redirect is not followed" if answer.is_redirect else ""
        return UnavailableError(f"Apify could not answer ({said}{redirect})", may_have_been_received=method == "POST")


def _is_apify_error(value: object) -> bool:
    """Apify's errors are `{"error": {"type": "…", "message": "…"}}`."""
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and isinstance(error.get("type"), str)


def _error(body: bytes) -> tuple[str, str]:
    """Apify's own kind of an error and its words, each empty where there is none."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict):
        return "", ""
    return str(error.get("type") or ""), " ".join(str(error.get("message") or "").split())
