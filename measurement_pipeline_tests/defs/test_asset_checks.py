"""The checks as an operator sees them: each cause of a stall on a real Dagster instance, as a result and as an alert."""

import time
from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import pytest
from dagster_graphql.test.utils import execute_dagster_graphql

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.defs.health.assets import pipeline_health
from measurement_pipeline.defs.health.checks import ledger_matches_vendor, scheduled_checks
from measurement_pipeline.defs.health_check import health_check
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.vendors.webhook import Webhook
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.dagster_private import (
    DaemonHeartbeat,
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    LoadableTargetOrigin,
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
    SerializableErrorInfo,
    TickData,
    TickStatus,
    in_process_test_workspace,
)
from measurement_pipeline_tests.defs.conftest import Stage, definitions
from measurement_pipeline_tests.defs.test_sensors import started_event
from measurement_pipeline_tests.health.receiver import Receiver
from measurement_pipeline_tests.workbench import isrcs

SONGS = isrcs(3)


def add_heartbeats(stage: Stage, *, seconds_ago: float = 0.0) -> None:
    """Add a heartbeat of every daemon."""
    for daemon in stage.instance.get_required_daemon_types():
        stage.instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - seconds_ago, daemon, None))


def run_checks(stage: Stage) -> dg.ExecuteInProcessResult:
    job = stage.definitions.resolve_job_def("health_checks")
    return job.execute_in_process(instance=stage.instance, raise_on_error=False)


def run_check(stage: Stage, name: str) -> dg.AssetCheckEvaluation:
    """The evaluation of a check in a run of all scheduled checks."""
    result = run_checks(stage)
    assert result.success
    (row,) = [each for each in result.get_asset_check_evaluations() if each.check_name == name]
    return row


def test_only_the_check_that_times_out_fails_and_it_reports_an_unknown_state(stage: Stage):
    @health_check("Waits.", statement_seconds=0.2)
    def waits(connection: Connection) -> HealthResult:
        connection.execute("select pg_sleep(60)")
        return HealthResult(True, "it waited")

    @health_check("Answers.")
    def answers(_connection: Connection) -> HealthResult:
        return HealthResult(True, "it answered")

    both = dg.Definitions(
        assets=[pipeline_health],
        asset_checks=[waits, answers],
        jobs=[dg.define_asset_job("both", dg.AssetSelection.all_asset_checks())],
        resources=stage.definitions.resources,
        executor=dg.in_process_executor,
    )
    ran = both.resolve_job_def("both").execute_in_process(instance=stage.instance)
    result = {each.check_name: each for each in ran.get_asset_check_evaluations()}
    assert result["answers"].passed
    assert not result["waits"].passed
    assert result["waits"].severity is dg.AssetCheckSeverity.ERROR
    assert str(result["waits"].description).startswith("not known: a statement of this check took longer than 0.2 s")


def send_alerts_to(stage: Stage, receiver: Receiver) -> None:
    stage.services = replace(stage.services, alerts=replace(stage.services.alerts, post=Webhook(receiver.url).post))
    stage.definitions = definitions(stage.services)


@pytest.fixture
def stalled(stage: Stage) -> Stage:
    """Three recordings that have waited for 30 hours; a test adds the only blocker."""
    add_heartbeats(stage)
    stage.bench.submit_request(SONGS)
    stage.register(SONGS)
    stage.bench.sql("update songstats_backfill_queue set created_at = now() - interval '30 hours'")
    return stage


def origin(sensor: str) -> RemoteInstigatorOrigin:
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("measurement_pipeline"), "__repository__")
    return RemoteInstigatorOrigin(repository, sensor)


def switch(stage: Stage, sensor: str, status: InstigatorStatus) -> InstigatorState:
    state = InstigatorState(origin(sensor), InstigatorType.SENSOR, status)
    stage.instance.add_instigator_state(state)
    return state


