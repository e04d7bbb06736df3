"""Each command's effect on a real database, its output and its exit status."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from threading import Event, Thread
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.cli import progress
from measurement_pipeline.cli.demo_command import waiting_reason
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.health import incidents
from measurement_pipeline.intake import process as intake
from measurement_pipeline.local import instance_lock
from measurement_pipeline.local.supervisor import free_port
from measurement_pipeline.postgres import address, conninfo, measurement_jobs
from measurement_pipeline.postgres.database import DatabaseError, connect
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.cli.conftest import parse_json
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import isrcs

ACCOUNT = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def catalogue(tmp_path):
    path = tmp_path / "catalogue.csv"
    lines = [f"{song},Title {place},An Artist,,,{place or ''}" for place, song in enumerate(isrcs(3))]
    text = "\n".join(["isrc,title,artist,album,release_date,play_count", *lines, ""])
    path.write_text(text, encoding="utf-8-sig")
    return path


@pytest.fixture
def imported(run, catalogue):
    return parse_json(run("catalog", "import", catalogue, "--name", "mine", "--account", ACCOUNT, "--json"))["catalog"]


def answer_requests(database_url, *, decision):
    opened = intake.load_batch(database_url)
    return intake.process_batch(database_url, opened, dict.fromkeys(opened.accounts, decision), run="intake")


# --- db


def test_a_new_database_is_ready_after_an_upgrade(cli, empty_database_url):
    before = cli("db", "status", "--json", DATABASE_URL=empty_database_url)
    assert before.exit_code == 1
    assert json.loads(before.stdout)["schema"] is None
    failed = cli("queue", DATABASE_URL=empty_database_url)
    assert failed.exit_code == 1
    assert "measurement-pipeline db upgrade" in failed.stderr
    assert cli("db", "upgrade", DATABASE_URL=empty_database_url).exit_code == 0
    assert parse_json(cli("db", "status", "--json", DATABASE_URL=empty_database_url))["stamp"] == "sandbox"
    assert "already" in cli("db", "upgrade", DATABASE_URL=empty_database_url).stdout


def test_the_addresses_are_printed_alone_and_as_postgresqls_tools_take_them(run, database_url):
    settings = {
        "DATABASE_URL": conninfo.sqlalchemy_url(database_url),
        "DAGSTER_POSTGRES_URL": conninfo.sqlalchemy_url(address.with_database(database_url, "postgres")),
    }
    for option, name in ((), settings["DATABASE_URL"]), (("--dagster",), settings["DAGSTER_POSTGRES_URL"]):
        printed = run("db", "url", *option, **settings).stdout.removesuffix("\n")
        assert printed.startswith("postgresql://")
        assert conninfo.parse(printed) == conninfo.parse(name)


# --- catalog import


def test_imported_counts_are_stored_and_missing_ones_are_not(run, imported, bench):
    rows = bench.sql(
        "select song, value, data_source, captured_at::date::text as day from song_measurements order by song"
    )
    assert [(row["song"], row["value"], row["data_source"]) for row in rows] == [
        (isrcs(3)[1], 1, "import"),
        (isrcs(3)[2], 2, "import"),
    ]
    assert len(bench.sql("select 1 from catalog_songs where catalog = %s", imported)) == 3


def test_as_of_sets_the_day_of_the_counts(run, catalogue, bench):
    arguments = ("catalog", "import", catalogue, "--name", "mine", "--account", ACCOUNT, "--as-of", "2024-12-31")
    assert run(*arguments).exit_code == 0
    rows = bench.sql("select distinct captured_at at time zone 'UTC' as at from song_measurements")
    assert [str(row["at"]) for row in rows] == ["2024-12-31 00:00:00"]


def test_invalid_lines_are_listed_with_status_1_and_valid_ones_are_loaded(run, tmp_path, bench):
    path = tmp_path / "bad.csv"
    path.write_text("isrc,play_count\nAA6Q72000000,1\nNOPE,2\nAA6Q72000001,many\n")
    result = run("catalog", "import", path, "--name", "mine", "--account", ACCOUNT)
    assert result.exit_code == 1
    assert "line 3: isrc 'NOPE'" in result.stderr
    assert "line 4: play_count 'many'" in result.stderr
    assert [row["isrc"] for row in bench.sql("select isrc from songs")] == ["AA6Q72000000"]


def test_garbled_titles_and_dates_without_a_day_cause_warnings(run, tmp_path, bench):
    path = tmp_path / "semicolons.csv"
    path.write_text(
        "isrc;title;release_date\nAA6Q72000000;Caf\ufffd;\nAA6Q72000001;Rain;2019\nAA6Q72000002;Sun;2019-05-01\n",
        encoding="utf-8",
    )
    arguments = ("catalog", "import", path, "--name", "mine", "--account", ACCOUNT)
    actual = parse_json(run(*arguments, "--json"))
    assert actual["loaded"] == 3
    assert [(one["line"], one["isrc"]) for one in actual["warnings"]] == [(2, "AA6Q72000000"), (3, "AA6Q72000001")]
    result = run(*arguments)
    assert result.exit_code == 0
    garbled, dateless = result.stderr.splitlines()
    assert garbled.startswith("line 2: warning: AA6Q72000000: title 'Caf\ufffd' is garbled")
    assert dateless == "line 3: warning: AA6Q72000001: release_date '2019' has no day: no release date is stored"
    days = bench.sql("select release_date from songs order by isrc")
    assert [row["release_date"] and row["release_date"].isoformat() for row in days] == [None, None, "2019-05-01"]


def test_importing_twice_adds_nothing(run, catalogue, imported, bench):
    again = parse_json(run("catalog", "import", catalogue, "--name", "mine", "--account", ACCOUNT, "--json"))
    assert again["catalog"] == imported
    assert len(bench.sql("select 1 from song_measurements")) == 2


@pytest.mark.parametrize(("content", "why"), [(b"title\nx\n", "isrc"), (b"isrc\n\xff\n", "UTF-8"), (b"", "empty")])
def test_a_file_that_is_not_a_catalogue_is_an_error(run, tmp_path, content, why):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    result = run("catalog", "import", path, "--name", "mine", "--account", ACCOUNT)
    assert result.exit_code == 1
    assert why in result.stderr


@pytest.mark.parametrize("content", ["isrc,play_count\n", "isrc,play_count\nNOPE,2\n"])
def test_a_file_without_a_valid_line_creates_nothing(run, tmp_path, bench, content):
    path = tmp_path / "none.csv"
    path.write_text(content)
    result = run("catalog", "import", path, "--name", "mine", "--account", ACCOUNT)
    assert result.exit_code == 1
    assert "no valid line" in result.stderr
    assert not bench.sql("select 1 from catalogs")


@pytest.mark.parametrize("day", ["2999-01-01", "1899-12-31"])
def test_as_of_must_not_be_in_the_future_or_before_1900(run, catalogue, bench, day):
    result = run("catalog", "import", catalogue, "--name", "mine", "--account", ACCOUNT, "--as-of", day)
    assert result.exit_code == 2
    assert f"{day}: give a day from 1900-01-01 to " in result.stderr
    assert not bench.sql("select 1 from catalogs")


# --- submit


def test_a_request_is_the_row_that_a_client_would_insert(run, bench, imported):
    parse_json(run("submit", "--account", ACCOUNT, "--source", "historical", "--catalog", "mine", "--json"))
    parse_json(run("submit", "--account", ACCOUNT, "--source", "historical", "--catalog", imported, "--json"))
    parse_json(
        run(
            "submit", "--account", ACCOUNT, "--source", "historical", "--isrc", "aa-6q7-20-00000,AA6Q72000001", "--json"
        )
    )
    parse_json(
        run("submit", "--account", ACCOUNT, "--source", "historical", "--album", "4aawyAB9vmqN3uQ7FjRGTy", "--json")
    )
    rows = bench.sql("select scope, state, account::text from measurement_jobs order by created_at")
    assert [row["scope"] for row in rows] == [
        {"catalog_id": imported},
        {"catalog_id": imported},
        {"isrcs": ["aa-6q7-20-00000", "AA6Q72000001"]},
        {"album_ids": ["4aawyAB9vmqN3uQ7FjRGTy"]},
    ]
    assert {(row["state"], row["account"]) for row in rows} == {("queued", ACCOUNT)}


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("--source", "historical"), 2, "exactly one"),
        (("--source", "historical", "--isrc", "AA6Q72000000", "--album", "x"), 2, "exactly one"),
        (("--source", "past", "--isrc", "AA6Q72000000"), 2, "past"),
        (("--source", "historical", "--isrc", "AA6Q7200000"), 1, "'AA6Q7200000'"),
        (("--source", "historical", "--isrc", "AA6Q72000000", "--monthly"), 2, "--source current"),
        (("--source", "historical", "--catalog", "unknown"), 1, "unknown"),
        (("--source", "historical", "--catalog", "0f0f0f0f-0000-4000-8000-000000000001"), 1, "0f0f0f0f"),
        (("--source", "historical", "--isrc", "AA6Q72000000", "--estimate", "--wait"), 2, "--wait"),
    ],
)
def test_an_invalid_request_is_an_error_and_is_not_queued(run, bench, arguments, status, why):
    result = run("submit", "--account", ACCOUNT, *arguments)
    assert result.exit_code == status
    assert why in result.stderr
    assert "Traceback" not in result.output
    assert not bench.sql("select 1 from measurement_jobs")


def test_a_catalogue_of_another_account_is_not_found(run, imported):
    result = run("submit", "--account", uuid4(), "--source", "historical", "--catalog", imported)
    assert result.exit_code == 1
    assert imported in result.stderr


def test_an_account_can_be_given_by_its_unique_name(run, bench):
    bench.sql(
        "insert into accounts (id, name) values (%s, 'Acme'), (%s, 'Twice'), (%s, 'Twice')", ACCOUNT, uuid4(), uuid4()
    )
    submit = ("submit", "--source", "historical", "--isrc", "AA6Q72000000", "--account")
    assert run(*submit, "Acme").exit_code == 0
    assert str(bench.sql("select account from measurement_jobs")[0]["account"]) == ACCOUNT
    assert run(*submit, "Twice").exit_code == 1
    assert "'Unknown'" in run(*submit, "Unknown").stderr


def test_an_estimate_enqueues_nothing_and_counts_owned_queued_and_needed_hits(run, bench):
    songs = isrcs(6)
    bench.submit_request(songs[:3])
    bench.run_backfill(songs[:1])
    result = parse_json(
        run(
            "submit", "--account", ACCOUNT, "--source", "historical", "--isrc", ",".join(songs), "--estimate", "--json",
            SONGSTATS_HIT_LIMIT="12", SONGSTATS_HIT_RESERVE="9", SONGSTATS_EUR_PER_HIT="0.5",
        )
    )  # fmt: skip
    assert result.pop("earliest_completion") < result.pop("estimated_completion") < result.pop("latest_completion")
    assert result == {
        "asked": 6,
        "owned": 1,
        "queued": 2,
        "hits": 3,
        "eur": 1.5,
        # Three in any 30 days, one of them just spent: two now, one when it becomes available, two 30 days after the first two.
        "days": 30,
        "hits_left_now": 2,
        "hits_allowed_in_30_days": 3,
        "left_out": 0,
        "covered": 1.0,
        # The three owned or queued ones have all known plays.
        "value": [{"hits": 5, "coverage": 1.0}],
        "imported": 0,
    }
    assert len(bench.sql("select 1 from measurement_jobs")) == 1
    assert len(bench.sql("select 1 from songstats_backfill_queue")) == 3


def test_waiting_fails_with_the_checkout_link_if_a_card_is_missing(run, database_url):
    link = "https://checkout.example/1"
    denied = Decision(PaymentVerdict.DENIED, "No card.", checkout_url=link)

    def answer():
        while not answer_requests(database_url, decision=denied):
            pass

    intake_thread = Thread(target=answer)
    intake_thread.start()
    result = run("submit", "--account", ACCOUNT, "--source", "historical", "--isrc", "AA6Q72000000", "--wait", "--json")
    intake_thread.join()
    assert result.exit_code == 1
    actual = json.loads(result.stdout)
    assert (actual["state"], actual["checkout_url"]) == ("payment_required", link)


def test_waiting_succeeds_once_all_recordings_are_settled(run, bench, database_url):
    bench.submit_request(["AA6Q72000000"])
    bench.run_backfill(["AA6Q72000000"])

    def answer():
        while not answer_requests(database_url, decision=Decision(PaymentVerdict.ALLOWED, "a card")):
            pass

    intake_thread = Thread(target=answer)
    intake_thread.start()
    result = run("submit", "--account", ACCOUNT, "--source", "historical", "--isrc", "AA6Q72000000", "--wait")
    intake_thread.join()
    assert result.exit_code == 0
    assert "done (202)" in result.stdout
    assert "1 of 1" in result.stdout


@pytest.mark.parametrize(
    ("obstacle", "environment", "why"),
    [
        (
            "breaker = 'open', breaker_kind = 'streak', reason = 'odd ones', opened_at = now()",
            {},
            "Circuit breaker open since",
        ),
        ("paused_until = now() + interval '1 day'", {}, "paused until"),
        ("throttled = 0", {"SONGSTATS_HIT_LIMIT": "0"}, "quota is 0 hits"),
    ],
)
def test_waiting_shows_what_blocks_purchases(run, bench, database_url, obstacle, environment, why):
    bench.sql(f"update vendor_state set {obstacle}")
    allowed = Decision(PaymentVerdict.ALLOWED, "a card")

    def withdraw():
        # Accepted and blocked: shown briefly, then withdrawn, so that the waiting ends.
        while not answer_requests(database_url, decision=allowed):
            pass
        time.sleep(1.5)
        bench.sql("update measurement_jobs set state = 'withdrawn'")

    client = Thread(target=withdraw)
    client.start()
    submit = ("submit", "--account", ACCOUNT, "--source", "historical", "--isrc", "AA6Q72000000", "--wait")
    result = run(*submit, **environment)
    client.join()
    assert "0 of 1 settled (" in result.stderr
    assert why in result.stderr


def test_waiting_reports_once_that_no_run_has_accepted_the_request(bench, connection, database_url):
    job = measurement_jobs.submit(connection, account=uuid4(), source="historical", scope={"isrcs": isrcs(1)})
    stderr = io.StringIO()

    def answer():
        wait_until(lambda: "not accepted after 0 s: start" in stderr.getvalue())
        answer_requests(database_url, decision=Decision(PaymentVerdict.DENIED, "No card."))

    intake_thread = Thread(target=answer)
    with contextlib.redirect_stderr(stderr):
        intake_thread.start()
        result = progress.wait_for_request(connection, job, hits_allowed=1, intake_seconds=0)
    intake_thread.join()
    assert result["state"] == "payment_required"
    assert stderr.getvalue().count("measurement-pipeline dev") == 1


def test_waiting_distinguishes_a_dev_that_is_starting_from_one_that_is_not_running(
    bench, connection, database_url, tmp_path
):
    job = measurement_jobs.submit(connection, account=uuid4(), source="historical", scope={"isrcs": isrcs(1)})
    stderr = io.StringIO()

    def answer():
        with instance_lock.acquire_instance_lock(tmp_path, "dev") as mark_ready:
            started.set()
            wait_until(lambda: "still starting" in stderr.getvalue())
            mark_ready()
            wait_until(lambda: "not accepted after 0 s: start `measurement-pipeline dev`" in stderr.getvalue())
            answer_requests(database_url, decision=Decision(PaymentVerdict.DENIED, "No card."))

    started = Event()
    intake_thread = Thread(target=answer)
    with contextlib.redirect_stderr(stderr):
        intake_thread.start()
        started.wait()
        result = progress.wait_for_request(
            connection,
            job,
            hits_allowed=1,
            is_starting=lambda: instance_lock.is_starting(tmp_path, "dev"),
            intake_seconds=0,
        )
    intake_thread.join()
    assert result["state"] == "payment_required"


def test_waiting_for_an_accepted_request_reports_no_missing_intake(bench, connection, capsys):
    job = bench.submit_request(isrcs(1))
    bench.run_backfill(isrcs(1))
    assert progress.wait_for_request(connection, job, hits_allowed=1, intake_seconds=0)["state"] == "done"
    assert "not accepted" not in capsys.readouterr().err


def test_waiting_reports_once_that_dev_ended_and_continues(bench, connection, database_url, tmp_path):
    job = measurement_jobs.submit(connection, account=uuid4(), source="historical", scope={"isrcs": isrcs(1)})
    stderr, ended = io.StringIO(), Event()

    def answer():
        wait_until(lambda: "`measurement-pipeline dev` was stopped 2" in stderr.getvalue())
        answer_requests(database_url, decision=Decision(PaymentVerdict.DENIED, "No card."))

    with instance_lock.acquire_instance_lock(tmp_path, "dev"):
        assert instance_lock.describe_end(tmp_path, "dev") is None
    intake_thread = Thread(target=answer)
    with contextlib.redirect_stderr(stderr):
        intake_thread.start()
        result = progress.wait_for_request(
            connection,
            job,
            hits_allowed=1,
            # `dev` is running at the first check and has ended at the second.
            describe_end=lambda: instance_lock.describe_end(tmp_path, "dev") if ended.is_set() else ended.set(),
            poll_seconds=0.01,
            blocker_seconds=0.02,
        )
    intake_thread.join()
    assert result["state"] == "payment_required"
    assert stderr.getvalue().count("`measurement-pipeline dev` was stopped") == 1


def test_a_client_cannot_insert_a_time_that_commands_cannot_show(run, bench):
    row = "insert into measurement_jobs (account, source, scope, {}) values (%s, 'historical', '{{}}', %s)"
    for column in ("created_at", "updated_at", "not_before"):
        for moment in ("infinity", "-infinity", "20000-01-01", "0044-03-15 BC"):
            with pytest.raises(DatabaseError, match=column):
                bench.sql(row.format(column), ACCOUNT, moment)
        bench.sql(row.format(column), ACCOUNT, "2026-01-01")
    assert run("jobs").exit_code == 0


# --- jobs, queue


def test_a_request_is_shown_with_its_receipt_and_cost(run, bench):
    job = bench.submit_request(isrcs(2))
    bench.run_backfill(isrcs(2)[:1])
    result = parse_json(run("jobs", job, "--json", SONGSTATS_EUR_PER_HIT="0.25"))
    assert (result["asked"], result["settled"], result["stored"], result["hits"], result["eur"]) == (2, 1, 1, 1, 0.25)
    assert "1 of 2" in run("jobs", job).stdout
    assert [row["id"] for row in parse_json(run("jobs", "--json"))] == [str(job)]
    assert str(job) in run("jobs").stdout
    assert parse_json(run("jobs", "--account", uuid4(), "--json")) == []


def test_an_unknown_request_is_an_error(run):
    unknown = uuid4()
    result = run("jobs", unknown)
    assert result.exit_code == 1
    assert str(unknown) in result.stderr
    assert run("jobs", "7").exit_code == 2


def test_the_queue_shows_waiting_recordings_and_the_reason(run, bench):
    bench.submit_request(isrcs(3))
    bench.run_backfill(isrcs(3)[:1])
    result = parse_json(run("queue", "--json", SONGSTATS_HIT_LIMIT="101"))
    assert (result["counts"]["pending"], result["counts"]["stored"]) == (2, 1)
    assert [row["song"] for row in result["next"]] == isrcs(3)[1:]
    assert result["budget"]["left"] == 0
    assert result["budget"]["next_hit_frees_at"] is not None
    stdout = run("queue", SONGSTATS_HIT_LIMIT="101").stdout
    assert "0 of 1 hits left" in stdout
    assert "next hit available" in stdout
    assert "1 (1 stored)" in stdout


def test_recordings_of_withdrawn_requests_are_not_next_and_are_counted(run, bench):
    songs = isrcs(4)
    job = bench.submit_request(songs)
    bench.submit_request(songs[:1], account=uuid4())
    bench.run_backfill(songs[3:])
    bench.sql("update songstats_backfill_queue set operator_launched = true where song = %s", songs[1])
    with connect(bench.database_url) as connection:
        measurement_jobs.withdraw(connection, job, account=bench.account)
    result = parse_json(run("queue", "--json"))
    assert [row["song"] for row in result["next"]] == songs[:2]
    assert (result["counts"]["pending"], result["counts"]["unwanted"]) == (3, 1)
    assert "1 of these are not bought: their requests were withdrawn" in run("queue").stdout
    came_from = parse_json(run("jobs", job, "--json"))["came_from"]
    assert (came_from["withdrawn"], came_from["still_open"], came_from["bought"]) == (3, 0, 1)
    stdout = run("jobs", job).stdout
    assert "3 withdrawn and not bought" in stdout
    assert "still open" not in stdout


def test_a_billed_response_is_next_even_if_its_request_was_withdrawn(run, bench):
    (song,) = isrcs(1)
    job = bench.submit_request([song])
    bench.run_backfill([song])
    bench.sql("update songstats_responses set parser_version = null")
    bench.sql("update songstats_backfill_queue set status = 'pending', outcome = null")
    with connect(bench.database_url) as connection:
        measurement_jobs.withdraw(connection, job, account=bench.account)
    result = parse_json(run("queue", "--json"))
    assert ([row["song"] for row in result["next"]], result["counts"]["unwanted"]) == ([song], 0)


# --- incidents


def test_open_incidents_are_listed_with_start_and_count(run, database_url):
    assert run("incidents").stdout == "no incident is open\n"
    assert parse_json(run("incidents", "--json")) == []
    for _ in range(2):
        incidents.record_failure(database_url, "analytics_refresh", "the disk is full", run="0f0f0f0f-0000")
    (row,) = parse_json(run("incidents", "--json"))
    assert (row["key"], row["times"], row["told_at"]) == ("analytics_refresh: the disk is full", 2, None)
    assert row["opened_at"] < row["last_at"]
    stdout = run("incidents").stdout
    assert "analytics_refresh failed: the disk is full" in stdout
    assert "See run 0f0f0f0f" in stdout


# --- operator actions


def test_requeue_estimates_then_requeues_and_is_recorded(run, bench, sandbox):
    songs = isrcs(2)
    sandbox.faults("/enterprise/v1/tracks/historic_stats", isrc=songs[0], status=404)
    job = bench.submit_request(songs)
    bench.run_backfill(songs)
    assert bench.statuses() == {"no_history": 1, "stored": 1}
    planned = parse_json(run("requeue", "--outcome", "no_history", "--estimate", "--json"))
    assert (planned["chosen"], planned["requeued"], planned["hits_at_most"]) == (1, 0, 1)
    assert bench.row(songs[0])["status"] == "done"
    stdout = run("requeue", "--isrc", songs[1], "--estimate").stdout
    assert f"skipped: {songs[1]}: it is stored, and never bought again\n" in stdout
    done = parse_json(run("requeue", "--isrc", songs[0], "--isrc", songs[1], "--json"))
    assert (done["requeued"], done["skipped"]) == (1, [songs[1]])
    again = parse_json(run("requeue", "--isrc", ",".join([*songs, "AA6Q72999999"]), "--json"))["skip_reasons"]
    assert again == {
        songs[0]: "it is already on the queue",
        songs[1]: "it is stored, and never bought again",
        "AA6Q72999999": "no request has asked for it",
    }
    assert bench.statuses() == {"pending": 1, "stored": 1}
    assert parse_json(run("jobs", job, "--json"))["state"] == "accepted"
    (act,) = bench.sql("select actor, act, detail from operator_acts")
    assert act["act"] == "requeued"
    assert act["detail"]["songs"] == [songs[0]]


def test_requeue_takes_only_recordings_that_meet_all_conditions(run, bench, sandbox, imported):
    sandbox.faults("/enterprise/v1/tracks/historic_stats", status=404, count=4)
    bench.submit_request(isrcs(4))
    bench.run_backfill(isrcs(4))
    assert parse_json(run("requeue", "--older-than", "1h", "--estimate", "--json"))["chosen"] == 0
    assert parse_json(run("requeue", "--older-than", "0s", "--estimate", "--json"))["chosen"] == 4
    assert parse_json(run("requeue", "--catalog", "mine", "--estimate", "--json"))["chosen"] == 3
    assert (
        parse_json(run("requeue", "--catalog", imported, "--outcome", "rejected", "--estimate", "--json"))["chosen"]
        == 0
    )
    assert parse_json(run("requeue", "--suspect", "--estimate", "--json"))["chosen"] == 0


def test_requeue_explains_why_a_given_recording_is_skipped(run, bench, sandbox):
    sandbox.faults("/enterprise/v1/tracks/historic_stats", status=404)
    bench.submit_request(isrcs(1))
    bench.run_backfill(isrcs(1))
    stdout = run("requeue", "--isrc", isrcs(1)[0], "--outcome", "malformed").stdout
    assert "it is no_history, which the other conditions exclude" in stdout


def test_the_error_for_an_ambiguous_catalogue_lists_ids_and_accounts(run, catalogue, imported):
    other = parse_json(run("catalog", "import", catalogue, "--name", "mine", "--account", uuid4(), "--json"))["catalog"]
    failed = run("requeue", "--catalog", "mine", "--estimate")
    assert failed.exit_code == 1
    assert "--account" in failed.stderr
    assert imported in failed.stderr
    assert other in failed.stderr
    assert run("requeue", "--catalog", "mine", "--account", ACCOUNT, "--estimate").exit_code == 0


@pytest.mark.parametrize(
    "arguments", [(), ("--older-than", "3"), ("--isrc", "X"), ("--outcome", "stored"), ("--rebuy",)]
)
def test_requeue_without_a_condition_is_wrong_usage(run, arguments):
    assert run("requeue", *arguments).exit_code == 2


def test_the_breaker_is_shown_with_its_reason_and_closed(run, bench):
    bench.sql(
        "update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = 'five odd ones', opened_at = now()"
    )
    assert parse_json(run("breaker", "show", "--json"))["reason"] == "five odd ones"
    assert "requeue --suspect" in run("breaker", "show").stdout
    assert "--rebuy" in run("breaker", "show").stdout
    assert parse_json(run("breaker", "close", "--json"))["closed"] is True
    assert parse_json(run("breaker", "close", "--json"))["closed"] is False
    assert run("breaker", "show").stdout.strip() == "Circuit breaker closed."
    assert [row["act"] for row in bench.sql("select act from operator_acts")] == ["breaker closed"]


def test_a_pause_is_shown_and_ended(run, bench):
    bench.sql(
        "update vendor_state set paused_until = now() + interval '30 days', pause_reason = 'Songstats asked for it'"
    )
    stdout = run("breaker", "show").stdout
    assert "Songstats asked for it" in stdout
    closed = parse_json(run("breaker", "close", "--json"))
    assert (closed["closed"], closed["pause_lifted"]) == (False, True)
    assert run("breaker", "show").stdout.strip() == "Circuit breaker closed."
    (act,) = bench.sql("select act, detail from operator_acts")
    assert act["act"] == "pause lifted"
    assert act["detail"]["until"]
    assert "no pause is active" in run("breaker", "close").stdout


@pytest.mark.parametrize(
    ("vendor_state", "environment", "kind", "text"),
    [
        ("breaker = 'open', breaker_kind = 'key', reason = '401'", {}, "breaker open", "SONGSTATS_API_KEY"),
        ("paused_until = now() + interval '1 hour', pause_reason = '429'", {}, "vendor pause", "paused until 20"),
        ("throttled = 0", {"SONGSTATS_HIT_LIMIT": "0"}, "budget spent", "quota is 0 hits"),
        ("throttled = 0", {}, None, "yes: "),
    ],
)
def test_the_queue_shows_what_blocks_purchases(run, bench, vendor_state, environment, kind, text):
    bench.submit_request(isrcs(1))
    bench.sql(f"update vendor_state set {vendor_state}")
    assert text in " ".join(run("queue", **environment).stdout.split())
    blockers = parse_json(run("queue", "--json", **environment))["blockers"]
    assert [blocker["kind"] for blocker in blockers] == ([] if kind is None else [kind])


def test_the_demo_describes_what_blocks_purchases_as_the_queue_does(run, bench, connection):
    bench.submit_request(isrcs(1))
    bench.sql("update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = '25 without a history'")
    (blocker,) = parse_json(run("queue", "--json"))["blockers"]
    assert waiting_reason(connection, Settings.read({})) == blocker["text"]


def test_reclaim_reports_an_open_streak_breaker(run, bench, keys):
    bench.sql("update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = 'odd', opened_at = now()")
    done = run("reclaim", **keys)
    assert done.exit_code == 0, (done.output, done.exception)
    stdout = done.stdout
    assert "OPEN, a person must close it: odd" in stdout
    assert "closed" not in stdout


def test_reclaim_accepts_an_unpaid_request_once_a_card_is_on_file(run, bench, keys, sandbox, database_url):
    account = uuid4()
    with connect(database_url) as connection:
        job = measurement_jobs.submit(connection, account=account, source="historical", scope={"isrcs": isrcs(1)})
    answer_requests(database_url, decision=Decision(PaymentVerdict.DENIED, "No card."))
    assert parse_json(run("reclaim", "--json", **keys))["unpaid_accepted"] == 0
    sandbox.card(str(account))
    assert parse_json(run("reclaim", "--json", **keys))["unpaid_accepted"] == 1
    assert parse_json(run("jobs", job, "--json"))["state"] == "accepted"


def test_reclaim_closes_a_key_breaker_once_the_key_works(run, bench, keys):
    bench.sql("update vendor_state set breaker = 'open', breaker_kind = 'key', reason = '401', opened_at = now()")
    wrong = parse_json(run("reclaim", "--json", **{**keys, "SONGSTATS_API_KEY": "wrong"}))
    assert "still refused" in wrong["breaker"]
    assert "closed" in parse_json(run("reclaim", "--json", **keys))["breaker"]
    assert parse_json(run("breaker", "show", "--json"))["breaker"] == "closed"


def test_reclaim_without_keys_needs_running_doubles(run):
    result = run("reclaim", "--sandbox-port", "9")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9" in result.stderr
    assert "--sandbox-port" in result.stderr


# --- all commands


def test_every_command_has_help(cli):
    assert cli("--help").exit_code == 0
    for command in (
        "db",
        "catalog",
        "submit",
        "jobs",
        "queue",
        "reclaim",
        "requeue",
        "breaker",
        "sandbox",
        "demo",
        "dev",
        "spend",
        "doctor",
        "incidents",
        "audit",
    ):
        assert command in cli("--help").stdout
        assert cli(command, "--help").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("jobs", ACCOUNT), 1, f"there is no request {ACCOUNT}"),
        (("spend", "--days", "0"), 2, "0 is not in the range"),
        (("spend", "--dys", "7"), 2, "No such option"),
        (("requeue",), 2, "expected at least one of"),
        (("catalog", "import", "/nowhere.csv"), 2, "does not exist"),
    ],
)
def test_errors_are_printed_as_json_with_the_json_option(run, arguments, status, why):
    result = run(*arguments, "--json")
    assert result.exit_code == status
    assert why in result.stderr
    (error,) = json.loads(result.stdout).values()
    assert why in error
    assert run(*arguments).stdout == "", "a person reads it on stderr alone"


def test_an_unreachable_database_is_an_error_in_json(run):
    result = run("queue", "--json", DATABASE_URL="postgresql://u:hush@127.0.0.1:9/d")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] in result.stderr
    assert "hush" not in result.output


def test_a_closed_output_pipe_is_not_an_error(database_url):
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-c", "from measurement_pipeline.cli import main; main()", "queue", "--json"],
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("address", ["foo", "mysql://x/y"])
def test_the_error_for_a_malformed_address_shows_a_valid_one(cli, address):
    result = cli("queue", DATABASE_URL=address)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: DATABASE_URL: ")
    assert "expected postgresql://user:password@host:port/database" in result.stderr


def test_dev_rejects_a_database_of_the_other_kind_before_its_banner(run, bench):
    bench.sql("update deployment set kind = 'sandbox'")
    keys = {"SONGSTATS_API_KEY": "x", "STRIPE_SECRET_KEY": "y"}
    result = run("dev", "--port", free_port(), "--api-port", free_port(), **keys)
    assert result.exit_code == 1
    assert "stamped `sandbox`" in result.stderr
    assert "LIVE" not in result.output


def test_a_job_id_is_a_uuid(run):
    job = parse_json(run("submit", "--account", ACCOUNT, "--source", "historical", "--isrc", "AA6Q72000000", "--json"))[
        "id"
    ]
    assert str(UUID(job)) == job


# --- pause


def test_a_pause_is_shown_by_every_command_that_explains_until_it_is_resumed(run, database_url):
    with connect(database_url) as connection:
        connection.execute("insert into accounts (id, name) values (%s, 'Label')", [ACCOUNT])
    run("pause", "--reason", "invoice unpaid", "--until", "2999-01-01")
    for command in (["queue"], ["breaker", "show"], ["pause", "--list"]):
        assert "invoice unpaid" in " ".join(run(*command).stdout.split()), command
    refused = run("resume", "--account", "Label")
    assert refused.exit_code == 1
    assert "not paused" in refused.stderr
    assert "`measurement-pipeline resume`" in refused.stderr
    assert "resumed" in run("resume").stdout
    assert parse_json(run("queue", "--json"))["blockers"][0]["kind"] != "paused by an operator"
    assert run("pause").exit_code == 2
    assert run("pause", "--reason", "why", "--until", "soon").exit_code == 2
    assert run("pause", "--reason", "why", "--until", "2020-01-01").exit_code == 1


# --- history


def test_an_exported_history_is_kept_beside_counts_and_never_mixed_with_them(run, database_url, tmp_path):
    (song,) = isrcs(1)
    with connect(database_url) as connection:
        connection.execute("insert into songs (isrc) values (%s)", [song])
        connection.execute(
            "insert into song_measurements (song, platform, metric, captured_at, data_source, value) values"
            " (%(song)s, 'spotify', 'platform_displayed_play_count', '2025-12-31', 'songstats', 100),"
            " (%(song)s, 'spotify', 'platform_displayed_play_count', '2026-01-02', 'songstats', 115)",
            {"song": song},
        )
        latest = connection.execute("select * from latest_counts").fetchall()
    export = tmp_path / "track.csv"
    export.write_text("date,streams\n2026-01-01,7\n2026-01-02,5\n")
    options = ("--format", "spotify-for-artists", "--isrc", song, "--json")
    assert parse_json(run("history", "import", export, *options))["changed"] == 2
    assert parse_json(run("history", "import", export, *options))["changed"] == 0
    export.write_text("date,streams\n2026-01-01,7\n2026-01-02,6\n")
    assert parse_json(run("history", "import", export, *options))["changed"] == 1
    newest = parse_json(run("history", "list", "--json"))[0]
    assert (newest["plays"], newest["bought_plays_in_period"], newest["file_name"]) == (13, 15, "track.csv")
    with connect(database_url) as connection:
        assert connection.execute("select * from latest_counts").fetchall() == latest
        points = connection.execute(
            "select raw_ref, value from song_measurements where data_source = 'spotify_for_artists'"
            " and metric = 'daily_streams' order by captured_at, learnt_at"
        ).fetchall()
    first = newest["id"] - 2
    assert [(point["raw_ref"], point["value"]) for point in points] == [
        (f"history_imports/{first}", 7),
        (f"history_imports/{first}", 5),
        (f"history_imports/{first + 2}", 6),
    ]
    export.write_text("date,streams\n2026-01-01,many\n")
    refused = run("history", "import", export, *options)
    assert refused.exit_code == 1
    assert "line 2: streams 'many': expected a whole number" in refused.stderr


def test_an_estimate_states_what_need_not_be_bought(run, tmp_path):
    song, other = isrcs(2)
    export = tmp_path / "track.csv"
    export.write_text("date,streams\n2026-01-01,7\n")
    run("history", "import", export, "--format", "spotify-for-artists", "--isrc", song)
    estimate = run("submit", "--account", ACCOUNT, "--source", "historical", "--isrc", f"{song},{other}", "--estimate")
    assert "1 recording has daily plays" in " ".join(estimate.stdout.split())
