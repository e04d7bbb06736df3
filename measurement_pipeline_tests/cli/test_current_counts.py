"""Current counts on the command line: requests, estimates, captures, monthly series, and albums."""

from uuid import uuid4

import pytest

from measurement_pipeline.capture.outcome import CaptureResultKind
from measurement_pipeline.domain.measurement_job import NO_ALBUM_KNOWN
from measurement_pipeline.intake import process as intake
from measurement_pipeline.postgres import measurement_jobs, vendor_state
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.capture.conftest import CaptureHarness, isrcs, new_harness
from measurement_pipeline_tests.capture_limits import capture_limits
from measurement_pipeline_tests.cli.conftest import parse_json

ACCOUNT = "11111111-1111-4111-8111-111111111111"
CURRENT = ("submit", "--account", ACCOUNT, "--source", "current")


@pytest.fixture
def harness(database_url, sandbox) -> CaptureHarness:
    return new_harness(database_url, sandbox)


def process_requests(harness, *, cap="25"):
    opened = intake.load_batch(harness.database_url)
    return intake.process_batch(harness.database_url, opened, {}, run="intake", limits=capture_limits(cap))


def captured(run, harness, *arguments):
    """Request, process and capture current counts, and return the request's id."""
    one = harness.publish({"One": {isrcs(2)[0]: 10, isrcs(2)[1]: 20}})[0]
    job = parse_json(run(*CURRENT, "--album", one, *arguments, "--json"))["id"]
    (processed,) = process_requests(harness)
    harness.run_capture(processed.capture.snapshot)
    return job


# --- submit


def test_a_request_for_current_counts_is_the_row_that_a_client_would_insert(run, harness):
    parse_json(run(*CURRENT, "--album", "b,a", "--album", "c", "--json"))
    parse_json(run(*CURRENT, "--isrc", isrcs(1)[0], "--monthly", "--json"))
    rows = harness.sql("select source, scope, schedule, state, account::text from measurement_jobs order by created_at")
    assert [(row["scope"], row["schedule"]) for row in rows] == [
        ({"album_ids": ["b", "a", "c"]}, "once"),
        ({"isrcs": isrcs(1)}, "monthly"),
    ]
    assert {(row["source"], row["state"], row["account"]) for row in rows} == {("current", "queued", ACCOUNT)}


def test_a_history_cannot_be_monthly(run, harness):
    result = run("submit", "--account", ACCOUNT, "--source", "historical", "--isrc", isrcs(1)[0], "--monthly")
    assert result.exit_code == 2
    assert "monthly" in result.stderr
    assert harness.sql("select 1 from measurement_jobs") == []


def test_an_estimate_shows_albums_cost_and_month_and_requests_nothing(run, harness):
    result = parse_json(run(*CURRENT, "--album", "a,b,a", "--estimate", "--json", SNAPSHOT_MONTHLY_CAP_USD="0.01"))
    assert {name: float(result[name]) for name in ("cost_usd", "spent_usd_this_month", "cap_usd")} == {
        "cost_usd": 0.008,
        "spent_usd_this_month": 0.0,
        "cap_usd": 0.01,
    }
    assert (result["albums"], result["reused"], result["over_cap"]) == (2, False, False)
    stdout = run(*CURRENT, "--album", "a,b", "--estimate", SNAPSHOT_MONTHLY_CAP_USD="0.01").stdout
    assert "$0.008" in stdout
    assert "$0.000 spent of $0.01" in stdout
    assert "would be refused" not in stdout
    assert "nothing was requested" in stdout
    assert harness.sql("select 1 from measurement_jobs union all select 1 from playcount_snapshots") == []


