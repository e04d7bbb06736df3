"""Bearer tokens: JWTs of one issuer for one audience, signed by one algorithm; `sub` is the account.

Knows neither requests nor tables. Keys of the issuer are fetched from the configured address alone, and kept for a while.
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

_KEPT_SECONDS = 600.0
# While the issuer is away: long enough for its outage, and for its people to be told of a key that has leaked.
_TRUSTED_SECONDS = 24 * 3600.0
# A token that names an unknown key, or an issuer that is away, makes us look again, but not more often than so.
_LOOK_AGAIN_SECONDS = 30.0
_FETCH_SECONDS = 5.0
# An issuer that is away is not waited for by everybody in turn.
_AWAY_SECONDS = 2.0
# How far the issuer's clock may be from ours.
_LEEWAY_SECONDS = 30.0


class InvalidTokenError(ValueError):
    """The token is not good; the text says why, and holds nothing of it."""


class JwksUnavailableError(RuntimeError):
    """The issuer's keys cannot be had: whether a token is good is not known."""


class BearerTokenVerifier:
    """Reads tokens. For any thread. `transport` and `now` are the network's and the clock's place."""

    def __init__(
        self,
        terms: JwtConfig,
        *,
        transport: httpx.BaseTransport | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = terms
        self._keys = None
        if terms.jwks_url is not None:
            self._keys = JwksCache(terms.jwks_url, terms.algorithm, transport=transport, now=now)

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
            raise InvalidTokenError("The token has expired") from error
        except jwt.PyJWTError as error:
            raise InvalidTokenError(f"The token is not good: {type(error).__name__}") from error
        try:
            return UUID(claims["sub"])
        except ValueError as error:
            raise InvalidTokenError("The token's sub is no account: expected a UUID") from error


class JwksCache:
    """The issuer's public keys for one algorithm, as its JWKS lists them.

    An issuer that is away shuts out nobody whose key is known, for a day; after that, and for a key that is not known, nothing
    is known of a token.
    """

    def __init__(
        self, url: str, algorithm: str, *, transport: httpx.BaseTransport | None, now: Callable[[], float]
    ) -> None:
        self._url = url
        self._algorithm = algorithm
        self._outbound = VendorHttpClient(url, transport=transport)
        self._now = now
        self._looking = threading.Lock()
        self._seen = _Seen()

    def of(self, kid: str | None) -> jwt.PyJWK:
        """The key of that id; without an id, the only one there is. Raises `BadTokenError` and `KeysAwayError`."""
        seen = self._seen
        is_due = seen.is_to_look(kid, self._now())
        # Nobody waits for another's look but while there is nothing to go by at all: forged ids would hold everybody's threads.
        is_ours = is_due and self._looking.acquire(blocking=not seen.is_trusted(self._now()))
        if is_ours:
            try:
                seen = self._seen
                if seen.is_to_look(kid, self._now()):
                    seen = self._seen = self._look(seen)
            finally:
                self._looking.release()
        found = seen.key(kid, self._now())
        if found is not None:
            return found
        if is_due and not is_ours:
            raise JwksUnavailableError("The keys of the token's issuer are being looked at")
        if seen.away is not None:
            raise JwksUnavailableError(seen.away)
        raise InvalidTokenError("The token is signed with a key that its issuer does not list")

    def _look(self, seen: "_Seen") -> "_Seen":
        try:
            listed = self._asked()
        except JwksUnavailableError as error:
            return replace(seen, looked_at=self._now(), away=str(error))
        return _Seen(listed, listed_at=self._now(), looked_at=self._now())

    def _asked(self) -> dict[str | None, jwt.PyJWK]:
        try:
            answer = self._outbound.request("GET", self._url, headers={}, timeout_seconds=_FETCH_SECONDS)
        except httpx.HTTPError as error:
            raise JwksUnavailableError(
                f"The keys of the token's issuer cannot be had: {http.describe_error(error)}"
            ) from error
        if answer.status_code != 200:
            raise JwksUnavailableError(f"The keys of the token's issuer cannot be had: HTTP {answer.status_code}")
        try:
            listed = json.loads(answer.content)["keys"]
        except (ValueError, LookupError, TypeError) as error:
            raise JwksUnavailableError("The keys of the token's issuer cannot be read") from error
        if not isinstance(listed, list):
            raise JwksUnavailableError("The keys of the token's issuer cannot be read")
        found = [key for one in listed if (key := self._read(one)) is not None]
        # Of several without an id none can be told; that there is none at all is an answer too: they were withdrawn.
        nameless = [key for key in found if key.key_id is None]
        return {key.key_id: key for key in found if key.key_id is not None or len(nameless) == 1}

    def _read(self, listed: object) -> jwt.PyJWK | None:
        """A listed key, where signatures of our algorithm can be checked with it: most lists do not say by which it signs."""
        if not isinstance(listed, dict) or not isinstance(listed.get("kid"), str | None):
            return None
        if (listed.get("use") or "sig") != "sig" or (listed.get("alg") or self._algorithm) != self._algorithm:
            return None
        try:
            return jwt.PyJWK(listed, algorithm=self._algorithm)
        except jwt.PyJWTError:
            return None  # of another kind


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the last looks at the list have shown; never changed, so that threads need no lock to read it."""

    keys: Mapping[str | None, jwt.PyJWK] = field(default_factory=dict)
    listed_at: float | None = None
    looked_at: float | None = None
    away: str | None = None

    def is_trusted(self, now: float) -> bool:
        return self.listed_at is not None and now - self.listed_at <= _TRUSTED_SECONDS

    def key(self, kid: str | None, now: float) -> jwt.PyJWK | None:
        if not self.is_trusted(now):
            return None
        if kid is None and len(self.keys) == 1:
            return next(iter(self.keys.values()))
        return self.keys.get(kid)

    def is_to_look(self, kid: str | None, now: float) -> bool:
        if self.looked_at is None:
            return True
        if self.key(kid, now) is not None:
            pause = _LOOK_AGAIN_SECONDS if self.away else _KEPT_SECONDS
        else:
            # Where there is nothing to go by, everybody is kept out meanwhile.
            pause = _AWAY_SECONDS if self.away and not self.is_trusted(now) else _LOOK_AGAIN_SECONDS
        return now - self.looked_at > pause
