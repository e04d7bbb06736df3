"""A snapshot of the definitions that Dagster shows an operator, each with its description."""

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import pytest

from measurement_pipeline.defs.asset_keys import CURRENT_PLAY_COUNTS, PIPELINE_HEALTH, SONGSTATS_HISTORY
from measurement_pipeline.defs.health.checks import ledger_matches_vendor, scheduled_checks
from measurement_pipeline.defs.instance_status import failure_line
from measurement_pipeline.defs.intake.jobs import measurement_job_intake
from measurement_pipeline.defs.intake.sensors import measurement_job_sensor
from measurement_pipeline.defs.resources import NotConfiguredError, resource_definitions, services_at_launch
from measurement_pipeline.domain.plan import MAX_RECORDINGS_PER_RUN, RECORDINGS_PER_RUN
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.defs.conftest import Stage

SETTINGS = [str(field.alias) for field in Settings.model_fields.values()]
MISSING_STRIPE = (
    "STRIPE_SECRET_KEY is not set, for a live deployment: set them for every process, or unset all three and start "
    "`measurement-pipeline dev`, which brings a database and doubles of the vendors"
)

SNAPSHOT: Mapping[str, Any] = {
    "assets": [
        "analytics/backfill_progress",
        "analytics/catalog_charts",
        "analytics/catalog_play_counts",
        "analytics/catalog_run_rates",
        "analytics/catalog_totals",
        "analytics/daily_play_counts",
        "analytics/data_dictionary",
        "analytics/import_differences",
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
        "backfill_is_progressing",
        "captures_are_progressing",
        "counts_are_monotonic",
        "intake_is_progressing",
        "ledger_matches_vendor",
        "no_exhausted_recordings",
        "no_future_dates",
        "partitions_match_tables",
        "series_have_no_gaps",
        "sources_agree",
        "totals_add_up",
        "values_in_range",
        "views_are_current",
    ],
    "jobs": [
        "analytics_refresh",
        "backfill_reclaim",
        "daily_maintenance",
        "health_checks",
        "ledger_reconciliation",
        "measurement_job_intake",
        "pause_purchases",
        "play_count_capture",
        "resume_purchases",
        "send_callbacks",
        "songstats_backfill",
    ],
    "ops": [
        "analytics__backfill_progress",
        "analytics__catalog_charts",
        "analytics__catalog_play_counts",
        "analytics__catalog_run_rates",
        "analytics__catalog_totals",
        "analytics__daily_play_counts",
        "analytics__data_dictionary",
        "analytics__import_differences",
        "analytics__latest_play_counts",
        "analytics__measurement_coverage",
        "analytics__play_count_points",
        "analytics__run_rates",
        "analytics__spend",
        "backfill_is_progressing",
        "backfill_recordings",
        "begin_pause",
        "capture_play_counts",
        "captures_are_progressing",
        "check_payment_method",
        "counts_are_monotonic",
        "end_pause",
        "enqueue_backfill",
        "find_payers",
        "intake_is_progressing",
        "ledger_matches_vendor",
        "no_exhausted_recordings",
        "no_future_dates",
        "partitions_match_tables",
        "read_requests",
        "reclaim",
        "send_callbacks_due",
        "series_have_no_gaps",
        "sources_agree",
        "start_due_series",
        "totals_add_up",
        "values_in_range",
        "views_are_current",
    ],
    "sensors": {
        "analytics_refresh_sensor": "analytics_refresh",
        "backfill_queue_sensor": "songstats_backfill",
        "callback_sensor": "send_callbacks",
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
    """The definitions that Dagster loads without any setting."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        return importlib.import_module("measurement_pipeline.definitions").defs


def test_the_definitions_equal_the_snapshot(definitions: dg.Definitions):
    repository = definitions.get_repository_def()
    result = {
        "assets": [key.to_user_string() for key in sorted(repository.asset_graph.get_all_asset_keys())],
        "checks": sorted(key.name for key in repository.asset_graph.asset_check_keys),
        "jobs": sorted(name for name in repository.job_names if not name.startswith("__")),
        "ops": sorted({node.name for job in repository.get_all_jobs() for node in job.graph.iterate_op_defs()}),
        "sensors": {sensor.name: sensor.job_name if sensor.targets else None for sensor in repository.sensor_defs},
        "schedules": {schedule.name: schedule.cron_schedule for schedule in repository.schedule_defs},
    }
    assert result == SNAPSHOT


def test_sensors_and_schedules_run_by_default(definitions: dg.Definitions):
    repository = definitions.get_repository_def()
    assert {sensor.default_status for sensor in repository.sensor_defs} == {dg.DefaultSensorStatus.RUNNING}
    assert {schedule.default_status for schedule in repository.schedule_defs} == {dg.DefaultScheduleStatus.RUNNING}


def test_every_definition_has_a_description(definitions: dg.Definitions):
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
    assert {key.asset_key for check in [*scheduled_checks, ledger_matches_vendor] for key in check.check_keys} == {
        PIPELINE_HEALTH
    }


def test_captures_have_their_own_partitions(definitions: dg.Definitions):
    asset = definitions.get_repository_def().asset_graph.get(CURRENT_PLAY_COUNTS)
    assert isinstance(asset.partitions_def, dg.DynamicPartitionsDefinition)
    assert asset.partitions_def.name == "snapshot"


def test_the_history_is_partitioned_by_isrc_and_backfilled_in_ranges(definitions: dg.Definitions):
    asset = definitions.get_repository_def().asset_graph.get(SONGSTATS_HISTORY)
    assert isinstance(asset.partitions_def, dg.DynamicPartitionsDefinition)
    assert asset.partitions_def.name == "isrc"
    assert asset.backfill_policy == dg.BackfillPolicy.multi_run(RECORDINGS_PER_RUN)
    assert (RECORDINGS_PER_RUN, MAX_RECORDINGS_PER_RUN) == (100, 10_000)


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


USES: Mapping[str, set[str]] = {
    "read_requests": {"measurement_database"},
    "find_payers": {"measurement_database", "backfill_config"},
    "check_payment_method": {"measurement_database", "backfill_config", "stripe"},
    "enqueue_backfill": {"measurement_database", "capture_config"},
    "backfill_recordings": {"measurement_database", "backfill_config", "songstats", "stripe"},
    "capture_play_counts": {"measurement_database", "capture_config", "apify", "spotify"},
    "start_due_series": {"measurement_database", "capture_config"},
    "analytics__catalog_totals": {"measurement_database"},
    "ledger_matches_vendor": {"measurement_database", "alerts", "songstats"},
    "measurement_job_sensor": {"measurement_database", "backfill_config", "capture_config", "stripe", "tick_wait"},
    "playcount_snapshot_sensor": {"measurement_database", "backfill_config", "capture_config"},
}


def test_each_vendor_and_each_database_is_a_resource_with_a_description(definitions: dg.Definitions):
    resources = definitions.get_repository_def().get_top_level_resources()
    assert set(resources) == {
        "alerts", "apify", "backfill_config", "callbacks", "capture_config", "dagster_database", "measurement_database",
        "songstats", "spotify", "stripe", "tick_wait",
    }  # fmt: skip
    assert [name for name, resource in resources.items() if len(resource.description or "") < 40] == []


def test_an_op_and_a_sensor_require_only_what_they_use(definitions: dg.Definitions):
    repository = definitions.get_repository_def()
    ops = [op for job in repository.get_all_jobs() for op in job.graph.iterate_op_defs()]
    result = {op.name: set(op.required_resource_keys) - {"io_manager"} for op in ops}
    result |= {sensor.name: set(sensor.required_resource_keys) for sensor in repository.sensor_defs}
    assert {name: result[name] for name in USES} == USES


def test_the_data_dictionary_is_downstream_of_nothing(definitions: dg.Definitions):
    key = dg.AssetKey(["analytics", "data_dictionary"])
    assert not definitions.get_repository_def().asset_graph.get(key).parent_keys


@pytest.fixture
def without_stripe(instance: dg.DagsterInstance) -> Callable[[], Any]:
    return services_at_launch({"DATABASE_URL": "postgresql://x/x", "SONGSTATS_API_KEY": "key"})


def test_a_run_without_a_key_fails_with_one_line_that_names_it(
    instance: dg.DagsterInstance, definitions: dg.Definitions, without_stripe: Callable[[], Any]
):
    job = dg.Definitions(
        jobs=[measurement_job_intake], resources=resource_definitions(without_stripe), executor=dg.in_process_executor
    ).resolve_job_def("measurement_job_intake")
    run = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not run.success
    assert failure_line(instance, run.run_id).endswith(MISSING_STRIPE)


def test_a_tick_without_a_key_fails_with_one_line_that_names_it(
    instance: dg.DagsterInstance, without_stripe: Callable[[], Any]
):
    with (
        pytest.raises(NotConfiguredError) as raised,
        dg.build_sensor_context(instance=instance, resources=resource_definitions(without_stripe)) as context,
    ):
        measurement_job_sensor(context)
    assert str(raised.value) == MISSING_STRIPE


def test_a_resource_shows_no_secret(stage: Stage):
    """Dagster could show the repr of a resource's value; it contains no key."""
    with dg.build_resources(resource_definitions(lambda: stage.services), instance=stage.instance) as resources:
        text = repr([value for key, value in resources._asdict().items() if key != "dagster_database"])
    assert not re.search(r"postgresql|sandbox|0x[0-9a-f]", text)
