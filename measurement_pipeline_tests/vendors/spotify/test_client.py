"""Track lookups: each track is found, unknown or deferred; only Spotify makes one unknown; long waits are deferred."""

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from measurement_pipeline.sandbox import PLAIN, KnownRecording, SandboxClient, running
from measurement_pipeline.sandbox.albums import track_id
from measurement_pipeline.vendors.errors import CredentialsRejectedError
from measurement_pipeline.vendors.spotify.client import LookupResult, SpotifyClient

KNOWN = {f"AA6Q724{n:05}": KnownRecording(title=f"Song {n}", artist="Choir", album="One") for n in range(120)}
TRACKS = {isrc: track_id(isrc, "Choir", "One") for isrc in KNOWN}
IDS = list(TRACKS.values())
UNKNOWN = ["u" * 21 + digit for digit in "123"]
TRACKS_PATH = "/v1/tracks"
BATCHES = "/v1/track[s]"  # a pattern: without the paths below it


@dataclass
class Sleeper:
    """Records the sleeps without sleeping."""

    slept: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, seconds: float) -> None:
        with self.lock:
            self.slept.append(seconds)


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture(scope="module")
def batches() -> Iterator[SandboxClient]:
    with running(behaviour=PLAIN, catalogue=KNOWN) as opened:
        yield opened


@pytest.fixture(scope="module")
def singles() -> Iterator[SandboxClient]:
    """A Spotify that rejects batches, as for an app in development mode."""
    with running(behaviour=replace(PLAIN, spotify_batches=False), catalogue=KNOWN) as opened:
        yield opened


@pytest.fixture(params=["batches", "singles"])
def sandbox(request: pytest.FixtureRequest, batches: SandboxClient, singles: SandboxClient) -> Iterator[SandboxClient]:
    result = batches if request.param == "batches" else singles
    yield result
    result.clear_faults()
    result.forget_requests()


@pytest.fixture
def in_batches(batches: SandboxClient) -> Iterator[SandboxClient]:
    yield batches
    batches.clear_faults()
    batches.forget_requests()


@pytest.fixture
def one_by_one(singles: SandboxClient) -> Iterator[SandboxClient]:
    yield singles
    singles.clear_faults()
    singles.forget_requests()


def client(sandbox: SandboxClient, sleeper: Sleeper | None = None, **settings: Any) -> SpotifyClient:
    usual: dict[str, Any] = {
        "client_id": sandbox.spotify_client_id,
        "client_secret": sandbox.spotify_client_secret,
        "api_base": sandbox.spotify_url,
        "accounts_base": sandbox.spotify_url,
        "sleep": sleeper or Sleeper(),
        "timeout_seconds": 60.0,
    }
    return SpotifyClient(**usual | settings)


def look_up(sandbox: SandboxClient, *ids: str, sleeper: Sleeper | None = None, **settings: Any) -> LookupResult:
    with client(sandbox, sleeper, **settings) as spotify:
        return spotify.look_up(ids)


def requested_ids(sandbox: SandboxClient) -> list[str]:
    return [request["path"].removeprefix(TRACKS_PATH) for request in sandbox.requests(TRACKS_PATH)]


def tokens(sandbox: SandboxClient) -> int:
    return len(sandbox.requests("/api/token"))


# --- results -------------------------------------------------------------------------------------------------------------


def test_tracks_are_found_by_the_requested_id_with_their_isrc(sandbox: SandboxClient):
    lookup = look_up(sandbox, *IDS)
    assert {isrc: lookup.found[identity].isrc for isrc, identity in TRACKS.items()} == {isrc: isrc for isrc in TRACKS}
    assert (lookup.unknown, lookup.deferred, lookup.reason, lookup.retry_after_seconds) == (
        frozenset(),
        frozenset(),
        None,
        None,
    )
    assert tokens(sandbox) == 1


def test_a_track_that_spotify_does_not_know_is_unknown(sandbox: SandboxClient):
    lookup = look_up(sandbox, UNKNOWN[0], IDS[0], *UNKNOWN[1:])
    assert lookup.unknown == frozenset(UNKNOWN)
    assert lookup.found.keys() == {IDS[0]}
    assert lookup.deferred == frozenset()


