"""The log of the requests that the vendors received: complete, countable, and without keys."""

import httpx
import pytest

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.sandbox.clients import request_history

A_RECORDING = "QZES72012345"


def test_each_request_is_logged_with_its_result(sandbox: SandboxClient) -> None:
    request_history(sandbox, A_RECORDING)
    sandbox.faults("/enterprise/", status=503, count=1)
    request_history(sandbox, "QZES72012346", source="all")

    first, second = sandbox.requests()
    assert first["method"] == "GET"
    assert first["path"] == "/enterprise/v1/tracks/historic_stats"
    assert first["query"] == {"isrc": A_RECORDING, "source": "spotify"}
    assert (first["isrc"], first["status"], first["fault"]) == (A_RECORDING, 200, False)
    assert (second["isrc"], second["status"], second["fault"]) == ("QZES72012346", 503, True)
    assert second["n"] == first["n"] + 1
    assert second["at"] >= first["at"]


def test_an_unanswered_request_is_logged_without_a_status(sandbox: SandboxClient) -> None:
    sandbox.faults("/enterprise/", close=True, count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        request_history(sandbox, A_RECORDING)

    (received,) = sandbox.requests()
    assert received["status"] is None


def test_a_request_is_logged_before_its_delayed_response(sandbox: SandboxClient) -> None:
    sandbox.faults("/enterprise/", hang=True, count=1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{sandbox.songstats_url}/enterprise/v1/status", timeout=httpx.Timeout(60, read=0.2))

    wait_until(sandbox.requests, what="the request")
    (received,) = sandbox.requests()
    assert received["status"] is None


def test_requests_can_be_filtered_by_path_recording_and_number(sandbox: SandboxClient) -> None:
    for isrc in (A_RECORDING, "QZES72012346", A_RECORDING):
        request_history(sandbox, isrc)
    httpx.get(f"{sandbox.stripe_url}/v1/customers/cus_1")

    assert [r["isrc"] for r in sandbox.requests("/enterprise/")] == [
        A_RECORDING,
        "QZES72012346",
        A_RECORDING,
    ]
    assert [r["path"] for r in sandbox.requests("/v1/")] == ["/v1/customers/cus_1"]
    first, third = sandbox.requests(isrc=A_RECORDING)
    assert [r["n"] for r in sandbox.requests(isrc=A_RECORDING, since=first["n"])] == [third["n"]]


def test_the_vendor_counts_hits(sandbox: SandboxClient) -> None:
    for isrc in (A_RECORDING, "QZES72012346", A_RECORDING):
        request_history(sandbox, isrc)
    httpx.get(f"{sandbox.songstats_url}/enterprise/v1/status")

    assert sandbox.hits() == 3
    assert sandbox.hits(A_RECORDING) == 2


def test_clearing_the_log_resets_the_count_but_not_the_numbers(sandbox: SandboxClient) -> None:
    request_history(sandbox, A_RECORDING)
    (before,) = sandbox.requests()
    sandbox.forget_requests()
    assert sandbox.hits() == 0

    request_history(sandbox, A_RECORDING)
    (after,) = sandbox.requests()
    assert after["n"] > before["n"]


def test_requests_to_the_sandbox_itself_are_not_logged(sandbox: SandboxClient) -> None:
    sandbox.faults("/nowhere", status=500)
    sandbox.requests()

    assert sandbox.requests("") == []


def test_keys_are_never_logged(sandbox: SandboxClient) -> None:
    request_history(sandbox, A_RECORDING, apikey="secret-in-the-query")
    httpx.get(
        f"{sandbox.stripe_url}/v1/customers/cus_1",
        headers={"authorization": f"Bearer {sandbox.stripe_key}"},
    )

    noted = httpx.get(f"{sandbox.songstats_url}/_requests").text
    assert A_RECORDING in noted
    assert sandbox.songstats_key not in noted
    assert sandbox.stripe_key not in noted
    assert "secret-in-the-query" not in noted


def test_an_invalid_number_is_rejected(sandbox: SandboxClient) -> None:
    assert httpx.get(f"{sandbox.songstats_url}/_requests?since=yesterday").status_code == 400