def add_failed_tick(stage: Stage) -> None:
    state = switch(stage, "backfill_queue_sensor", InstigatorStatus.RUNNING)
    stage.instance.create_tick(
        TickData(
            state.instigator_origin_id,
            "backfill_queue_sensor",
            InstigatorType.SENSOR,
            TickStatus.FAILURE,
            time.time(),
            error=SerializableErrorInfo("no such table: songs\nmore", [], "Error"),
            selector_id=state.selector_id,
        )
    )


def create_run(stage: Stage, **options: object) -> dg.DagsterRun:
    job = stage.definitions.resolve_job_def("songstats_backfill")
    return stage.instance.create_run_for_job(job, **options)  # type: ignore[arg-type]


def start_endless_run(stage: Stage) -> None:
    run = create_run(stage)
    stage.instance.handle_new_event(started_event(run.run_id, seconds_ago=3600))


def add_failed_run(stage: Stage) -> None:
    stage.instance.report_run_failed(create_run(stage), "its process has written no heartbeat for 100 s")


def spend_the_budget(stage: Stage) -> None:
    stage.bench.run_backfill(SONGS[:1])
    stage.bench.sql(
        "update songstats_quota_ledger set reserved_at = reserved_at - interval '20 hours',"
        " settled_at = settled_at - interval '20 hours'"
    )
    stage.with_hits_allowed(1)


def pause_songstats(stage: Stage, *, seconds: int = 86_400) -> None:
    stage.bench.sandbox.faults(HISTORY, status=429, retry_after=seconds)
    stage.backfill(SONGS)


def make_stripe_unreachable(stage: Stage) -> None:
    stage.bench.sql("update payment_decisions set checked_at = now() - interval '1 hour'")
    stage.bench.sandbox.faults("/v1/", status=500)
    assert stage.backfill(SONGS).success
    stage.bench.sql("update songstats_backfill_queue set not_before = null")  # as a minute later


def by_sql(statement: str) -> Callable[[Stage], None]:
    def done(stage: Stage) -> None:
        stage.bench.sql(statement)

    return done