def test_an_invalid_id_is_unknown_and_does_not_fail_its_batch(sandbox: SandboxClient):
    odd = ["", "short", "é" * 22, "a" * 21 + ",", f"{IDS[1]}x", "../../users/me/abcdefgh"]
    lookup = look_up(sandbox, *odd, IDS[0])
    assert lookup.unknown == frozenset(odd)
    assert lookup.found.keys() == {IDS[0]}


def test_an_empty_lookup_sends_no_request(sandbox: SandboxClient):
    assert look_up(sandbox) == LookupResult({}, frozenset(), frozenset(), None, None)
    assert look_up(sandbox, "no id").unknown == {"no id"}
    assert sandbox.requests() == []


def test_a_request_has_fifty_tracks_and_each_track_once(in_batches: SandboxClient):
    look_up(in_batches, *IDS, *IDS)
    batches = [request["query"]["ids"].split(",") for request in in_batches.requests(TRACKS_PATH)]
    assert sorted(map(len, batches)) == [20, 50, 50]
    assert sorted(identity for batch in batches for identity in batch) == sorted(IDS)


def test_after_a_rejected_batch_tracks_are_requested_singly_and_that_is_remembered(one_by_one: SandboxClient):
    with client(one_by_one, workers=1) as spotify:
        assert len(spotify.look_up(IDS[:60]).found) == 60
        assert requested_ids(one_by_one).count("") == 1
        assert len(spotify.look_up(IDS[60:]).found) == 60
        assert requested_ids(one_by_one).count("") == 1
    assert sorted(requested_ids(one_by_one)[1:]) == sorted(f"/{identity}" for identity in IDS)


def test_an_id_that_fails_its_batch_is_identified(in_batches: SandboxClient):
    in_batches.faults(
        TRACKS_PATH, status=400, body='{"error": {"status": 400, "message": "Invalid base62 id"}}', count=1
    )
    in_batches.faults(f"{TRACKS_PATH}/{IDS[7]}", status=400, body='{"error": {"message": "Invalid base62 id"}}')
    lookup = look_up(in_batches, *IDS[:50])
    assert lookup.unknown == {IDS[7]}
    assert len(lookup.found) == 49


# --- tokens ---------------------------------------------------------------------------------------------------------------


def test_a_token_serves_until_it_expires_and_then_there_is_a_new_one(sandbox: SandboxClient):
    with client(sandbox) as spotify:
        spotify.look_up(IDS[:2])
        spotify.look_up(IDS[2:4])
        assert tokens(sandbox) == 1
        sandbox.faults(
            TRACKS_PATH, status=401, body='{"error": {"status": 401, "message": "The access token expired"}}', count=1
        )
        assert len(spotify.look_up(IDS).found) == len(IDS)
        assert tokens(sandbox) == 2


def test_a_token_rejected_at_once_is_not_requested_endlessly(sandbox: SandboxClient):
    sandbox.faults(TRACKS_PATH, status=401)
    lookup = look_up(sandbox, *IDS, workers=2)
    assert lookup.deferred == frozenset(IDS)
    assert lookup.reason is not None
    assert "token" in lookup.reason
    assert tokens(sandbox) <= 4


@pytest.mark.parametrize("workers", [1, 8])
def test_wrong_credentials_are_rejected_once_with_spotifys_message(in_batches: SandboxClient, workers: int):
    with pytest.raises(CredentialsRejectedError, match=r"SPOTIFY_CLIENT_SECRET .*Invalid client") as refused:
        look_up(in_batches, *IDS, client_secret="marked-4711", workers=workers)
    assert "marked-4711" not in str(refused.value)
    assert tokens(in_batches) == 1


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 403}, {"status": 200, "body": "{}"}, {"status": 200, "body": "?"}, {"reset": True}],
)
def test_without_a_token_everything_is_deferred(sandbox: SandboxClient, fault: dict[str, Any]):
    sandbox.faults("/api/token", **fault)
    lookup = look_up(sandbox, *IDS)
    assert lookup.deferred == frozenset(IDS)
    assert lookup.reason
    assert requested_ids(sandbox) == []


