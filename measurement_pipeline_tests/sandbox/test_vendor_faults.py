"""Faults set from outside, seen by a client at the other end of a real connection."""

import time

import httpx
import pytest

from measurement_pipeline.sandbox import Sandbox
from measurement_pipeline_tests.sandbox.clients import ask

HISTORIES = "/enterprise/v1/tracks/"
A_RECORDING = "QZES72012345"


def test_a_fault_lasts_for_its_count_and_then_the_vendor_is_well(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, status=503, count=2)

    assert [ask(sandbox, A_RECORDING).status_code for _ in range(3)] == [503, 503, 200]


def test_a_fault_without_a_count_lasts_until_it_is_cleared(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, status=500)
    assert [ask(sandbox, A_RECORDING).status_code for _ in range(3)] == [500, 500, 500]

    sandbox.clear_faults()
    assert ask(sandbox, A_RECORDING).status_code == 200


def test_faults_are_met_in_the_order_they_were_set(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, status=502, count=1)
    sandbox.faults(HISTORIES, status=429, count=1)

    assert [ask(sandbox, A_RECORDING).status_code for _ in range(3)] == [502, 429, 200]


def test_a_fault_of_one_recording_leaves_the_others_alone(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, isrc="AA6Q72500001", status=410)

    assert ask(sandbox, "AA6Q72500001").status_code == 410
    assert ask(sandbox, "AA6Q72500002").status_code == 200


def test_a_path_can_be_a_pattern(sandbox: Sandbox) -> None:
    sandbox.faults("/enterprise/*/historic_stats", status=500)

    assert ask(sandbox, A_RECORDING).status_code == 500
    status = f"{sandbox.songstats_url}/enterprise/v1/status"
    assert httpx.get(status, headers={"apikey": sandbox.songstats_key}).status_code == 200


@pytest.mark.parametrize("advice", [17, "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_retry_after_goes_out_as_given(sandbox: Sandbox, advice: int | str) -> None:
    sandbox.faults(HISTORIES, status=429, retry_after=advice, count=1)

    assert ask(sandbox, A_RECORDING).headers["retry-after"] == str(advice)


def test_a_429_without_advice_has_no_retry_after(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, status=429, count=1)

    answer = ask(sandbox, A_RECORDING)
    assert "retry-after" not in answer.headers
    assert answer.json()["result"] == "error"


def test_a_body_can_be_anything(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, body="<html>", headers={"Content-Type": "text/html"}, count=1)

    answer = ask(sandbox, A_RECORDING)
    assert (answer.status_code, answer.text) == (200, "<html>")
    assert answer.headers["content-type"] == "text/html"


def test_a_body_that_is_no_gzip_cannot_be_unpacked(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, body="{}", headers={"Content-Encoding": "gzip"}, count=1)

    with pytest.raises(httpx.DecodingError):
        ask(sandbox, A_RECORDING)


def test_an_answer_can_be_late(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, delay=0.3, count=1)
    before = time.monotonic()

    assert ask(sandbox, A_RECORDING).status_code == 200
    assert time.monotonic() - before >= 0.3


def test_a_body_cut_short_is_noticed_by_its_length(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, cut=100, count=1)

    with pytest.raises(httpx.RemoteProtocolError, match="received 100 bytes, expected"):
        ask(sandbox, A_RECORDING)
    assert ask(sandbox, A_RECORDING).status_code == 200


def test_a_chunked_body_can_be_cut_short_too(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, cut=100, headers={"Transfer-Encoding": "chunked"}, count=1)

    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        ask(sandbox, A_RECORDING)


def test_a_connection_can_end_without_an_answer(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, close=True, count=1)

    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        ask(sandbox, A_RECORDING)
    assert ask(sandbox, A_RECORDING).status_code == 200


def test_a_connection_can_be_reset(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, reset=True, count=1)

    with pytest.raises(httpx.ReadError, match="reset"):
        ask(sandbox, A_RECORDING)
    assert ask(sandbox, A_RECORDING).status_code == 200


def test_a_spoiled_delivery_was_work_done_but_an_invented_answer_was_not(sandbox: Sandbox) -> None:
    def billed() -> int:
        status = f"{sandbox.songstats_url}/enterprise/v1/status"
        answer = httpx.get(status, headers={"apikey": sandbox.songstats_key}).json()
        requests: int = answer["status"]["current_month_total_requests"]
        return requests

    before = billed()
    sandbox.faults(HISTORIES, status=429, count=1)
    ask(sandbox, A_RECORDING)
    assert billed() == before

    sandbox.faults(HISTORIES, close=True, count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(sandbox, A_RECORDING)
    assert billed() == before + 1


def test_faults_can_be_listed_with_what_is_left_of_them(sandbox: Sandbox) -> None:
    sandbox.faults(HISTORIES, status=503, count=3)
    ask(sandbox, A_RECORDING)

    listed = httpx.get(f"{sandbox.songstats_url}/_faults").json()
    assert listed == [{"path": HISTORIES, "status": 503, "count": 2}]


@pytest.mark.parametrize(
    "fault",
    [{}, {"path": "/", "stauts": 500}, {"path": "/", "status": "500"}, {"path": "/", "count": 0}],
)
def test_a_fault_that_is_no_fault_is_refused(sandbox: Sandbox, fault: dict[str, object]) -> None:
    answer = httpx.post(f"{sandbox.songstats_url}/_faults", json=fault)

    assert answer.status_code == 400
    assert httpx.get(f"{sandbox.songstats_url}/_faults").json() == []


def test_several_faults_can_be_set_at_once(sandbox: Sandbox) -> None:
    faults = [{"path": HISTORIES, "status": status, "count": 1} for status in (500, 503)]
    httpx.post(f"{sandbox.songstats_url}/_faults", json=faults).raise_for_status()

    assert [ask(sandbox, A_RECORDING).status_code for _ in range(3)] == [500, 503, 200]
