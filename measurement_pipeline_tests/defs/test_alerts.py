"""Failed runs on a real Dagster instance, and the alerts that they send."""

import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import dagster as dg
import pytest
from sqlalchemy import text

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.defs.health.checks import ledger_matches_vendor, scheduled_checks
from measurement_pipeline.defs.instance_status import failure_line
from measurement_pipeline.defs.resources import resource_definitions
from measurement_pipeline.domain.backfill_queue import BREAKER_OPENED
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import migrate
from measurement_pipeline.services import MeasurementDatabase
from measurement_pipeline.vendors.webhook import Webhook
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.dagster_private import (
    DagsterRunReaction,
    EngineEventData,
    JobFailureData,
    RunFailureReason,
    SerializableErrorInfo,
    get_run_crash_explanation,
    make_new_run_id,
)
from measurement_pipeline_tests.defs.conftest import Stage, definitions
from measurement_pipeline_tests.defs.test_captures import capture
from measurement_pipeline_tests.defs.test_sensors import ranges
from measurement_pipeline_tests.health.receiver import Receiver
from measurement_pipeline_tests.workbench import isrcs

GONE = "postgresql://gone@127.0.0.1:9/gone"


@dataclass
class Sensor:
    """The sensor as the daemon ticks it, with its cursor."""

    stage: Stage
    cursor: str | None = None
    name: str = "run_failure_alert"

    def tick(self) -> Sequence[DagsterRunReaction]:
        definition = self.stage.definitions.resolve_sensor_def(self.name)
        with dg.build_sensor_context(
            instance=self.stage.instance,
            cursor=self.cursor,
            resources=resource_definitions(lambda: self.stage.services),
            sensor_name=self.name,
            definitions=self.stage.definitions,
        ) as context:
            result = definition.evaluate_tick(context)
        self.cursor = result.cursor
        return result.dagster_run_reactions or []

    def catch_up(self) -> list[DagsterRunReaction]:
        """Tick until there is nothing left to react to."""
        reactions: list[DagsterRunReaction] = []
        while result := self.tick():
            reactions += result
        return reactions


@pytest.fixture
def sensor(stage: Stage, receiver: Receiver) -> Sensor:
    stage.services = replace(stage.services, alerts=replace(stage.services.alerts, post=Webhook(receiver.url).post))
    stage.definitions = definitions(stage.services)
    failure_sensor = Sensor(stage)
    # The first tick only sets the cursor: earlier failures send no alert.
    assert failure_sensor.tick() == []
    return failure_sensor


@pytest.fixture
def success(sensor: Sensor) -> Sensor:
    """The sensor of successful runs, after a tick over the earlier ones."""
    success_sensor = Sensor(sensor.stage, name="run_success_sensor")
    success_sensor.tick()
    return success_sensor


def fail(stage: Stage, why: str, *, job: str = "songstats_backfill") -> dg.DagsterRun:
    run = stage.instance.create_run_for_job(stage.definitions.resolve_job_def(job))
    stage.instance.report_run_failed(run, why)
    return run


def fail_asset_page_launch(
    stage: Stage,
    why: str,
    *,
    assets: Iterable[dg.AssetKey] | None = None,
    checks: Iterable[dg.AssetCheckKey] | None = None,
) -> None:
    """Fail a launch from the asset's page: Dagster's own job with the selection; None selects nothing."""
    run = dg.DagsterRun(
        job_name="__ASSET_JOB",
        run_id=make_new_run_id(),
        asset_selection=None if assets is None else frozenset(assets),
        asset_check_selection=None if checks is None else frozenset(checks),
    )
    stage.instance.report_run_failed(stage.instance.add_run(run), why)


def test_fifty_runs_with_one_cause_of_failure_send_one_message(sensor: Sensor, receiver: Receiver):
    runs = [
        fail(sensor.stage, f"{counted(number, 'recording')} failed ({number} malformed)") for number in range(1, 51)
    ]
    reactions = sensor.catch_up()
    assert len(reactions) == 50
    assert [reaction.error for reaction in reactions if reaction.error] == []
    (text,) = receiver.texts
    assert text.startswith("songstats_backfill failed: 1 recording failed (1 malformed)\n")
    assert f"See run {runs[0].run_id[:8]} in Dagster" in text
    (row,) = sensor.stage.bench.sql("select * from incidents")
    assert row["times"] == 50
    assert row["told_at"] is not None


