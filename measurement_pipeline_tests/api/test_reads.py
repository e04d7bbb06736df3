"""Measurements over HTTP: tracks, albums and catalogues, as JSON and CSV, and only the account's own."""

import csv
import io
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import product
from typing import Any
from uuid import uuid4

import httpx
import pytest

from measurement_pipeline.api.errors import READ_TIMEOUT
from measurement_pipeline.api.reads import PERIOD_WITH_RUN_RATE
from measurement_pipeline.api.totals import TotalsCache
from measurement_pipeline.postgres import capture_series, reads, views
from measurement_pipeline.postgres.database import Connection, DatabaseUnavailable, connect
from measurement_pipeline.postgres.sql import statements
from measurement_pipeline_tests.api.conftest import JOBS, Client, RunningApi, StartApi
from measurement_pipeline_tests.capture_limits import capture_limits
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.intake.conftest import isrcs

SONGS = isrcs(5)
TRACK, ALBUM = "6habFhsOp2NvshLv26DqMb", "0ETFjACtuP2ADo6LFhL6HN"


def track(song: str) -> str:
    return f"/api/research/tracks/{song}/measurements"


def rows(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text)))


def create_catalog(api: RunningApi, client: Client, count: int = 5) -> str:
    """Create a catalogue of the client's account and return its id."""
    return str(api.table.catalogue(isrcs(count), account=client.account))


def add_identifier(api: RunningApi, song: str, kind: str, value: str) -> None:
    api.table.sql(
        "insert into song_identifiers (song, platform, identifier_type, value) values (%s, 'spotify', %s, %s)",
        song, kind, value,
    )  # fmt: skip


# --- a track ------------------------------------------------------------------------------------------------------------


