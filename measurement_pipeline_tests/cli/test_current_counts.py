"""Current counts on the command line: asked for, estimated, shown, captured anew every month, and the albums they need."""

from decimal import Decimal
from uuid import uuid4

import pytest

from measurement_pipeline.domain.measurement_job import NO_ALBUM_KNOWN
from measurement_pipeline.intake import take_in as intake
from measurement_pipeline_tests.capture.conftest import Studio, isrcs, studio_of
from measurement_pipeline_tests.cli.conftest import told

ACCOUNT = "11111111-1111-4111-8111-111111111111"
CURRENT = ("submit", "--account", ACCOUNT, "--source", "current")


@pytest.fixture
def studio(database_url, sandbox) -> Studio:
    return studio_of(database_url, sandbox)


def take_in(studio, *, cap="25"):
    opened = intake.open_round(studio.database_url)
    return intake.take_in(studio.database_url, opened, {}, run="intake", cap_usd=Decimal(cap))


def captured(run, studio, *arguments):
    """A request that is asked for, taken in and captured; its id."""
    one = studio.release({"One": {isrcs(2)[0]: 10, isrcs(2)[1]: 20}})[0]
    job = told(run(*CURRENT, "--album", one, *arguments, "--json"))["id"]
    (taken,) = take_in(studio)
    studio.make(taken.capture.snapshot)
    return job


# --- submit


def test_a_request_for_current_counts_is_a_row_as_a_client_would_insert_it(run, studio):
    told(run(*CURRENT, "--album", "b,a", "--album", "c", "--json"))
    told(run(*CURRENT, "--isrc", isrcs(1)[0], "--monthly", "--json"))
    found = studio.sql("select source, scope, schedule, state, account::text from measurement_jobs order by created_at")
    assert [(row["scope"], row["schedule"]) for row in found] == [
        ({"album_ids": ["b", "a", "c"]}, "once"),
        ({"isrcs": isrcs(1)}, "monthly"),
    ]
    assert {(row["source"], row["state"], row["account"]) for row in found} == {("current", "queued", ACCOUNT)}


def test_a_history_is_bought_once_and_never_monthly(run, studio):
    result = run("submit", "--account", ACCOUNT, "--source", "historical", "--isrc", isrcs(1)[0], "--monthly")
    assert result.exit_code == 1
    assert "monthly" in result.stderr
    assert studio.sql("select 1 from measurement_jobs") == []


def test_an_estimate_says_albums_cost_and_month_and_asks_for_nothing(run, studio):
    found = told(run(*CURRENT, "--album", "a,b,a", "--estimate", "--json", SNAPSHOT_MONTHLY_CAP_USD="0.01"))
    assert {name: float(found[name]) for name in ("cost_usd", "spent_usd_this_month", "cap_usd")} == {
        "cost_usd": 0.006,
        "spent_usd_this_month": 0.0,
        "cap_usd": 0.01,
    }
    assert (found["albums"], found["reused"], found["over_cap"]) == (2, False, False)
    words = run(*CURRENT, "--album", "a,b", "--estimate", SNAPSHOT_MONTHLY_CAP_USD="0.01").stdout
    assert "$0.006" in words
    assert "$0.000 spent of $0.01" in words
    assert "would be refused" not in words
    assert "nothing was asked for" in words
    assert studio.sql("select 1 from measurement_jobs union all select 1 from playcount_snapshots") == []


def test_an_estimate_over_the_cap_says_that_it_would_be_refused(run, studio):
    over = (*CURRENT, "--album", "a,b,c,d", "--estimate")
    assert told(run(*over, "--json", SNAPSHOT_MONTHLY_CAP_USD="0.01"))["over_cap"] is True
    result = run(*over, SNAPSHOT_MONTHLY_CAP_USD="0.01")
    assert result.exit_code == 0
    assert "$0.000 spent of $0.01: it would be refused" in result.stdout
    # And so it is.
    job = told(run(*over[:-1], "--json"))["id"]
    take_in(studio, cap="0.01")
    shown = run("jobs", job).stdout
    assert "rejected (429)" in shown
    assert "monthly cap of captures is reached: $0.01 a calendar month (UTC), $0.000 of it spent" in " ".join(
        shown.split()
    )


def test_an_estimate_of_what_an_earlier_capture_answers_is_nothing_even_over_the_cap(run, studio):
    captured(run, studio)
    one = studio.sql("select album_ids from playcount_snapshots")[0]["album_ids"][0]
    again = (*CURRENT, "--album", one, "--estimate")
    found = told(run(*again, "--json", SNAPSHOT_MONTHLY_CAP_USD="0.001"))
    assert (found["reused"], float(found["cost_usd"]), found["over_cap"]) == (True, 0.0, False)
    words = run(*again, SNAPSHOT_MONTHLY_CAP_USD="0.001").stdout
    assert "$0: a capture of the same albums within the hour answers it" in words
    assert "would be refused" not in words