def test_each_cause_and_each_job_sends_its_own_message(sensor: Sensor, receiver: Receiver):
    fail(sensor.stage, "the breaker opened: 5 rejected in a row")
    fail(sensor.stage, "the database is full")
    fail(sensor.stage, "the database is full", job="backfill_reclaim")
    sensor.catch_up()
    assert [text.split("\n")[0] for text in receiver.texts] == [
        "songstats_backfill failed: the breaker opened: 5 rejected in a row",
        "songstats_backfill failed: the database is full",
        "backfill_reclaim failed: the database is full",
    ]


def test_the_message_contains_the_runs_cause_and_no_traceback(sensor: Sensor, receiver: Receiver):
    stage, songs = sensor.stage, isrcs(2)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sandbox.faults(HISTORY, body="not json")
    assert not stage.backfill(songs).success
    sensor.catch_up()
    (text,) = receiver.texts
    assert text.startswith("songstats_backfill failed: 2 recordings failed (2 malformed)\nSee run ")
    assert len(text.splitlines()) == 2


def test_an_unexpected_error_is_reported_by_its_first_line(sensor: Sensor, receiver: Receiver):
    sensor.stage.bench.sql("drop table run_heartbeats")
    assert not sensor.stage.reclaim().success
    sensor.catch_up()
    (text,) = receiver.texts
    assert text.startswith("backfill_reclaim failed: ")
    assert 'relation "run_heartbeats" does not exist' in text.splitlines()[0]


def test_a_key_rejected_again_after_its_breaker_closed_is_alerted_again(sensor: Sensor, receiver: Receiver):
    stage, songs = sensor.stage, isrcs(3)
    stage.bench.submit_request(songs)
    stage.register(songs)
    for _ in range(2):
        stage.bench.sandbox.faults("/enterprise", status=401)
        assert not stage.backfill(songs).success
        fail(stage, f"{BREAKER_OPENED}calls in flight are rejected too")
        fail(stage, "the store is full")
        sensor.catch_up()
        stage.bench.sandbox.clear_faults()
        assert stage.reclaim().success
        assert stage.breaker() == "closed"
    messages = [text.split("\n")[0] for text in receiver.texts]
    assert [line.startswith(f"songstats_backfill failed: {BREAKER_OPENED}") for line in messages] == [
        True,
        True,
        False,
        True,
        True,
    ]


def test_closing_a_breaker_ends_only_its_own_incident(sensor: Sensor):
    stage = sensor.stage
    stage.bench.sql("update vendor_state set breaker = 'open', breaker_kind = 'key', opened_at = clock_timestamp()")
    for why in (f"{BREAKER_OPENED}HTTP 401", "the store is full"):
        fail(stage, why)
    sensor.catch_up()
    checks = stage.definitions.resolve_job_def("health_checks")
    assert checks.execute_in_process(instance=stage.instance).success
    assert stage.bench.sql("select ended_at from incidents") == [{"ended_at": None}] * 2
    stage.bench.sandbox.clear_faults()
    stage.reclaim()
    assert checks.execute_in_process(instance=stage.instance).success
    closed = stage.bench.sql(
        "select what from incidents, vendor_state where ended_at = streak_since and vendor = 'songstats'"
    )
    assert len(closed) == 1
    assert BREAKER_OPENED in closed[0]["what"]


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({}, "no recording was selected"),
        ({tags.PARTITION: "AA6Q72999999"}, "AA6Q72999999 is not a partition"),
        (
            {tags.RANGE_START: "AA6Q72000001", tags.RANGE_END: "AA6Q72000000"},
            "AA6Q72000001 to AA6Q72000000 is not a range",
        ),
    ],
)
def test_a_persons_invalid_launch_fails_on_its_page_and_sends_no_alert(
    sensor: Sensor, receiver: Receiver, chosen: dict[str, str], why: str
):
    stage = sensor.stage
    stage.register(isrcs(2))
    job = stage.definitions.resolve_job_def("songstats_backfill")
    result = job.execute_in_process(instance=stage.instance, tags=chosen, raise_on_error=False)
    assert failure_line(stage.instance, result.run_id).startswith(f"nothing was launched: {why}")
    assert len(sensor.catch_up()) == 1
    assert receiver.texts == stage.bench.sql("select * from incidents") == []
    # A planned run is an incident: its partitions were deleted.
    job.execute_in_process(instance=stage.instance, tags={**chosen, tags.PLAN: "plan-1"}, raise_on_error=False)
    sensor.catch_up()
    assert len(receiver.texts) == 1


def capture_album(stage: Stage, album: str) -> tuple[UUID, dg.ExecuteInProcessResult]:
    """A request for an album, and the result of its capture run."""
    job = stage.submit_request({"album_ids": [album]}, source="current")
    assert stage.intake().success
    (row,) = stage.bench.sql("select snapshot from measurement_jobs where id = %s", job)
    return job, capture(stage, str(row["snapshot"]))


