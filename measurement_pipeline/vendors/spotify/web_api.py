"""Asking the Web API: with a token that is fetched when it is needed, and again where the wait is short.

What an answer means is the caller's; how long one look-up may wait is `errand`.
"""

import base64
import re
import threading
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus

import httpx

from measurement_pipeline.vendors.http import (
    VendorHttpClient,
    describe_error,
    describe_foreign_response,
    parse_retry_after,
)
from measurement_pipeline.vendors.spotify.lookup_batch import LookupBatch
from measurement_pipeline.vendors.spotify.responses import (
    OddAnswerError,
    is_token_error,
    is_web_api_error,
    read_token,
    said,
)

_HEADER_SAFE = re.compile(r"[!-~]+")
_SHORTEST_WAIT_SECONDS = 1.0
_QUICK_RETRIES_SECONDS = (0.5, 1.0)


class CredentialsRefusedError(Exception):
    """Spotify does not take the client's id and secret. The message holds neither."""


class WebApi:
    """The Web API for one client; threads may share it. Raises ValueError where a setting cannot be used."""

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        api: VendorHttpClient,
        accounts: VendorHttpClient,
        timeout_seconds: float,
    ) -> None:
        if not (_HEADER_SAFE.fullmatch(client_id) and _HEADER_SAFE.fullmatch(client_secret)):
            raise ValueError("Spotify's client id or secret is empty or holds characters that no header can carry")
        login = base64.b64encode(f"{client_id}:{client_secret}".encode("ascii")).decode("ascii")
        # What Spotify is told, and so might repeat in an error's words.
        self._secrets = (client_secret, login)
        self._login = {
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

    def has_token(self, errand: LookupBatch) -> bool:
        """Whether Spotify gives a token; where it does not, `errand` says why. Raises CredentialsRefusedError."""
        return self._current_token(errand) is not None

    def get(self, errand: LookupBatch, path: str, *, foreign_refusal: bool = False) -> httpx.Response | None:
        """What the Web API answers to a path below `/v1/`; None where it has to wait, as `errand` then says.

        With `foreign_refusal`, a 4xx that is not Spotify's own (401 and 429 apart) is returned too, for a caller that tries
        another form of request.

        Raises CredentialsRefusedError.
        """
        for _ in range(2):
            token = self._current_token(errand)
            if token is None:
                return None
            headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
            url = f"{self._api.base_url}/v1/{path}"
            send = partial(self._api.request, "GET", url, headers=headers)
            answer = self._persistently(
                errand,
                send,
                secrets=(*self._secrets, token),
                is_vendor_error=is_web_api_error,
                foreign_refusal=foreign_refusal,
            )
            if answer is None or answer.status_code != HTTPStatus.UNAUTHORIZED:
                return answer
            with self._token_lock:
                if self._token == token:
                    self._token = None
        errand.give_up("Spotify refuses a token that it has only just given")
        return None

    def _current_token(self, errand: LookupBatch) -> str | None:
        with self._token_lock:
            if self._token is None:
                self._token = self._new_token(errand)
            return self._token

    def _new_token(self, errand: LookupBatch) -> str | None:
        url = f"{self._accounts.base_url}/api/token"
        body = b"grant_type=client_credentials"
        send = partial(self._accounts.request, "POST", url, headers=self._login, content=body)
        answer = self._persistently(errand, send, secrets=self._secrets, is_vendor_error=is_token_error)
        if answer is None:
            return None
        if answer.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED}:
            refused = (
                "Spotify does not take the client's id and secret: check SPOTIFY_CLIENT_ID and SPOTIFY_CLIENT_SECRET "
                f"(HTTP {answer.status_code}{said(answer)})"
            )
            errand.give_up(refused)  # or each of the other workers would ask for a token as well
            raise CredentialsRefusedError(refused)
        try:
            return read_token(answer)
        except OddAnswerError as odd:
            errand.give_up(str(odd))
            return None

    def _persistently(
        self,
        errand: LookupBatch,
        send: Callable[..., httpx.Response],
        *,
        secrets: Iterable[str],
        is_vendor_error: Callable[[object], bool],
        foreign_refusal: bool = False,
    ) -> httpx.Response | None:
        """The first answer of Spotify's own that is neither a 429 nor a 5xx; None where there is none in time."""
        retries = iter(_QUICK_RETRIES_SECONDS)
        while not errand.over:
            turn = errand.turn()
            try:
                answer = _without(secrets, send(timeout_seconds=self._timeout_seconds))
            except httpx.HTTPError as error:
                trouble = f"Spotify gave no answer ({describe_error(error)})"
            else:
                if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                    why = f"Spotify asks to wait (HTTP 429{said(answer)})"
                    asked = parse_retry_after(answer.headers)
                    seconds = max(2.0**turn if asked is None else asked, _SHORTEST_WAIT_SECONDS)
                    errand.back_off(turn, seconds, why, retry_after=asked)
                    continue
                foreign = describe_foreign_response(
                    answer.status_code, answer.headers, answer.content, is_vendor_error=is_vendor_error
                )
                if foreign is None:
                    if answer.status_code < 500:
                        return answer
                    trouble = f"Spotify could not answer (HTTP {answer.status_code})"
                elif foreign_refusal and answer.is_client_error and answer.status_code != HTTPStatus.UNAUTHORIZED:
                    return answer
                else:
                    trouble = f"not Spotify's own answer: {foreign}"
            pause = next(retries, None)
            if pause is None:
                errand.failed(trouble)
                return None
            errand.back_off(turn, pause, trouble)
        return None


def _without(secrets: Iterable[str], answer: httpx.Response) -> httpx.Response:
    """An answer, of which an error's words or a page's beginning are to be shown: they hold none of the `secrets`."""
    if answer.is_success and answer.headers.get("content-type", "").startswith("application/json"):
        return answer
    body = answer.content
    for secret in secrets:
        body = body.replace(secret.encode("ascii"), b"[secret]")
    return httpx.Response(answer.status_code, headers=answer.headers, content=body)