# Cause → its set-up, key words of the check's description, and whether it is an error.
REASONS: dict[str, tuple[Callable[[Stage], None], str, bool]] = {
    "daemon without heartbeat": (
        lambda stage: add_heartbeats(stage, seconds_ago=9000),
        "Dagster's daemon has no heartbeat (",
        True,
    ),
    "sensor stopped": (
        lambda stage: switch(stage, "backfill_queue_sensor", InstigatorStatus.STOPPED) and None,
        "backfill_queue_sensor is switched off",
        True,
    ),
    "sensor failing": (add_failed_tick, "the last tick of backfill_queue_sensor failed: no such table: songs", True),
    "breaker open": (
        by_sql("update vendor_state set breaker = 'open', breaker_kind = 'key', reason = 'the key was refused'"),
        "Circuit breaker open: the key was refused. Correct SONGSTATS_API_KEY",
        True,
    ),
    "payment": (
        lambda stage: stage.bench.deny(stage.bench.account),
        "No payment method: no account with a saved card",
        True,
    ),
    "pool slot held": (start_endless_run, "has held the slot since 20", True),
    "vendor away": (
        by_sql(
            "update vendor_state set paused_until = now() + interval '1 minute', throttled = 25, pause_reason = '502s'"
        ),
        "25 pauses in a row",
        True,
    ),
    "budget spent": (spend_the_budget, "1 of 1 hits in the last 30 days. Next hit available 20", True),
    "vendor pause": (pause_songstats, "Calls to Songstats paused until 20", True),
    "runs failing": (add_failed_run, "with: its process has written no heartbeat for 100 s", True),
    "retries": (
        by_sql(
            "update songstats_backfill_queue set not_before = now() + interval '1 hour', last_error = '502 from Songstats'"
        ),
        "Last error: 502 from Songstats",
        True,
    ),
    "deferred": (make_stripe_unreachable, "the last run deferred them: 3 × ", True),
    "unknown": (lambda _stage: None, "no known blocker", True),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_stalled_backfill_is_reported_with_its_cause(stalled: Stage, reason: str):
    make, description, is_error = REASONS[reason]
    make(stalled)
    result = run_check(stalled, "backfill_is_progressing")
    assert not result.passed
    assert result.description is not None
    assert result.metadata["reason"].value == reason, result.description
    assert description in result.description
    assert result.severity is (dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN)
    assert (
        stalled.bench.sql("select count(*) n from incidents where key like 'check backfill_is_progressing%%'")[0]["n"]
        == is_error
    )


def test_a_pause_that_ends_before_the_alarm_time_is_a_warning(stalled: Stage):
    pause_songstats(stalled, seconds=3600)
    result = run_check(stalled, "backfill_is_progressing")
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert stalled.bench.sql("select key from incidents") == []


def test_a_backfill_that_buys_passes(stalled: Stage):
    stalled.bench.run_backfill(SONGS[:1])
    result = run_check(stalled, "backfill_is_progressing")
    assert result.passed
    assert result.metadata["recordings waiting"].value == 2


def test_the_alarm_hours_are_a_setting(stalled: Stage):
    stalled.services = replace(stalled.services, alerts=replace(stalled.services.alerts, silence_alarm_hours=31.0))
    stalled.definitions = definitions(stalled.services)
    assert run_check(stalled, "backfill_is_progressing").passed


def test_a_stall_is_alerted_once_and_again_when_it_recurs(stalled: Stage, receiver: Receiver):
    send_alerts_to(stalled, receiver)
    switch(stalled, "backfill_queue_sensor", InstigatorStatus.STOPPED)
    for _ in range(3):
        assert run_checks(stalled).success
    assert len(receiver.texts) == 1
    assert "3 recordings wait, and none was settled since" in receiver.texts[0]
    assert "backfill_queue_sensor is switched off; switch it on" in receiver.texts[0]
    stalled.bench.run_backfill(SONGS[:1])
    assert run_checks(stalled).success
    stalled.bench.sql("update songstats_quota_ledger set settled_at = settled_at - interval '20 hours'")
    assert run_checks(stalled).success
    assert len(receiver.texts) == 2


def test_a_request_that_stays_queued_is_reported_with_its_cause(stage: Stage):
    add_heartbeats(stage)
    stage.submit_request({"isrcs": SONGS})
    assert run_check(stage, "intake_is_progressing").passed
    stage.bench.sandbox.faults("/v1/", status=500)
    stage.bench.sql("update measurement_jobs set created_at = now() - interval '7 hours'")
    for _ in range(2):  # intake retries without an answer
        stage.bench.sql("update measurement_jobs set not_before = null")
        assert stage.intake().success
    result = run_check(stage, "intake_is_progressing")
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.ERROR
    assert "1 request is queued" in str(result.description)
    assert "the oldest one says: " in str(result.description)
    switch(stage, "measurement_job_sensor", InstigatorStatus.STOPPED)
    assert "measurement_job_sensor is switched off" in str(run_check(stage, "intake_is_progressing").description)


def test_partitions_are_compared_with_stored_rows(stage: Stage):
    add_heartbeats(stage)
    stage.bench.submit_request(SONGS)
    stage.register(SONGS)
    stage.backfill(SONGS[:2])
    stage.bench.run_backfill(SONGS[2:])  # stored and never reported
    result = run_check(stage, "partitions_match_tables")
    assert result.passed
    assert result.metadata["materialized"].value == 2
    stage.bench.sql("update songstats_backfill_queue set updated_at = now() - interval '3 hours'")
    result = run_check(stage, "partitions_match_tables")
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.ERROR
    assert f"{SONGS[2]} is done, and not shown as materialized" in str(result.description)
    assert stage.reclaim().success
    assert run_check(stage, "partitions_match_tables").passed
    stage.bench.sql("delete from songstats_backfill_queue where song = %s", SONGS[0])
    description = str(run_check(stage, "partitions_match_tables").description)
    assert f"{SONGS[0]} is shown as materialized, and its row is not done" in description
    assert f"{SONGS[0]} has a history, and its row is missing" in description


def test_a_warning_is_shown_and_fails_no_run(stage: Stage, receiver: Receiver):
    add_heartbeats(stage)
    send_alerts_to(stage, receiver)
    stage.bench.submit_request(SONGS)
    stage.bench.run_backfill(SONGS)
    stage.bench.sql("update song_measurements set value = 0 where song = %s", SONGS[0])
    stage.bench.sql(
        "update songstats_backfill_queue set status = 'failed', outcome = 'exhausted' where song = %s", SONGS[1]
    )
    stage.bench.sql("delete from song_measurements where song = %s", SONGS[1])
    for name, description in (("values_in_range", "has 0 plays"), ("no_exhausted_recordings", "1 exhausted (")):
        result = run_check(stage, name)
        assert not result.passed
        assert result.severity is dg.AssetCheckSeverity.WARN
        assert description in str(result.description)
    assert receiver.texts == []


def test_an_unreachable_webhook_fails_the_step_and_hides_no_result(stalled: Stage, receiver: Receiver):
    send_alerts_to(stalled, receiver)
    receiver.status = 500
    result = run_checks(stalled)
    assert not result.success
    passed_by_name = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert len(passed_by_name) == len(scheduled_checks)
    assert passed_by_name["backfill_is_progressing"] is False
    log = "".join(str(entry) for entry in stalled.instance.all_logs(result.run_id))
    assert "ALERT_WEBHOOK_URL answered 500" in log
    assert "s3cret" not in log
    receiver.status = 200
    assert run_checks(stalled).success
    assert len(receiver.texts) == 1


def test_backfill_runs_of_the_sensor_and_of_operators_run_no_check(stalled: Stage):
    assert stalled.backfill(SONGS[:2]).get_asset_check_evaluations() == []
    by_hand = stalled.definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={SONGSTATS_HISTORY}
    )
    result = by_hand.execute_in_process(instance=stalled.instance, tags={tags.PARTITION: SONGS[2]})
    assert SONGS[2] in stalled.metadata_by_isrc()
    assert result.get_asset_check_evaluations() == []


