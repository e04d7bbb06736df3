"""Actor runs: one request each, a lost run is found, and an incomplete result is never taken for a complete one."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest

from measurement_pipeline.sandbox import PLAIN, KnownRecording, SandboxClient, running
from measurement_pipeline.sandbox.albums import album_id
from measurement_pipeline.vendors.apify.check import check_token
from measurement_pipeline.vendors.apify.client import ApifyClient, RunStatus, album_url
from measurement_pipeline.vendors.apify.items import read_items
from measurement_pipeline.vendors.apify.runs import read_run
from measurement_pipeline.vendors.errors import (
    CredentialsRejectedError,
    RequestRejectedError,
    ThrottledError,
    UnavailableError,
    VendorError,
)

ALBUMS = [album_id("Choir", name) for name in ("One", "Two", "Three")]
KNOWN = {f"AA6Q72400{n:03}": KnownRecording(play_count=100 + n, artist="Choir", album="One") for n in range(3)}
RUNS = "/v2/actors"
NOT_FOUND = {"error": {"type": "record-not-found", "message": "Dataset was not found"}}
PAGES = ["challenge", "proxy", "portal", "portal redirect", "login", "gateway", "json"]
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def shared() -> Iterator[SandboxClient]:
    with running(behaviour=PLAIN, catalogue=KNOWN) as opened:
        yield opened


@pytest.fixture
def sandbox(shared: SandboxClient) -> Iterator[SandboxClient]:
    """Doubles shared by the module. A test that searches for a run uses its own albums."""
    yield shared
    shared.clear_faults()
    shared.forget_requests()


def own_albums() -> list[str]:
    return [album_id(uuid4().hex, name) for name in ("One", "Two", "Three")]


@pytest.fixture
def actor(sandbox: SandboxClient) -> Iterator[ApifyClient]:
    with ApifyClient(sandbox.apify_token, base_url=sandbox.apify_url, timeout_seconds=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[SandboxClient]:
    """Another host that accepts the same token. No request must arrive there."""
    with running(behaviour=PLAIN) as opened:
        yield opened


def starts(sandbox: SandboxClient) -> int:
    """How many starts arrived, whatever the response."""
    return sum(request["method"] == "POST" for request in sandbox.requests("/v2/"))


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> ApifyClient:
    """A client whose vendor is a function."""
    return ApifyClient("a-token", base_url="http://apify.test", transport=httpx.MockTransport(answer))


# --- start ---------------------------------------------------------------------------------------------------------------


def test_a_start_is_one_request_and_returns_its_run(actor: ApifyClient, sandbox: SandboxClient):
    before, paid = datetime.now(UTC), sandbox.actor_usage()
    run = actor.start_run(ALBUMS)
    assert run.status is RunStatus.READY
    assert run.dataset_id
    assert run.started_at is not None
    assert timedelta(0) <= run.started_at - before.replace(microsecond=0) < timedelta(minutes=10)
    assert run.finished_at is None
    assert sandbox.actor_usage() == {"runs": paid["runs"] + 1, "albums": paid["albums"] + 3}
    assert starts(sandbox) == 1


def test_a_start_limits_what_its_run_may_charge_and_a_run_reports_its_cost():
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.query.decode())
        run = {"id": "r", "status": "READY", "usageTotalUsd": 0.0119999}
        return httpx.Response(201, json={"data": run})

    for price in (Decimal("0.004"), Decimal(0), None):
        transport = httpx.MockTransport(answer)
        client = ApifyClient("a-token", base_url="http://apify.test", max_usd_per_album=price, transport=transport)
        assert client.start_run(["a", "b", "c"]).cost_usd == Decimal("0.012")
    assert asked == ["maxTotalChargeUsd=0.012", "", ""]


@pytest.mark.parametrize("reported", [None, "0.1", -1, 0, True, 1e9, float("inf")])
def test_a_cost_that_is_no_plausible_amount_counts_as_not_reported(reported: object):
    assert read_run({"id": "r", "status": "SUCCEEDED", "usageTotalUsd": reported}).cost_usd is None


def test_an_album_url_escapes_the_id():
    assert album_url("4MUSeRnhpSfkMqREFQ36mC") == "https://open.spotify.com/album/4MUSeRnhpSfkMqREFQ36mC"
    assert album_url("a/../b?c#d é") == "https://open.spotify.com/album/a%2F..%2Fb%3Fc%23d%20%C3%A9"


def test_an_empty_list_of_albums_is_rejected_before_any_request(actor: ApifyClient, sandbox: SandboxClient):
    with pytest.raises(ValueError, match="at least one album"):
        actor.start_run([])
    assert sandbox.requests() == []


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503, "retry_after": 1},
        {"status": 408},
        {"status": 200, "body": "<html>"},
        {"status": 201, "body": '{"data": {"id": "r", "status": "NOVEL"}}'},
        {"status": 201, "body": '{"data": null}'},
        {"status": 302, "headers": {"location": "https://elsewhere.test/"}},
        {"close": True},
        {"reset": True},
        {"cut": 20},
        {"gzip": "not"},
    ],
    ids=str,
)
def test_a_start_with_a_lost_response_may_have_been_received_and_is_not_repeated(
    actor: ApifyClient, sandbox: SandboxClient, fault: dict[str, Any]
):
    sandbox.faults(RUNS, method="POST", **fault)
    with pytest.raises(UnavailableError) as lost:
        actor.start_run(ALBUMS)
    assert lost.value.may_have_been_received
    assert starts(sandbox) == 1


@pytest.mark.parametrize("page", PAGES)
def test_a_foreign_response_is_not_a_rejection_and_a_start_may_have_been_received(
    actor: ApifyClient, sandbox: SandboxClient, page: str
):
    run = actor.start_run(ALBUMS)
    sandbox.faults("/v2/", foreign=page)
    with pytest.raises(UnavailableError, match="not Apify's own response: ") as lost:
        actor.start_run(ALBUMS)
    assert lost.value.may_have_been_received
    for call in (
        lambda: actor.get_run(run.id),
        lambda: actor.download_items(run),
        lambda: actor.find_run(ALBUMS, since=LONG_AGO),
    ):
        with pytest.raises(UnavailableError, match="not Apify's own response: ") as lost:
            call()
        assert not lost.value.may_have_been_received
    assert check_token(sandbox.apify_token, base_url=sandbox.apify_url, timeout_seconds=60).is_accepted is None


@pytest.mark.parametrize("status", ["succeeded", " SUCCEEDED ", "Succeeded", "TIMED_OUT"])
def test_a_status_is_read_in_any_case(status: str):
    with answering(lambda _: httpx.Response(200, json={"data": {"id": "r", "status": status}})) as actor:
        assert actor.get_run("r").status.has_ended


def test_a_start_that_times_out_may_have_been_received(sandbox: SandboxClient):
    sandbox.faults(RUNS, method="POST", hang=True)
    paid = sandbox.actor_usage()["runs"]
    with (
        ApifyClient(sandbox.apify_token, base_url=sandbox.apify_url, timeout_seconds=0.5) as actor,
        pytest.raises(UnavailableError) as lost,
    ):
        actor.start_run(ALBUMS)
    assert lost.value.may_have_been_received
    assert (starts(sandbox), sandbox.actor_usage()["runs"]) == (1, paid + 1)


def test_a_start_without_a_connection_was_not_received():
    with (
        ApifyClient("a-token", base_url="http://127.0.0.1:9") as actor,
        pytest.raises(UnavailableError) as unreached,
    ):
        actor.start_run(ALBUMS)
    assert not unreached.value.may_have_been_received


# --- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_rejected_token_carries_the_vendors_message(actor: ApifyClient, sandbox: SandboxClient, status: int):
    sandbox.faults("/v2/", status=status, body='{"error": {"type": "no-token", "message": "It\\nis not valid"}}')
    with pytest.raises(CredentialsRejectedError, match=f"HTTP {status}, no-token: It is not valid"):
        actor.start_run(ALBUMS)


def test_a_wrong_token_is_rejected(sandbox: SandboxClient):
    with (
        ApifyClient("wrong-token", base_url=sandbox.apify_url) as actor,
        pytest.raises(CredentialsRejectedError) as refused,
    ):
        actor.get_run("r")
    assert "wrong-token" not in str(refused.value)


@pytest.mark.parametrize(("expected", "seconds"), [(7, 7.0), (None, None), ("soon", None)])
def test_a_429_carries_its_retry_after_and_is_not_waited_out(
    actor: ApifyClient, sandbox: SandboxClient, expected: int | str | None, seconds: float | None
):
    sandbox.faults("/v2/", status=429, retry_after=expected)
    with pytest.raises(ThrottledError) as throttled:
        actor.start_run(ALBUMS)
    assert throttled.value.retry_after_seconds == seconds
    assert starts(sandbox) == 1


@pytest.mark.parametrize("kind", ["actor-memory-limit-exceeded", "concurrent-runs-limit-exceeded"])
def test_an_account_at_capacity_is_throttled(actor: ApifyClient, sandbox: SandboxClient, kind: str):
    sandbox.faults("/v2/", status=402, body=json.dumps({"error": {"type": kind, "message": "Later"}}))
    with pytest.raises(ThrottledError, match=kind):
        actor.start_run(ALBUMS)


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_another_4xx_is_a_rejection(actor: ApifyClient, sandbox: SandboxClient, status: int):
    sandbox.faults("/v2/", status=status)
    with pytest.raises(RequestRejectedError) as rejected:
        actor.start_run(ALBUMS)
    assert rejected.value.status_code == status


def test_an_unknown_actor_is_rejected_with_the_vendors_message(sandbox: SandboxClient):
    with (
        ApifyClient(sandbox.apify_token, base_url=sandbox.apify_url, actor="some~other") as actor,
        pytest.raises(RequestRejectedError, match="Actor was not found"),
    ):
        actor.start_run(ALBUMS)


# --- look ----------------------------------------------------------------------------------------------------------------


def test_polling_a_run_is_free(actor: ApifyClient, sandbox: SandboxClient):
    run = actor.start_run(ALBUMS)
    paid = sandbox.actor_usage()
    states = [actor.get_run(run.id) for _ in range(3)]
    assert {result.id for result in states} == {run.id}
    assert states[0].status.has_succeeded
    assert states[0].finished_at is not None
    assert sandbox.actor_usage() == paid


def test_waiting_for_a_run_is_one_request(actor: ApifyClient, sandbox: SandboxClient):
    sandbox.actor("SUCCEEDED", seconds=0.3, count=1)
    run = actor.start_run(ALBUMS)
    assert actor.get_run(run.id, wait_seconds=20).status is RunStatus.SUCCEEDED
    assert [request["query"] for request in sandbox.requests("/v2/actor-runs")] == [{"waitForFinish": "20"}]


@pytest.mark.parametrize("ends", ["FAILED", "TIMED-OUT", "ABORTED"])
def test_an_unsuccessful_run_has_ended_with_a_message(actor: ApifyClient, sandbox: SandboxClient, ends: str):
    sandbox.actor(ends, "the proxy was blocked", count=1)
    states = actor.get_run(actor.start_run(ALBUMS).id)
    assert states.status == ends
    assert states.status.has_ended
    assert not states.status.has_succeeded
    assert states.message == "the proxy was blocked"


def test_a_run_that_apify_does_not_show_may_still_exist(actor: ApifyClient):
    with pytest.raises(UnavailableError, match="does not show run ru0"):
        actor.get_run("ru0")


def test_other_fields_of_a_run_do_not_matter():
    bare = {
        "id": "r",
        "status": "RUNNING",
        "startedAt": "yesterday",
        "finishedAt": 7,
        "options": None,
        "pricingInfo": {"x": 1},
    }
    with answering(lambda _: httpx.Response(200, json={"data": bare})) as actor:
        run = actor.get_run("r")
    assert (run.status, run.started_at, run.finished_at, run.dataset_id) == (RunStatus.RUNNING, None, None, None)


# --- find ----------------------------------------------------------------------------------------------------------------


def test_a_run_with_a_lost_start_response_is_found_by_its_albums(actor: ApifyClient, sandbox: SandboxClient):
    since, albums = datetime.now(UTC), own_albums()
    actor.start_run(albums[:1])
    sandbox.faults(RUNS, method="POST", close=True, count=1)
    with pytest.raises(UnavailableError):
        actor.start_run(albums)
    actor.start_run(albums[1:])
    result = actor.find_run(albums[::-1], since=since)
    assert result is not None
    assert [album.album_id for album in read_items(actor.download_items(result))] == albums
    assert starts(sandbox) == 3


def test_the_newest_run_is_found_and_excluded_runs_are_not(actor: ApifyClient):
    albums = own_albums()
    first, second = actor.start_run(albums), actor.start_run(albums)
    result = actor.find_run(albums, since=LONG_AGO)
    assert result is not None
    assert result.id == second.id
    besides = actor.find_run(albums, since=LONG_AGO, exclude={second.id})
    assert besides is not None
    assert besides.id == first.id
    assert actor.find_run(albums, since=LONG_AGO, exclude={first.id, second.id}) is None


def test_fewer_or_more_albums_are_another_run(actor: ApifyClient):
    albums = own_albums()
    actor.start_run(albums[:2])
    assert actor.find_run(albums[:1], since=LONG_AGO) is None
    assert actor.find_run(albums, since=LONG_AGO) is None
    assert actor.find_run(albums[:2], since=LONG_AGO) is not None


def test_an_older_run_is_not_found_except_within_the_clock_difference(actor: ApifyClient):
    albums = own_albums()
    run = actor.start_run(albums)
    assert run.started_at is not None
    assert actor.find_run(albums, since=run.started_at + timedelta(minutes=59)) is not None
    assert actor.find_run(albums, since=run.started_at + timedelta(minutes=61)) is None


def test_inputs_of_older_runs_are_not_requested(actor: ApifyClient, sandbox: SandboxClient):
    albums = own_albums()
    for _ in range(3):
        actor.start_run(albums)
    assert actor.find_run(albums, since=datetime.now(UTC) + timedelta(hours=2)) is None
    assert sandbox.requests("/v2/key-value-stores") == []


def runs_of(pages: list[list[dict[str, Any]]], inputs: dict[str, httpx.Response]) -> ApifyClient:
    """A client whose runs come in pages, with these inputs by store."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/INPUT"):
            return inputs[request.url.path.split("/")[3]]
        offset, sizes = int(request.url.params["offset"]), [sum(map(len, pages[:n])) for n in range(len(pages) + 1)]
        page = pages[sizes.index(offset)] if offset in sizes[:-1] else []
        return httpx.Response(200, json={"data": {"items": page, "total": sizes[-1]}})

    return answering(answer)