def test_an_estimate_over_the_cap_reports_the_rejection(run, harness):
    over_cap = (*CURRENT, "--album", "a,b,c,d", "--estimate")
    assert parse_json(run(*over_cap, "--json", SNAPSHOT_MONTHLY_CAP_USD="0.01"))["over_cap"] is True
    result = run(*over_cap, SNAPSHOT_MONTHLY_CAP_USD="0.01")
    assert result.exit_code == 0
    assert "$0.000 spent of $0.01: it would be rejected" in result.stdout
    # The request is rejected.
    job = parse_json(run(*over_cap[:-1], "--json"))["id"]
    process_requests(harness, cap="0.01")
    stdout = run("jobs", job).stdout
    assert "rejected (429)" in stdout
    assert "monthly cap of captures is reached: $0.01 a calendar month (UTC), $0.000 of it spent" in " ".join(
        stdout.split()
    )


def test_an_estimate_that_reuses_a_capture_costs_nothing_even_over_the_cap(run, harness):
    captured(run, harness)
    one = harness.sql("select album_ids from playcount_snapshots")[0]["album_ids"][0]
    again = (*CURRENT, "--album", one, "--estimate")
    result = parse_json(run(*again, "--json", SNAPSHOT_MONTHLY_CAP_USD="0.001"))
    assert (result["reused"], float(result["cost_usd"]), result["over_cap"]) == (True, 0.0, False)
    stdout = run(*again, SNAPSHOT_MONTHLY_CAP_USD="0.001").stdout
    assert "$0: a capture of the same albums" in stdout
    assert "would be refused" not in stdout


@pytest.mark.parametrize("estimate", [("--estimate",), ("--estimate", "--json")])
def test_recordings_without_a_known_album_are_rejected_with_the_next_step(run, estimate):
    result = run(*CURRENT, "--isrc", isrcs(1)[0], *estimate)
    assert result.exit_code == 1
    assert NO_ALBUM_KNOWN[:40] in result.output


# --- jobs


def test_a_capture_is_shown_with_its_result(run, harness):
    job = captured(run, harness)
    result = parse_json(run("jobs", job, "--json"))
    assert (result["state"], result["source"], result["snapshot_state"]) == ("done", "current", "done")
    assert (result["album_count"], result["tracks"], result["recordings"], result["unmapped"]) == (1, 2, 2, 0)
    assert (float(result["estimated_cost_usd"]), result["reused"]) == (0.003, False)
    stdout = run("jobs", job).stdout
    for line in ("done (202)", "$0.003", f"{result['snapshot']} (done)", "recordings measured"):
        assert line in stdout
    assert "hits" not in stdout


def test_a_reused_capture_costs_nothing(run, harness):
    captured(run, harness)
    one = harness.sql("select album_ids from playcount_snapshots")[0]["album_ids"][0]
    job = parse_json(run(*CURRENT, "--album", one, "--json"))["id"]
    process_requests(harness)
    assert "$0.000 (an earlier capture)" in run("jobs", job).stdout
    assert harness.actor_usage()["runs"] == 1


def test_a_failed_capture_is_shown_with_the_actors_message(run, harness):
    harness.sandbox.actor("FAILED", "the page looks different today")
    job = captured(run, harness)
    stdout = " ".join(run("jobs", job).stdout.split())
    assert "failed (500)" in stdout
    assert "the page looks different today" in stdout


def test_omitted_recordings_and_the_captures_error_are_both_shown(run, harness):
    one, two = isrcs(2)
    harness.sql("insert into songs (isrc) values (%s), (%s)", one, two)
    harness.sql("insert into song_identifiers values (%s, 'spotify', 'album_id', 'a')", one)
    job = parse_json(run(*CURRENT, "--isrc", f"{one},{two}", "--json"))["id"]
    process_requests(harness)
    left_out = "1 of 2 recordings has no known album"
    assert left_out in run("jobs", job).stdout
    harness.sql("update playcount_snapshots set error = 'Apify is busy'")
    assert f"Apify is busy; {left_out}" in run("jobs", job).stdout
    harness.sql("update playcount_snapshots set state = 'done', error = 'part of it is missing'")
    with connect(harness.database_url) as connection:
        measurement_jobs.settle(connection)
    stdout = run("jobs", job).stdout
    assert f"part of it is missing; {left_out}" in stdout
    assert stdout.count("part of it is missing") == 1


