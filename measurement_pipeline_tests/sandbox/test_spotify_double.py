"""The Spotify double: tokens, batches and unknown ids, in the formats of the Web API."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import httpx
import pytest

from measurement_pipeline.sandbox import PLAIN, Behaviour, KnownRecording, SandboxClient, running
from measurement_pipeline.sandbox.albums import album_id, track_id
from measurement_pipeline_tests.sandbox.clients import NO_TLS
from measurement_pipeline_tests.sandbox.clock import Clock

ISRC = "AA6Q72400001"
KNOWN = {
    ISRC: KnownRecording(
        title="Song", artist="Choir", album="One", release_date=date(2024, 3, 15), reissued_on=("Two",)
    )
}
TRACK = track_id(ISRC, "Choir", "One")
REISSUE = track_id(ISRC, "Choir", "Two")
UNKNOWN = "n" * 22


@pytest.fixture(scope="module")
def plain() -> Iterator[SandboxClient]:
    with running(behaviour=PLAIN, catalogue=KNOWN) as opened:
        yield opened


@pytest.fixture
def sandbox(plain: SandboxClient) -> Iterator[SandboxClient]:
    yield plain
    plain.clear_faults()
    plain.forget_requests()


def token_answer(
    sandbox: SandboxClient, secret: str | None = None, grant: str = "client_credentials"
) -> httpx.Response:
    login = (sandbox.spotify_client_id, secret or sandbox.spotify_client_secret)
    return httpx.post(f"{sandbox.spotify_url}/api/token", auth=login, data={"grant_type": grant}, verify=NO_TLS)


def send_request(sandbox: SandboxClient, path: str, token: str | None = None, **more: Any) -> httpx.Response:
    given = token or token_answer(sandbox).json()["access_token"]
    headers = {"authorization": f"Bearer {given}"}
    return httpx.get(f"{sandbox.spotify_url}/v1/{path}", headers=headers, verify=NO_TLS, **more)


def test_a_token_is_given_for_the_clients_credentials(sandbox: SandboxClient):
    answer = token_answer(sandbox).json()
    assert set(answer) == {"access_token", "token_type", "expires_in"}
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)


def test_wrong_credentials_and_grants_are_rejected(sandbox: SandboxClient):
    assert token_answer(sandbox, "wrong").json()["error"] == "invalid_client"
    assert token_answer(sandbox, "wrong").status_code == 400
    assert token_answer(sandbox, grant="password").json()["error"] == "unsupported_grant_type"


def test_a_batch_has_a_place_for_each_id_and_null_for_unknown_ids(sandbox: SandboxClient):
    first, unknown, again = send_request(sandbox, f"tracks?ids={TRACK},{UNKNOWN},{REISSUE}").json()["tracks"]
    assert unknown is None
    assert first["id"] == TRACK
    assert (first["name"], first["external_ids"]) == ("Song", {"isrc": ISRC})
    assert [artist["name"] for artist in first["artists"]] == ["Choir"]
    assert (first["album"]["id"], first["album"]["release_date"]) == (album_id("Choir", "One"), "2024-03-15")
    assert (again["id"], again["external_ids"], again["album"]["name"]) == (REISSUE, {"isrc": ISRC}, "Two")


def test_a_single_track_is_the_same_object_or_404(sandbox: SandboxClient):
    assert (
        send_request(sandbox, f"tracks/{TRACK}").json()
        == send_request(sandbox, f"tracks?ids={TRACK}").json()["tracks"][0]
    )
    answer = send_request(sandbox, f"tracks/{UNKNOWN}")
    assert answer.status_code == 404
    assert answer.json() == {"error": {"status": 404, "message": "Resource not found"}}


@pytest.mark.parametrize("path", ["tracks/short", "tracks?ids=short", f"tracks?ids={TRACK},", "tracks"])
def test_an_invalid_id_fails_its_batch(sandbox: SandboxClient, path: str):
    answer = send_request(sandbox, path)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "Invalid base62 id"


def test_more_than_fifty_ids_are_rejected(sandbox: SandboxClient):
    assert send_request(sandbox, f"tracks?ids={','.join([TRACK] * 50)}").status_code == 200
    assert send_request(sandbox, f"tracks?ids={','.join([TRACK] * 51)}").status_code == 400


def test_in_development_mode_only_batches_are_rejected():
    with running(behaviour=Behaviour(), catalogue=KNOWN) as sandbox:
        assert send_request(sandbox, f"tracks?ids={TRACK}").status_code == 403
        assert send_request(sandbox, f"tracks/{TRACK}").status_code == 200


def test_an_expired_token_gets_an_error_that_names_it(clock: Clock):
    with running(behaviour=replace(PLAIN, spotify_token_seconds=60), catalogue=KNOWN, clock=clock) as sandbox:
        token = token_answer(sandbox).json()["access_token"]
        clock.advance(seconds=59)
        assert send_request(sandbox, f"tracks/{TRACK}", token).status_code == 200
        clock.advance(seconds=1)
        answer = send_request(sandbox, f"tracks/{TRACK}", token)
        assert answer.status_code == 401
        assert answer.json() == {"error": {"status": 401, "message": "The access token expired"}}
        assert send_request(sandbox, f"tracks/{TRACK}").status_code == 200


def test_a_missing_or_foreign_token_is_rejected(sandbox: SandboxClient):
    assert send_request(sandbox, f"tracks/{TRACK}", "wrong").json()["error"]["message"] == "Invalid access token"
    bare = httpx.get(f"{sandbox.spotify_url}/v1/tracks/{TRACK}", verify=NO_TLS)
    assert (bare.status_code, bare.json()["error"]["message"]) == (401, "No token provided")


def test_an_exceeded_quota_has_a_retry_after_of_fourteen_hours(sandbox: SandboxClient):
    sandbox.spotify_quota_exceeded(count=1)
    answer = send_request(sandbox, f"tracks/{TRACK}")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "50400")
    assert "QUOTA_EXCEEDED" in answer.text
    assert send_request(sandbox, f"tracks/{TRACK}").status_code == 200


@pytest.mark.parametrize(
    ("path", "shape"),
    [("/v1/tracks", {"error": {"status", "message"}}), ("/api/token", {"error", "error_description"})],
)
def test_faults_answer_in_spotifys_shapes(sandbox: SandboxClient, path: str, shape: Any):
    sandbox.faults(path, status=503)
    body = httpx.post(f"{sandbox.spotify_url}{path}", verify=NO_TLS).json()
    assert ({"error": set(body["error"])} if isinstance(shape, dict) else set(body)) == shape


def test_some_tracks_have_no_isrc():
    with running(behaviour=replace(PLAIN, tracks_without_isrc=1), catalogue=KNOWN) as sandbox:
        assert send_request(sandbox, f"tracks/{TRACK}").json()["external_ids"] == {}


def test_recordings_added_later_are_found(sandbox: SandboxClient):
    sandbox.know({"AA6Q72400099": KnownRecording(artist="Late", album="Album")})
    result = send_request(sandbox, f"tracks/{track_id('AA6Q72400099', 'Late', 'Album')}").json()
    assert result["external_ids"] == {"isrc": "AA6Q72400099"}


def test_the_log_contains_neither_secret_nor_token(sandbox: SandboxClient):
    send_request(sandbox, f"tracks/{TRACK}")
    noted = str(sandbox.requests())
    assert "/v1/tracks/" in noted
    assert sandbox.spotify_client_secret not in noted
    assert "sandbox-spotify-token" not in noted