def listed(name: str, **more: Any) -> dict[str, Any]:
    started = {"startedAt": "2026-05-01T12:00:00.000Z", "defaultKeyValueStoreId": name}
    return {"id": name, "status": "RUNNING", **started, **more}


def urls(*albums: str, **more: Any) -> httpx.Response:
    return httpx.Response(200, json={"urls": [{"url": album_url(album), "method": "GET"} for album in albums], **more})


def test_a_run_on_a_later_page_with_default_inputs_is_found():
    pages = [[listed("k1"), listed("k2")], [listed("k3")]]
    with runs_of(pages, {"k1": urls("x"), "k2": urls("y"), "k3": urls("a", "b", proxy=None)}) as actor:
        result = actor.find_run(["b", "a"], since=LONG_AGO)
        assert result is not None
        assert result.id == "k3"
        assert actor.find_run(["c"], since=LONG_AGO) is None


@pytest.mark.parametrize(
    "item",
    [listed("k", startedAt=None), listed("k", defaultKeyValueStoreId=None), listed("k", status="NOVEL"), {}, None],
)
def test_an_unreadable_run_in_the_list_raises(item: Any):
    with runs_of([[item]], {"k": urls("x")}) as actor, pytest.raises(UnavailableError):
        actor.find_run(["a"], since=LONG_AGO)


