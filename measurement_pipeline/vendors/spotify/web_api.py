"""Requests to the Web API, with a token that is fetched when needed. Short waits are retried here.

`lookup_batch` limits how long one lookup may wait. The caller interprets the responses.
"""

import base64
import threading
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus

import httpx

from measurement_pipeline.domain.backoff import exponential_backoff
from measurement_pipeline.domain.text import is_visible_ascii
from measurement_pipeline.vendors.errors import CredentialsRejectedError, UnexpectedResponseError, is_retryable_status
from measurement_pipeline.vendors.http import (
    VendorHttpClient,
    describe_error,
    describe_foreign_response,
    parse_retry_after,
)
from measurement_pipeline.vendors.spotify.lookup_batch import LookupBatch
from measurement_pipeline.vendors.spotify.responses import (
    describe_message,
    is_token_error,
    is_web_api_error,
    read_token,
)

_MIN_WAIT_SECONDS = 1.0
# Longer than any wait budget, which ends the lookup before.
_MAX_WAIT_SECONDS = 3600.0
_QUICK_RETRY_SECONDS = (0.5, 1.0)


class SpotifyWebApi:
    """The Web API for one client. Threads may share it. Raises ValueError for an unusable setting."""

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        api: VendorHttpClient,
        accounts: VendorHttpClient,
        timeout_seconds: float,
    ) -> None:
        if not (is_visible_ascii(client_id) and is_visible_ascii(client_secret)):
            raise ValueError(
                "Spotify's client id or secret is empty or contains characters that an HTTP header cannot carry"
            )
        login = base64.b64encode(f"{client_id}:{client_secret}".encode("ascii")).decode("ascii")
        # Spotify receives these, so an error message could repeat them.
        self._secrets = (client_secret, login)
        self._login_headers = {
            "authorization": f"Basic {login}",
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }
        self._api = api
        self._accounts = accounts
        self._timeout_seconds = timeout_seconds
        self._token: str | None = None
        self._token_lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._api.close()
        self._accounts.close()

    def has_token(self, batch: LookupBatch) -> bool:
        """Whether Spotify issues a token; if not, `batch.reason` says why. Raises CredentialsRejectedError."""
        return self._current_token(batch) is not None

    def get(self, batch: LookupBatch, path: str, *, allow_foreign_rejection: bool = False) -> httpx.Response | None:
        """Get a path below `/v1/`. Returns None if the lookup has to wait, with the reason in `batch`.

        `allow_foreign_rejection`: also return a 4xx that Spotify did not send (except 401 and 429), for a caller that tries
        another form of request.

        Raises CredentialsRejectedError.
        """
        for _ in range(2):
            token = self._current_token(batch)
            if token is None:
                return None
            headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
            url = f"{self._api.base_url}/v1/{path}"
            response = self._send_with_retries(
                batch,
                partial(self._api.request, "GET", url, headers=headers),
                secrets=(*self._secrets, token),
                is_vendor_error=is_web_api_error,
                allow_foreign_rejection=allow_foreign_rejection,
            )
            if response is None or response.status_code != HTTPStatus.UNAUTHORIZED:
                return response
            with self._token_lock:
                if self._token == token:
                    self._token = None
        batch.stop("Spotify rejects a token that it issued a moment ago")
        return None

    def _current_token(self, batch: LookupBatch) -> str | None:
        with self._token_lock:
            if self._token is None:
                self._token = self._request_token(batch)
            return self._token

    def _request_token(self, batch: LookupBatch) -> str | None:
        url = f"{self._accounts.base_url}/api/token"
        body = b"grant_type=client_credentials"
        send = partial(self._accounts.request, "POST", url, headers=self._login_headers, content=body)
        response = self._send_with_retries(batch, send, secrets=self._secrets, is_vendor_error=is_token_error)
        if response is None:
            return None
        if response.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED}:
            rejection = (
                "Spotify rejects the client id and secret: check SPOTIFY_CLIENT_ID and SPOTIFY_CLIENT_SECRET "
                f"(HTTP {response.status_code}{describe_message(response)})"
            )
            batch.stop(rejection)  # otherwise each of the other workers would request a token too
            raise CredentialsRejectedError(rejection)
        try:
            return read_token(response)
        except UnexpectedResponseError as error:
            batch.stop(str(error))
            return None

    def _send_with_retries(
        self,
        batch: LookupBatch,
        send: Callable[..., httpx.Response],
        *,
        secrets: Iterable[str],
        is_vendor_error: Callable[[object], bool],
        allow_foreign_rejection: bool = False,
    ) -> httpx.Response | None:
        """The first response of Spotify's own that is not retryable; None if there is none in time."""
        retry_waits = iter(_QUICK_RETRY_SECONDS)
        while not batch.is_stopped:
            epoch = batch.backoff_epoch()
            try:
                response = _redact(secrets, send(timeout_seconds=self._timeout_seconds))
            except httpx.HTTPError as error:
                failure = f"Spotify gave no response ({describe_error(error)})"
            else:
                status = response.status_code
                if status == HTTPStatus.TOO_MANY_REQUESTS:
                    reason = f"Spotify asks to wait (HTTP 429{describe_message(response)})"
                    retry_after = parse_retry_after(response.headers)
                    guess = exponential_backoff(epoch, first_seconds=_MIN_WAIT_SECONDS, max_seconds=_MAX_WAIT_SECONDS)
                    seconds = guess if retry_after is None else max(retry_after, _MIN_WAIT_SECONDS)
                    batch.back_off(epoch, seconds, reason, retry_after=retry_after)
                    continue
                foreign = describe_foreign_response(
                    status, response.headers, response.content, is_vendor_error=is_vendor_error
                )
                if foreign is None:
                    if not is_retryable_status(status):
                        return response
                    failure = f"Spotify is unavailable (HTTP {status})"
                elif allow_foreign_rejection and response.is_client_error and status != HTTPStatus.UNAUTHORIZED:
                    return response
                else:
                    failure = f"not Spotify's own response: {foreign}"
            wait = next(retry_waits, None)
            if wait is None:
                batch.record_failure(failure)
                return None
            batch.back_off(epoch, wait, failure)
        return None


def _redact(secrets: Iterable[str], response: httpx.Response) -> httpx.Response:
    """The response without `secrets` in its body, because error messages and the beginning of a page are shown."""
    if response.is_success and response.headers.get("content-type", "").startswith("application/json"):
        return response
    body = response.content
    for secret in secrets:
        body = body.replace(secret.encode("ascii"), b"[secret]")
    return httpx.Response(response.status_code, headers=response.headers, content=body)