def test_a_request_for_invalid_albums_sends_no_alert(sensor: Sensor, receiver: Receiver):
    stage = sensor.stage
    _, result = capture_album(stage, "nonsense")
    line = failure_line(stage.instance, result.run_id)
    assert line == "nothing to capture: no track was found on 1 album (nonsense)"
    assert len(sensor.catch_up()) == 1
    assert receiver.texts == stage.bench.sql("select * from incidents") == []


def test_a_valid_album_without_tracks_sends_an_alert(sensor: Sensor, receiver: Receiver):
    # Either the album does not exist or the actor returned nothing: nothing shows which.
    job, _ = capture_album(sensor.stage, "4MUSeRnhpSfkMqREFQ36mC")
    sensor.catch_up()
    assert "no track was found on 1 album (4MUSeRnhpSfkMqREFQ36mC)" in receiver.texts[0]
    assert sensor.stage.bench.sql("select status_code from measurement_jobs where id = %s", job) == [
        {"status_code": 404}
    ]


def test_successful_runs_send_no_alert(sensor: Sensor, receiver: Receiver):
    assert sensor.stage.reclaim().success
    assert sensor.catch_up() == []
    assert receiver.texts == []


# --- recovery


def open_incidents(stage: Stage) -> list[str]:
    return [row["key"] for row in stage.bench.sql("select key from incidents where ended_at is null order by id")]


def test_an_incident_ends_when_the_next_run_of_its_job_succeeds(sensor: Sensor, success: Sensor):
    fail(sensor.stage, "the store is full", job="backfill_reclaim")
    fail(sensor.stage, "the store is full")
    sensor.catch_up()
    assert sensor.stage.reclaim().success
    assert len(success.catch_up()) == 1
    assert open_incidents(sensor.stage) == ["songstats_backfill: the store is full"]


def test_a_success_before_the_failure_ends_no_incident(sensor: Sensor, success: Sensor):
    assert sensor.stage.reclaim().success
    fail(sensor.stage, "the store is full", job="backfill_reclaim")
    sensor.catch_up()
    success.catch_up()
    assert open_incidents(sensor.stage) == ["backfill_reclaim: the store is full"]


def test_a_failure_processed_after_the_next_success_is_alerted_as_ended(
    sensor: Sensor, success: Sensor, receiver: Receiver
):
    fail(sensor.stage, "the store is full", job="backfill_reclaim")
    assert sensor.stage.reclaim().success
    success.catch_up()
    sensor.catch_up()
    assert open_incidents(sensor.stage) == []
    assert "; ended 20" in receiver.texts[0]


def test_a_job_that_fails_repeatedly_has_one_incident_and_one_message(
    sensor: Sensor, success: Sensor, receiver: Receiver
):
    for _ in range(3):
        fail(sensor.stage, "the store is full", job="backfill_reclaim")
        sensor.catch_up()
        assert open_incidents(sensor.stage) == ["backfill_reclaim: the store is full"]
        assert sensor.stage.reclaim().success
        success.catch_up()
        assert open_incidents(sensor.stage) == []
    assert len(receiver.texts) == 1
    assert sensor.stage.bench.sql("select times from incidents") == [{"times": 3}]


# --- interrupted runs