@pytest.mark.parametrize("answer", [httpx.Response(404), httpx.Response(500), httpx.Response(200, content=b"no JSON")])
def test_an_unreadable_input_raises(answer: httpx.Response):
    with runs_of([[listed("k")]], {"k": answer}) as actor, pytest.raises(UnavailableError):
        actor.find_run(["a"], since=LONG_AGO)


@pytest.mark.parametrize("body", [{"data": {}}, {"data": []}, {}, []])
def test_an_unreadable_list_of_runs_raises(body: Any):
    with answering(lambda _: httpx.Response(200, json=body)) as actor, pytest.raises(UnavailableError):
        actor.find_run(["a"], since=LONG_AGO)


# --- result --------------------------------------------------------------------------------------------------------------


def test_items_are_returned_as_received(actor: ApifyClient, sandbox: SandboxClient):
    run = actor.start_run(ALBUMS)
    received = httpx.get(
        f"{sandbox.apify_url}/v2/datasets/{run.dataset_id}/items",
        headers={"authorization": f"Bearer {sandbox.apify_token}"},
    )
    assert actor.download_items(run) == received.content
    assert [len(album.tracks) for album in read_items(received.content)] == [3, 0, 0]


def test_counted_items_that_are_not_readable_yet_are_incomplete():
    late = replace(PLAIN, dataset_lag=3600)
    with running(behaviour=late) as sandbox, ApifyClient(sandbox.apify_token, base_url=sandbox.apify_url) as actor:
        run = actor.start_run(ALBUMS)
        with pytest.raises(UnavailableError, match="1 of the 3 items"):
            actor.download_items(run)


