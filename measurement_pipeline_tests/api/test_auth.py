"""Authentication: exactly one credential, an API key or a bearer token, and only valid ones."""

import base64
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from measurement_pipeline.api import keys
from measurement_pipeline.api.auth import INVALID_KEY, ONE_CREDENTIAL, TOKENS_DISABLED
from measurement_pipeline.api.bearer import BearerTokenVerifier, InvalidTokenError, JwksUnavailableError
from measurement_pipeline.api.config import JwtConfig
from measurement_pipeline.postgres import api_keys
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.api.conftest import JOBS, RunningApi, StartApi
from measurement_pipeline_tests.faults.waiting import wait_until

ISSUER, AUDIENCE = "https://issuer.example", "measurements"
SECRET = "a secret of more than thirty-two characters"
HS = JwtConfig(ISSUER, AUDIENCE, "HS256", secret=SECRET)


def get(api: RunningApi, *headers: tuple[str, str]) -> httpx.Response:
    return httpx.get(api.url + JOBS, headers=list(headers))


def claims(account: object, **other: object) -> dict[str, Any]:
    all_claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(account), "exp": int(time.time()) + 600, **other}
    return {name: value for name, value in all_claims.items() if value is not None}


def token(
    account: object, *, key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **other: object
) -> str:
    return jwt.encode(claims(account, **other), key, algorithm, headers=None if kid is None else {"kid": kid})


