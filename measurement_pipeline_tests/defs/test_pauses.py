"""Pauses from Dagster's UI: the jobs, and what the sensor and a run say while a pause holds."""

import dagster as dg

from measurement_pipeline_tests.defs.conftest import Stage
from measurement_pipeline_tests.workbench import isrcs


def launch(stage: Stage, job: str, op: str, config: dict[str, str]) -> dg.ExecuteInProcessResult:
    return stage.definitions.resolve_job_def(job).execute_in_process(
        instance=stage.instance, run_config={"ops": {op: {"config": config}}}, raise_on_error=False
    )


def test_a_person_pauses_in_the_ui_and_the_sensor_and_runs_say_why_nothing_is_bought(stage: Stage):
    songs = isrcs(2)
    stage.bench.submit_request(songs)
    stage.register(songs)
    paused = launch(stage, "pause_purchases", "begin_pause", {"reason": "invoice unpaid"})
    assert paused.success
    reason = f"All purchases paused by run {paused.run_id} until it is resumed: invoice unpaid."
    assert reason in str(stage.tick("backfill_queue_sensor").skip_message)
    launched = stage.backfill(songs[:1], planned=False)
    assert not launched.success
    assert reason in stage.failure_message(launched)
    assert stage.bench.ledger() == []
    assert launch(stage, "resume_purchases", "end_pause", {}).success
    assert stage.tick("backfill_queue_sensor").run_requests
    assert not launch(stage, "resume_purchases", "end_pause", {}).success


def test_a_launch_for_a_paused_account_names_its_pause(stage: Stage):
    songs = isrcs(1)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sql("insert into accounts (id) values (%s) on conflict do nothing", stage.bench.account)
    config = {"reason": "invoice unpaid", "account": str(stage.bench.account), "until": "2999-01-01T12:00+01:00"}
    assert launch(stage, "pause_purchases", "begin_pause", config).success
    launched = stage.backfill(songs, planned=False)
    assert "until 2999-01-01 11:00 UTC: invoice unpaid." in stage.failure_message(launched)


def test_a_pause_with_an_impossible_config_fails_with_the_field(stage: Stage):
    for config, field in [
        ({"reason": " "}, "reason"),
        ({"reason": "why", "until": "soon"}, "until"),
        ({"reason": "why", "until": "2020-01-01"}, "not in the future"),
        ({"reason": "why", "vendor": "spotify"}, "vendor"),
        ({"reason": "why", "account": "no-uuid"}, "account"),
    ]:
        assert field in stage.failure_message(launch(stage, "pause_purchases", "begin_pause", config))
    assert stage.bench.sql("select id from purchase_pauses") == []