def dataset(items: list[Any], *, a_page: int, counted: int | None = None, total: int | None = None) -> ApifyClient:
    """A client whose vendor returns this many items per page."""

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/items"):
            return (
                httpx.Response(200, json={"data": {"itemCount": counted}})
                if counted is not None
                else httpx.Response(404, json=NOT_FOUND)
            )
        offset = int(request.url.params["offset"])
        headers = {} if total is None else {"X-Apify-Pagination-Total": str(total)}
        return httpx.Response(
            200, headers=headers, content=json.dumps(items[offset : offset + a_page], indent=1).encode()
        )

    return answering(answer)


RUN = {"id": "r", "status": "SUCCEEDED", "defaultDatasetId": "d"}


def result(actor: ApifyClient) -> list[Any]:
    from measurement_pipeline.vendors.apify.runs import read_run

    with actor:
        response_body: list[Any] = json.loads(actor.download_items(read_run(RUN)))
        return response_body


@pytest.mark.parametrize("a_page", [1, 2, 3, 7, 100])
def test_all_pages_are_one_list(a_page: int):
    items = [{"id": str(n), "tracks": [{"name": "], ["}]} for n in range(7)]
    assert result(dataset(items, a_page=a_page, counted=7, total=7)) == items


def test_no_items_are_an_empty_list():
    assert result(dataset([], a_page=10, counted=0, total=0)) == []