# --- waits ----------------------------------------------------------------------------------------------------------------


def test_a_short_retry_after_is_waited_out(sandbox: SandboxClient, sleeper: Sleeper):
    sandbox.faults(TRACKS_PATH, status=429, retry_after=7, count=1)
    assert len(look_up(sandbox, *IDS, sleeper=sleeper).found) == len(IDS)
    assert sleeper.slept == [7.0]


def test_concurrent_429s_cause_one_wait(in_batches: SandboxClient, sleeper: Sleeper):
    """Three requests are in flight, and all receive a 429 before one of them has waited."""
    together = threading.Barrier(3, timeout=120)
    seen: set[str] = set()
    lock = threading.Lock()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/token":
            return httpx.Response(200, json={"access_token": "a-token"})
        ids = request.url.params["ids"]
        with lock:
            first = ids not in seen
            seen.add(ids)
        if first:
            together.wait()
            return httpx.Response(429, headers={"retry-after": "20"})
        return httpx.Response(200, json={"tracks": [{"id": identity} for identity in ids.split(",")]})

    lookup = look_up(in_batches, *IDS, sleeper=sleeper, transport=httpx.MockTransport(answer))
    assert len(lookup.found) == len(IDS)
    assert sleeper.slept == [20.0]


def test_waits_share_one_budget_and_the_rest_is_deferred(sandbox: SandboxClient, sleeper: Sleeper):
    sandbox.faults(TRACKS_PATH, status=429, retry_after=12)
    lookup = look_up(sandbox, *IDS, sleeper=sleeper, workers=1)
    assert sleeper.slept == [12.0, 12.0]
    assert (lookup.deferred, lookup.retry_after_seconds) == (frozenset(IDS), 12.0)


def test_an_exceeded_quota_defers_the_remaining_tracks_for_fourteen_hours(in_batches: SandboxClient, sleeper: Sleeper):
    with client(in_batches, sleeper, workers=1) as spotify:
        spotify.look_up(IDS[:1])
        in_batches.forget_requests()
        in_batches.spotify_quota_exceeded()
        lookup = spotify.look_up(IDS)
    assert lookup.deferred == frozenset(IDS)
    assert lookup.retry_after_seconds == 14 * 3600
    assert "HTTP 429: API rate limit exceeded" in str(lookup.reason)
    assert sleeper.slept == []
    assert len(requested_ids(in_batches)) == 1


def test_tracks_found_before_the_quota_was_exceeded_stay_found(one_by_one: SandboxClient, sleeper: Sleeper):
    one_by_one.faults(f"{TRACKS_PATH}/{IDS[30]}", status=429, retry_after=50400)
    lookup = look_up(one_by_one, *IDS[:60], sleeper=sleeper, workers=1)
    assert lookup.found.keys() == set(IDS[:30])
    assert lookup.deferred == frozenset(IDS[30:60])
    assert lookup.retry_after_seconds == 50400


@pytest.mark.parametrize("expected", [None, "soon", 0])
def test_a_429_without_retry_after_backs_off_within_the_wait_budget(
    sandbox: SandboxClient, sleeper: Sleeper, expected: int | str | None
):
    sandbox.faults(TRACKS_PATH, status=429, retry_after=expected)
    lookup = look_up(sandbox, *IDS, sleeper=sleeper, workers=1)
    assert lookup.deferred == frozenset(IDS)
    assert 0 < sum(sleeper.slept) <= 30
    assert min(sleeper.slept) >= 1
    assert len(requested_ids(sandbox)) == len(sleeper.slept) + 1


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 503}, {"close": True}, {"reset": True}, {"cut": 10}], ids=str
)
def test_a_temporary_failure_is_retried_quickly(sandbox: SandboxClient, sleeper: Sleeper, fault: dict[str, Any]):
    sandbox.faults(TRACKS_PATH, count=2, **fault)
    assert len(look_up(sandbox, *IDS, sleeper=sleeper, workers=1).found) == len(IDS)
    assert sleeper.slept == [0.5, 1.0]


