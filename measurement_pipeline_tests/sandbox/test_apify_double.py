"""The Apify double, checked with Apify's own client where the client shows it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import impit
import pytest
from apify_client import ApifyClient
from apify_client.errors import ApifyApiError

from measurement_pipeline.sandbox import PLAIN, Behaviour, KnownRecording, SandboxClient, running
from measurement_pipeline.sandbox.albums import album_id, track_id
from measurement_pipeline_tests.sandbox.clients import NO_TLS
from measurement_pipeline_tests.sandbox.clock import Clock

ACTOR = "beatanalytics/spotify-play-count-scraper"
ISRCS = [f"AA6Q724{n:05}" for n in range(12)]
KNOWN = {
    isrc: KnownRecording(title=f"Song {isrc}", artist="Choir", album="One", play_count=int(isrc[4:])) for isrc in ISRCS
}
ALBUM = album_id("Choir", "One")


def of(*albums: str) -> dict[str, Any]:
    return {"urls": [{"url": f"https://open.spotify.com/album/{album}"} for album in albums]}


def official(sandbox: SandboxClient, token: str | None = None) -> ApifyClient:
    return ApifyClient(token or sandbox.apify_token, api_url=sandbox.apify_url, max_retries=0)


def send_request(sandbox: SandboxClient, path: str, method: str = "GET", **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {sandbox.apify_token}"}
    return httpx.request(method, f"{sandbox.apify_url}{path}", **{"headers": headers, "verify": NO_TLS, **more})


@pytest.fixture(scope="module")
def plain() -> Iterator[SandboxClient]:
    with running(behaviour=PLAIN, catalogue=KNOWN) as opened:
        yield opened


@pytest.fixture
def sandbox(plain: SandboxClient) -> Iterator[SandboxClient]:
    yield plain
    plain.clear_faults()
    plain.forget_requests()


def test_apifys_client_runs_the_actor_and_reads_its_items(sandbox: SandboxClient):
    client = official(sandbox)
    run = client.actor(ACTOR).call(run_input=of(ALBUM, "unknown"), logger=None)
    assert run is not None
    assert (run.status, run.exit_code, run.is_status_message_terminal) == ("SUCCEEDED", 0, True)
    items = client.dataset(run.default_dataset_id).list_items()
    assert (items.total, items.offset, items.count, items.limit, items.desc) == (2, 0, 2, 999_999_999_999, False)
    first, unknown = items.items
    assert first["id"] == ALBUM
    assert first["name"] == "One"
    assert [(track["id"], track["streamCount"]) for track in first["tracks"]] == [
        (track_id(isrc, "Choir", "One"), int(isrc[4:])) for isrc in ISRCS
    ]
    assert (unknown["id"], unknown["tracks"]) == ("unknown", [])


def test_apifys_client_finds_a_run_its_input_and_its_counted_items_again(sandbox: SandboxClient):
    client = official(sandbox)
    started = client.actor(ACTOR).start(run_input=of(ALBUM))
    assert started.status == "READY"
    listed = client.actor(ACTOR).runs().list(desc=True, limit=1)
    assert [run.id for run in listed.items] == [started.id]
    record = client.key_value_store(listed.items[0].default_key_value_store_id).get_record("INPUT")
    assert record is not None
    assert record["value"] == of(ALBUM)
    dataset = client.dataset(started.default_dataset_id).get()
    assert dataset is not None
    assert dataset.item_count == 1


def test_a_compressed_large_input_is_read(sandbox: SandboxClient):
    client = official(sandbox)
    albums = [f"{n:022}" for n in range(100)]
    run = client.actor(ACTOR).call(run_input=of(*albums), logger=None)
    assert run is not None
    pages = client.dataset(run.default_dataset_id).iterate_items(chunk_size=30)
    assert [item["id"] for item in pages] == albums
    record = client.key_value_store(run.default_key_value_store_id).get_record("INPUT")
    assert record is not None
    assert record["value"] == of(*albums)


@pytest.mark.parametrize("style", ["acts", "actors"])
def test_both_path_styles_and_a_token_in_the_query_are_accepted(sandbox: SandboxClient, style: str):
    path = f"/v2/{style}/beatanalytics~spotify-play-count-scraper/runs"
    answer = send_request(sandbox, path, "POST", headers={}, params={"token": sandbox.apify_token}, json=of(ALBUM))
    assert answer.status_code == 201
    assert answer.json()["data"]["status"] == "READY"
    assert sandbox.apify_token not in str(sandbox.requests())


def test_a_run_takes_its_time_and_ends_with_the_given_status(clock: Clock):
    with running(behaviour=replace(PLAIN, actor_seconds=100), catalogue=KNOWN, clock=clock) as sandbox:
        sandbox.actor("TIMED-OUT", "too slow", count=1)
        sandbox.actor("ABORTED", count=1)
        runs = [official(sandbox).actor(ACTOR).start(run_input=of(ALBUM, "other", "third")).id for _ in range(3)]

        def statuses() -> list[str]:
            return [send_request(sandbox, f"/v2/actor-runs/{run}").json()["data"]["status"] for run in runs]

        seen = [statuses()]
        for seconds in (30, 60, 10):
            clock.advance(seconds=seconds)
            seen.append(statuses())
        described = send_request(sandbox, f"/v2/actor-runs/{runs[0]}").json()["data"]
        partly = send_request(sandbox, f"/v2/datasets/{described['defaultDatasetId']}/items").json()
    assert seen == [
        ["READY"] * 3,
        ["RUNNING"] * 3,
        ["TIMING-OUT", "ABORTING", "RUNNING"],
        ["TIMED-OUT", "ABORTED", "SUCCEEDED"],
    ]
    assert (described["statusMessage"], described["exitCode"]) == ("too slow", 1)
    assert [item["id"] for item in partly] == [ALBUM]


def test_a_setting_without_a_count_lasts_until_the_next(sandbox: SandboxClient):
    client = official(sandbox)

    def ends() -> str:
        run = client.actor(ACTOR).call(run_input=of(ALBUM), logger=None)
        assert run is not None
        return str(run.status)

    sandbox.actor("FAILED")
    assert [ends(), ends()] == ["FAILED", "FAILED"]
    sandbox.actor("SUCCEEDED")
    assert ends() == "SUCCEEDED"


def test_the_last_items_appear_after_the_end_of_their_run(clock: Clock):
    with running(behaviour=replace(PLAIN, dataset_lag=10), catalogue=KNOWN, clock=clock) as sandbox:
        dataset = official(sandbox).actor(ACTOR).start(run_input=of(ALBUM, "other")).default_dataset_id

        def seen() -> tuple[int, int]:
            counted = send_request(sandbox, f"/v2/datasets/{dataset}").json()["data"]["itemCount"]
            return counted, len(send_request(sandbox, f"/v2/datasets/{dataset}/items").json())

        assert seen() == (2, 1)
        clock.advance(seconds=10)
        assert seen() == (2, 2)


def test_waiting_for_a_run_ends_with_it_or_at_the_requested_time(sandbox: SandboxClient):
    sandbox.actor("SUCCEEDED", seconds=0.2, count=1)
    run = official(sandbox).actor(ACTOR).start(run_input=of(ALBUM)).id
    assert send_request(sandbox, f"/v2/actor-runs/{run}?waitForFinish=30").json()["data"]["status"] == "SUCCEEDED"
    sandbox.actor("SUCCEEDED", seconds=3600, count=1)
    endless = official(sandbox).actor(ACTOR).start(run_input=of(ALBUM)).id
    assert send_request(sandbox, f"/v2/actor-runs/{endless}?waitForFinish=0").json()["data"]["status"] == "READY"


def test_awkward_items_lack_ids_and_counts_or_have_zero_and_always_the_same_ones():
    albums = [album_id("Choir", str(n)) for n in range(60)]
    catalogue = {
        f"AA6Q724{n:05}": KnownRecording(artist="Choir", album=str(n // 10), play_count=n + 1) for n in range(600)
    }
    behaviour = Behaviour(actor_seconds=0, dataset_lag=0)

    def items() -> list[dict[str, Any]]:
        with running(behaviour=behaviour, catalogue=catalogue) as sandbox:
            client = official(sandbox)
            return (
                client.dataset(client.actor(ACTOR).start(run_input=of(*albums)).default_dataset_id).list_items().items
            )

    result = items()
    assert result == items()
    tracks = [track for item in result for track in item["tracks"]]
    assert 1 <= sum("id" not in item for item in result) <= 20
    assert 1 <= sum("streamCount" not in track for track in tracks) <= 60
    assert 1 <= sum(track.get("streamCount") == 0 for track in tracks) <= 60


def test_a_started_run_is_billed_even_if_the_response_is_lost():
    with running(behaviour=PLAIN) as sandbox:
        official(sandbox).actor(ACTOR).start(run_input=of("a", "b"))
        sandbox.faults("/v2/actors", close=True, count=1)
        with pytest.raises(impit.HTTPError):
            official(sandbox).actor(ACTOR).start(run_input=of("c"))
        sandbox.faults("/v2/actors", status=500, count=1)
        with pytest.raises(ApifyApiError):
            official(sandbox).actor(ACTOR).start(run_input=of("d"))
        assert sandbox.actor_usage() == {"runs": 2, "albums": 3}
        assert sum(request["method"] == "POST" for request in sandbox.requests("/v2/act")) == 3


@pytest.mark.parametrize("token", ["wrong", ""])
def test_requests_without_the_token_get_apifys_error(sandbox: SandboxClient, token: str):
    for path in ("/v2/actor-runs/x", "/v2/datasets/x/items", "/v2/key-value-stores/x/records/INPUT"):
        answer = send_request(sandbox, path, headers={"authorization": f"Bearer {token}"} if token else {})
        assert answer.status_code == 401
        assert set(answer.json()["error"]) == {"type", "message"}


def test_apifys_client_reads_errors_and_faults(sandbox: SandboxClient):
    with pytest.raises(ApifyApiError) as wrong:
        official(sandbox, "wrong").actor(ACTOR).start(run_input=of(ALBUM))
    assert (wrong.value.status_code, wrong.value.type) == (401, "user-or-token-not-found")
    with pytest.raises(ApifyApiError) as odd:
        official(sandbox).actor(ACTOR).start(run_input={"albums": []})
    assert (odd.value.status_code, odd.value.type) == (400, "invalid-input")
    sandbox.faults("/v2/", status=429)
    with pytest.raises(ApifyApiError) as throttled:
        official(sandbox).actor(ACTOR).start(run_input=of(ALBUM))
    assert throttled.value.type == "rate-limit-exceeded"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/actor-runs/x",
        "/v2/datasets/x",
        "/v2/datasets/x/items",
        "/v2/key-value-stores/x/records/INPUT",
        "/v2/nothing",
    ],
)
def test_an_unknown_object_is_not_found_in_apifys_shape(sandbox: SandboxClient, path: str):
    answer = send_request(sandbox, path)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"type", "message"}


@pytest.mark.parametrize("query", ["limit=many", "offset=x"])
def test_invalid_numbers_are_rejected(sandbox: SandboxClient, query: str):
    assert send_request(sandbox, f"/v2/actors/beatanalytics~spotify-play-count-scraper/runs?{query}").status_code == 400


def test_an_invalid_setting_is_rejected(sandbox: SandboxClient):
    with pytest.raises(httpx.HTTPStatusError):
        sandbox.actor("CRASHED")
