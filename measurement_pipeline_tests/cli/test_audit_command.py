"""Output and exit status of `audit`. `postgres/test_audit` covers each breach."""

import json

import dagster as dg
import pytest

from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.local.dagster_processes import INSTANCE_FILE
from measurement_pipeline.postgres.audit import SAYS
from measurement_pipeline.postgres.conninfo import sqlalchemy_url
from measurement_pipeline_tests.defs.conftest import dagster_template, instance  # noqa: F401 - fixtures
from measurement_pipeline_tests.workbench import isrcs

SONGS = isrcs(12)


@pytest.fixture
def bought(bench):
    bench.submit_request(SONGS)
    bench.run_backfill(SONGS)
    bench.sql("update measurement_jobs set state = 'done'")
    return bench


@pytest.fixture
def audit(run, instance, tmp_path):  # noqa: F811
    """The command, with Dagster's storage beside the measurement database."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(INSTANCE_FILE)
    where = {
        "DAGSTER_POSTGRES_URL": sqlalchemy_url(instance.event_log_storage.postgres_url),
        "DAGSTER_HOME": str(home),
    }
    return lambda *arguments: run("audit", *arguments, **where)


def shown(instance, songs):  # noqa: F811
    for song in songs:
        instance.report_runless_asset_event(dg.AssetMaterialization(SONGSTATS_HISTORY, partition=song))


def test_every_invariant_holds_without_a_breach(audit, bought, instance):  # noqa: F811
    shown(instance, SONGS)
    result = audit("--at-rest")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[: len(SAYS)]] == [[name, "holds"] for name in SAYS]
    assert lines[-1] == f"{len(SAYS)} invariants hold"
    report = json.loads(audit("--at-rest", "--json").stdout)
    assert (report["holds"], report["left_out"]) == (True, {})


def test_breaches_are_counted_and_the_first_ten_are_listed(audit, bought, instance):  # noqa: F811
    shown(instance, SONGS)
    bought.sql("update songstats_quota_ledger set status_code = 429")
    result = audit()
    assert result.exit_code == 1
    assert f"{'I9':<4} BROKEN    {SAYS['I9']}: 12 breaches" in result.stdout
    assert result.stdout.count("was throttled and is counted") == 10
    assert "… and 2 more" in result.stdout
    report = json.loads(audit("--json").stdout)
    (broken,) = [one for one in report["invariants"] if one["invariant"] == "I9"]
    assert (report["holds"], broken["holds"], len(broken["breaches"])) == (False, False, 12)


def test_materialized_partitions_are_compared_with_the_rows(audit, bought, instance):  # noqa: F811
    shown(instance, [*SONGS[1:], "AA6Q72999999"])
    assert audit().exit_code == 1
    report = json.loads(audit("--json", "--at-rest").stdout)
    (both_ways,) = [one for one in report["invariants"] if one["invariant"] == "I13"]
    assert both_ways["breaches"] == [
        "AA6Q72999999 is shown as materialized, and its row is not done",
        f"{SONGS[0]} is done, and not shown as materialized",
    ]


def test_work_in_progress_is_a_breach_only_at_rest(audit, bench):
    bench.submit_request(SONGS)
    bench.sql(
        "update songstats_backfill_queue set status = 'in_progress', lease = 1, claimed_by = 'x', heartbeat_at = now()"
    )
    under_way = audit()
    assert under_way.exit_code == 0
    assert "--at-rest checks that too" in under_way.stdout
    assert audit("--at-rest").exit_code == 1


def test_an_unreachable_dagster_leaves_its_invariant_out(run, bought):
    result = run("audit", DAGSTER_POSTGRES_URL="postgresql://u:hunter2@127.0.0.1:9/x")
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("I13")]
    assert "left out" in line
    assert "dagster.yaml" in line
    assert "hunter2" not in result.output
    assert f"{len(SAYS) - 1} invariants hold" in result.stdout
    assert "I13" in json.loads(run("audit", "--json").stdout)["left_out"]


def test_a_database_with_another_schema_version_is_an_error(cli, empty_database_url):
    result = cli("audit", DATABASE_URL=empty_database_url)
    assert result.exit_code == 1
    assert "measurement-pipeline db upgrade" in result.stderr