def bearer(text: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {text}")


# --- exactly one credential ---------------------------------------------------------------------------------------------


def test_a_request_without_exactly_one_credential_gets_a_401(start_api: StartApi):
    api = start_api(bearer=HS)
    client = api.client()
    key, jwt_ = ("x-api-key", client.key), bearer(token(client.account))
    for headers in (
        [],
        [key, jwt_],
        [key, key],
        [jwt_, jwt_],
        [("Authorization", f"Basic {client.key}")],
        [("Authorization", "Bearer")],
    ):
        answer = get(api, *headers)
        body = {"status": "error", "code": "unauthenticated", "error": ONE_CREDENTIAL}
        assert (answer.status_code, answer.json()) == (401, body), headers
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert get(api, key).status_code == 200
    assert get(api, jwt_).status_code == 200


def test_every_route_except_health_requires_authentication(api: RunningApi):
    description = httpx.get(f"{api.url}/openapi.json").json()
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            address = path.replace("{", "").replace("}", "")
            answer = httpx.request(method, api.url + address, json={} if method == "post" else None)
            is_public = path in ("/healthz", "/readyz")
            assert (answer.status_code == 200) is is_public, path
            assert (answer.status_code == 401) is not is_public, path
            assert ("security" in operation) is not is_public, path


# --- keys ---------------------------------------------------------------------------------------------------------------


def test_a_key_is_stored_as_a_digest_with_the_servers_secret(api: RunningApi):
    key = api.client().key
    (row,) = api.table.sql("select * from api_keys")
    assert bytes(row["digest"]) == keys.hash_key(key, secret=api.config.key_secret)
    assert bytes(row["digest"]) != keys.hash_key(key, secret="another secret")
    secret = key.removeprefix(row["prefix"])
    assert not any(secret in str(value) for value in row.values())


def test_a_malformed_key_is_rejected(api: RunningApi):
    for key in ("", "x", "mp_", "mp_aaaaaaaa_" + "a" * 43, "' or true --", "mp_%_" + "_" * 43):
        answer = get(api, ("x-api-key", key))
        assert (answer.status_code, answer.json()["error"]) == (401, INVALID_KEY), key


def test_a_key_with_one_changed_character_is_rejected(api: RunningApi):
    key = api.client().key
    changed = key[:-1] + ("a" if key[-1] != "a" else "b")
    assert get(api, ("x-api-key", changed)).json()["error"] == INVALID_KEY


def test_a_key_created_with_another_secret_is_rejected(start_api: StartApi):
    api = start_api()
    other = start_api(key_secret="another secret of the server, long enough")
    key = api.client().key
    assert get(other, ("x-api-key", key)).status_code == 401


def test_a_revoked_and_an_expired_key_are_rejected_with_the_reason(api: RunningApi):
    client = api.client()
    prefix = str(keys.parse_prefix(client.key))
    assert client.get(JOBS).status_code == 200
    with connect(api.config.database_url) as connection:
        assert api_keys.revoke(connection, prefix)
        assert not api_keys.revoke(connection, prefix)
    assert client.get(JOBS).json()["error"] == f"{INVALID_KEY}: it is revoked"
    expired, prefix = keys.generate_key()
    with connect(api.config.database_url) as connection:
        past = datetime.now(UTC) - timedelta(hours=1)
        digest = keys.hash_key(expired, secret=api.config.key_secret)
        api_keys.add(connection, account=client.account, name="expired", prefix=prefix, digest=digest, expires_at=past)
    assert get(api, ("x-api-key", expired)).json()["error"] == f"{INVALID_KEY}: it is expired"


def test_the_last_use_of_a_key_is_recorded_once_a_minute(api: RunningApi):
    client = api.client()
    client.get(JOBS)
    (first,) = api.table.sql("select last_used_at, xmin::text as written from api_keys")
    client.get(JOBS)
    assert api.table.sql("select last_used_at, xmin::text as written from api_keys") == [first]
    assert first["last_used_at"] is not None


# --- tokens -------------------------------------------------------------------------------------------------------------


def test_a_token_authenticates_the_account_in_its_sub(start_api: StartApi):
    api = start_api(bearer=HS)
    client = api.client()
    job = client.submit({"isrcs": ["GBUM72501895"]}).json()["id"]
    assert [one["id"] for one in get(api, bearer(token(client.account))).json()["jobs"]] == [job]
    assert get(api, bearer(token(uuid4()))).json()["jobs"] == []


INVALID_CLAIMS: list[dict[str, Any]] = [
    {"exp": int(time.time()) - 86_400},
    {"exp": None},
    {"iss": "https://other.example"},
    {"iss": None},
    {"aud": "others"},
    {"aud": None},
    {"nbf": int(time.time()) + 86_400},
    {"key": "another secret of more than thirty-two characters"},
    {"algorithm": "HS512", "key": SECRET * 2},
]


def test_an_invalid_token_is_rejected(start_api: StartApi):
    api = start_api(bearer=HS)
    for changes in INVALID_CLAIMS:
        answer = get(api, bearer(token(uuid4(), **changes)))
        assert answer.status_code == 401, changes
        assert answer.json()["error"].startswith("The token"), changes


def test_a_token_without_a_uuid_in_its_sub_and_malformed_tokens_are_rejected(start_api: StartApi):
    api = start_api(bearer=HS)
    for text in (token("7"), token("7", sub=None), "x.y.z", "x", unsigned(uuid4())):
        assert get(api, bearer(text)).status_code == 401, text


def test_without_an_issuer_tokens_are_rejected(api: RunningApi):
    answer = get(api, bearer(token(uuid4())))
    assert (answer.status_code, answer.json()["error"]) == (401, TOKENS_DISABLED)


def unsigned(account: UUID) -> str:
    """Return a token with the algorithm `none` and no signature."""
    parts = ({"alg": "none", "typ": "JWT"}, claims(account))
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class Issuer:
    """JWKS endpoint of an issuer. `listed`: the ids of its keys; None: it answers 500."""

    def __init__(self) -> None:
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.listed: list[str] | None = ["one"]
        self.asked = 0

    def answer(self) -> bytes | None:
        self.asked += 1
        if self.listed is None:
            return None
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key()))
        return json.dumps({"keys": [{**key, "kid": kid, "use": "sig", "alg": "RS256"} for kid in self.listed]}).encode()


