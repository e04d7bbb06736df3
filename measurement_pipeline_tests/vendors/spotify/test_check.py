"""The check of the client: accepted, rejected or unknown; one token, and no wait."""

from typing import Any

import pytest

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.vendors.credentials import CredentialCheck
from measurement_pipeline.vendors.spotify.check import check_client
from measurement_pipeline_tests.faults.waiting import wait_until

TOKEN = "/api/token"


def check(sandbox: SandboxClient, *, seconds: float = 60, **other: Any) -> CredentialCheck:
    client = {"client_id": sandbox.spotify_client_id, "client_secret": sandbox.spotify_client_secret, **other}
    return check_client(
        **client, api_base=sandbox.spotify_url, accounts_base=sandbox.spotify_url, timeout_seconds=seconds
    )


def test_a_valid_client_costs_one_token(sandbox: SandboxClient):
    assert check(sandbox).is_accepted is True
    assert [request["path"] for request in sandbox.requests("/")] == [TOKEN]


@pytest.mark.parametrize(
    ("fault", "works"),
    [
        ({"status": 400}, False),
        ({"status": 401}, False),
        ({"status": 429, "retry_after": 50_400}, None),
        ({"status": 503}, None),
        ({"body": "<html>"}, None),
        ({"body": "{}"}, None),
        ({"reset": True}, None),
        ({"hang": True}, None),
    ],
)
def test_a_rejected_client_is_distinguished_from_an_unknown_one(
    sandbox: SandboxClient, fault: dict[str, object], works: bool | None
):
    sandbox.faults(TOKEN, **fault)
    result = check(sandbox, seconds=0.5 if "hang" in fault else 60)
    assert result.is_accepted is works
    assert sandbox.spotify_client_secret not in result.message
    wait_until(lambda: sandbox.requests(TOKEN), what="the request")
    assert len(sandbox.requests(TOKEN)) == 1, "one request"


def test_a_wrong_secret_is_rejected_and_not_repeated(sandbox: SandboxClient):
    result = check(sandbox, client_secret="another-secret")
    assert result.is_accepted is False
    assert "another-secret" not in result.message
    words = f'{{"error": "invalid_client", "error_description": "no client has the secret {sandbox.spotify_client_secret}"}}'
    sandbox.faults(TOKEN, status=400, body=words)
    assert "no client has the secret [secret])" in check(sandbox).message
    assert check(sandbox, client_secret="two\nlines").is_accepted is False
