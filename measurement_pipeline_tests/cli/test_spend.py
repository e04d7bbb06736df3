"""`spend` and receipts for a mixed ledger: correct sums and causes."""

import json
from decimal import Decimal
from uuid import uuid4

import pytest

from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.cli.conftest import parse_json
from measurement_pipeline_tests.workbench import isrcs

HISTORY = "/enterprise/v1/tracks/historic_stats"
PRICE = {"SONGSTATS_EUR_PER_HIT": "0.0833"}


@pytest.fixture
def mixed(bench, sandbox):
    """A backfill for two accounts with many kinds of failures; returns the first request."""
    songs = isrcs(12)
    other = uuid4()
    bench.sql("insert into accounts (id, name) values (%s, 'Acme')", other)
    first = bench.submit_request(songs[:8])
    bench.submit_request(songs[6:12], account=other)
    sandbox.faults(HISTORY, isrc=songs[0], status=404)
    sandbox.faults(HISTORY, isrc=songs[1], status=422)
    sandbox.faults(HISTORY, isrc=songs[2], status=503, count=1)
    bench.run_backfill(songs[3:6], run="run-1")
    bench.run_backfill(songs[:3], run="run-2")
    bench.run_backfill(songs[6:10], run="run-3")
    # One of unknown outcome, one in flight, and one whose run died before parsing.
    bench.sql(
        "insert into songstats_quota_ledger (song, account, job, run_id, lease, settled_at, billable, reason, status_code)"
        " select song, account, job, 'run-4', 9, v.settled_at, v.billable, v.reason, v.status_code"
        " from songstats_quota_ledger, (values"
        "   (now(), null, 'timeout: unknown', null), (null, null, null, null), (now(), true, null, 200)"
        " ) as v (settled_at, billable, reason, status_code) where song = %s",
        songs[3],
    )
    return first


def cents(amount):
    return round(Decimal(str(amount)) * 100)


def test_causes_and_accounts_add_up_in_json(run, mixed, bench):
    result = parse_json(run("spend", "--json", **PRICE))
    ledger = bench.ledger()
    counted = [row for row in ledger if row["billable"] is not False]
    assert (result["calls"], result["hits"]) == (len(ledger), len(counted))
    assert cents(result["eur"]) == round(len(counted) * Decimal("8.33"))
    for groups in (result["by_cause"], result["by_account"]):
        for name in ("calls", "counted", "unknown", "cost_nothing", "hits", "wasted", "stored", "settled"):
            assert sum(group[name] for group in groups) == result[name], name
        assert sum(cents(group["eur"]) for group in groups) == cents(result["eur"])
    assert {group["name"] for group in result["by_account"]} == {None, "Acme"}
    causes = {group["cause"]: group["calls"] for group in result["by_cause"]}
    assert causes == {
        "stored": 7,
        "no history": 1,
        "rejected": 1,
        "transient": 1,
        "timeout: unknown": 1,
        "response stored, not parsed yet": 1,
        "in flight": 1,
    }
    assert (result["wasted"], result["cost_nothing"], result["unknown"]) == (2, 1, 2)
    # Ten hits with an outcome; seven stored a history, one found none, one was rejected, one timed out.
    assert (result["stored"], result["settled"]) == (7, 9)
    assert result["hits_per_recording_settled"] == round(10 / 9, 4)


def test_a_hit_without_a_history_settles_its_recording(run, bench, sandbox):
    songs = isrcs(4)
    sandbox.faults(HISTORY, isrc=songs[0], status=404)
    mine = bench.submit_request(songs)
    bench.run_backfill(songs)
    result = parse_json(run("spend", "--json"))
    assert (result["hits"], result["stored"], result["hits_per_recording_settled"]) == (4, 3, 1.0)
    assert "1.00 (ideal 1.00): 4 settled, of which 3 stored a history and 1" in " ".join(run("spend").stdout.split())
    assert parse_json(run("jobs", mine, "--json"))["hits_per_recording_settled"] == 1.0


def test_the_table_adds_up(run, mixed):
    lines = run("spend", **PRICE).stdout.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("cause"))
    end = next(place for place in range(start, len(lines)) if lines[place].startswith("total"))
    rows = [line.split()[-7:] for line in lines[start + 1 : end + 1]]
    for column in range(7):
        *parts, total = [Decimal(row[column].replace(",", "")) for row in rows]
        assert sum(parts) == total


def test_spend_is_filtered_by_account_name_and_an_unknown_name_is_an_error(run, mixed):
    mine = parse_json(run("spend", "--account", "Acme", "--json"))
    assert [group["name"] for group in mine["by_account"]] == ["Acme"]
    assert mine["hits"] < parse_json(run("spend", "--json"))["hits"]
    assert mine["budget"]["hits"] == parse_json(run("spend", "--json"))["budget"]["hits"], (
        "the budget is the deployment's"
    )
    failed = run("spend", "--account", "Unknown")
    assert failed.exit_code == 1
    assert "no account is named 'Unknown'" in failed.stderr


def test_an_unknown_account_is_an_error_and_one_without_hits_is_not(run, bench):
    account = uuid4()
    failed = run("spend", "--account", account)
    assert failed.exit_code == 1
    assert f"there is no account {account}" in failed.stderr
    bench.sql("insert into measurement_jobs (account, source, scope) values (%s, 'historical', '{}')", account)
    assert parse_json(run("spend", "--account", account, "--json"))["hits"] == 0


def test_an_empty_ledger_is_not_an_error(run):
    stdout = run("spend").stdout
    assert "no calls" in stdout
    assert "no recording was settled" in stdout
    assert "nothing to buy" in stdout
    assert parse_json(run("spend", "--json"))["hits_per_recording_settled"] is None


