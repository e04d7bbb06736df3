"""A snapshot of what an operator finds in Dagster, so that nothing vanishes or goes without a word unnoticed."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from measurement_pipeline.backfill.terms import Terms
from measurement_pipeline.defs import asset_checks
from measurement_pipeline.defs.asset_checks import PIPELINE_HEALTH
from measurement_pipeline.defs.captures import CURRENT_PLAY_COUNTS
from measurement_pipeline.defs.materializations import SONGSTATS_HISTORY
from measurement_pipeline.defs.resources import Pipeline
from measurement_pipeline.domain.plan import MOST_RECORDINGS_A_RUN, RECORDINGS_A_RUN
from measurement_pipeline_tests.defs.without_resources import without_resources

SNAPSHOT: Mapping[str, Any] = {
    "assets": [
        "analytics/backfill_progress",
        "analytics/catalog_charts",
        "analytics/catalog_play_counts",
        "analytics/catalog_totals",
        "analytics/daily_play_counts",
        "analytics/data_dictionary",
        "analytics/latest_play_counts",
        "analytics/measurement_coverage",
        "analytics/play_count_points",
        "analytics/run_rates",
        "analytics/spend",
        "current_play_counts",
        "pipeline_health",
        "songstats_history",
    ],
    "checks": [
        "captures_are_made",
        "counts_do_not_fall",
        "figures_are_in_range",
        "ledger_matches_vendor",
        "no_day_is_to_come",
        "none_was_given_up",
        "recordings_are_bought",
        "requests_are_answered",
        "series_are_whole",
        "shown_is_stored",
        "sources_agree",
        "totals_add_up",
        "views_are_of_this_version",
    ],
    "jobs": [
        "analytics_refresh",
        "backfill_reclaim",
        "daily_maintenance",
        "health_checks",
        "ledger_reconciliation",
        "measurement_job_intake",
        "play_count_capture",
        "songstats_backfill",
    ],
    "ops": [
        "analytics__backfill_progress",
        "analytics__catalog_charts",
        "analytics__catalog_play_counts",
        "analytics__catalog_totals",
        "analytics__daily_play_counts",
        "analytics__data_dictionary",
        "analytics__latest_play_counts",
        "analytics__measurement_coverage",
        "analytics__play_count_points",
        "analytics__run_rates",
        "analytics__spend",
        "backfill_recordings",
        "capture_play_counts",
        "captures_are_made",
        "check_payment_method",
        "counts_do_not_fall",
        "enqueue_backfill",
        "figures_are_in_range",
        "find_payers",
        "ledger_matches_vendor",
        "no_day_is_to_come",
        "none_was_given_up",
        "read_requests",
        "reclaim",
        "recordings_are_bought",
        "requests_are_answered",
        "series_are_whole",
        "shown_is_stored",
        "sources_agree",
        "start_due_series",
        "totals_add_up",
        "views_are_of_this_version",
    ],
    "sensors": {
        "backfill_queue_sensor": "songstats_backfill",
        "drain_over_sensor": "analytics_refresh",
        "measurement_job_sensor": "measurement_job_intake",
        "playcount_snapshot_sensor": "play_count_capture",
        "run_failure_alert": None,
        "run_success_sensor": None,
        "vendor_probe_sensor": None,
    },
    "schedules": {
        "health_schedule": "*/15 * * * *",
        "maintenance_schedule": "0 7 * * *",
        "reclaim_schedule": "0 * * * *",
        "reconciliation_schedule": "0 11 * * *",
    },
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return without_resources


def test_everything_that_the_snapshot_names_is_there_and_nothing_else(definitions: dg.Definitions):
    repository = definitions.get_repository_def()
    found = {
        "assets": [key.to_user_string() for key in sorted(repository.asset_graph.get_all_asset_keys())],
        "checks": sorted(key.name for key in repository.asset_graph.asset_check_keys),
        "jobs": sorted(name for name in repository.job_names if not name.startswith("__")),
        "ops": sorted({node.name for job in repository.get_all_jobs() for node in job.graph.iterate_op_defs()}),
        "sensors": {sensor.name: sensor.job_name if sensor.targets else None for sensor in repository.sensor_defs},
        "schedules": {schedule.name: schedule.cron_schedule for schedule in repository.schedule_defs},
    }
    assert found == SNAPSHOT


def test_sensors_and_schedules_run_without_being_switched_on(definitions: dg.Definitions):
    repository = definitions.get_repository_def()
    assert {sensor.default_status for sensor in repository.sensor_defs} == {dg.DefaultSensorStatus.RUNNING}
    assert {schedule.default_status for schedule in repository.schedule_defs} == {dg.DefaultScheduleStatus.RUNNING}


def test_everything_says_what_it_is_for(definitions: dg.Definitions):
    repository = definitions.get_repository_def()
    things = [*repository.sensor_defs, *repository.schedule_defs]
    things += [repository.get_job(name) for name in SNAPSHOT["jobs"]]
    things += [op for job in repository.get_all_jobs() for op in job.graph.iterate_op_defs()]
    assert [thing.name for thing in things if len(thing.description or "") < 40] == []
    for asset in repository.asset_graph.asset_nodes:
        assert len(asset.description or "") > 200
        assert asset.owners
    groups = {asset.key.to_user_string(): asset.group_name for asset in repository.asset_graph.asset_nodes}
    assert groups == {
        "songstats_history": "historical_backfill",
        "current_play_counts": "current_counts",
        "pipeline_health": "health",
        **{name: "analytics" for name in SNAPSHOT["assets"] if name.startswith("analytics/")},
    }


def test_the_health_checks_belong_to_an_asset_that_nothing_materializes(definitions: dg.Definitions):
    graph = definitions.get_repository_def().asset_graph
    assert not graph.get(PIPELINE_HEALTH).is_executable
    assert {key.asset_key for check in asset_checks.asset_checks for key in check.check_keys} == {PIPELINE_HEALTH}


def test_captures_are_partitions_of_their_own(definitions: dg.Definitions):
    asset = definitions.get_repository_def().asset_graph.get(CURRENT_PLAY_COUNTS)
    assert isinstance(asset.partitions_def, dg.DynamicPartitionsDefinition)
    assert asset.partitions_def.name == "snapshot"


def test_the_history_is_partitioned_by_isrc_and_backfilled_in_ranges(definitions: dg.Definitions):
    asset = definitions.get_repository_def().asset_graph.get(SONGSTATS_HISTORY)
    assert isinstance(asset.partitions_def, dg.DynamicPartitionsDefinition)
    assert asset.partitions_def.name == "isrc"
    assert asset.backfill_policy == dg.BackfillPolicy.multi_run(RECORDINGS_A_RUN)
    assert (RECORDINGS_A_RUN, MOST_RECORDINGS_A_RUN) == (100, 500)


def test_the_runs_that_spend_share_a_pool(definitions: dg.Definitions):
    pools = {
        op.name: op.pool
        for job in definitions.get_repository_def().get_all_jobs()
        for op in job.graph.iterate_op_defs()
    }
    assert {name: pool for name, pool in pools.items() if pool} == {
        "backfill_recordings": "songstats",
        "capture_play_counts": "apify",
    }


def test_the_resource_shows_no_secret():
    """What Dagster could show of the one resource is its repr: what holds the keys is not part of it."""
    shown = {name for name, field in Pipeline.__dataclass_fields__.items() if field.repr}
    assert shown == {"terms"}
    assert not Terms.__dataclass_fields__["database_url"].repr