@pytest.mark.parametrize("estimate", [("--estimate",), ("--estimate", "--json")])
def test_recordings_of_which_no_album_is_known_are_refused_with_what_to_do(run, estimate):
    result = run(*CURRENT, "--isrc", isrcs(1)[0], *estimate)
    assert result.exit_code == 1
    assert NO_ALBUM_KNOWN[:40] in result.output


# --- jobs


def test_a_capture_is_shown_with_what_it_came_to(run, studio):
    job = captured(run, studio)
    found = told(run("jobs", job, "--json"))
    assert (found["state"], found["source"], found["snapshot_state"]) == ("done", "current", "done")
    assert (found["album_count"], found["tracks"], found["recordings"], found["unmapped"]) == (1, 2, 2, 0)
    assert (float(found["estimated_cost_usd"]), found["reused"]) == (0.003, False)
    words = run("jobs", job).stdout
    for line in ("done (202)", "$0.003", f"{found['snapshot']} (done)", "recordings measured"):
        assert line in words
    assert "hits" not in words


def test_a_capture_that_an_earlier_one_answered_says_that_it_cost_nothing(run, studio):
    captured(run, studio)
    one = studio.sql("select album_ids from playcount_snapshots")[0]["album_ids"][0]
    job = told(run(*CURRENT, "--album", one, "--json"))["id"]
    take_in(studio)
    assert "$0.000 (an earlier capture)" in run("jobs", job).stdout
    assert studio.paid()["runs"] == 1


def test_a_capture_that_failed_is_shown_with_the_actors_own_words(run, studio):
    studio.sandbox.actor("FAILED", "the page looks different today")
    job = captured(run, studio)
    words = " ".join(run("jobs", job).stdout.split())
    assert "failed (500)" in words
    assert "the page looks different today" in words


# --- series


def test_a_series_is_listed_with_its_last_capture_and_stopped_by_a_person_once(run, studio):
    assert "no series was asked for" in run("series", "list").stdout
    assert told(run("series", "list", "--json")) == []
    captured(run, studio, "--monthly")
    (series,) = told(run("series", "list", "--json"))
    assert (series["account"], series["albums"], series["last_state"], series["stopped_at"]) == (
        ACCOUNT,
        1,
        "done",
        None,
    )
    assert series["id"] in run("series", "list").stdout
    assert told(run("series", "list", "--account", uuid4(), "--json")) == []

    stopped = run("series", "stop", series["id"])
    assert (stopped.exit_code, stopped.stdout) == (0, f"series {series['id']} is stopped\n")
    assert told(run("series", "list", "--json"))[0]["stopped_at"] is not None
    again = run("series", "stop", series["id"])
    assert again.exit_code == 1
    assert f"there is no series {series['id']} that goes on" in again.stderr
    acts = studio.sql("select act, detail from operator_acts")
    assert [(one["act"], one["detail"]) for one in acts] == [("series stopped", {"series": series["id"]})]


def test_a_series_that_is_not_there_is_refused(run, studio):
    unknown = uuid4()
    result = run("series", "stop", unknown)
    assert result.exit_code == 1
    assert str(unknown) in result.stderr
    assert studio.sql("select 1 from operator_acts") == []
    assert run("series", "stop", "7").exit_code == 2


# --- catalog import


def test_the_albums_of_a_catalogue_file_are_what_it_is_captured_by(run, studio, tmp_path):
    one, two, three = isrcs(3)
    path = tmp_path / "catalogue.csv"
    path.write_text(f"isrc,spotify_album_id\n{one},a; b\n{two},b\n{three},\n", encoding="utf-8")
    assert run("catalog", "import", path, "--name", "mine", "--account", ACCOUNT).exit_code == 0
    found = studio.sql("select song, value from song_identifiers where identifier_type = 'album_id' order by 1, 2")
    assert [(row["song"], row["value"]) for row in found] == [(one, "a"), (one, "b"), (two, "b")]
    estimate = told(run(*CURRENT, "--catalog", "mine", "--estimate", "--json"))
    assert (estimate["albums"], float(estimate["cost_usd"])) == (2, 0.006)


def test_an_album_with_a_nul_is_a_bad_line_and_the_good_ones_are_loaded(run, studio, tmp_path):
    path = tmp_path / "catalogue.csv"
    path.write_text(f"isrc,spotify_album_id\n{isrcs(2)[0]},a\0\n{isrcs(2)[1]},b\n", encoding="utf-8")
    result = run("catalog", "import", path, "--name", "mine", "--account", ACCOUNT)
    assert result.exit_code == 1
    assert "line 2: spotify_album_id: holds a NUL character" in result.stderr
    assert studio.sql("select value from song_identifiers") == [{"value": "b"}]