def test_a_permanent_failure_defers_and_stops_the_lookup(sandbox: SandboxClient, sleeper: Sleeper):
    sandbox.faults(TRACKS_PATH, status=502)
    lookup = look_up(sandbox, *IDS, sleeper=sleeper, workers=1)
    assert (lookup.found, lookup.unknown, lookup.deferred) == ({}, frozenset(), frozenset(IDS))
    assert "HTTP 502" in str(lookup.reason)
    assert len(requested_ids(sandbox)) == 9


def test_one_request_that_always_fails_does_not_block_the_others(one_by_one: SandboxClient):
    one_by_one.faults(f"{TRACKS_PATH}/{IDS[0]}", status=500)
    lookup = look_up(one_by_one, *IDS[:60])
    assert lookup.deferred == {IDS[0]}
    assert len(lookup.found) == 59


# --- answers that cannot be read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", ["<html>", "null", "[]", "{}", '{"tracks": null}', '{"tracks": []}', '{"tracks": [null]}']
)
def test_an_unreadable_batch_is_deferred_and_never_unknown(in_batches: SandboxClient, body: str):
    in_batches.faults(TRACKS_PATH, status=200, body=body)
    lookup = look_up(in_batches, *IDS[:3])
    assert (lookup.unknown, lookup.deferred) == (frozenset(), frozenset(IDS[:3]))
    assert lookup.reason is not None
    assert "Unexpected response" in lookup.reason


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, "<html>"), (200, "null"), (200, "{}"), (400, '{"error": {"message": "Bad request"}}'), (410, "")],
)
def test_an_unreadable_single_response_is_deferred_and_never_unknown(one_by_one: SandboxClient, status: int, body: str):
    one_by_one.faults(f"{TRACKS_PATH}/", status=status, body=body)
    lookup = look_up(one_by_one, IDS[0])
    assert (lookup.unknown, lookup.deferred) == (frozenset(), {IDS[0]})
    assert lookup.reason


def test_one_unreadable_track_in_a_batch_is_deferred_alone(in_batches: SandboxClient):
    tracks = [{"id": IDS[0]}, {"name": "no id"}, None, {"id": IDS[0]}]
    in_batches.faults(TRACKS_PATH, status=200, body=json.dumps({"tracks": tracks}))
    lookup = look_up(in_batches, *IDS[:4])
    assert lookup.found.keys() == {IDS[0]}
    assert lookup.unknown == {IDS[2]}
    assert lookup.deferred == {IDS[1], IDS[3]}


@pytest.mark.parametrize("page", ["challenge", "proxy", "portal", "portal redirect", "login", "gateway", "json"])
def test_a_foreign_response_defers_and_is_never_unknown_nor_rejected_credentials(sandbox: SandboxClient, page: str):
    for path in (TRACKS_PATH, "/api/token"):
        sandbox.clear_faults()
        sandbox.faults(path, foreign=page)
        lookup = look_up(sandbox, *IDS[:3])
        assert (lookup.unknown, lookup.deferred) == (frozenset(), frozenset(IDS[:3]))
        assert lookup.reason is not None
        assert lookup.reason.startswith("not Spotify's own response: ")


def test_a_temporary_foreign_page_is_retried_quickly(sandbox: SandboxClient, sleeper: Sleeper):
    sandbox.faults(f"{TRACKS_PATH}*", foreign="portal", count=2)
    assert len(look_up(sandbox, *IDS, sleeper=sleeper, workers=1).found) == len(IDS)
    assert sleeper.slept == [0.5, 1.0]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 414, 451])
def test_without_the_batch_form_tracks_are_requested_singly(in_batches: SandboxClient, status: int):
    in_batches.faults(BATCHES, status=status, count=3)
    with client(in_batches, workers=1) as spotify:
        lookup = spotify.look_up(IDS)
        assert len(lookup.found) == len(IDS)
        for_good = status in {403, 404, 405, 410}
        assert requested_ids(in_batches).count("") == (1 if for_good else 3)
        in_batches.clear_faults()
        spotify.look_up(IDS[:2])
        assert requested_ids(in_batches).count("") == (1 if for_good else 4)


