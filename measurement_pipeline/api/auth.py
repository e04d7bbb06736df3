"""Whose request it is: exactly one of `x-api-key` and `Authorization: Bearer`, and what follows from it. Nobody else's business.

A refusal is a 401 that says what was expected, and the same for every key that is not good but ours to know of: unknown, wrong.
"""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from measurement_pipeline.api import keys
from measurement_pipeline.api.bearer import InvalidTokenError, JwksUnavailableError
from measurement_pipeline.api.errors import ApiError, ErrorCode
from measurement_pipeline.api.log import note
from measurement_pipeline.api.state import ApiState
from measurement_pipeline.postgres import api_keys
from measurement_pipeline.postgres.database import Connection, DatabaseError
from measurement_pipeline.postgres.errors import is_transient

EXPECTED = "Expected exactly one of the headers x-api-key and Authorization: Bearer"
NOT_GOOD = "The API key is not good"
NO_TOKENS = "Tokens are not taken here: send x-api-key"
TOO_MANY = "Too many requests of this account: {} a minute are allowed"

# For the description of the API alone: what is sent is read below, where two of them, or half of one, can be told.
_KEY = Security(APIKeyHeader(name="x-api-key", scheme_name="api key", auto_error=False))
_TOKEN = Security(HTTPBearer(scheme_name="bearer token", bearerFormat="JWT", auto_error=False))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and works with what."""

    account: UUID
    office: ApiState


def identify(request: Request, _key: Annotated[object, _KEY], _token: Annotated[object, _TOKEN]) -> Caller:
    """The caller of a request, one request less allowed. Raises `Problem` (401, 429, 503) and `DatabaseUnavailable`."""
    office: ApiState = request.app.state.office
    given = [*request.headers.getlist("x-api-key"), *request.headers.getlist("authorization")]
    if len(given) != 1:
        raise _unknown(EXPECTED)
    by_key = "x-api-key" in request.headers
    account = _of_key(office, request, given[0]) if by_key else _of_token(office, given[0])
    note(request.scope, account=str(account))
    wait = office.allowance.take(account)
    if wait is not None:
        raise ApiError(
            429, ErrorCode.RATE_LIMITED, TOO_MANY.format(f"{office.desk.requests_per_minute:,}"), retry_after=wait
        )
    return Caller(account, office)


def _of_key(office: ApiState, request: Request, key: str) -> UUID:
    prefix = keys.prefix_of(key)
    if prefix is None:
        raise _unknown(NOT_GOOD)
    with office.pool.connection() as connection:
        found = api_keys.find(connection, prefix)
        if found is None or not keys.is_key(key, found.digest, secret=office.desk.key_secret):
            raise _unknown(NOT_GOOD)
        note(request.scope, key=prefix)
        if found.refused_because is not None:
            raise _unknown(f"{NOT_GOOD}: it is {found.refused_because}")
        if found.use_unnoted:
            _note_use(connection, found.id)
    return found.account


def _note_use(connection: Connection, key: UUID) -> None:
    """Record that the key was used. A database that takes no writes at the moment is no reason to refuse a read."""
    try:
        api_keys.used(connection, key)
    except DatabaseError as error:
        if not is_transient(error):
            raise


def _of_token(office: ApiState, header: str) -> UUID:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unknown(EXPECTED)
    if office.bearer is None:
        raise _unknown(NO_TOKENS)
    try:
        return office.bearer.account(token.strip())
    except InvalidTokenError as error:
        raise _unknown(str(error)) from error
    except JwksUnavailableError as error:
        raise ApiError(503, ErrorCode.TOKEN_KEYS_UNAVAILABLE, str(error), retry_after=30) from error


def _unknown(why: str) -> ApiError:
    return ApiError(401, ErrorCode.UNAUTHENTICATED, why, headers={"WWW-Authenticate": "Bearer"})


Known = Annotated[Caller, Depends(identify)]