def test_the_forecast_is_when_the_budget_covers_the_last_recording(run, bench):
    bench.submit_request(isrcs(5))
    bench.run_backfill(isrcs(2))
    three_allowed = {"SONGSTATS_HIT_LIMIT": "3", "SONGSTATS_HIT_RESERVE": "0"}
    result = parse_json(run("spend", "--json", **three_allowed))
    last = bench.sql("select max(reserved_at) + interval '30 days' as frees from songstats_quota_ledger")[0]["frees"]
    assert result["queue"]["held_by"] == "budget"
    assert result["queue"]["to_buy"] == 3
    assert result["queue"]["empty_at"][:16] == last.isoformat()[:16]
    assert "limited by the budget" in run("spend", **three_allowed).stdout


def test_the_forecast_names_the_pace_if_the_budget_suffices(run, bench):
    bench.submit_request(isrcs(5))
    assert "the pace of 5 calls a second, as configured" in run("spend").stdout
    bench.run_backfill(isrcs(2))
    assert "5 calls a second, as configured" in run("spend").stdout, "a trial hit or two an hour ago are no pace"
    bench.submit_request(isrcs(60, start=100))
    bench.run_backfill(isrcs(28, start=100), run="run-2")
    bench.sql("update songstats_quota_ledger set reserved_at = reserved_at - interval '50 minutes'")
    assert "the pace of 1,800 hits an hour" in run("spend").stdout


def test_the_forecast_reports_a_queue_that_never_empties(run, bench):
    bench.submit_request(isrcs(5))
    assert "not within a hundred years, with 0 hits" in run("spend", SONGSTATS_HIT_LIMIT="0").stdout
    bench.sql("update payment_decisions set verdict = 'denied'")
    assert "5 wait for an account with a card on file" in run("spend").stdout


def test_unwanted_recordings_do_not_wait_for_a_card(run, bench):
    job = bench.submit_request(isrcs(5))
    bench.submit_request(isrcs(1), account=uuid4())
    with connect(bench.database_url) as connection:
        measurement_jobs.withdraw(connection, job, account=bench.account)
    stdout = run("spend").stdout
    assert "1 to buy: empty about 20" in stdout
    assert "card on file" not in stdout


def test_an_open_breaker_is_shown_in_the_forecast(run, bench):
    bench.submit_request(isrcs(1))
    bench.sql("update vendor_state set breaker = 'open', breaker_kind = 'key', reason = '401', opened_at = now()")
    stdout = run("spend").stdout
    assert "1 to buy. Circuit breaker open since 20" in stdout
    assert "empty about" not in stdout
    queue = parse_json(run("spend", "--json"))["queue"]
    assert (queue["empty_at"], queue["held_by"]) == (None, "breaker")


def test_a_pause_is_shown_with_the_forecast(run, bench):
    bench.submit_request(isrcs(1))
    bench.sql("update vendor_state set paused_until = now() + interval '1 hour'")
    stdout = run("spend").stdout
    assert "1 to buy: empty about 20" in stdout
    assert "Calls to Songstats paused until 20" in stdout


# --- receipts


def test_a_receipt_shows_spent_hits_and_owned_recordings(run, bench, sandbox):
    songs = isrcs(4)
    earlier = bench.submit_request(songs[:1])
    bench.run_backfill(songs[:1])
    mine = bench.submit_request(songs)
    sandbox.faults(HISTORY, isrc=songs[1], status=503, count=1)
    bench.run_backfill(songs[:3])
    bench.sql("update songstats_backfill_queue set not_before = null")
    bench.run_backfill(songs[1:2], run="run-2")
    result = parse_json(run("jobs", mine, "--json", **PRICE))
    assert result["came_from"] == {
        "asked": 4,
        "bought": 2,
        "bought_for_others": 0,
        "owned": 1,
        "failed": 0,
        "still_open": 1,
        "withdrawn": 0,
    }
    assert (result["hits"], cents(result["eur"]), result["hits_per_recording_settled"]) == (2, 17, 1.0)
    assert {(line["cause"], line["calls"], line["hits"]) for line in result["spent"]} == {
        ("stored", 2, 2),
        ("transient", 1, 0),
    }
    assert sum(cents(line["eur"]) for line in result["spent"]) == cents(result["eur"])
    stdout = run("jobs", mine, **PRICE).stdout
    assert "2 bought with this request's hits; 1 owned or settled before; 1 still open" in stdout
    assert "2 (€0.17) spent for this request" in stdout
    assert parse_json(run("jobs", earlier, "--json"))["hits"] == 1


def test_a_receipt_excludes_hits_of_another_request(run, bench):
    songs = isrcs(2)
    bench.submit_request(songs)
    late = bench.submit_request(songs, account=uuid4())
    bench.run_backfill(songs)
    result = parse_json(run("jobs", late, "--json"))
    assert (result["hits"], result["spent"], result["hits_per_recording_settled"]) == (0, [], None)
    assert result["came_from"]["bought_for_others"] == 2
    stdout = run("jobs", late).stdout
    assert "2 bought meanwhile for another request or a launch" in stdout
    assert "0 (€0.00) spent for this request" in stdout


def test_a_request_that_was_not_accepted_has_an_empty_receipt(run):
    submit = ("submit", "--account", uuid4(), "--source", "historical", "--isrc", "AA6Q72000000", "--json")
    result = run("jobs", json.loads(run(*submit).stdout)["id"])
    assert result.exit_code == 0
    assert "0 (€0.00)" in result.stdout