@contextmanager
def serving(issuer: Issuer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = issuer.answer()
            self.send_response(500 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        server.shutdown()


def test_a_token_signed_with_a_listed_key_is_valid_and_the_jwks_is_fetched_once(start_api: StartApi):
    issuer = Issuer()
    with serving(issuer) as url:
        api = start_api(bearer=JwtConfig(ISSUER, AUDIENCE, "RS256", jwks_url=url))
        for kid in ("one", None, "one"):
            good = token(uuid4(), key=issuer.private, algorithm="RS256", kid=kid)
            assert get(api, bearer(good)).status_code == 200
        assert issuer.asked == 1
        unlisted = token(uuid4(), key=issuer.private, algorithm="RS256", kid="two")
        for _ in range(3):
            assert get(api, bearer(unlisted)).status_code == 401
        assert issuer.asked == 1, "an unknown key does not cause a fetch per request"
        other = token(
            uuid4(), key=rsa.generate_private_key(public_exponent=65537, key_size=2048), algorithm="RS256", kid="one"
        )
        assert get(api, bearer(other)).status_code == 401


def test_a_public_key_is_not_accepted_as_a_shared_secret(start_api: StartApi):
    issuer = Issuer()
    with serving(issuer) as url:
        api = start_api(bearer=JwtConfig(ISSUER, AUDIENCE, "RS256", jwks_url=url))
        listed = json.loads(issuer.answer() or b"")["keys"][0]
        token_signed_with_public_key = jwt.encode(
            claims(uuid4()), base64.urlsafe_b64decode(listed["n"] + "=="), "HS256", headers={"kid": "one"}
        )
        assert get(api, bearer(token_signed_with_public_key)).status_code == 401


def test_an_unavailable_jwks_gives_a_503_and_is_not_fetched_per_request(start_api: StartApi):
    issuer = Issuer()
    issuer.listed = None
    with serving(issuer) as url:
        api = start_api(bearer=JwtConfig(ISSUER, AUDIENCE, "RS256", jwks_url=url))
        credential = bearer(token(uuid4(), key=issuer.private, algorithm="RS256", kid="one"))
        for _ in range(3):
            answer = get(api, credential)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "30"
        assert issuer.asked == 1, "not every request waits for the issuer"
        issuer.listed = ["one"]
        wait_until(lambda: get(api, credential).status_code == 200, what="the JWKS to be fetched again")


def jwk(private: rsa.RSAPrivateKey, **other: str) -> dict[str, Any]:
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key())), **other}


