"""Who asks: exactly one of a key and a token, and no key or token but a good one."""

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
from measurement_pipeline_tests.api.conftest import JOBS, Front, Open
from measurement_pipeline_tests.faults.waiting import until

ISSUER, AUDIENCE = "https://issuer.example", "measurements"
SECRET = "a secret of more than thirty-two characters"
HS = JwtConfig(ISSUER, AUDIENCE, "HS256", secret=SECRET)


def get(front: Front, *headers: tuple[str, str]) -> httpx.Response:
    return httpx.get(front.url + JOBS, headers=list(headers))


def claims(account: object, **other: object) -> dict[str, Any]:
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(account), "exp": int(time.time()) + 600, **other}
    return {name: value for name, value in said.items() if value is not None}


def token(
    account: object, *, key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **other: object
) -> str:
    return jwt.encode(claims(account, **other), key, algorithm, headers=None if kid is None else {"kid": kid})


def bearer(text: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {text}")


# --- one of the two -----------------------------------------------------------------------------------------------------


def test_neither_both_twice_and_another_scheme_are_a_401_that_says_what_is_expected(open_front: Open):
    front = open_front(bearer=HS)
    client = front.client()
    key, jwt_ = ("x-api-key", client.key), bearer(token(client.account))
    for headers in (
        [],
        [key, jwt_],
        [key, key],
        [jwt_, jwt_],
        [("Authorization", f"Basic {client.key}")],
        [("Authorization", "Bearer")],
    ):
        answer = get(front, *headers)
        refused = {"status": "error", "code": "unauthenticated", "error": ONE_CREDENTIAL}
        assert (answer.status_code, answer.json()) == (401, refused), headers
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert get(front, key).status_code == 200
    assert get(front, jwt_).status_code == 200


def test_every_route_but_health_and_the_description_asks_who_it_is(front: Front):
    described = httpx.get(f"{front.url}/openapi.json").json()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            address = path.replace("{", "").replace("}", "")
            answer = httpx.request(method, front.url + address, json={} if method == "post" else None)
            open_to_all = path in ("/healthz", "/readyz")
            assert (answer.status_code == 200) is open_to_all, path
            assert (answer.status_code == 401) is not open_to_all, path
            assert ("security" in operation) is not open_to_all, path


# --- keys ---------------------------------------------------------------------------------------------------------------


def test_a_key_is_kept_as_a_digest_under_the_servers_secret(front: Front):
    key = front.client().key
    (row,) = front.table.sql("select * from api_keys")
    assert bytes(row["digest"]) == keys.hash_key(key, secret=front.desk.key_secret)
    assert bytes(row["digest"]) != keys.hash_key(key, secret="another secret")
    secret = key.removeprefix(row["prefix"])
    assert not any(secret in str(value) for value in row.values())


@pytest.mark.parametrize("spoil", ["", "x", "mp_", "mp_aaaaaaaa_" + "a" * 43, "' or true --", "mp_%_" + "_" * 43])
def test_a_key_that_is_none_is_refused(front: Front, spoil: str):
    answer = get(front, ("x-api-key", spoil))
    assert (answer.status_code, answer.json()["error"]) == (401, INVALID_KEY)


def test_a_key_with_one_other_character_is_refused(front: Front):
    key = front.client().key
    spoilt = key[:-1] + ("a" if key[-1] != "a" else "b")
    assert get(front, ("x-api-key", spoilt)).json()["error"] == INVALID_KEY


def test_a_key_made_under_another_secret_is_refused(open_front: Open):
    front = open_front()
    other = open_front(key_secret="another secret of the server, long enough")
    key = front.client().key
    assert get(other, ("x-api-key", key)).status_code == 401


def test_a_revoked_and_an_expired_key_are_refused_and_say_so(front: Front):
    client = front.client()
    prefix = str(keys.parse_prefix(client.key))
    assert client.get(JOBS).status_code == 200
    with connect(front.desk.database_url) as connection:
        assert api_keys.revoke(connection, prefix)
        assert not api_keys.revoke(connection, prefix)
    assert client.get(JOBS).json()["error"] == f"{INVALID_KEY}: it is revoked"
    late, prefix = keys.generate_key()
    with connect(front.desk.database_url) as connection:
        past = datetime.now(UTC) - timedelta(hours=1)
        digest = keys.hash_key(late, secret=front.desk.key_secret)
        api_keys.add(connection, account=client.account, name="late", prefix=prefix, digest=digest, expires_at=past)
    assert get(front, ("x-api-key", late)).json()["error"] == f"{INVALID_KEY}: it is expired"


def test_when_a_key_was_last_used_is_written_down_once_a_minute(front: Front):
    client = front.client()
    client.get(JOBS)
    (first,) = front.table.sql("select last_used_at, xmin::text as written from api_keys")
    client.get(JOBS)
    assert front.table.sql("select last_used_at, xmin::text as written from api_keys") == [first]
    assert first["last_used_at"] is not None


# --- tokens -------------------------------------------------------------------------------------------------------------


def test_a_token_speaks_for_the_account_that_is_its_sub(open_front: Open):
    front = open_front(bearer=HS)
    client = front.client()
    job = client.ask({"isrcs": ["GBUM72501895"]}).json()["id"]
    assert [one["id"] for one in get(front, bearer(token(client.account))).json()["jobs"]] == [job]
    assert get(front, bearer(token(uuid4()))).json()["jobs"] == []


@pytest.mark.parametrize(
    "spoilt",
    [
        {"exp": int(time.time()) - 86_400},
        {"exp": None},
        {"iss": "https://somebody.example"},
        {"iss": None},
        {"aud": "others"},
        {"aud": None},
        {"nbf": int(time.time()) + 86_400},
        {"key": "another secret of more than thirty-two characters"},
        {"algorithm": "HS512", "key": SECRET * 2},
    ],
)  # fmt: skip
def test_a_token_that_is_not_good_is_refused(open_front: Open, spoilt: dict[str, Any]):
    front = open_front(bearer=HS)
    answer = get(front, bearer(token(uuid4(), **spoilt)))
    assert answer.status_code == 401
    assert answer.json()["error"].startswith("The token")


def test_a_token_whose_sub_is_no_account_or_that_is_no_token_is_refused(open_front: Open):
    front = open_front(bearer=HS)
    for text in (token("7"), token("7", sub=None), "x.y.z", "x", unsigned(uuid4())):
        assert get(front, bearer(text)).status_code == 401, text


def test_where_no_issuer_is_set_tokens_are_refused_and_keys_are_not(front: Front):
    answer = get(front, bearer(token(uuid4())))
    assert (answer.status_code, answer.json()["error"]) == (401, TOKENS_DISABLED)


def unsigned(account: UUID) -> str:
    """A token that says of itself that it needs no signature."""
    parts = ({"alg": "none", "typ": "JWT"}, claims(account))
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class Issuer:
    """An issuer's list of keys, on loopback; `listed` None: it is broken."""

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
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        server.shutdown()


def test_a_token_signed_with_a_listed_key_is_taken_and_the_list_is_fetched_once(open_front: Open):
    issuer = Issuer()
    with serving(issuer) as url:
        front = open_front(bearer=JwtConfig(ISSUER, AUDIENCE, "RS256", jwks_url=url))
        for kid in ("one", None, "one"):
            good = token(uuid4(), key=issuer.private, algorithm="RS256", kid=kid)
            assert get(front, bearer(good)).status_code == 200
        assert issuer.asked == 1
        unlisted = token(uuid4(), key=issuer.private, algorithm="RS256", kid="two")
        for _ in range(3):
            assert get(front, bearer(unlisted)).status_code == 401
        assert issuer.asked == 1, "unknown keys do not make us ask again and again"
        other = token(
            uuid4(), key=rsa.generate_private_key(public_exponent=65537, key_size=2048), algorithm="RS256", kid="one"
        )
        assert get(front, bearer(other)).status_code == 401


def test_a_public_key_is_not_taken_for_a_shared_secret(open_front: Open):
    issuer = Issuer()
    with serving(issuer) as url:
        front = open_front(bearer=JwtConfig(ISSUER, AUDIENCE, "RS256", jwks_url=url))
        listed = json.loads(issuer.answer() or b"")["keys"][0]
        forged = jwt.encode(
            claims(uuid4()), base64.urlsafe_b64decode(listed["n"] + "=="), "HS256", headers={"kid": "one"}
        )
        assert get(front, bearer(forged)).status_code == 401


def test_an_issuer_whose_keys_cannot_be_had_is_neither_a_yes_nor_a_no(open_front: Open):
    issuer = Issuer()
    issuer.listed = None
    with serving(issuer) as url:
        front = open_front(bearer=JwtConfig(ISSUER, AUDIENCE, "RS256", jwks_url=url))
        good = bearer(token(uuid4(), key=issuer.private, algorithm="RS256", kid="one"))
        for _ in range(3):
            answer = get(front, good)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "30"
        assert issuer.asked == 1, "it is not waited for by everybody in turn"
        issuer.listed = ["one"]
        until(lambda: get(front, good).status_code == 200, what="the issuer to be asked again")


def listed(private: rsa.RSAPrivateKey, **other: str) -> dict[str, Any]:
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key())), **other}


