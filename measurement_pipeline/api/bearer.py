"""Bearer tokens: JWTs of one issuer for one audience, signed by one algorithm; `sub` is the account.

Knows neither requests nor tables. Keys of the issuer are fetched from the configured address alone, and kept for a while.
"""

import json
import threading
import time
from collections.abc import Callable
from uuid import UUID

import httpx
import jwt

from measurement_pipeline import outbound
from measurement_pipeline.api.desk import BearerTerms
from measurement_pipeline.outbound import Outbound

_KEPT_SECONDS = 600.0
# A token that names an unknown key makes us look again, but not more often than so.
_LOOK_AGAIN_SECONDS = 30.0
_FETCH_SECONDS = 5.0
# An issuer that is away is not waited for by everybody in turn.
_AWAY_SECONDS = 2.0
# How far the issuer's clock may be from ours.
_LEEWAY_SECONDS = 30.0


class BadTokenError(ValueError):
    """The token is not good; the text says why, and holds nothing of it."""


class KeysAwayError(RuntimeError):
    """The issuer's keys cannot be had: whether a token is good is not known."""


class Bearer:
    """Reads tokens. For any thread. `transport` and `now` are the network's and the clock's place."""

    def __init__(
        self,
        terms: BearerTerms,
        *,
        transport: httpx.BaseTransport | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = terms
        self._keys = None if terms.jwks_url is None else IssuersKeys(terms.jwks_url, transport=transport, now=now)

    def account(self, token: str) -> UUID:
        """The account that a token speaks for. Raises `BadTokenError` and `KeysAwayError`."""
        terms = self._terms
        try:
            key = (
                terms.secret or "" if self._keys is None else self._keys.of(jwt.get_unverified_header(token).get("kid"))
            )
            claims = jwt.decode(
                token,
                key,
                algorithms=[terms.algorithm],
                issuer=terms.issuer,
                audience=terms.audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise BadTokenError("The token has expired") from error
        except jwt.PyJWTError as error:
            raise BadTokenError(f"The token is not good: {type(error).__name__}") from error
        try:
            return UUID(claims["sub"])
        except ValueError as error:
            raise BadTokenError("The token's sub is no account: expected a UUID") from error


class IssuersKeys:
    """The issuer's public keys, as its JWKS lists them."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None, now: Callable[[], float]) -> None:
        self._url = url
        self._outbound = Outbound(url, transport=transport)
        self._now = now
        self._lock = threading.Lock()
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._away: tuple[float, KeysAwayError] | None = None

    def of(self, kid: str | None) -> jwt.PyJWK:
        """The key of that id; without an id, the only one there is. Raises `BadTokenError` and `KeysAwayError`."""
        with self._lock:
            age = None if self._fetched_at is None else self._now() - self._fetched_at
            if age is None or age > _KEPT_SECONDS or (kid not in self._keys and age > _LOOK_AGAIN_SECONDS):
                self._fetch()
            if kid is None and len(self._keys) == 1:
                return next(iter(self._keys.values()))
            if kid not in self._keys:
                raise BadTokenError("The token is signed with a key that its issuer does not list")
            return self._keys[kid]

    def _fetch(self) -> None:
        if self._away is not None and self._now() - self._away[0] < _AWAY_SECONDS:
            raise KeysAwayError(str(self._away[1]))
        try:
            found = self._asked()
        except KeysAwayError as error:
            self._away = (self._now(), error)
            raise
        self._keys = {key.key_id: key for key in found.keys}
        self._fetched_at, self._away = self._now(), None

    def _asked(self) -> jwt.PyJWKSet:
        try:
            answer = self._outbound.ask("GET", self._url, headers={}, timeout_seconds=_FETCH_SECONDS)
        except httpx.HTTPError as error:
            raise KeysAwayError(f"The keys of the token's issuer cannot be had: {outbound.in_words(error)}") from error
        if answer.status_code != 200:
            raise KeysAwayError(f"The keys of the token's issuer cannot be had: HTTP {answer.status_code}")
        try:
            return jwt.PyJWKSet.from_dict(json.loads(answer.content))
        except (ValueError, AttributeError, jwt.PyJWTError) as error:
            raise KeysAwayError("The keys of the token's issuer cannot be read") from error