def test_a_series_has_every_point_with_its_source_and_latest_value(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    song = SONGS[0]
    api.table.sql("update songs set name = 'A title', artist = 'An artist' where isrc = %s", song)
    api.table.measured(song, 20, day="2026-01-02", source="songstats")
    api.table.measured(song, 10, day="2026-01-01", source="songstats")
    api.table.sql("update song_measurements set learnt_at = learnt_at - interval '1 hour'")
    api.table.measured(song, 11, day="2026-01-01", source="songstats")
    api.table.measured(song, 12, day="2026-01-01", source="import")
    body = client.get(track(song)).json()
    assert (body["status"], body["isrc"], body["name"], body["artist"]) == ("success", song, "A title", "An artist")
    assert body["points"] == [
        {"captured_at": "2026-01-01T00:00:00Z", "value": 12, "data_source": "import"},
        {"captured_at": "2026-01-01T00:00:00Z", "value": 11, "data_source": "songstats"},
        {"captured_at": "2026-01-02T00:00:00Z", "value": 20, "data_source": "songstats"},
    ]


def test_a_track_is_found_by_isrc_in_any_spelling_and_by_spotify_id(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    add_identifier(api, SONGS[0], "track_id", TRACK)
    for name in (SONGS[0], SONGS[0].lower(), "AA-6Q7-20-00000", TRACK):
        result = client.get(track(name))
        assert (result.status_code, result.json()["isrc"]) == (200, SONGS[0]), name


def test_an_unknown_recording_is_a_404(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    for name in ("AA6Q72999999", "nothing", "a%00b", "%ED%A0%80", "'; drop table songs; --", "%25", "..%2f.."):
        for address in (track(name), f"/api/research/albums/{name}/measurements", f"/api/catalogs/{name}/measurements"):
            answer = client.get(address)
            assert (answer.status_code, answer.json()["status"]) == (404, "error"), address


def test_the_run_rate_covers_the_trailing_window_and_shows_both_counts(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    song, last = SONGS[0], date(2026, 1, 1)
    for days, count in ((400, 100), (366, 200), (365, 1_000), (55, 2_000), (0, 3_190)):
        api.table.measured(song, count, day=str(last - timedelta(days)), source="songstats")
    body = client.get(track(song), params={"aggregate": "run_rate", "window": "365d"}).json()
    assert (body["window_days"], body["days"], body["plays"], body["plays_a_year"]) == (365, 365, 2_190, 2_190)
    assert body["first"] == {"captured_at": "2025-01-01T00:00:00Z", "value": 1_000, "data_source": "songstats"}
    assert (body["last"]["value"], body["reason"]) == (3_190, None)
    assert client.get(track(song), params={"aggregate": "run_rate"}).json() == body
    body = client.get(track(song), params={"aggregate": "run_rate", "window": "50d"}).json()
    assert (body["plays"], body["reason"]) == (None, "no figure between 2025-11-07 and 2026-01-01")


def test_an_interpolated_count_is_marked_and_shows_both_captures(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    for day, count, source in (
        ("2026-01-01", 1_000, "songstats"),
        ("2026-01-31", 1_300, "apify_spotify_playcount"),
        ("2026-03-02", 1_900, "apify_spotify_playcount"),
    ):
        api.table.measured(SONGS[0], count, day=day, source=source)
    body = client.get(track(SONGS[0]), params={"aggregate": "run_rate", "window": "50d"}).json()
    assert (body["days"], body["plays"], body["plays_a_year"]) == (50, 800, 5_840)
    assert (body["is_interpolated"], body["is_source_changed"], body["reason"]) == (True, True, None)
    assert [body[end]["value"] for end in ("first", "first_after", "last")] == [1_000, 1_300, 1_900]
    body = client.get(track(SONGS[0]), params={"aggregate": "run_rate", "window": "30d"}).json()
    assert (body["plays"], body["is_interpolated"], body["is_source_changed"]) == (600, False, False)
    assert body["first_after"] is None


def test_a_window_that_the_counts_do_not_cover_has_a_reason_instead_of_a_rate(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    api.table.measured(SONGS[0], 1, day="2026-01-01", source="songstats")
    api.table.measured(SONGS[0], 5, day="2026-01-11", source="songstats")
    body = client.get(track(SONGS[0]), params={"aggregate": "run_rate"}).json()
    assert (body["plays"], body["plays_a_year"], body["days"]) == (None, None, 10)
    assert body["reason"] == "the history begins on 2026-01-01"
    body = client.get(track(SONGS[1]), params={"aggregate": "run_rate"}).json()
    assert body["reason"] == "no count was measured"


def test_an_invalid_window_or_aggregate_is_a_400(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    for query in (
        {"window": "365d"},
        {"aggregate": "run_rate", "window": "0d"},
        {"aggregate": "run_rate", "window": "1y"},
        {"aggregate": "run_rate", "window": "9999d"},
        {"aggregate": "median"},
    ):
        assert client.get(track(SONGS[0]), params=query).status_code == 400, query


# --- an album, a catalogue ----------------------------------------------------------------------------------------------


def test_an_album_has_the_latest_count_of_each_of_the_accounts_recordings(api: RunningApi):
    client = api.client()
    create_catalog(api, client, 2)
    api.table.sql("insert into songs (isrc) values (%s)", SONGS[4])
    for song in (*SONGS[:2], SONGS[4]):
        add_identifier(api, song, "album_id", ALBUM)
    api.table.measured(SONGS[0], 10, day="2026-01-01")
    api.table.measured(SONGS[0], 30, day="2026-01-03", source="songstats")
    body = client.get(f"/api/research/albums/{ALBUM}/measurements").json()
    assert body["album_id"] == ALBUM
    assert [(one["isrc"], one["value"], one["data_source"]) for one in body["recordings"]] == [
        (SONGS[0], 30, "songstats"),
        (SONGS[1], None, None),
    ]


def test_a_catalogue_is_paginated_and_its_totals_cover_all_pages(api: RunningApi):
    client = api.client()
    catalog = create_catalog(api, client)
    for place, song in enumerate(SONGS[:4]):
        api.table.measured(song, 2**62, day=f"2026-01-0{place + 1}", source="songstats")
    address = f"/api/catalogs/{catalog}/measurements"
    first = client.get(address, params={"limit": 2})
    body = first.json()
    assert [one["isrc"] for one in body["recordings"]] == SONGS[:2]
    assert body["totals"] == {
        "recordings": 5, "measured": 4, "plays": 2**64,
        "oldest_captured_at": "2026-01-01T00:00:00Z", "newest_captured_at": "2026-01-04T00:00:00Z", "ended": 4,
    }  # fmt: skip
    second = client.get(first.links["next"]["url"]).json()
    third = client.get(address, params={"limit": 2, "cursor": second["next"]}).json()
    assert [one["isrc"] for one in second["recordings"] + third["recordings"]] == SONGS[2:]
    assert (second["totals"], third["totals"], third["next"]) == (None, None, None)
    assert third["recordings"][0]["value"] is None


def test_totals_are_computed_once_a_minute_for_any_number_of_requests():
    clock, computed = [0.0], []
    cache = TotalsCache(10.0, now=lambda: clock[0])
    account, catalog = uuid4(), uuid4()

    def compute() -> dict[str, Any]:
        computed.append(clock[0])
        return {"plays": len(computed)}

    with ThreadPoolExecutor(8) as threads:
        result = list(threads.map(lambda _: cache.get(account, catalog, compute).result(), range(40)))
    assert result == [{"plays": 1}] * 40
    assert cache.get(account, uuid4(), compute).result() == {"plays": 2}
    assert cache.get(uuid4(), catalog, compute).result() == {"plays": 3}, "totals are cached per account"
    clock[0] = 61.0
    assert cache.get(account, catalog, compute).result() == {"plays": 4}


def test_concurrent_requests_share_an_error_and_the_next_request_computes_again():
    cache, go_on, tried = TotalsCache(10.0), threading.Event(), []
    account, catalog = uuid4(), uuid4()

    def compute() -> dict[str, Any]:
        tried.append(1)
        assert go_on.wait(120)
        raise DatabaseUnavailable("away")

    requested = [cache.get(account, catalog, compute) for _ in range(8)]
    go_on.set()
    assert all(isinstance(one.exception(20), DatabaseUnavailable) for one in requested)
    assert len(tried) == 1
    assert cache.get(account, catalog, lambda: {"plays": 1}).result() == {"plays": 1}


def test_totals_are_not_computed_after_the_timeout_nor_twice_at_once():
    clock, go_on = [0.0], threading.Event()
    cache = TotalsCache(10.0, now=lambda: clock[0])

    def slowly() -> dict[str, Any]:
        assert go_on.wait(120)
        return {"plays": 1}

    account, catalog = uuid4(), uuid4()
    first = cache.get(account, catalog, slowly)
    others = [cache.get(account, uuid4(), slowly) for _ in range(3)]
    late = cache.get(account, uuid4(), slowly)
    clock[0] = 61.0
    assert cache.get(account, catalog, slowly) is first
    go_on.set()
    assert [one.result(120) for one in (first, *others)] == [{"plays": 1}] * 4
    assert isinstance(late.exception(20), TimeoutError)


def test_slow_totals_time_out_and_block_no_other_request(start_api: StartApi, monkeypatch: pytest.MonkeyPatch):
    api = start_api(read_within_seconds=2.0)
    client, other = api.client(), api.client()
    catalogs = [create_catalog(api, client) for _ in range(48)]
    go_on = threading.Event()

    def slowly(*_: object, **__: object) -> dict[str, Any]:
        assert go_on.wait(120)
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(reads, "totals_of_catalog", slowly)
    try:
        with ThreadPoolExecutor(48) as threads:
            pages = [threads.submit(client.get, f"/api/catalogs/{one}/measurements") for one in catalogs]
            wait_until(lambda: any(one.done() for one in pages), what="the first timeout")
            assert other.get(JOBS).status_code == 200
            assert {one.result().json()["error"] for one in pages} == {READ_TIMEOUT}
    finally:
        go_on.set()


def test_a_view_upgrade_that_waits_for_an_analyst_blocks_no_request(start_api: StartApi):
    api = start_api(read_within_seconds=2.0)
    client = api.client()
    catalog = create_catalog(api, client)
    waiting = "select count(*) as n from pg_locks where not granted and relation = %s::regclass"
    with (
        connect(api.config.database_url) as analyst,
        connect(api.config.database_url) as upgrade,
        ThreadPoolExecutor(1) as threads,
    ):
        with analyst.transaction():
            analyst.execute("select * from analytics.latest_play_counts")
            making = threads.submit(upgrade.execute, views.text("latest_play_counts"))
            wait_until(
                lambda: api.table.sql(waiting, "analytics.latest_play_counts") == [{"n": 1}],
                what="the upgrade to wait for the analyst",
            )
            assert client.get(f"/api/catalogs/{catalog}/measurements").status_code == 200
        making.result(120)


def test_imported_counts_are_shown_with_their_source_and_excluded_from_totals(api: RunningApi):
    client = api.client()
    catalog = create_catalog(api, client, 3)
    api.table.measured(SONGS[0], 10, day="2026-01-01", source="songstats")
    # Imported and newer: the measured count stays the latest.
    api.table.measured(SONGS[0], 99, day="2026-02-01")
    api.table.measured(SONGS[1], 1_000, day="2026-02-01")
    body = client.get(f"/api/catalogs/{catalog}/measurements").json()
    assert [(one["value"], one["data_source"]) for one in body["recordings"]] == [
        (10, "songstats"),
        (1_000, "import"),
        (None, None),
    ]
    assert body["totals"] == {
        "recordings": 3, "measured": 1, "plays": 10,
        "oldest_captured_at": "2026-01-01T00:00:00Z", "newest_captured_at": "2026-01-01T00:00:00Z", "ended": 1,
    }  # fmt: skip


def test_latest_counts_and_totals_equal_the_analysts_views(api: RunningApi):
    client = api.client()
    catalog = create_catalog(api, client)
    some = random.Random(20261126)
    for song, source, day in product(SONGS, ("import", "songstats", "apify_spotify_playcount"), range(1, 5)):
        if some.random() < 0.4:
            api.table.measured(song, some.randrange(1_000), day=f"2026-01-0{day}", source=source)
    body = client.get(f"/api/catalogs/{catalog}/measurements").json()
    assert [(one["isrc"], one["value"], one["data_source"]) for one in body["recordings"]] == [
        tuple(row.values())
        for row in api.table.sql(
            "select song, play_count, data_source from analytics.catalog_play_counts where catalog = %s order by song",
            catalog,
        )
    ]
    (theirs,) = api.table.sql(
        "select recordings, recordings_measured, play_count, recordings_ended from analytics.catalog_totals"
        " where catalog = %s",
        catalog,
    )
    assert [body["totals"][name] for name in ("recordings", "measured", "plays", "ended")] == list(theirs.values())


def test_the_totals_of_an_empty_catalogue_are_zero(api: RunningApi):
    client = api.client()
    body = client.get(f"/api/catalogs/{create_catalog(api, client, 0)}/measurements").json()
    assert (body["recordings"], body["totals"]["recordings"], body["totals"]["plays"]) == ([], 0, 0)


def test_finding_an_accounts_recording_uses_indexes(api: RunningApi, connection: Connection):
    client = api.client()
    api.table.sql(
        "insert into songs (isrc) select 'AA6Q72' || lpad(n::text, 6, '0') from generate_series(0, 19999) as n"
    )
    catalog = api.table.catalogue([], account=client.account)
    api.table.sql("insert into catalog_songs (catalog, song) select %s, isrc from songs", catalog)
    api.table.sql(
        "insert into song_identifiers (song, platform, identifier_type, value)"
        " select isrc, 'spotify', 'album_id', 'album' || (row_number() over () / 12) from songs"
    )
    connection.execute("analyze")
    for name in ("series", "run_rate", "latest_of_album"):
        parameters = {"account": client.account, "isrc": SONGS[0], "track": SONGS[0], "album": "album7"}
        parameters |= {"first": None, "last": None, "window_days": 28}
        plan = connection.execute("explain " + statements("reads")[name], parameters).fetchall()
        scanned = [
            line
            for row in plan
            for line in row.values()
            if re.search(r"Seq Scan on (catalog_songs|songs|song_identifiers)\b", line)
        ]
        assert scanned == [], name


# --- formats and caching ------------------------------------------------------------------------------------------------


def test_every_read_returns_csv_on_request(api: RunningApi):
    client = api.client()
    catalog = create_catalog(api, client)
    add_identifier(api, SONGS[0], "album_id", ALBUM)
    api.table.measured(SONGS[0], 7, day="2026-01-01")
    title = "=HYPERLINK(...)"
    api.table.sql("update songs set name = %s, artist = null where isrc = %s", title, SONGS[0])
    # A spreadsheet shows the title and does not execute it.
    named = {"name": f"'{title}", "artist": ""}
    point = {"isrc": SONGS[0], "captured_at": "2026-01-01T00:00:00Z", "value": "7", "data_source": "import", **named}
    as_csv = {"Accept": "text/csv"}
    assert rows(client.get(track(SONGS[0]), headers=as_csv)) == [point]
    assert rows(client.get(f"/api/research/albums/{ALBUM}/measurements", headers=as_csv)) == [point]
    page = client.get(f"/api/catalogs/{catalog}/measurements", params={"limit": 2}, headers=as_csv)
    assert rows(page) == [point, {**dict.fromkeys(point, ""), "isrc": SONGS[1]}]
    assert [row["isrc"] for row in rows(client.get(page.links["next"]["url"], headers=as_csv))] == SONGS[2:4]
    (rate,) = rows(client.get(track(SONGS[0]), params={"aggregate": "run_rate"}, headers=as_csv))
    assert (rate["isrc"], rate["plays"], rate["reason"]) == (SONGS[0], "", "no count was measured")
    assert {name: rate[name] for name in named} == named


def test_csv_is_sent_if_accept_prefers_it(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    for accept, kind in (
        ("text/csv, application/json;q=0.5", "text/csv"),
        ("application/json, text/csv;q=0.9", "application/json"),
        ("text/csv;q=0.5, */*;q=0.1", "text/csv"),
        ("*/*", "application/json"),
        ("text/csv;q=nonsense", "application/json"),
        ("text/html", "application/json"),
    ):
        answer = client.get(track(SONGS[0]), headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(kind), accept


def test_a_matching_etag_is_a_304_until_the_data_changes(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    first = client.get(track(SONGS[0]))
    tag = first.headers["ETag"]
    assert first.headers["Vary"] == "Accept"
    for known_tags in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = client.get(track(SONGS[0]), headers={"If-None-Match": known_tags})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    in_two = client.get(track(SONGS[0]), headers=[("If-None-Match", '"other"'), ("If-None-Match", tag)])
    assert in_two.status_code == 304
    assert client.get(track(SONGS[0]), headers={"If-None-Match": tag, "Accept": "text/csv"}).status_code == 200
    api.table.measured(SONGS[0], 7)
    assert client.get(track(SONGS[0]), headers={"If-None-Match": tag}).status_code == 200


def test_every_account_response_forbids_caching(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    tag = client.get(track(SONGS[0])).headers["ETag"]
    answers = [
        client.get(track(SONGS[0])),
        client.get(track(SONGS[0]), headers={"If-None-Match": tag}),
        client.get(track("AA6Q79900099")),
        client.get(JOBS),
        client.get(f"{JOBS}/{uuid4()}"),
        client.delete(f"{JOBS}/{uuid4()}"),
        client.submit({"isrcs": SONGS[:1]}),
        client.submit({}),
        client.post(f"{JOBS}/estimate", json={"source": "historical", "scope": {"isrcs": SONGS[:1]}}),
        client.get("/api/no-such-address"),
        httpx.get(api.url + JOBS),
    ]
    assert {answer.status_code for answer in answers} == {200, 202, 304, 400, 401, 404}
    assert {answer.headers["Cache-Control"] for answer in answers} == {"private, no-store"}
    assert "Cache-Control" not in client.get("/healthz").headers


def test_a_series_can_be_limited_to_days_in_utc_both_inclusive(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    for day in range(1, 6):
        api.table.measured(SONGS[0], day, day=f"2026-01-0{day}")
    api.table.sql(
        "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
        " values (%s, 'spotify', 'platform_displayed_play_count', '2026-01-03T23:59:59Z', 'apify_spotify_playcount', 9)",
        SONGS[0],
    )

    def values(**period: str) -> list[int]:
        return [point["value"] for point in client.get(track(SONGS[0]), params=period).json()["points"]]

    assert values(**{"from": "2026-01-02", "to": "2026-01-03"}) == [2, 3, 9]
    assert values(**{"from": "2026-01-04"}) == [4, 5]
    assert values(to="2026-01-01") == [1]
    assert values(**{"from": "2030-01-01"}) == []
    as_csv = client.get(track(SONGS[0]), params={"to": "2026-01-01"}, headers={"Accept": "text/csv"})
    assert [row["value"] for row in rows(as_csv)] == ["1"]


INVALID_PERIODS: list[tuple[dict[str, str], str]] = [
    ({"from": "yesterday"}, "from must be a date, such as 2026-01-31 (got 'yesterday')"),
    ({"to": "2026-02-30"}, "to must be a date, such as 2026-01-31 (got '2026-02-30')"),
    ({"from": "2026-W01-1"}, "from must be a date, such as 2026-01-31 (got '2026-W01-1')"),
    ({"from": ""}, "from must be a date, such as 2026-01-31 (got '')"),
    ({"from": "2026-02-01", "to": "2026-01-31"}, "from must not be after to (got 2026-02-01 and 2026-01-31)"),
    ({"from": "2026-02-01", "aggregate": "run_rate"}, PERIOD_WITH_RUN_RATE),
]


def test_an_invalid_period_is_a_400_with_the_value(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    for query, expected in INVALID_PERIODS:
        answer = client.get(track(SONGS[0]), params=query)
        assert (answer.status_code, answer.json()["code"], answer.json()["error"]) == (400, "invalid_request", expected)


def test_a_read_calls_no_vendor(api: RunningApi):
    client = api.client()
    catalog = create_catalog(api, client)
    api.sandbox.forget_requests()
    for address in (
        track(SONGS[0]),
        f"/api/research/albums/{ALBUM}/measurements",
        f"/api/catalogs/{catalog}/measurements",
        JOBS,
    ):
        client.get(address)
    assert api.sandbox.requests() == []


# --- access between accounts --------------------------------------------------------------------------------------------


def test_no_route_shows_or_changes_data_of_another_account(api: RunningApi):
    owner, other = api.client(), api.client()
    catalog = create_catalog(api, owner)
    add_identifier(api, SONGS[0], "track_id", TRACK)
    add_identifier(api, SONGS[0], "album_id", ALBUM)
    api.table.measured(SONGS[0], 7)
    job = owner.submit({"catalog_id": catalog}, key="k").json()["id"]
    theirs = {
        "GET " + JOBS + "/{}": job,
        "DELETE " + JOBS + "/{}": job,
        "GET /api/research/tracks/{}/measurements": SONGS[0],
        "GET  /api/research/tracks/{}/measurements": TRACK,
        "GET /api/research/albums/{}/measurements": ALBUM,
        "GET /api/catalogs/{}/measurements": catalog,
    }
    for route, name in theirs.items():
        method, address = route.split()
        unknown = str(uuid4()) if "-" in name else "AA6Q72999999"
        seen, unseen = (other.request(method, address.format(one)) for one in (name, unknown))
        assert (seen.status_code, seen.json()) == (404, unseen.json()), route
        assert unseen.status_code == 404
    for body in ({"catalog_id": catalog}, {"catalog_id": str(uuid4())}):
        for path in (JOBS, f"{JOBS}/estimate"):
            answer = other.post(path, json={"source": "historical", "scope": body})
            assert (answer.status_code, answer.json()["error"]) == (
                400,
                "No such catalog_id: it must be a catalogue of the requesting account",
            )
    assert [one["account"] for one in api.table.sql("select account from measurement_jobs where id = %s", job)] == [
        owner.account
    ]
    assert job not in other.get(JOBS).text
    assert owner.get(f"{JOBS}/{job}").json()["state"] == "accepted"


def test_an_account_can_read_recordings_that_its_jobs_requested_or_captured(api: RunningApi):
    client = api.client()
    assert client.get(track(SONGS[0])).status_code == 404
    client.submit({"isrcs": [SONGS[0]]})
    assert client.get(track(SONGS[0])).status_code == 200
    capture = client.submit({"album_ids": [ALBUM]}, source="current").json()["id"]
    api.table.sql("insert into songs (isrc) values (%s)", SONGS[1])
    api.table.measured(SONGS[1], 5, source="apify_spotify_playcount")
    assert client.get(track(SONGS[1])).status_code == 404
    api.table.sql(
        "update song_measurements set snapshot = (select snapshot from measurement_jobs where id = %s) where song = %s",
        capture, SONGS[1],
    )  # fmt: skip
    assert client.get(track(SONGS[1])).json()["points"][0]["value"] == 5


def test_a_request_without_a_card_gives_no_read_access(api: RunningApi):
    client = api.client(card=False)
    assert client.submit({"isrcs": [SONGS[0]]}).status_code == 402
    assert client.get(track(SONGS[0])).status_code == 404


def test_an_account_can_read_the_captures_of_its_series(api: RunningApi):
    client = api.client()
    client.submit({"album_ids": [ALBUM]}, source="current", schedule="monthly")
    api.table.sql("update playcount_snapshots set state = 'done', created_at = now() - interval '31 days'")
    with connect(api.config.database_url) as connection:
        ((series, due),) = capture_series.list_due(connection)
        capture_series.start_if_due(connection, series, due, limits=capture_limits())
    api.table.sql("insert into songs (isrc) values (%s)", SONGS[0])
    api.table.measured(SONGS[0], 10, source="apify_spotify_playcount")
    api.table.sql(
        "update song_measurements set snapshot = (select id from playcount_snapshots order by created_at desc limit 1)"
    )
    assert client.get(track(SONGS[0])).status_code == 200
    assert api.client().get(track(SONGS[0])).status_code == 404


def test_after_a_withdrawal_an_account_can_read_only_paid_recordings(api: RunningApi):
    client, other = api.client(), api.client()
    stored, bought, later = SONGS[:3]
    other.submit({"isrcs": [stored, bought, later]})
    api.table.sql("update songstats_backfill_queue set status = 'done', outcome = 'stored' where song = %s", stored)
    api.table.measured(stored, 7, source="songstats")
    job = client.submit({"isrcs": [stored, bought, later]}).json()["id"]
    assert client.get(track(stored)).status_code == 200
    api.table.sql(
        "insert into songstats_quota_ledger (song, account, job, run_id, lease) values (%s, %s, %s, 'run', 1)",
        bought, client.account, job,
    )  # fmt: skip
    assert client.delete(f"{JOBS}/{job}").status_code == 200
    api.table.measured(later, 7, source="songstats")
    assert [client.get(track(song)).status_code for song in (stored, bought, later)] == [404, 200, 404]
    assert other.get(track(later)).status_code == 200


def test_an_unknown_or_repeated_query_parameter_is_a_400_that_names_it(api: RunningApi):
    client = api.client()
    create_catalog(api, client)
    for query, expected in (
        ("windw=90d", "'windw': expected aggregate, window, from, to"),
        ("aggregate=run_rate&window=90d&window=365d", "window: expected one value, got 2"),
    ):
        answer = client.get(f"{track(SONGS[0])}?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), query
        assert expected in answer.json()["error"]
        unauthenticated = httpx.get(f"{api.url}{track(SONGS[0])}?{query}")
        assert unauthenticated.status_code == 401, "parameters are checked after authentication"
