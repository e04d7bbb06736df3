"""Authentication: API key or bearer token → account.

A request has exactly one of the headers `x-api-key` and `Authorization: Bearer`. An unknown key and a wrong secret get the same
401, so that a response does not reveal which keys exist.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer

from measurement_pipeline.api import keys
from measurement_pipeline.api.bearer import InvalidTokenError, JwksUnavailableError
from measurement_pipeline.api.errors import ApiError, ErrorCode
from measurement_pipeline.api.log import add_log_fields
from measurement_pipeline.api.state import ApiState
from measurement_pipeline.postgres import api_keys
from measurement_pipeline.postgres.database import DatabaseError
from measurement_pipeline.postgres.errors import is_transient

ONE_CREDENTIAL = "Send exactly one of the headers x-api-key and Authorization: Bearer"
INVALID_KEY = "The API key is invalid"
TOKENS_DISABLED = "This server does not accept bearer tokens: send x-api-key"
RATE_LIMIT_EXCEEDED = "Too many requests: this account may send {} per minute"
_JWKS_RETRY_SECONDS = 30

# For the OpenAPI description. Not dependencies, which each request would evaluate: `authenticate` reads the headers itself,
# because it rejects duplicate and malformed ones.
SECURITY_SCHEMES = {
    "api key": APIKeyHeader(name="x-api-key").model,
    "bearer token": HTTPBearer(bearerFormat="JWT").model,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated account of a request, and the API's state."""

    account: UUID
    state: ApiState


def authenticate(request: Request) -> Caller:
    """Return the caller, and count the request against the account's rate limit.

    Raises `ApiError` (401, 429, 503) and `DatabaseUnavailable`.
    """
    state: ApiState = request.app.state.api
    credentials = [*request.headers.getlist("x-api-key"), *request.headers.getlist("authorization")]
    if len(credentials) != 1:
        raise _unauthenticated(ONE_CREDENTIAL)
    if "x-api-key" in request.headers:
        account = _authenticate_key(state, request, credentials[0])
    else:
        account = _authenticate_token(state, credentials[0])
    add_log_fields(request.scope, account=str(account))
    wait = state.rate_limiter.acquire(account)
    if wait is not None:
        message = RATE_LIMIT_EXCEEDED.format(f"{state.config.requests_per_minute:,}")
        raise ApiError(429, ErrorCode.RATE_LIMITED, message, retry_after=wait)
    return Caller(account, state)


def _authenticate_key(state: ApiState, request: Request, key: str) -> UUID:
    prefix = keys.parse_prefix(key)
    if prefix is None:
        raise _unauthenticated(INVALID_KEY)
    row = state.read(partial(api_keys.find, prefix=prefix))
    if row is None or not keys.matches_digest(key, row.digest, secret=state.config.key_secret):
        raise _unauthenticated(INVALID_KEY)
    add_log_fields(request.scope, key=prefix)
    if row.refused_because is not None:
        raise _unauthenticated(f"{INVALID_KEY}: it is {row.refused_because}")
    if row.is_use_unrecorded:
        _record_use(state, row.id)
    return row.account


def _record_use(state: ApiState, key: UUID) -> None:
    """Record that the key was used. A database that accepts no writes at the moment must not prevent a read."""
    try:
        with state.connection() as connection:
            api_keys.record_use(connection, key)
    except DatabaseError as error:
        if not is_transient(error):
            raise


def _authenticate_token(state: ApiState, header: str) -> UUID:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthenticated(ONE_CREDENTIAL)
    if state.token_verifier is None:
        raise _unauthenticated(TOKENS_DISABLED)
    try:
        return state.token_verifier.verify(token.strip())
    except InvalidTokenError as error:
        raise _unauthenticated(str(error)) from error
    except JwksUnavailableError as error:
        raise ApiError(503, ErrorCode.TOKEN_KEYS_UNAVAILABLE, str(error), retry_after=_JWKS_RETRY_SECONDS) from error


def _unauthenticated(reason: str) -> ApiError:
    return ApiError(401, ErrorCode.UNAUTHENTICATED, reason, headers={"WWW-Authenticate": "Bearer"})


AuthenticatedCaller = Annotated[Caller, Depends(authenticate)]
