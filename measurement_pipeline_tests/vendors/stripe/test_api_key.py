"""The key check writes nothing, and an unknown result is not a rejection."""

import json

import pytest

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.vendors.stripe.api_key import check_secret_key, is_test_mode_key


def check_key(sandbox: SandboxClient, key: str | None = None, *, seconds: float = 60.0):
    return check_secret_key(secret_key=key or sandbox.stripe_key, api_base=sandbox.stripe_url, timeout_seconds=seconds)


def test_a_key_that_works_costs_one_read(sandbox: SandboxClient):
    sandbox.card("11111111-1111-4111-8111-111111111111")
    sandbox.forget_requests()
    assert check_key(sandbox).is_accepted is True
    (request,) = sandbox.requests("/v1/")
    assert (request["method"], request["path"]) == ("GET", "/v1/customers")


def test_a_rejected_key_or_one_without_a_permission_is_not_accepted(sandbox: SandboxClient):
    refused = check_key(sandbox, "sk_live_wrong")
    assert refused.is_accepted is False
    assert "sk_live" not in refused.message
    sandbox.faults(
        "/v1/customers", status=403, body=json.dumps({"error": {"type": "invalid_request_error", "message": "no"}})
    )
    assert check_key(sandbox).is_accepted is False


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 429},
        {"reset": True},
        {"hang": True},
        {"body": "[]"},
        {"body": "{}"},
        {"foreign": "challenge"},
        {"foreign": "login"},
        {"foreign": "portal"},
    ],
)
def test_without_a_usable_response_the_key_is_unknown(sandbox: SandboxClient, fault: dict[str, object]):
    sandbox.faults("/v1/customers", **fault)
    result = check_key(sandbox, seconds=0.5 if "hang" in fault else 60.0)
    assert result.is_accepted is None
    assert result.message


def test_a_test_mode_key_is_recognised_by_its_prefix():
    assert is_test_mode_key("sk_test_x")
    assert is_test_mode_key("rk_test_x")
    assert not is_test_mode_key("rk_live_x")