def start_timeout(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(
        run,
        "Run timed out due to taking longer than 600 seconds to start.",
        JobFailureData(error=None, failure_reason=RunFailureReason.START_TIMEOUT),
    )


def code_server_shutdown(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Report a launcher's error as Dagster's daemon does."""
    error = SerializableErrorInfo(
        "dagster._core.errors.DagsterLaunchFailedError: Tried to start a run on a server after telling it to shut down\n",
        [],
        "DagsterLaunchFailedError",
    )
    message = "Caught an unrecoverable error while dequeuing the run."
    instance.report_engine_event(message, run, EngineEventData.engine_error(error))
    instance.report_run_failed(run)


def unexpected_interrupt(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(
        run,
        "Execution was interrupted unexpectedly.",
        JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION),
    )


def process_ended_by_sigterm(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Report a missing worker as the code server does."""
    why = get_run_crash_explanation(f"Run execution process for {run.run_id}", -signal.SIGTERM)
    instance.report_engine_event(why, run)
    instance.report_run_failed(run)


INTERRUPTIONS = [
    start_timeout,
    code_server_shutdown,
    unexpected_interrupt,
    process_ended_by_sigterm,
]


@pytest.mark.parametrize("end", INTERRUPTIONS)
def test_an_interrupted_run_is_no_incident_and_its_partitions_are_not_failed(
    sensor: Sensor, receiver: Receiver, end: Callable[[dg.DagsterInstance, dg.DagsterRun], None]
):
    stage, songs = sensor.stage, isrcs(3)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.backfill(songs[:1])
    runs = [planned(stage, songs) for _ in range(3)]
    for run in runs:
        end(stage.instance, run)
    assert set(stage.partition_statuses().values()) == {"FAILED"}, "Dagster remembers them as failed"
    sensor.catch_up()
    assert receiver.texts == stage.bench.sql("select * from incidents") == []
    assert stage.partition_statuses() == {songs[0]: "MATERIALIZED"}
    result = [stage.instance.get_run_by_id(run.run_id) for run in runs]
    assert {run.status for run in result if run} == {dg.DagsterRunStatus.CANCELED}
    assert sum(count for *_, count in ranges(stage.tick("backfill_queue_sensor"))) == 2, "they are due again"


def test_runs_that_do_not_start_for_an_hour_are_an_incident(sensor: Sensor, receiver: Receiver):
    stage = sensor.stage
    for _ in range(2):
        start_timeout(stage.instance, planned(stage, [], job="backfill_reclaim"))
    sensor.catch_up()
    assert receiver.texts == []
    with stage.instance.run_storage.connect() as connection:
        connection.execute(text("update runs set create_timestamp = create_timestamp - interval '61 minutes'"))
    start_timeout(stage.instance, planned(stage, [], job="backfill_reclaim"))
    sensor.catch_up()
    assert "backfill_reclaim failed: no run starts (the run did not start in time)" in receiver.texts[0]
    # A run that starts, however it ends, restarts the hour.
    assert stage.reclaim().success
    start_timeout(stage.instance, planned(stage, [], job="backfill_reclaim"))
    assert len(sensor.catch_up()) == 1
    assert len(receiver.texts) == 1


def test_a_process_without_memory_is_an_incident(sensor: Sensor, receiver: Receiver):
    run = planned(sensor.stage, [], job="backfill_reclaim")
    why = get_run_crash_explanation(f"Run execution process for {run.run_id}", -signal.SIGKILL)
    sensor.stage.instance.report_engine_event(why, run)
    sensor.stage.instance.report_run_failed(run)
    sensor.catch_up()
    assert len(receiver.texts) == 1


def planned(stage: Stage, songs: Sequence[str], *, job: str = "songstats_backfill") -> dg.DagsterRun:
    """Create a run as the sensor does, with planned partitions."""
    chosen = {tags.RANGE_START: songs[0], tags.RANGE_END: songs[-1]} if songs else {}
    return stage.instance.create_run_for_job(
        stage.definitions.resolve_job_def(job),
        tags={**chosen, tags.PLAN: "plan-1"},
    )


def test_an_unreachable_webhook_fails_the_tick_and_the_next_failure_sends_each_alert_once(
    sensor: Sensor, receiver: Receiver
):
    receiver.status = 503
    fail(sensor.stage, "the store is full")
    (reaction,) = sensor.catch_up()
    assert reaction.error is not None
    assert "ALERT_WEBHOOK_URL answered 503" in str(reaction.error)
    assert "s3cret" not in str(reaction.error)
    assert sensor.catch_up() == [], "Dagster does not come back to a failure"
    receiver.status = 200
    fail(sensor.stage, "another reason")
    (reaction,) = sensor.catch_up()
    assert reaction.error is None
    assert [text.split("\n")[0] for text in receiver.texts] == [
        "songstats_backfill failed: the store is full",
        "songstats_backfill failed: another reason",
    ]


def test_the_next_run_of_the_checks_sends_the_alerts_that_the_sensor_could_not(sensor: Sensor, receiver: Receiver):
    receiver.status = 503
    fail(sensor.stage, "the store is full")
    sensor.catch_up()
    receiver.status = 200
    job = sensor.stage.definitions.resolve_job_def("health_checks")
    for _ in range(2):
        assert job.execute_in_process(instance=sensor.stage.instance).success
    assert [text.split("\n")[0] for text in receiver.texts] == ["songstats_backfill failed: the store is full"]


def test_without_a_webhook_an_incident_is_recorded_and_shown(sensor: Sensor, receiver: Receiver):
    sensor.stage.services = replace(sensor.stage.services, alerts=replace(sensor.stage.services.alerts, post=None))
    sensor.stage.definitions = definitions(sensor.stage.services)
    fail(sensor.stage, "the store is full")
    (reaction,) = sensor.catch_up()
    assert reaction.error is None
    assert receiver.texts == []
    (row,) = sensor.stage.bench.sql("select * from incidents")
    assert (row["key"], row["told_at"]) == ("songstats_backfill: the store is full", None)


def test_two_sensors_send_an_alert_once(sensor: Sensor, receiver: Receiver):
    other = Sensor(sensor.stage, sensor.cursor)
    fail(sensor.stage, "the store is full")
    sensor.catch_up()
    other.catch_up()
    assert len(receiver.texts) == 1


@pytest.mark.parametrize("launched", [{SONGSTATS_HISTORY}, None])
def test_operators_and_planned_runs_share_one_incident(
    sensor: Sensor, receiver: Receiver, launched: set[dg.AssetKey] | None
):
    fail(sensor.stage, "the store is full")
    fail_asset_page_launch(sensor.stage, "the store is full", assets=launched)
    sensor.catch_up()
    (text,) = receiver.texts
    assert text.startswith("songstats_backfill failed: the store is full\n")


def test_checks_launched_by_hand_send_the_alerts_of_scheduled_ones(sensor: Sensor, receiver: Receiver):
    fail(sensor.stage, "the store is full", job="health_checks")
    fail_asset_page_launch(sensor.stage, "the store is full", checks=scheduled_checks[0].check_keys)
    fail_asset_page_launch(sensor.stage, "no answer", checks=ledger_matches_vendor.check_keys)
    sensor.catch_up()
    assert [text.split("\n")[0] for text in receiver.texts] == [
        "health_checks failed: the store is full",
        "ledger_reconciliation failed: no answer",
    ]


def make_schema_old(stage: Stage) -> None:
    stage.bench.sql("update alembic_version set version_num = '0001'")


def use_anothers_database(stage: Stage) -> None:
    stage.bench.sql("update deployment set kind = 'live'")


def drop_the_table(stage: Stage) -> None:
    stage.bench.sql("alter table incidents rename to away")


@pytest.mark.parametrize("mar", [make_schema_old, use_anothers_database, drop_the_table])
def test_a_failure_that_cannot_be_recorded_is_alerted_once_by_the_tick(
    sensor: Sensor, receiver: Receiver, mar: Callable[[Stage], None]
):
    stage = sensor.stage
    url = stage.services.database.url
    stage.services = replace(
        stage.services, database=MeasurementDatabase(url, lambda: migrate.require_current(url, kind="sandbox"))
    )
    stage.definitions = definitions(stage.services)
    mar(stage)
    for _ in range(2):
        fail(stage, "the store is full")
    reactions = sensor.catch_up()
    assert [reaction.error is not None for reaction in reactions] == [True, True]
    assert [text.split("\n")[0] for text in receiver.texts] == ["songstats_backfill failed: the store is full"]


def test_thirty_failures_while_the_database_is_unreachable_send_one_message(sensor: Sensor, receiver: Receiver):
    stage = sensor.stage
    stage.services = replace(stage.services, database=MeasurementDatabase(GONE, lambda: None))
    stage.definitions = definitions(stage.services)
    for number in range(29):
        fail(stage, f"the database is away (try {number})")
    fail_asset_page_launch(stage, "the database is away (try 30)", assets={SONGSTATS_HISTORY})
    assert len(sensor.catch_up()) == 30
    assert len(receiver.texts) == 1


def test_a_failure_while_the_database_is_unreachable_is_alerted_once_and_the_tick_fails(
    sensor: Sensor, receiver: Receiver
):
    stage = sensor.stage
    stage.services = replace(stage.services, database=MeasurementDatabase(GONE, lambda: None))
    stage.definitions = definitions(stage.services)
    for number in range(3):
        fail(stage, f"the database is away (try {number})")
    reactions = sensor.catch_up()
    assert len(reactions) == 3
    assert all(reaction.error is not None for reaction in reactions)
    assert [text.split("\n")[0] for text in receiver.texts] == [
        "songstats_backfill failed: the database is away (try 0)"
    ]


def test_an_alert_that_database_and_webhook_refused_is_sent_by_the_next_failure_alike(
    sensor: Sensor, receiver: Receiver
):
    stage = sensor.stage
    stage.services = replace(stage.services, database=MeasurementDatabase(GONE, lambda: None))
    stage.definitions = definitions(stage.services)
    receiver.status = 503
    fail(stage, "the database is away (try 1)")
    sensor.catch_up()
    receiver.status = 200
    for number in (2, 3):
        fail(stage, f"the database is away (try {number})")
        sensor.catch_up()
    assert [text.split("\n")[0] for text in receiver.texts] == [
        "songstats_backfill failed: the database is away (try 2)"
    ]
