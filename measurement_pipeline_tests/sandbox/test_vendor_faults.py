"""Faults set from outside, as a client sees them over a real connection."""

import gzip
import socket
import time

import httpx
import pytest

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.sandbox.clients import NO_TLS, request_history

HISTORIES = "/enterprise/v1/tracks/"
A_RECORDING = "QZES72012345"


def test_a_fault_lasts_for_its_count_and_then_the_vendor_recovers(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, status=503, count=2)

    assert [request_history(sandbox, A_RECORDING).status_code for _ in range(3)] == [503, 503, 200]


def test_a_fault_without_a_count_lasts_until_it_is_cleared(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, status=500)
    assert [request_history(sandbox, A_RECORDING).status_code for _ in range(3)] == [500, 500, 500]

    sandbox.clear_faults()
    assert request_history(sandbox, A_RECORDING).status_code == 200


def test_faults_apply_in_the_order_in_which_they_were_set(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, status=502, count=1)
    sandbox.faults(HISTORIES, status=429, count=1)

    assert [request_history(sandbox, A_RECORDING).status_code for _ in range(3)] == [502, 429, 200]


def test_a_fault_of_one_recording_does_not_affect_others(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, isrc="AA6Q72500001", status=410)

    assert request_history(sandbox, "AA6Q72500001").status_code == 410
    assert request_history(sandbox, "AA6Q72500002").status_code == 200


def test_a_path_can_be_a_pattern(sandbox: SandboxClient) -> None:
    sandbox.faults("/enterprise/*/historic_stats", status=500)

    assert request_history(sandbox, A_RECORDING).status_code == 500
    status = f"{sandbox.songstats_url}/enterprise/v1/status"
    assert httpx.get(status, headers={"apikey": sandbox.songstats_key}).status_code == 200


@pytest.mark.parametrize("advice", [17, "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_retry_after_is_sent_unchanged(sandbox: SandboxClient, advice: int | str) -> None:
    sandbox.faults(HISTORIES, status=429, retry_after=advice, count=1)

    assert request_history(sandbox, A_RECORDING).headers["retry-after"] == str(advice)


def test_a_429_without_a_wait_has_no_retry_after(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, status=429, count=1)

    answer = request_history(sandbox, A_RECORDING)
    assert "retry-after" not in answer.headers
    assert answer.json()["result"] == "error"


def test_a_body_can_be_anything(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, body="<html>", headers={"Content-Type": "text/html"}, count=1)

    answer = request_history(sandbox, A_RECORDING)
    assert (answer.status_code, answer.text) == (200, "<html>")
    assert answer.headers["content-type"] == "text/html"


@pytest.mark.parametrize(
    ("foreign", "status"),
    [("challenge", 403), ("proxy", 404), ("portal", 200), ("portal redirect", 302), ("login", 401), ("gateway", 500)],
)
def test_another_service_can_respond_instead_of_the_vendor(sandbox: SandboxClient, foreign: str, status: int) -> None:
    sandbox.faults(HISTORIES, foreign=foreign, count=1)
    sandbox.faults(HISTORIES, foreign=foreign, status=429, count=1)

    answer = request_history(sandbox, A_RECORDING)
    assert answer.status_code == status
    assert "json" not in answer.headers.get("content-type", "")
    assert request_history(sandbox, A_RECORDING).status_code == 429
    assert request_history(sandbox, A_RECORDING).status_code == 200


def test_a_body_that_is_not_gzip_cannot_be_decompressed(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, body="{}", headers={"Content-Encoding": "gzip"}, count=1)

    with pytest.raises(httpx.DecodingError):
        request_history(sandbox, A_RECORDING)


def test_a_response_can_be_delayed(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, delay=0.3, count=1)
    before = time.monotonic()

    assert request_history(sandbox, A_RECORDING).status_code == 200
    assert time.monotonic() - before >= 0.3


def test_a_truncated_body_is_detected_by_its_length(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, cut=100, count=1)

    with pytest.raises(httpx.RemoteProtocolError, match="received 100 bytes, expected"):
        request_history(sandbox, A_RECORDING)
    assert request_history(sandbox, A_RECORDING).status_code == 200


def test_a_chunked_body_can_be_truncated(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, cut=100, headers={"Transfer-Encoding": "chunked"}, count=1)

    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        request_history(sandbox, A_RECORDING)


def test_a_connection_can_end_without_a_response(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, close=True, count=1)

    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        request_history(sandbox, A_RECORDING)
    assert request_history(sandbox, A_RECORDING).status_code == 200


def test_a_connection_can_be_reset(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, reset=True, count=1)

    with pytest.raises(httpx.ReadError, match="reset"):
        request_history(sandbox, A_RECORDING)
    assert request_history(sandbox, A_RECORDING).status_code == 200


def test_a_damaged_response_is_billed_and_an_invented_one_is_not(sandbox: SandboxClient) -> None:
    def billed() -> int:
        status = f"{sandbox.songstats_url}/enterprise/v1/status"
        answer = httpx.get(status, headers={"apikey": sandbox.songstats_key}).json()
        requests: int = answer["status"]["current_month_total_requests"]
        return requests

    before = billed()
    sandbox.faults(HISTORIES, status=429, count=1)
    request_history(sandbox, A_RECORDING)
    assert billed() == before

    sandbox.faults(HISTORIES, close=True, count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        request_history(sandbox, A_RECORDING)
    assert billed() == before + 1


def test_faults_can_be_listed_with_their_remaining_counts(sandbox: SandboxClient) -> None:
    sandbox.faults(HISTORIES, status=503, count=3)
    request_history(sandbox, A_RECORDING)

    listed = httpx.get(f"{sandbox.songstats_url}/_faults").json()
    assert listed == [{"path": HISTORIES, "status": 503, "count": 2}]


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"path": "/", "stauts": 500},
        {"path": "/", "status": "500"},
        {"path": "/", "count": 0},
        {"path": "/", "foreign": "x"},
    ],
)
def test_an_invalid_fault_is_rejected(sandbox: SandboxClient, fault: dict[str, object]) -> None:
    answer = httpx.post(f"{sandbox.songstats_url}/_faults", json=fault)

    assert answer.status_code == 400
    assert httpx.get(f"{sandbox.songstats_url}/_faults").json() == []