class FakeIssuer:
    """JWKS endpoint that can be unavailable or slow, and counts its requests."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys, self.is_unavailable, self.asked, self.clock = keys, False, 0, 0.0
        self.may_answer = Event()
        self.may_answer.set()

    def answer(self, _request: httpx.Request) -> httpx.Response:
        self.asked += 1
        self.may_answer.wait(120)
        return httpx.Response(503) if self.is_unavailable else httpx.Response(200, json={"keys": self.keys})

    def verifier(self, algorithm: str = "RS256") -> BearerTokenVerifier:
        config = JwtConfig(ISSUER, AUDIENCE, algorithm, jwks_url="https://issuer.example/jwks.json")
        return BearerTokenVerifier(config, transport=httpx.MockTransport(self.answer), now=lambda: self.clock)


@pytest.mark.parametrize("algorithm", ["RS512", "PS256"])
def test_a_jwks_without_algorithms_is_read_for_the_configured_algorithm(algorithm: str):
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = uuid4()
    verifier = FakeIssuer(jwk(private, kid="one", use="sig"), jwk(private, kid="two", use="enc")).verifier(algorithm)
    assert verifier.verify(token(account, key=private, algorithm=algorithm, kid="one")) == account
    with pytest.raises(InvalidTokenError):
        verifier.verify(token(account, key=private, algorithm="RS256", kid="one"))
    with pytest.raises(InvalidTokenError):
        verifier.verify(token(account, key=private, algorithm=algorithm, kid="two"))


def test_cached_keys_stay_valid_for_a_day_while_the_issuer_is_unavailable():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer, account = FakeIssuer(jwk(private, kid="one")), uuid4()
    verifier = issuer.verifier()
    known, unknown = (token(account, key=private, algorithm="RS256", kid=kid) for kid in ("one", "two"))
    assert verifier.verify(known) == account
    issuer.is_unavailable = True
    for issuer.clock in (601.0, 602.0, 610.0):
        assert verifier.verify(known) == account
        with pytest.raises(JwksUnavailableError):
            verifier.verify(unknown)  # the issuer may list it by now, so its validity is unknown
    assert issuer.asked == 2, "a failed fetch starts the cooldown"
    issuer.clock = 24 * 3600.0 + 1
    with pytest.raises(JwksUnavailableError):
        verifier.verify(known)
    issuer.is_unavailable = False
    issuer.clock += 3
    assert verifier.verify(known) == account, "without a valid key the next fetch comes soon"


def test_a_withdrawn_key_is_rejected_after_the_next_fetch():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer, account = FakeIssuer(jwk(private, kid="one")), uuid4()
    verifier = issuer.verifier()
    known = token(account, key=private, algorithm="RS256", kid="one")
    assert verifier.verify(known) == account
    issuer.keys, issuer.clock = (), 601.0
    with pytest.raises(InvalidTokenError):
        verifier.verify(known)


def test_malformed_entries_of_a_jwks_are_skipped():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    malformed: list[Any] = [None, 5, jwk(private, kid=["z"]), {"kty": "?"}, jwk(private), jwk(private)]  # type: ignore[arg-type]
    verifier = FakeIssuer(*malformed, {**jwk(private, kid="one"), "use": None, "alg": None}).verifier()
    account = uuid4()
    assert verifier.verify(token(account, key=private, algorithm="RS256", kid="one")) == account


def test_unknown_key_ids_block_no_thread_while_the_issuer_is_slow():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer = FakeIssuer(jwk(private, kid="one"))
    verifier = issuer.verifier()
    verifier.verify(token(uuid4(), key=private, algorithm="RS256", kid="one"))
    issuer.may_answer.clear()
    issuer.clock = 31.0
    unknown = token(uuid4(), key=private, algorithm="RS256", kid="unknown")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(verifier.verify, unknown)
        wait_until(lambda: issuer.asked == 2, what="the JWKS to be requested")
        try:
            with pytest.raises(JwksUnavailableError):
                verifier.verify(unknown)
            assert not first.done()
        finally:
            issuer.may_answer.set()
        assert isinstance(first.exception(20), InvalidTokenError)


def test_a_token_with_a_cached_key_does_not_wait_for_another_threads_fetch():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer, account = FakeIssuer(jwk(private, kid="one")), uuid4()
    verifier = issuer.verifier()
    known = token(account, key=private, algorithm="RS256", kid="one")
    verifier.verify(known)
    issuer.may_answer.clear()
    issuer.clock = 601.0
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(verifier.verify, known)
        wait_until(lambda: issuer.asked == 2, what="the JWKS to be requested")
        try:
            assert verifier.verify(known) == account
            assert not first.done()
        finally:
            issuer.may_answer.set()
        assert first.result(120) == account


# --- access log ---------------------------------------------------------------------------------------------------------


def test_the_access_log_has_id_and_account_of_each_request_and_no_secret(
    start_api: StartApi, caplog: pytest.LogCaptureFixture
):
    api = start_api(bearer=HS)
    client = api.client()
    with caplog.at_level(logging.INFO):
        client.get(JOBS, params={"cursor": "secret-in-a-query"}, headers={"X-Request-Id": "abc-1"})
        new_id = get(api, bearer(secret := token(client.account)), ("X-Request-Id", "two words")).headers[
            "X-Request-Id"
        ]
        get(api, ("x-api-key", "mp_aaaaaaaa_" + "s" * 43))
    lines = [
        json.loads(record.message) for record in caplog.records if record.name == "measurement_pipeline.api.access"
    ]
    assert [(line["request"], line["status"]) for line in lines[:2]] == [("abc-1", 400), (new_id, 200)]
    assert lines[0]["account"] == lines[1]["account"] == str(client.account)
    assert (lines[0]["key"], lines[0]["method"], lines[0]["path"]) == (keys.parse_prefix(client.key), "GET", JOBS)
    assert "account" not in lines[2]
    log = "".join(record.getMessage() for record in caplog.records if record.name != "httpx")
    for word in (client.key, secret, "secret-in-a-query", "s" * 43, "two words"):
        assert word not in log