# --- captures


def request_capture(run, harness, name, *, account=ACCOUNT):
    """Request a capture that has not started, and return the ids of both."""
    (one,) = harness.publish({name: {isrcs(1)[0]: 10}})
    job = parse_json(run("submit", "--account", account, "--source", "current", "--album", one, "--json"))["id"]
    (processed,) = process_requests(harness)
    return job, str(processed.capture.snapshot)


def acts(harness):
    return [(one["act"], one["detail"]) for one in harness.sql("select act, detail from operator_acts order by id")]


def test_captures_are_listed_newest_first_with_their_states(run, harness):
    assert "no capture was requested" in run("captures", "list").stdout
    assert parse_json(run("captures", "list", "--json")) == []
    _, done = request_capture(run, harness, "One")
    harness.run_capture(done)
    _, waiting = request_capture(run, harness, "Two", account=uuid4())
    harness.sql(
        "update playcount_snapshots set not_before = now() + interval '1 hour', error = 'Apify is busy' where id = %s",
        waiting,
    )
    _, queued = request_capture(run, harness, "Three")

    result = parse_json(run("captures", "list", "--json"))
    assert [(one["id"], one["state"], one["waits"]) for one in result] == [
        (queued, "queued", False),
        (waiting, "queued", True),
        (done, "done", False),
    ]
    lines = {line.split()[0]: line for line in run("captures", "list").stdout.splitlines()}
    for capture, state in ((queued, " queued "), (waiting, " waits "), (done, " done ")):
        assert state in lines[capture]
    assert " queued " not in lines[waiting]
    assert "Apify is busy" in lines[waiting]
    mine = parse_json(run("captures", "list", "--account", ACCOUNT, "--json"))
    assert [one["id"] for one in mine] == [queued, done]
    assert [one["id"] for one in parse_json(run("captures", "list", "--limit", "1", "--json"))] == [queued]


def test_a_stopped_capture_fails_its_requests(run, harness):
    job, capture = request_capture(run, harness, "One")
    again = parse_json(run(*CURRENT, "--album", harness.snapshot_row(capture)["album_ids"][0], "--json"))["id"]
    process_requests(harness)
    other_job, other = request_capture(run, harness, "Two")

    stopped = run("captures", "stop", capture)
    assert (stopped.exit_code, stopped.stdout) == (0, f"capture {capture} is stopped\n")
    assert (harness.snapshot_row(capture)["state"], harness.snapshot_row(other)["state"]) == ("failed", "queued")
    for one in (job, again):
        result = parse_json(run("jobs", one, "--json"))
        assert (result["state"], result["status_code"]) == ("failed", 500)
        assert result["error"].startswith("stopped by ")
    assert parse_json(run("jobs", other_job, "--json"))["state"] == "accepted"
    assert acts(harness) == [("capture stopped", {"snapshot": capture})]

    once_more = run("captures", "stop", capture)
    assert once_more.exit_code == 1
    assert f"there is no open capture {capture}" in once_more.stderr
    assert len(acts(harness)) == 1
    assert harness.run_capture(capture).kind is CaptureResultKind.FAILED
    assert harness.actor_usage()["runs"] == 0, "a stopped capture is not bought"


def test_an_unknown_capture_is_an_error(run, harness):
    unknown = uuid4()
    result = run("captures", "stop", unknown)
    assert result.exit_code == 1
    assert str(unknown) in result.stderr
    assert acts(harness) == []
    assert run("captures", "stop", "7").exit_code == 2


