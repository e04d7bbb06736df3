"""The Songstats double, checked with the vendor's own SDK where the SDK shows it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from songstats_sdk import SongstatsAPIError, SongstatsClient

from measurement_pipeline.sandbox import PLAIN, Behaviour, KnownRecording, SandboxClient, Scenario, running
from measurement_pipeline_tests.sandbox.clients import request_history, spotify_points
from measurement_pipeline_tests.sandbox.clock import Clock

A_RECORDING = "QZES72012345"


@pytest.fixture
def sdk(sandbox: SandboxClient) -> Iterator[SongstatsClient]:
    with SongstatsClient(api_key=sandbox.songstats_key, base_url=sandbox.songstats_url, max_retries=0) as client:
        yield client


def test_the_sdk_reads_a_history(sdk: SongstatsClient) -> None:
    body = sdk.tracks.historic_stats(isrc=A_RECORDING, source="spotify")

    assert body["result"] == "success"
    assert body["message"] == "Data Retrieved."
    (entry,) = body["stats"]
    assert entry["source"] == "spotify"
    assert set(entry["data"]["history"][0]) == {"date", "streams_total", "popularity_current"}


def test_the_sdk_reaches_the_other_routes(sdk: SongstatsClient) -> None:
    assert "spotify" in sdk.info.sources()["sources"]
    assert "streams_total" in sdk.info.definitions()["definitions"]
    assert sdk.info.uptime_check()["result"] == "success"


def test_the_recorded_history_is_returned_unchanged(sandbox: SandboxClient) -> None:
    points = [(p["date"], p["streams_total"]) for p in spotify_points(request_history(sandbox, "GBUM72501895"))]

    assert len(points) == 503
    assert points[:3] == [("2025-05-08", 0), ("2025-05-09", 0), ("2025-05-10", 3069)]
    assert points[-1] == ("2026-09-22", 3067097)
    assert points == sorted(points)
    assert [count for _, count in points] == sorted(count for _, count in points)


def test_the_recorded_history_has_no_irregularities(sandbox: SandboxClient) -> None:
    worst = Behaviour(absent=1, counts_as_text=1, gaps=1, falls=1, bare=1, points=7, last_day=PLAIN.last_day)
    with running(behaviour=worst) as awkward:
        assert request_history(awkward, "GBUM72501895").json() == request_history(sandbox, "GBUM72501895").json()


def test_a_missing_key_is_rejected(sandbox: SandboxClient) -> None:
    answer = httpx.get(f"{sandbox.songstats_url}/enterprise/v1/status")

    assert answer.status_code == 401
    assert answer.json() == {"result": "error", "message": "Invalid Api Key"}


def test_a_wrong_key_is_rejected_by_every_route(sandbox: SandboxClient) -> None:
    stranger = SongstatsClient(api_key="wrong", base_url=sandbox.songstats_url, max_retries=0)
    with stranger:
        for call in (
            stranger.info.status,
            stranger.info.sources,
            lambda: stranger.tracks.historic_stats(isrc=A_RECORDING, source="spotify"),
        ):
            with pytest.raises(SongstatsAPIError) as refusal:
                call()
            assert refusal.value.status_code == 401
            assert refusal.value.payload == {"result": "error", "message": "Invalid Api Key"}


def test_an_unknown_recording_is_not_found_with_a_trailing_space(sdk: SongstatsClient) -> None:
    with pytest.raises(SongstatsAPIError) as refusal:
        sdk.tracks.historic_stats(spotify_track_id="4uLU6hMCjMI75M1A2tKUQC", source="spotify")

    assert refusal.value.status_code == 404
    assert refusal.value.payload == {"result": "error", "message": "Track not found. "}


@pytest.mark.parametrize(
    "params",
    [
        {"source": ""},
        {"source": "myspace"},
        {"isrc": ""},
        {"start_date": "22.09.2026"},
    ],
)
def test_a_bad_request_gets_400(sandbox: SandboxClient, params: dict[str, str]) -> None:
    answer = request_history(sandbox, **({"isrc": A_RECORDING} | params))

    assert answer.status_code == 400
    assert answer.json()["result"] == "error"


def test_an_unknown_path_gets_a_general_404(sandbox: SandboxClient) -> None:
    answer = httpx.get(f"{sandbox.songstats_url}/enterprise/v2/tracks")

    assert answer.status_code == 404
    assert answer.json() == {"result": "error", "message": "Not Found"}


def test_a_known_recording_ends_at_its_count_and_begins_the_day_before_release(
    sandbox: SandboxClient,
) -> None:
    known = KnownRecording(play_count=70_049, release_date=date(2025, 3, 15))
    sandbox.know({"AA6Q72500990": known})

    points = spotify_points(request_history(sandbox, "AA6Q72500990"))

    assert [p["streams_total"] for p in points[:2]] == [0, 0]
    assert points[0]["date"] == "2025-03-14"
    assert points[-1]["streams_total"] == 70_049
    assert points[-1]["date"] == "2026-09-22"


def test_new_data_replaces_earlier_responses(sandbox: SandboxClient) -> None:
    before = spotify_points(request_history(sandbox, "AA6Q72500991"))[-1]["streams_total"]
    sandbox.know({"AA6Q72500991": KnownRecording(play_count=before + 5)})

    assert spotify_points(request_history(sandbox, "AA6Q72500991"))[-1]["streams_total"] == before + 5


def test_an_old_recordings_history_begins_at_the_count_of_its_first_tracked_day() -> None:
    old = {"AA6Q79100001": KnownRecording(play_count=1_000_000, release_date=date(1991, 5, 1))}
    with running(behaviour=PLAIN, catalogue=old) as tracked:
        points = spotify_points(request_history(tracked, "AA6Q79100001"))
    assert points[0]["date"] == "2024-01-01"
    assert points[0]["streams_total"] > 100_000

    with running(behaviour=replace(PLAIN, tracked_since=None), catalogue=old) as whole:
        assert spotify_points(request_history(whole, "AA6Q79100001"))[0]["date"] == "1991-04-30"


def test_the_number_of_points_can_be_fixed() -> None:
    with running(behaviour=replace(PLAIN, points=365)) as year:
        for n in range(5):
            points = spotify_points(request_history(year, f"AA6Q7250091{n}"))
            assert len(points) == 365
            assert all(isinstance(p["streams_total"], int) for p in points)


def test_two_processes_with_one_seed_agree_and_another_seed_differs() -> None:
    isrcs = [f"AA6Q725{n:05d}" for n in range(40)]

    def answers(behaviour: Behaviour) -> list[tuple[int, bytes]]:
        with running(behaviour=behaviour) as sandbox:
            requested = [request_history(sandbox, isrc) for isrc in isrcs]
            return [(answer.status_code, answer.content) for answer in requested]

    first = answers(Behaviour(seed="one", absent=0.2))
    assert answers(Behaviour(seed="one", absent=0.2)) == first
    assert answers(Behaviour(seed="two", absent=0.2)) != first
    assert {status for status, _ in first} == {200, 404}


def test_each_scenario_occurs() -> None:
    roles = {
        "AA6Q72500001": Scenario.ABSENT,
        "AA6Q72500002": Scenario.LATER,
        "AA6Q72500003": Scenario.NO_SPOTIFY,
        "AA6Q72500004": Scenario.EMPTY,
    }
    with running(behaviour=replace(PLAIN, roles=roles, discovered_after=2)) as sandbox:
        absent = [request_history(sandbox, "AA6Q72500001").status_code for _ in range(5)]
        later = [request_history(sandbox, "AA6Q72500002").status_code for _ in range(4)]
        no_spotify = request_history(sandbox, "AA6Q72500003", source="all").json()["stats"]
        empty = request_history(sandbox, "AA6Q72500004").json()["stats"]

    assert absent == [404] * 5
    assert later == [404, 404, 200, 200]
    assert "spotify" not in {entry["source"] for entry in no_spotify}
    assert empty == [{"source": "spotify", "data": {"history": []}}]


def test_irregular_recordings_have_about_the_given_shares() -> None:
    behaviour = Behaviour(absent=0.25, later=0.25, no_spotify=0.1, empty=0.1)
    roles = [behaviour.role(f"AA6Q725{n:05d}") for n in range(2000)]

    assert 400 < roles.count(Scenario.ABSENT) < 600
    assert 400 < roles.count(Scenario.LATER) < 600
    assert 140 < roles.count(Scenario.NO_SPOTIFY) < 260
    assert 140 < roles.count(Scenario.EMPTY) < 260


def test_counts_can_be_text_missing_or_null_except_the_last() -> None:
    awkward = replace(PLAIN, counts_as_text=1, gaps=1)
    known = {"AA6Q72500005": KnownRecording(play_count=296_422_273, release_date=date(2025, 1, 3))}
    with running(behaviour=awkward, catalogue=known) as sandbox:
        points = spotify_points(request_history(sandbox, "AA6Q72500005"))

    assert points[-1]["streams_total"] == "296422273.0"
    assert any("streams_total" not in p for p in points)
    assert any(p.get("streams_total", "") is None for p in points)
    assert all(isinstance(p.get("streams_total") or "", str) for p in points)


def test_a_history_ends_yesterday_and_a_later_one_repeats_its_days(
    clock: Clock,
) -> None:
    isrcs = [f"AA6Q725{n:05d}" for n in range(20)]
    awkward = Behaviour(counts_as_text=0.5, gaps=1, falls=0.5, absent=0, later=0, no_spotify=0, empty=0)
    known = {isrc: KnownRecording(release_date=date(2025, 1, 1)) for isrc in isrcs}
    with running(behaviour=awkward, catalogue=known, clock=clock) as sandbox:
        first = [spotify_points(request_history(sandbox, isrc, with_aggregates="true")) for isrc in isrcs]
        clock.advance(days=1)
        second = [spotify_points(request_history(sandbox, isrc, with_aggregates="true")) for isrc in isrcs]
        clock.advance(days=60)
        third = [spotify_points(request_history(sandbox, isrc, with_aggregates="true")) for isrc in isrcs]

    for one, two, three in zip(first, second, third, strict=True):
        assert one[-1]["date"] == "2026-03-13"
        assert two[:-1] == one
        assert two[-1]["date"] == "2026-03-14"
        assert three[: len(two)] == two
        assert len(three) == len(two) + 60


def test_a_history_ends_yesterday_in_utc(sandbox: SandboxClient) -> None:
    with running(behaviour=replace(PLAIN, last_day=None)) as moving:
        before = datetime.now(UTC).date()
        ends = spotify_points(request_history(moving, A_RECORDING))[-1]["date"]
        after = datetime.now(UTC).date()
    assert date.fromisoformat(ends) + timedelta(days=1) in {before, after}


def test_the_blocks_around_the_numbers_can_be_missing(sandbox: SandboxClient) -> None:
    with running(behaviour=replace(PLAIN, bare=1)) as bare:
        assert set(request_history(bare, A_RECORDING).json()) == {"result", "message", "stats"}
    assert {"track_info", "source_ids"} <= set(request_history(sandbox, A_RECORDING).json())


def test_several_sources_have_a_random_order(sandbox: SandboxClient) -> None:
    def order(isrc: str) -> list[str]:
        stats = request_history(sandbox, isrc, source="spotify,youtube,shazam").json()["stats"]
        return [entry["source"] for entry in stats]

    orders = [order(f"AA6Q726{n:05d}") for n in range(20)]

    assert {source for seen in orders for source in seen} == {"spotify", "youtube", "shazam"}
    assert len({seen[0] for seen in orders}) > 1
    assert any("youtube" not in seen for seen in orders) or any("shazam" not in seen for seen in orders)


def test_all_sources_have_each_platforms_own_fields(sandbox: SandboxClient) -> None:
    metrics = set()
    for n in range(10):
        for entry in request_history(sandbox, f"AA6Q726{n:05d}", source="all").json()["stats"]:
            metrics.add((entry["source"], *sorted(set(entry["data"]["history"][0]) - {"date"})))

    assert metrics == {
        ("spotify", "popularity_current", "streams_total"),
        ("youtube", "video_views_total"),
        ("soundcloud", "streams_total"),
        ("shazam", "shazams_total"),
    }


def test_aggregates_are_sent_on_request(sandbox: SandboxClient) -> None:
    point = spotify_points(request_history(sandbox, A_RECORDING, with_aggregates="true"))[0]

    assert "playlists_current" in point
    assert "playlists_current" not in spotify_points(request_history(sandbox, A_RECORDING))[0]


def test_a_window_of_days_is_applied(sandbox: SandboxClient) -> None:
    points = spotify_points(request_history(sandbox, "GBUM72501895", start_date="2025-05-09", end_date="2025-05-10"))

    assert [p["date"] for p in points] == ["2025-05-09", "2025-05-10"]


def test_status_counts_the_current_month(clock: Clock) -> None:
    roles = {"AA6Q72500001": Scenario.ABSENT}
    with (
        running(behaviour=replace(PLAIN, roles=roles), clock=clock) as sandbox,
        SongstatsClient(api_key=sandbox.songstats_key, base_url=sandbox.songstats_url, max_retries=0) as sdk,
    ):
        for isrc in ("AA6Q72500001", "AA6Q72500002", "AA6Q72500002", "AA6Q72500003"):
            request_history(sandbox, isrc)
        march = sdk.info.status()
        clock.advance(days=20)
        april = sdk.info.status()
        clock.advance(days=30)
        may = sdk.info.status()

    assert march == {
        "result": "success",
        "message": "Data Retrieved.",
        "status": {
            "current_month_total_requests": 4,
            "current_month_total_requested_objects": 2,
            "current_month_total_bill": "0.20",
            "previous_month_total_requests": 0,
            "previous_month_total_requested_objects": 0,
            "previous_month_total_bill": "0.00",
        },
    }
    assert april["status"]["current_month_total_requests"] == 0
    assert april["status"]["previous_month_total_requests"] == 4
    assert april["status"]["previous_month_total_bill"] == "0.20"
    assert may["status"]["previous_month_total_requests"] == 0


def test_an_artists_key_may_read_its_status_but_no_history() -> None:
    with running(behaviour=replace(PLAIN, artist_id="abc123")) as sandbox:
        assert request_history(sandbox, A_RECORDING).status_code == 403
        assert request_history(sandbox, A_RECORDING, songstats_artist_id="other").status_code == 403
        assert request_history(sandbox, A_RECORDING, songstats_artist_id="abc123").status_code == 200
        with SongstatsClient(api_key=sandbox.songstats_key, base_url=sandbox.songstats_url) as sdk:
            assert sdk.info.status()["result"] == "success"