@pytest.mark.parametrize(("counted", "total"), [(8, 7), (7, 8), (8, None), (None, 8)])
def test_fewer_items_than_counted_are_incomplete(counted: int | None, total: int | None):
    with pytest.raises(UnavailableError, match="7 of the 8 items"):
        result(dataset([{}] * 7, a_page=100, counted=counted, total=total))


def test_a_count_below_the_number_of_items_does_not_matter():
    assert result(dataset([{}] * 7, a_page=100, counted=5, total=6)) == [{}] * 7


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'[{"id": 1}'])
def test_unreadable_items_are_unavailable(body: bytes):
    def answer(request: httpx.Request) -> httpx.Response:
        response_body = httpx.Response(200, content=body)
        return response_body if request.url.path.endswith("/items") else httpx.Response(404, json=NOT_FOUND)

    with pytest.raises(UnavailableError):
        result(answering(answer))


# --- destinations and secrets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "status"), [("look", 302), ("find", 302), *(("start", status) for status in (301, 302, 303, 307, 308))]
)
def test_a_redirect_to_another_host_is_not_followed(
    actor: ApifyClient, sandbox: SandboxClient, elsewhere: SandboxClient, status: int, call: str
):
    sandbox.faults("/v2/", status=status, headers={"location": f"{elsewhere.apify_url}/v2/actor-runs/r"})
    calls = {
        "start": lambda: actor.start_run(ALBUMS),
        "look": lambda: actor.get_run("r"),
        "find": lambda: actor.find_run(ALBUMS, since=LONG_AGO),
    }
    with pytest.raises(UnavailableError, match="not followed"):
        calls[call]()
    assert elsewhere.requests() == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_from_the_environment_is_not_used(elsewhere: SandboxClient, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, elsewhere.apify_url)
    with ApifyClient("a-token", base_url="http://127.0.0.1:9") as actor, pytest.raises(UnavailableError):
        actor.start_run(ALBUMS)
    assert elsewhere.requests() == []