def test_several_faults_can_be_set_together(sandbox: SandboxClient) -> None:
    faults = [{"path": HISTORIES, "status": status, "count": 1} for status in (500, 503)]
    httpx.post(f"{sandbox.songstats_url}/_faults", json=faults).raise_for_status()

    assert [request_history(sandbox, A_RECORDING).status_code for _ in range(3)] == [500, 503, 200]


def raw_body(sandbox: SandboxClient) -> bytes:
    """A response body as transferred, before decoding."""
    url = f"{sandbox.songstats_url}{HISTORIES}historic_stats?isrc={A_RECORDING}&source=spotify"
    with (
        httpx.Client(verify=NO_TLS, timeout=60) as client,
        client.stream("GET", url, headers={"apikey": sandbox.songstats_key}) as answer,
    ):
        return b"".join(answer.iter_raw())


def raw_response(sandbox: SandboxClient, fault: dict[str, object], *, silent: bool = False) -> tuple[bytes, str]:
    """The bytes of one response, including the status line, and how it ended. `silent`: do not wait for any byte.

    A connection that is meant to hang counts as silent after half a second without a byte; all others are read to the end.
    """
    sandbox.faults(HISTORIES, count=1, **fault)
    host, port = sandbox.songstats_url.removeprefix("http://").split(":")
    request = f"GET {HISTORIES}historic_stats?isrc={A_RECORDING}&source=spotify HTTP/1.1\r\nhost: {host}\r\n"
    with socket.create_connection((host, int(port)), timeout=0.5 if silent else 60) as connection:
        connection.sendall(f"{request}apikey: {sandbox.songstats_key}\r\n\r\n".encode())
        received = b""
        while True:
            try:
                part = connection.recv(65536)
            except TimeoutError:
                return received, "silence"
            except ConnectionResetError:
                return received, "reset"
            if not part:
                return received, "closed"
            received += part
            if "hang" in fault:
                connection.settimeout(0.5)


def test_a_half_open_connection_stays_silent(sandbox: SandboxClient) -> None:
    assert raw_response(sandbox, {"hang": True}, silent=True) == (b"", "silence")
    wait_until(lambda: sandbox.requests(HISTORIES), what="the request")
    assert sandbox.requests(HISTORIES)[-1]["status"] is None


def test_a_connection_can_stop_after_the_head_or_within_the_body(sandbox: SandboxClient) -> None:
    received, end = raw_response(sandbox, {"hang": True, "cut": 0})
    assert (received.startswith(b"HTTP/1.1 200 OK\r\n"), received.endswith(b"\r\n\r\n"), end) == (True, True, "silence")

    received, end = raw_response(sandbox, {"hang": True, "cut": 10})
    assert (len(received.partition(b"\r\n\r\n")[2]), end) == (10, "silence")


def test_a_connection_can_be_reset_within_the_body(sandbox: SandboxClient) -> None:
    received, end = raw_response(sandbox, {"reset": True, "cut": 10})
    assert (received.partition(b"\r\n\r\n")[2][10:], end) == (b"", "reset")


def test_a_random_cut_differs_for_each_request_and_repeats_with_its_seed(sandbox: SandboxClient) -> None:
    def sizes(seed: str) -> list[int]:
        sandbox.clear_faults()
        return [
            len(raw_response(sandbox, {"cut": "anywhere", "seed": seed})[0].partition(b"\r\n\r\n")[2]) for _ in range(6)
        ]

    first = sizes("one")
    assert len(set(first)) > 3
    assert sizes("one") == first
    assert sizes("other") != first


def test_gzip_can_be_valid_or_corrupt_in_three_ways(sandbox: SandboxClient) -> None:
    plain = raw_body(sandbox)

    def packed(how: str) -> bytes:
        sandbox.faults(HISTORIES, gzip=how, count=1)
        return raw_body(sandbox)

    assert gzip.decompress(packed("whole")) == plain
    assert packed("not") == plain
    with pytest.raises(EOFError):
        gzip.decompress(packed("short"))
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress(packed("wrong"))


def test_invalid_http_is_sent_byte_by_byte(sandbox: SandboxClient) -> None:
    raw = "HTTP/9.9 \x00 ok\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"
    assert raw_response(sandbox, {"raw": raw}) == (raw.encode("latin-1"), "closed")
    assert raw_response(sandbox, {"raw": raw, "hang": True}) == (raw.encode("latin-1"), "silence")


def test_a_share_of_the_requests_gets_a_fault_and_the_others_the_next_one(sandbox: SandboxClient) -> None:
    def answers() -> list[int]:
        sandbox.clear_faults()
        sandbox.faults(HISTORIES, status=503, share=0.5, seed="one")
        sandbox.faults(HISTORIES, status=429, share=0.5, seed="one")
        return [request_history(sandbox, A_RECORDING).status_code for _ in range(40)]

    first = answers()
    assert {status: first.count(status) > 2 for status in (503, 429, 200)} == {503: True, 429: True, 200: True}
    assert answers() == first