@pytest.mark.parametrize("page", ["challenge", "proxy"])
def test_after_a_foreign_rejection_tracks_are_requested_singly_this_time_only(in_batches: SandboxClient, page: str):
    in_batches.faults(BATCHES, foreign=page, count=1)
    with client(in_batches, workers=1) as spotify:
        assert len(spotify.look_up(IDS[:50]).found) == 50
        spotify.look_up(IDS[50:52])
        assert requested_ids(in_batches).count("") == 2


@pytest.mark.parametrize("status", [401, 429])
def test_a_batch_rejected_for_its_token_or_rate_is_not_a_removed_form(in_batches: SandboxClient, status: int):
    in_batches.faults(TRACKS_PATH, status=status, count=1)
    assert len(look_up(in_batches, *IDS[:50]).found) == 50
    assert requested_ids(in_batches) == ["", ""]


def test_only_the_rejected_track_is_deferred(one_by_one: SandboxClient):
    one_by_one.faults(f"{TRACKS_PATH}/{IDS[0]}", status=403)
    lookup = look_up(one_by_one, *IDS[:60], workers=1)
    assert (lookup.unknown, lookup.deferred) == (frozenset(), {IDS[0]})
    assert len(lookup.found) == 59
    assert str(lookup.reason).startswith("Spotify refuses the track (HTTP 403: ")


def test_an_app_rejected_for_every_track_stops_the_lookup(one_by_one: SandboxClient):
    one_by_one.faults(TRACKS_PATH, status=403)
    assert look_up(one_by_one, *IDS, workers=1).deferred == frozenset(IDS)
    assert len(requested_ids(one_by_one)) == 51


def test_an_app_rejected_for_every_track_marks_none_as_unknown(sandbox: SandboxClient):
    sandbox.faults(
        TRACKS_PATH, status=403, body='{"error": {"status": 403, "message": "Check settings on developer.test"}}'
    )
    lookup = look_up(sandbox, *IDS, workers=1)
    assert lookup.deferred == frozenset(IDS)
    assert "HTTP 403: Check settings on developer.test" in str(lookup.reason)


# --- where requests go, and what is shown ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "status"), [("/api/token", 307), (TRACKS_PATH, 301), (TRACKS_PATH, 308)])
def test_a_redirect_to_another_host_is_not_followed(
    in_batches: SandboxClient, one_by_one: SandboxClient, path: str, status: int
):
    in_batches.faults(path, status=status, headers={"location": f"{one_by_one.spotify_url}{path}"})
    assert look_up(in_batches, *IDS).deferred == frozenset(IDS)
    assert one_by_one.requests() == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_from_the_environment_is_not_used(
    in_batches: SandboxClient, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv(name, in_batches.spotify_url)
    lookup = look_up(in_batches, *IDS, api_base="http://127.0.0.1:9", accounts_base="http://127.0.0.1:9")
    assert lookup.deferred == frozenset(IDS)
    assert in_batches.requests() == []


def test_no_secret_and_no_token_is_in_an_error_or_a_log(in_batches: SandboxClient, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    in_batches.faults("/api/token", status=200, body='{"access_token": "marked-token-4711"}', count=1)
    with client(in_batches, client_secret="marked-secret-4711") as spotify:
        in_batches.faults(TRACKS_PATH, reset=True)
        lookup = spotify.look_up(IDS)
        assert "marked" not in f"{spotify!r} {lookup}"
    assert lookup.deferred == frozenset(IDS)
    assert "marked" not in caplog.text


@pytest.mark.parametrize("name", ["client_id", "client_secret"])
@pytest.mark.parametrize("value", ["", "two words", "é"])
def test_credentials_that_no_header_can_carry_are_rejected_without_being_shown(
    in_batches: SandboxClient, name: str, value: str
):
    with pytest.raises(ValueError, match="client id or secret is empty or contains") as refused:
        client(in_batches, **{name: value})
    assert not value or value not in str(refused.value)


def test_one_client_serves_several_at_once(sandbox: SandboxClient):
    with client(sandbox) as spotify, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(spotify.look_up, [IDS[:60]] * 4))
    assert [len(result.found) for result in results] == [60] * 4
    assert tokens(sandbox) == 1