@pytest.mark.parametrize(
    "fault",
    [{"status": 401}, {"status": 429}, {"status": 400}, {"status": 500}, {"reset": True}, {"status": 200, "body": "?"}],
    ids=str,
)
def test_the_token_is_in_no_error_and_no_log(
    sandbox: SandboxClient, caplog: pytest.LogCaptureFixture, fault: dict[str, Any]
):
    token = "marked-token-4711"
    caplog.set_level(logging.DEBUG)
    if "status" in fault and "body" not in fault:
        fault = {**fault, "body": json.dumps({"error": {"type": "t", "message": f"no {token} here"}})}
    sandbox.faults("/v2/", **fault)
    with ApifyClient(token, base_url=sandbox.apify_url) as actor:
        with pytest.raises(VendorError) as error:
            actor.start_run(ALBUMS)
        assert token not in repr(actor)
    assert token not in str(error.value) + repr(error.value)
    assert error.value.__cause__ is None or token not in repr(error.value.__cause__)
    assert token not in caplog.text


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é"])
def test_a_token_that_no_header_can_carry_is_rejected_without_being_shown(token: str):
    with pytest.raises(ValueError, match="the Apify token is empty or contains") as refused:
        ApifyClient(token, base_url="http://apify.test")
    assert not token or token not in str(refused.value)


@pytest.mark.parametrize("address", ["", "apify.test", "ftp://apify.test", "http://"])
def test_an_invalid_base_url_is_rejected(address: str):
    with pytest.raises(ValueError, match="http"):
        ApifyClient("a-token", base_url=address)


@pytest.mark.parametrize(
    "base", ["http://apify.test", "http://apify.test/", "http://apify.test/v2", "http://apify.test/v2/"]
)
def test_the_version_is_added_to_the_address_once(base: str):
    requested: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requested.append(str(request.url))
        return httpx.Response(200, json={"data": RUN})

    with ApifyClient("a-token", base_url=base, transport=httpx.MockTransport(answer)) as actor:
        actor.get_run("r/../x")
    assert requested == ["http://apify.test/v2/actor-runs/r%2F..%2Fx"]


# --- token check --------------------------------------------------------------------------------------------------------------


def test_a_valid_token_costs_one_request(sandbox: SandboxClient):
    paid = sandbox.actor_usage()
    result = check_token(sandbox.apify_token, base_url=sandbox.apify_url, timeout_seconds=60)
    assert result.is_accepted is True
    assert [(request["method"], request["path"]) for request in sandbox.requests("/v2")] == [
        ("GET", "/v2/actors/beatanalytics~spotify-play-count-scraper/runs")
    ]
    assert sandbox.actor_usage() == paid


@pytest.mark.parametrize(
    ("fault", "works"),
    [
        ({"status": 401}, False),
        ({"status": 402}, False),
        ({"status": 403}, False),
        ({"status": 404}, False),
        ({"status": 429}, None),
        ({"status": 503}, None),
        ({"body": "[]"}, None),
        ({"reset": True}, None),
        ({"hang": True}, None),
    ],
)
def test_a_rejected_token_is_distinguished_from_an_unknown_one(
    sandbox: SandboxClient, fault: dict[str, object], works: bool | None
):
    sandbox.faults("/v2/", **fault)
    seconds = 0.5 if "hang" in fault else 60
    result = check_token(sandbox.apify_token, base_url=sandbox.apify_url, timeout_seconds=seconds)
    assert result.is_accepted is works
    assert sandbox.apify_token not in result.message


def test_a_token_that_no_header_can_carry_is_rejected(sandbox: SandboxClient):
    result = check_token("two\nlines", base_url=sandbox.apify_url, timeout_seconds=1)
    assert (result.is_accepted, sandbox.requests("/v2")) == (False, [])
    assert "lines" not in result.message
