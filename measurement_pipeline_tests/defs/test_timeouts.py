"""Limits of dagster.yaml and of the settings: none ends work that another still waits for."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from measurement_pipeline import services
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.defs.retry_policies import MAX_RETRIES
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.capture_limits import capture_limits

INSTANCE: dict[str, Any] = yaml.safe_load((Path(services.__file__).parent / "dagster.yaml").read_text(encoding="utf-8"))
MONITORING = INSTANCE["run_monitoring"]
SETTINGS = Settings.read({})


@pytest.fixture(scope="module")
def config() -> BackfillConfig:
    return services.backfill_config(SETTINGS, "")


def test_the_start_timeout_exceeds_the_requeue_delays_of_a_failed_code_server():
    queue = INSTANCE["run_coordinator"]["config"]
    retrying = queue["max_user_code_failure_retries"] * queue["user_code_failure_retry_delay"]
    # Each try takes a while too, and then the run has to start.
    assert MONITORING["start_timeout_seconds"] >= 2 * retrying


def test_a_cancelled_run_has_time_to_store_its_responses(config: BackfillConfig):
    needed = SETTINGS.songstats_timeout_seconds + config.patience_with_database_seconds
    assert MONITORING["cancel_timeout_seconds"] > needed + MONITORING["poll_interval_seconds"]


def test_the_longest_run_ends_before_the_maximum_runtime_with_all_its_retries(config: BackfillConfig):
    after_its_time = SETTINGS.songstats_timeout_seconds + config.patience_with_database_seconds
    assert MONITORING["max_runtime_seconds"] > (1 + MAX_RETRIES) * (config.run_seconds + after_its_time)


def test_a_capture_stops_waiting_for_the_actor_long_before_the_maximum_runtime():
    capture = CaptureConfig(database_url="", limits=capture_limits("1"), claim_timeout_seconds=1, max_attempts=1)
    waits = capture.start_timeout_seconds + capture.max_wait_seconds + capture.result_settle_seconds
    assert MONITORING["max_runtime_seconds"] > (1 + MAX_RETRIES) * 2 * waits


def test_the_claim_timeout_exceeds_a_call_and_several_missed_heartbeats(config: BackfillConfig):
    assert config.rules.claim_timeout_seconds > SETTINGS.songstats_timeout_seconds
    assert config.rules.claim_timeout_seconds >= 4 * config.heartbeat_seconds
    assert config.silence_seconds >= config.rules.claim_timeout_seconds