class Away:
    """An issuer's list of keys that is there or not, and how often it was asked for."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys, self.is_away, self.asked, self.clock = keys, False, 0, 0.0
        self.may_answer = Event()
        self.may_answer.set()

    def answer(self, _request: httpx.Request) -> httpx.Response:
        self.asked += 1
        self.may_answer.wait(120)
        return httpx.Response(503) if self.is_away else httpx.Response(200, json={"keys": self.keys})

    def bearer(self, algorithm: str = "RS256") -> BearerTokenVerifier:
        terms = JwtConfig(ISSUER, AUDIENCE, algorithm, jwks_url="https://issuer.example/jwks.json")
        return BearerTokenVerifier(terms, transport=httpx.MockTransport(self.answer), now=lambda: self.clock)


@pytest.mark.parametrize("algorithm", ["RS512", "PS256"])
def test_a_list_that_does_not_say_how_its_keys_sign_is_read_for_the_one_algorithm(algorithm: str):
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = uuid4()
    bearer = Away(listed(private, kid="one", use="sig"), listed(private, kid="two", use="enc")).bearer(algorithm)
    assert bearer.verify(token(account, key=private, algorithm=algorithm, kid="one")) == account
    with pytest.raises(InvalidTokenError):
        bearer.verify(token(account, key=private, algorithm="RS256", kid="one"))
    with pytest.raises(InvalidTokenError):
        bearer.verify(token(account, key=private, algorithm=algorithm, kid="two"))


def test_an_issuer_that_is_away_shuts_out_nobody_whose_key_is_known_for_a_day():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer, account = Away(listed(private, kid="one")), uuid4()
    bearer = issuer.bearer()
    known, unknown = (token(account, key=private, algorithm="RS256", kid=kid) for kid in ("one", "two"))
    assert bearer.verify(known) == account
    issuer.is_away = True
    for issuer.clock in (601.0, 602.0, 610.0):
        assert bearer.verify(known) == account
        with pytest.raises(JwksUnavailableError):
            bearer.verify(unknown)  # the list may name it by now: neither a yes nor a no
    assert issuer.asked == 2, "a look that failed is a look"
    issuer.clock = 24 * 3600.0 + 1
    with pytest.raises(JwksUnavailableError):
        bearer.verify(known)
    issuer.is_away = False
    issuer.clock += 3
    assert bearer.verify(known) == account, "where there is nothing to go by we look again soon"


def test_a_key_that_its_issuer_lists_no_more_is_refused_once_the_list_is_read_again():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer, account = Away(listed(private, kid="one")), uuid4()
    bearer = issuer.bearer()
    known = token(account, key=private, algorithm="RS256", kid="one")
    assert bearer.verify(known) == account
    issuer.keys, issuer.clock = (), 601.0
    with pytest.raises(InvalidTokenError):
        bearer.verify(known)


def test_an_odd_entry_in_a_list_of_keys_is_in_no_others_way():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    odd: list[Any] = [None, 5, listed(private, kid=["z"]), {"kty": "?"}, listed(private), listed(private)]  # type: ignore[arg-type]
    bearer = Away(*odd, {**listed(private, kid="one"), "use": None, "alg": None}).bearer()
    account = uuid4()
    assert bearer.verify(token(account, key=private, algorithm="RS256", kid="one")) == account


def test_ids_that_nobody_knows_hold_no_thread_while_the_issuer_is_slow():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer = Away(listed(private, kid="one"))
    bearer = issuer.bearer()
    bearer.verify(token(uuid4(), key=private, algorithm="RS256", kid="one"))
    issuer.may_answer.clear()
    issuer.clock = 31.0
    forged = token(uuid4(), key=private, algorithm="RS256", kid="forged")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(bearer.verify, forged)
        until(lambda: issuer.asked == 2, what="the list to be asked for")
        try:
            with pytest.raises(JwksUnavailableError):
                bearer.verify(forged)
            assert not first.done()
        finally:
            issuer.may_answer.set()
        assert isinstance(first.exception(20), InvalidTokenError)


def test_nobody_whose_key_is_known_waits_while_another_looks_at_the_list():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer, account = Away(listed(private, kid="one")), uuid4()
    bearer = issuer.bearer()
    known = token(account, key=private, algorithm="RS256", kid="one")
    bearer.verify(known)
    issuer.may_answer.clear()
    issuer.clock = 601.0
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(bearer.verify, known)
        until(lambda: issuer.asked == 2, what="the list to be asked for")
        try:
            assert bearer.verify(known) == account
            assert not first.done()
        finally:
            issuer.may_answer.set()
        assert first.result(120) == account


# --- what is said of it -------------------------------------------------------------------------------------------------


def test_the_log_has_a_line_a_request_with_its_id_its_account_and_no_secret(
    open_front: Open, caplog: pytest.LogCaptureFixture
):
    front = open_front(bearer=HS)
    client = front.client()
    with caplog.at_level(logging.INFO):
        client.get(JOBS, params={"cursor": "secret-in-a-query"}, headers={"X-Request-Id": "abc-1"})
        given = get(front, bearer(secret := token(client.account)), ("X-Request-Id", "two words")).headers[
            "X-Request-Id"
        ]
        get(front, ("x-api-key", "mp_aaaaaaaa_" + "s" * 43))
    lines = [
        json.loads(record.message) for record in caplog.records if record.name == "measurement_pipeline.api.access"
    ]
    assert [(line["request"], line["status"]) for line in lines[:2]] == [("abc-1", 400), (given, 200)]
    assert lines[0]["account"] == lines[1]["account"] == str(client.account)
    assert (lines[0]["key"], lines[0]["method"], lines[0]["path"]) == (keys.parse_prefix(client.key), "GET", JOBS)
    assert "account" not in lines[2]
    said = "".join(record.getMessage() for record in caplog.records if record.name != "httpx")
    for word in (client.key, secret, "secret-in-a-query", "s" * 43, "two words"):
        assert word not in said
