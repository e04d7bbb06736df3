"""Requests to Apify's HTTP API: one attempt each, with every failure as a `VendorError`."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import httpx

from measurement_pipeline.domain.text import is_visible_ascii
from measurement_pipeline.vendors.errors import (
    CredentialsRejectedError,
    RequestRejectedError,
    ThrottledError,
    UnavailableError,
    VendorError,
    is_retryable_status,
)
from measurement_pipeline.vendors.http import (
    VendorHttpClient,
    describe_error,
    describe_foreign_response,
    may_have_been_received,
    parse_retry_after,
)

_CREDENTIALS_REJECTED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN}
# Apify sends these with status 402. They end by themselves when other runs end.
_CAPACITY_IN_USE = {"actor-memory-limit-exceeded", "concurrent-runs-limit-exceeded"}
_MAX_MESSAGE_LENGTH = 300


class ApifyWebApi:
    """Apify's API for one token. Raises ValueError, which does not contain the token, for an unusable setting."""

    def __init__(self, token: str, *, base_url: str, transport: httpx.BaseTransport | None) -> None:
        if not is_visible_ascii(token):
            raise ValueError("the Apify token is empty or contains characters that an HTTP header cannot carry")
        self._token = token
        self._http = VendorHttpClient(base_url, transport=transport)
        self.base_url = self._http.base_url

    def request(
        self,
        method: str,
        url: str,
        *,
        timeout_seconds: float,
        params: Mapping[str, object] | None = None,
        body: object = None,
    ) -> httpx.Response:
        """Send one request and return its successful response. Raises VendorError for anything else."""
        headers = {"authorization": f"Bearer {self._token}", "accept": "application/json"}
        content = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body).encode()
        if params:
            url = f"{url}?{urlencode(params)}"
        is_post = method == "POST"
        try:
            response = self._http.request(
                method, url, headers=headers, timeout_seconds=timeout_seconds, content=content
            )
        except httpx.HTTPError as error:
            # Without its cause, whose request contains the token.
            raise UnavailableError(
                f"Apify gave no response ({describe_error(error)})",
                may_have_been_received=is_post and may_have_been_received(error),
            ) from None
        safe_body = response.content.replace(self._token.encode("ascii"), b"[token]")
        foreign = describe_foreign_response(
            response.status_code, response.headers, safe_body, is_vendor_error=_is_apify_error
        )
        if foreign is not None and response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
            raise UnavailableError(f"not Apify's own response: {foreign}", may_have_been_received=is_post)
        if response.is_success:
            return response
        raise self._error(response, may_have_been_received=is_post)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _error(self, response: httpx.Response, *, may_have_been_received: bool) -> VendorError:
        kind, message = _read_error(response.content)
        status = response.status_code
        description = f"HTTP {status}" + (f", {kind}" if kind else "") + (f": {message}" if message else "")
        description = description.replace(self._token, "[token]")[:_MAX_MESSAGE_LENGTH]
        if status == HTTPStatus.TOO_MANY_REQUESTS or kind.strip().lower() in _CAPACITY_IN_USE:
            wait = parse_retry_after(response.headers)
            return ThrottledError(f"Apify asks to wait ({description})", retry_after_seconds=wait)
        if status in _CREDENTIALS_REJECTED:
            return CredentialsRejectedError(
                f"Apify rejects the token or its account: check APIFY_TOKEN ({description})"
            )
        if response.is_client_error and not is_retryable_status(status):
            return RequestRejectedError(f"Apify rejects the request ({description})", status_code=status)
        redirect = "; a redirect is not followed" if response.is_redirect else ""
        return UnavailableError(
            f"Apify is unavailable ({description}{redirect})", may_have_been_received=may_have_been_received
        )


def _is_apify_error(value: object) -> bool:
    """Apify's errors are `{"error": {"type": "…", "message": "…"}}`."""
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and isinstance(error.get("type"), str)


def _read_error(body: bytes) -> tuple[str, str]:
    """The type and the message of an Apify error, each empty if it is missing."""
    try:
        payload: Any = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    error = payload.get("error") if isinstance(payload, dict) else None
    if not isinstance(error, dict):
        return "", ""
    return str(error.get("type") or ""), " ".join(str(error.get("message") or "").split())