CHECKS = """
{
  assetNodeOrError(assetKey: {path: ["pipeline_health"]}) {
    ... on AssetNode {
      assetChecksOrError {
        ... on AssetChecks { checks { name executionForLatestMaterialization { status evaluation { description } } } }
      }
    }
  }
}
"""


# Dagster's own warning when it describes a schedule to GraphQL.
@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`:DeprecationWarning")
def test_the_ui_shows_the_checks_while_recordings_are_bought(stalled: Stage):
    assert run_checks(stalled).success
    for song in SONGS:
        # A materialization after the evaluation is what hid it.
        stalled.backfill([song])
    module = LoadableTargetOrigin(module_name="measurement_pipeline.definitions", attribute="defs")
    with in_process_test_workspace(stalled.instance, module) as workspace:
        answer = execute_dagster_graphql(workspace, CHECKS)
    assert set(stalled.metadata_by_isrc()) == set(SONGS)
    checks = answer.data["assetNodeOrError"]["assetChecksOrError"]["checks"]
    executions = {check["name"]: check["executionForLatestMaterialization"] for check in checks}
    assert executions.pop("ledger_matches_vendor") is None, "it runs once a day, and has not run"
    assert set(executions) == {key.name for check in scheduled_checks for key in check.check_keys}
    assert all(execution["evaluation"]["description"] for execution in executions.values())


def test_a_check_that_cannot_read_fails_and_the_others_run(stage: Stage):
    add_heartbeats(stage)
    stage.bench.sql("alter table vendor_state rename to away")
    result = run_checks(stage)
    assert not result.success
    assert {each.check_name for each in result.get_asset_check_evaluations()} == {
        key.name for check in scheduled_checks for key in check.check_keys
    } - {"backfill_is_progressing"}


def test_every_check_has_a_description():
    for one in [*scheduled_checks, ledger_matches_vendor]:
        for spec in one.check_specs:
            assert len(spec.description or "") > 40, spec.name
            assert not spec.blocking, spec.name