def test_resume_ends_the_pauses_of_both_vendors_and_waiting_captures_continue(run, harness):
    _, capture = request_capture(run, harness, "One")
    with connect(harness.database_url) as connection:
        for vendor in ("apify", "spotify", "songstats"):
            vendor_state.pause(connection, vendor, seconds=3_600, reason="the token is refused")
    harness.sql("update playcount_snapshots set not_before = now() + interval '1 hour'")
    assert harness.run_capture(capture).kind is CaptureResultKind.POSTPONED

    resumed = run("captures", "resume")
    assert (resumed.exit_code, "apify and spotify has ended" in resumed.stdout) == (0, True)
    paused = harness.sql("select vendor from vendor_state where paused_until > clock_timestamp()")
    assert paused == [{"vendor": "songstats"}], "the pause of Songstats is another command's"
    assert acts(harness) == [("pause ended", {"vendors": ["apify", "spotify"]})]
    assert parse_json(run("captures", "list", "--json"))[0]["waits"] is False
    assert harness.run_capture(capture).kind is CaptureResultKind.DONE

    again = run("captures", "resume")
    assert (again.exit_code, "neither Apify nor Spotify" in again.stdout) == (0, True)
    assert len(acts(harness)) == 1


# --- series


def test_a_series_is_listed_with_its_last_capture_and_stopped_once(run, harness):
    assert "no series was requested" in run("series", "list").stdout
    assert parse_json(run("series", "list", "--json")) == []
    captured(run, harness, "--monthly")
    (series,) = parse_json(run("series", "list", "--json"))
    assert (series["account"], series["albums"], series["last_state"], series["stopped_at"]) == (
        ACCOUNT,
        1,
        "done",
        None,
    )
    assert series["id"] in run("series", "list").stdout
    assert parse_json(run("series", "list", "--account", uuid4(), "--json")) == []

    stopped = run("series", "stop", series["id"])
    assert (stopped.exit_code, stopped.stdout) == (0, f"series {series['id']} is stopped\n")
    assert parse_json(run("series", "list", "--json"))[0]["stopped_at"] is not None
    again = run("series", "stop", series["id"])
    assert again.exit_code == 1
    assert f"there is no active series {series['id']}" in again.stderr
    assert acts(harness) == [("series stopped", {"series": series["id"]})]


def test_an_unknown_series_is_an_error(run, harness):
    unknown = uuid4()
    result = run("series", "stop", unknown)
    assert result.exit_code == 1
    assert str(unknown) in result.stderr
    assert harness.sql("select 1 from operator_acts") == []
    assert run("series", "stop", "7").exit_code == 2


# --- catalog import


def test_a_catalogue_is_captured_by_the_albums_of_its_file(run, harness, tmp_path):
    one, two, three = isrcs(3)
    path = tmp_path / "catalogue.csv"
    path.write_text(f"isrc,spotify_album_id\n{one},a; b\n{two},b\n{three},\n", encoding="utf-8")
    assert run("catalog", "import", path, "--name", "mine", "--account", ACCOUNT).exit_code == 0
    rows = harness.sql("select song, value from song_identifiers where identifier_type = 'album_id' order by 1, 2")
    assert [(row["song"], row["value"]) for row in rows] == [(one, "a"), (one, "b"), (two, "b")]
    estimate = parse_json(run(*CURRENT, "--catalog", "mine", "--estimate", "--json"))
    assert (estimate["albums"], float(estimate["cost_usd"])) == (2, 0.008)


def test_an_album_with_a_nul_character_is_reported_and_the_other_lines_are_loaded(run, harness, tmp_path):
    path = tmp_path / "catalogue.csv"
    path.write_text(f"isrc,spotify_album_id\n{isrcs(2)[0]},a\0\n{isrcs(2)[1]},b\n", encoding="utf-8")
    result = run("catalog", "import", path, "--name", "mine", "--account", ACCOUNT)
    assert result.exit_code == 1
    assert "line 2: spotify_album_id: contains a NUL character" in result.stderr
    assert harness.sql("select value from song_identifiers") == [{"value": "b"}]
