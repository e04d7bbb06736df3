"""Bearer tokens: JWTs of one issuer for one audience, signed with one algorithm. The claim `sub` is the account.

The issuer's public keys come only from the configured address, and are cached.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

import httpx
import jwt

from measurement_pipeline.api.config import JwtConfig
from measurement_pipeline.vendors import http
from measurement_pipeline.vendors.http import VendorHttpClient

_REFRESH_SECONDS = 600.0
# During an issuer's outage, known keys stay valid this long: enough to repair it, and a limit for a key that has leaked.
_MAX_AGE_SECONDS = 24 * 3600.0
# Minimum time between two fetches caused by an unknown key id or by a failed fetch.
_COOLDOWN_SECONDS = 30.0
# The same while no valid key is cached: every caller is locked out then, so retry soon, but not once per request.
_EMPTY_COOLDOWN_SECONDS = 2.0
_TIMEOUT_SECONDS = 5.0
# Tolerated clock difference between issuer and this server.
_LEEWAY_SECONDS = 30.0


class InvalidTokenError(ValueError):
    """The token is invalid. The text states the reason and contains no part of the token."""


class JwksUnavailableError(RuntimeError):
    """The issuer's keys are unavailable, so the token's validity is unknown."""


class BearerTokenVerifier:
    """Verify tokens. Thread-safe. Tests replace `transport` and `now`."""

    def __init__(
        self,
        config: JwtConfig,
        *,
        transport: httpx.BaseTransport | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._jwks = None
        if config.jwks_url is not None:
            self._jwks = JwksCache(config.jwks_url, config.algorithm, transport=transport, now=now)

    def verify(self, token: str) -> UUID:
        """Return the account of a valid token. Raises `InvalidTokenError` and `JwksUnavailableError`."""
        config = self._config
        try:
            key: jwt.PyJWK | str = config.secret or ""
            if self._jwks is not None:
                key = self._jwks.get_key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=[config.algorithm],
                issuer=config.issuer,
                audience=config.audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise InvalidTokenError("The token has expired") from error
        except jwt.PyJWTError as error:
            raise InvalidTokenError(f"The token is invalid: {type(error).__name__}") from error
        try:
            return UUID(claims["sub"])
        except ValueError as error:
            raise InvalidTokenError("The token's sub is not an account: expected a UUID") from error


class JwksCache:
    """The issuer's public keys for one algorithm (JSON Web Key Set).

    During an issuer's outage a cached key stays valid for a day. After that, and for a key id that is not cached, the validity of
    a token is unknown. Decision 0031 says why this is not PyJWT's `PyJWKClient`.
    """

    def __init__(
        self, url: str, algorithm: str, *, transport: httpx.BaseTransport | None, now: Callable[[], float]
    ) -> None:
        self._url = url
        self._algorithm = algorithm
        self._http = VendorHttpClient(url, transport=transport)
        self._now = now
        self._refresh_lock = threading.Lock()
        self._snapshot = _KeySnapshot()

    def get_key(self, kid: str | None) -> jwt.PyJWK:
        """Return the key with that id, or without an id the only key. Raises `InvalidTokenError` and `JwksUnavailableError`."""
        snapshot = self._snapshot
        is_due = snapshot.is_refresh_due(kid, self._now())
        # Only wait for another thread's fetch if no valid key is cached. Otherwise forged key ids could block all threads.
        is_refreshing = is_due and self._refresh_lock.acquire(blocking=not snapshot.is_valid(self._now()))
        if is_refreshing:
            try:
                snapshot = self._snapshot
                if snapshot.is_refresh_due(kid, self._now()):
                    snapshot = self._snapshot = self._refresh(snapshot)
            finally:
                self._refresh_lock.release()
        key = snapshot.find_key(kid, self._now())
        if key is not None:
            return key
        if is_due and not is_refreshing:
            raise JwksUnavailableError("The keys of the token's issuer are being fetched: retry")
        if snapshot.error is not None:
            raise JwksUnavailableError(snapshot.error)
        raise InvalidTokenError("The token is signed with a key that its issuer does not list")

    def _refresh(self, snapshot: "_KeySnapshot") -> "_KeySnapshot":
        try:
            keys = self._fetch()
        except JwksUnavailableError as error:
            return replace(snapshot, tried_at=self._now(), error=str(error))
        return _KeySnapshot(keys, fetched_at=self._now(), tried_at=self._now())

    def _fetch(self) -> dict[str | None, jwt.PyJWK]:
        try:
            response = self._http.request("GET", self._url, headers={}, timeout_seconds=_TIMEOUT_SECONDS)
        except httpx.HTTPError as error:
            raise _unavailable(http.describe_error(error)) from error
        if response.status_code != 200:
            raise _unavailable(f"HTTP {response.status_code}")
        try:
            entries = json.loads(response.content)["keys"]
        except (ValueError, LookupError, TypeError) as error:
            raise _unavailable("the response is not a JSON Web Key Set") from error
        if not isinstance(entries, list):
            raise _unavailable("the response is not a JSON Web Key Set")
        keys = [key for entry in entries if (key := self._parse_key(entry)) is not None]
        # Several keys without an id are ambiguous, so none is used. An empty list is valid: all keys were withdrawn.
        without_id = [key for key in keys if key.key_id is None]
        return {key.key_id: key for key in keys if key.key_id is not None or len(without_id) == 1}

    def _parse_key(self, entry: object) -> jwt.PyJWK | None:
        """Return the key if it verifies signatures of our algorithm. Most issuers do not list the algorithm."""
        if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str | None):
            return None
        if (entry.get("use") or "sig") != "sig" or (entry.get("alg") or self._algorithm) != self._algorithm:
            return None
        try:
            return jwt.PyJWK(entry, algorithm=self._algorithm)
        except jwt.PyJWTError:
            return None  # of another key type


def _unavailable(reason: str) -> JwksUnavailableError:
    return JwksUnavailableError(f"The keys of the token's issuer are unavailable: {reason}")


@dataclass(frozen=True, slots=True)
class _KeySnapshot:
    """Result of the last fetches. Immutable, so that threads read it without a lock."""

    keys: Mapping[str | None, jwt.PyJWK] = field(default_factory=dict)
    fetched_at: float | None = None
    tried_at: float | None = None
    error: str | None = None

    def is_valid(self, now: float) -> bool:
        return self.fetched_at is not None and now - self.fetched_at <= _MAX_AGE_SECONDS

    def find_key(self, kid: str | None, now: float) -> jwt.PyJWK | None:
        if not self.is_valid(now):
            return None
        if kid is None and len(self.keys) == 1:
            return next(iter(self.keys.values()))
        return self.keys.get(kid)

    def is_refresh_due(self, kid: str | None, now: float) -> bool:
        if self.tried_at is None:
            return True
        if self.find_key(kid, now) is not None:
            pause = _COOLDOWN_SECONDS if self.error else _REFRESH_SECONDS
        else:
            pause = _EMPTY_COOLDOWN_SECONDS if self.error and not self.is_valid(now) else _COOLDOWN_SECONDS
        return now - self.tried_at > pause
