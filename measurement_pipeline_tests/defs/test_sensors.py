"""Run requests and skip messages of the sensors on a real Dagster instance."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import dagster as dg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from measurement_pipeline.defs import partitions, tags
from measurement_pipeline.defs.partitions import isrc_partitions, register, register_requested
from measurement_pipeline.defs.resources import resource_definitions
from measurement_pipeline.domain.text import utc_minute
from measurement_pipeline.intake.small_requests import MAX_REQUESTS
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.dagster_private import SensorExecutionData
from measurement_pipeline_tests.defs.conftest import Stage
from measurement_pipeline_tests.workbench import isrcs


def skipped(result: SensorExecutionData) -> str:
    assert not result.run_requests
    return str(result.skip_message)


def ranges(result: SensorExecutionData) -> list[tuple[str, str, int]]:
    assert result.run_requests, result.skip_message
    return [
        (request.tags[tags.RANGE_START], request.tags[tags.RANGE_END], int(request.tags[tags.RECORDINGS]))
        for request in result.run_requests or []
    ]


def test_without_requests_the_intake_sensor_launches_no_run(stage: Stage):
    assert skipped(stage.tick("measurement_job_sensor")) == "no request is waiting"


def test_a_thousand_requests_start_one_run(stage: Stage):
    submit_requests(stage, 1000)
    runs = 0
    while stage.tick("measurement_job_sensor").run_requests:
        assert stage.intake().success
        runs += 1
    assert runs == 1
    assert stage.bench.statuses() == {"pending": 1000}


def test_small_requests_are_processed_in_the_tick(stage: Stage):
    with_card, without_card = isrcs(2), isrcs(2, start=10)
    stage.submit_request({"isrcs": with_card})
    stage.submit_request({"isrcs": without_card}, account=uuid4())
    assert skipped(stage.tick("measurement_job_sensor")) == "processed 2 requests: 1 accepted, 1 payment_required"
    assert stage.bench.statuses() == {"pending": 2}
    assert stage.instance.get_dynamic_partitions("isrc") == with_card
    assert stage.tick("backfill_queue_sensor").run_requests


def test_large_requests_and_failed_attempts_are_left_to_a_run(stage: Stage):
    large = stage.submit_request({"isrcs": isrcs(10_000)})
    failed = stage.submit_request({"isrcs": isrcs(1, start=20_000)})
    stage.bench.sql("update measurement_jobs set attempts = 1 where id = %s", failed)
    small = stage.submit_request({"isrcs": isrcs(1, start=30_000)})
    assert len(stage.tick("measurement_job_sensor").run_requests or []) == 1
    assert states(stage) == {large: ("queued", 0), failed: ("queued", 1), small: ("accepted", 0)}


def test_an_account_for_which_stripe_gives_no_answer_is_left_to_a_run(stage: Stage):
    stage.bench.sandbox.faults("/v1/", status=500)
    job = stage.submit_request({"isrcs": isrcs(1)}, account=uuid4())
    assert len(stage.tick("measurement_job_sensor").run_requests or []) == 1
    assert states(stage) == {job: ("queued", 0)}
    assert stage.bench.sql("select not_before from measurement_jobs") == [{"not_before": None}]


def test_a_waiting_tick_notices_a_request_and_wakes_the_planner(stage: Stage):
    resources = resource_definitions(lambda: stage.services, tick_seconds=60.0)
    with ThreadPoolExecutor(2) as threads:
        planner = threads.submit(stage.tick, "backfill_queue_sensor", resources)
        intake = threads.submit(stage.tick, "measurement_job_sensor", resources)
        stage.submit_request({"isrcs": isrcs(1)})
        assert planner.result().run_requests
        # More than a tick processes, which ends it.
        submit_requests(stage, MAX_REQUESTS + 1)
        assert intake.result().run_requests


def submit_requests(stage: Stage, count: int) -> None:
    """Submit requests for one recording each, in one statement."""
    stage.bench.sql(
        "insert into measurement_jobs (account, source, scope)"
        " select %s, 'historical', jsonb_build_object('isrcs', jsonb_build_array(s)) from unnest(%s::text[]) s",
        stage.bench.account,
        isrcs(count),
    )


def states(stage: Stage) -> dict[UUID, tuple[str, int]]:
    """State and attempts of each request."""
    rows = stage.bench.sql("select id, state, attempts from measurement_jobs")
    return {row["id"]: (row["state"], row["attempts"]) for row in rows}


def test_only_one_intake_run_is_unfinished_at_a_time(stage: Stage):
    submit_requests(stage, MAX_REQUESTS + 1)
    assert len(stage.tick("measurement_job_sensor").run_requests or []) == 1
    job = stage.definitions.resolve_job_def("measurement_job_intake")
    run = stage.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert f"run {run.run_id}" in skipped(stage.tick("measurement_job_sensor"))


def test_due_recordings_are_registered_and_planned_by_rank(stage: Stage):
    songs = isrcs(250)
    stage.bench.submit_request(songs)
    result = stage.tick("backfill_queue_sensor")
    assert stage.instance.get_dynamic_partitions("isrc") == songs, "registered in order of rank"
    assert ranges(result) == [(songs[0], songs[249], 250)]


@pytest.mark.parametrize("reason", ["planner off", "budget spent", "paused", "breaker open"])
def test_requested_recordings_become_partitions_even_if_they_cannot_be_bought(stage: Stage, reason: str):
    songs = isrcs(40)
    match reason:
        case "budget spent":
            stage.with_hits_allowed(0)
        case "paused":
            stage.bench.sql("update vendor_state set paused_until = now() + interval '1 hour', pause_reason = '429'")
        case "breaker open":
            stage.bench.sql("update vendor_state set breaker = 'open', reason = 'the key was refused'")
    stage.submit_request({"isrcs": songs})
    assert stage.intake().success
    if reason != "planner off":
        assert not stage.tick("backfill_queue_sensor").run_requests
    stage.tick("measurement_job_sensor")
    assert set(stage.instance.get_dynamic_partitions("isrc")) == set(songs)


def test_recordings_requested_over_http_become_partitions_by_rank(stage: Stage):
    songs = isrcs(6)
    stage.bench.submit_request(songs[3:], ranks=[1, 3, 2])
    stage.bench.submit_request(songs[:3], ranks=[9, 7, 8])
    stage.tick("measurement_job_sensor")
    ordered = [songs[0], songs[2], songs[1], songs[4], songs[5], songs[3]]
    assert stage.instance.get_dynamic_partitions("isrc") == ordered


def test_partitions_that_dagster_refuses_are_committed_and_registered_later(stage: Stage):
    songs = isrcs(3)
    with stage.instance.event_log_storage.index_connection() as connection:
        connection.execute(text("alter table dynamic_partitions rename column partition to away"))
    stage.submit_request({"isrcs": songs})
    assert stage.intake().success
    assert stage.bench.statuses() == {"pending": 3}
    with pytest.raises(SQLAlchemyError):
        stage.tick("measurement_job_sensor")
    with stage.instance.event_log_storage.index_connection() as connection:
        connection.execute(text("alter table dynamic_partitions rename column away to partition"))
    assert stage.reclaim().success, "as if the sensor is off"
    assert stage.instance.get_dynamic_partitions("isrc") == songs
    assert stage.bench.sql("select count(*) n from measurement_jobs where partitions_at is null") == [{"n": 0}]


def test_a_large_catalogue_is_registered_in_blocks_once(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    songs = isrcs(45)
    stage.bench.submit_request(songs)
    requested = list[int]()
    add = stage.instance.add_dynamic_partitions

    def counted(name: str, keys: Sequence[str]) -> None:
        requested.append(len(keys))
        add(name, keys)

    monkeypatch.setattr(stage.instance, "add_dynamic_partitions", counted)
    register(stage.instance, isrc_partitions, songs, block=20)
    assert requested == [20, 20, 5]
    for _ in range(2):
        stage.tick("measurement_job_sensor")
    assert requested == [20, 20, 5, 45], "the second tick finds nothing to do"


def test_the_best_range_is_dequeued_first_after_an_operators_run(stage: Stage):
    songs = isrcs(250)
    stage.bench.submit_request(songs)
    stage.register([*songs[:100], *isrcs(1, start=1000), *songs[100:]])
    requests = stage.tick("backfill_queue_sensor").run_requests or []
    assert [int(request.tags[tags.PRIORITY]) for request in requests] == [-1, -2]


def test_a_plan_excludes_rows_of_unfinished_runs(stage: Stage):
    songs = isrcs(150)
    stage.bench.submit_request(songs)
    stage.register(songs)
    job = stage.definitions.resolve_job_def("songstats_backfill")
    covering = {tags.RANGE_START: songs[0], tags.RANGE_END: songs[99]}
    stage.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=covering)
    assert ranges(stage.tick("backfill_queue_sensor")) == [(songs[100], songs[149], 50)]
    stage.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.NOT_STARTED, tags={tags.RANGE_START: songs[100], tags.RANGE_END: songs[149]}
    )
    assert "150 of 150 due recordings" in skipped(stage.tick("backfill_queue_sensor"))


def test_a_plan_never_exceeds_the_budget(stage: Stage):
    songs = isrcs(30)
    stage.bench.submit_request(songs)
    stage.bench.run_backfill(songs[:5])
    stage.with_hits_allowed(12)
    assert sum(count for _, _, count in ranges(stage.tick("backfill_queue_sensor"))) == 7


def test_without_due_rows_the_planner_reports_accounts_without_payment(stage: Stage):
    assert "No recording waits" in skipped(stage.tick("backfill_queue_sensor"))
    stage.bench.submit_request(isrcs(2))
    stage.bench.deny(stage.bench.account)
    assert "No payment method: no account with a saved card requests any of 2 waiting recordings." in skipped(
        stage.tick("backfill_queue_sensor")
    )


def test_a_spent_budget_reports_when_the_next_hit_becomes_available(stage: Stage):
    songs = isrcs(3)
    stage.bench.submit_request(songs)
    stage.bench.run_backfill(songs[:1])
    stage.with_hits_allowed(1)
    reason = skipped(stage.tick("backfill_queue_sensor"))
    reserved = stage.bench.ledger()[0]["reserved_at"]
    frees = stage.bench.sql("select %s + interval '30 days' t", reserved)[0]["t"]
    assert f"1 of 1 hits in the last 30 days. Next hit available {utc_minute(frees)}." in reason


def test_a_pause_and_an_open_breaker_are_reported_with_their_reason(stage: Stage):
    songs = isrcs(3)
    stage.bench.submit_request(songs)
    stage.bench.sandbox.faults(HISTORY, status=429, retry_after=900)
    stage.bench.run_backfill(songs)
    assert skipped(stage.tick("backfill_queue_sensor")).startswith("Calls to Songstats paused until 2")
    stage.bench.sql("update vendor_state set breaker = 'open', reason = 'the key was refused'")
    assert skipped(stage.tick("backfill_queue_sensor")).startswith("Circuit breaker open: the key was refused.")


def test_a_free_probe_ends_a_pause_and_the_planner_continues(stage: Stage):
    songs = isrcs(3)
    stage.bench.submit_request(songs)
    assert skipped(stage.tick("vendor_probe_sensor")) == "no pause to end"
    stage.bench.sandbox.faults("/enterprise/v1/", status=429)
    stage.bench.run_backfill(songs)
    stage.bench.sql("update vendor_state set paused_until = now() + interval '15 minutes'")
    assert "continues" in skipped(stage.tick("vendor_probe_sensor"))
    assert "`GET /status`" in skipped(stage.tick("backfill_queue_sensor"))
    stage.bench.sandbox.clear_faults()
    assert "has ended" in skipped(stage.tick("vendor_probe_sensor"))
    assert stage.tick("backfill_queue_sensor").run_requests


def test_an_unpaid_row_is_never_planned_before_a_paid_one(stage: Stage):
    unpaid, paid = isrcs(5), isrcs(5, start=100)
    unpaid_account = uuid4()
    stage.bench.submit_request(unpaid, account=unpaid_account, ranks=[10**9] * 5)
    stage.bench.deny(unpaid_account)
    stage.bench.submit_request(paid, ranks=[1] * 5)
    requested = ranges(stage.tick("backfill_queue_sensor"))
    assert sum(count for *_, count in requested) == 5
    assert {first for first, _, _ in requested} <= set(paid)


def test_accounts_share_the_hits_and_what_was_bought_before_counts(stage: Stage):
    large, small, other = isrcs(40), isrcs(5, start=100), uuid4()
    stage.bench.submit_request(large, ranks=range(1040, 1000, -1))
    stage.with_hits_allowed(10)
    assert sum(count for _, _, count in ranges(stage.tick("backfill_queue_sensor"))) == 10
    stage.bench.run_backfill(large[:4])
    stage.bench.submit_request(small, account=other, ranks=[1] * 5)
    planned = {first: count for first, _, count in ranges(stage.tick("backfill_queue_sensor"))}
    assert planned == {large[4]: 3, small[0]: 3}
    stage.bench.sql("update accounts set share_weight = 2 where id = %s", other)
    planned = {first: count for first, _, count in ranges(stage.tick("backfill_queue_sensor"))}
    assert planned == {large[4]: 2, small[0]: 4}
    stage.bench.sql("update accounts set monthly_hit_cap = 1 where id = %s", other)
    planned = {first: count for first, _, count in ranges(stage.tick("backfill_queue_sensor"))}
    assert planned == {large[4]: 5, small[0]: 1}


def test_each_plan_has_its_own_run_keys(stage: Stage):
    stage.bench.submit_request(isrcs(3))
    keys = [request.run_key for _ in range(3) for request in stage.tick("backfill_queue_sensor").run_requests]
    assert len(set(keys)) == 3


def test_a_dead_run_is_reported_failed_and_its_rows_are_planned_again(stage: Stage):
    songs = isrcs(2)
    stage.bench.submit_request(songs)
    stage.register(songs)
    job = stage.definitions.resolve_job_def("songstats_backfill")
    covering = {tags.RANGE_START: songs[0], tags.RANGE_END: songs[1], tags.PLAN: "plan-1"}
    run = stage.instance.create_run_for_job(job, tags=covering)
    stage.instance.report_engine_event("starting", run)
    stage.instance.handle_new_event(started_event(run.run_id, seconds_ago=3600))
    stage.bench.sql("insert into run_heartbeats values (%s, now() - interval '10 minutes')", run.run_id)
    stage.bench.sql(
        "update songstats_backfill_queue set status = 'in_progress', claimed_by = %s, lease = 1,"
        " heartbeat_at = now() - interval '10 minutes'",
        run.run_id,
    )
    assert ranges(stage.tick("backfill_queue_sensor")) == [(songs[0], songs[1], 2)]
    result = stage.instance.get_run_by_id(run.run_id)
    assert result is not None
    assert result.status is dg.DagsterRunStatus.FAILURE


def test_a_run_with_heartbeats_is_not_reported_dead_after_any_runtime(stage: Stage):
    songs = isrcs(2)
    stage.bench.submit_request(songs)
    stage.register(songs)
    job = stage.definitions.resolve_job_def("songstats_backfill")
    run = stage.instance.create_run_for_job(job, tags={tags.RANGE_START: songs[0], tags.RANGE_END: songs[1]})
    stage.instance.handle_new_event(started_event(run.run_id, seconds_ago=36000))
    stage.bench.sql("insert into run_heartbeats values (%s, now())", run.run_id)
    assert "2 of 2 due recordings" in skipped(stage.tick("backfill_queue_sensor"))


def test_a_request_with_more_recordings_than_one_tick_registers_takes_several_ticks(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(partitions, "_MAX_RECORDINGS", 2)
    songs = isrcs(5)
    stage.bench.submit_request(songs)
    registered = []
    for _ in range(4):
        count = register_requested(stage.instance, stage.bench.database_url)
        registered.append((count, stage.instance.get_dynamic_partitions("isrc")))
    assert registered == [(2, songs[:2]), (2, songs[:4]), (1, songs), (0, songs)]


def started_event(run_id: str, *, seconds_ago: float) -> dg.EventLogEntry:
    """The start event of a run, dated `seconds_ago`."""
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "songstats_backfill")
    return dg.EventLogEntry(
        error_info=None,
        level=20,
        user_message="",
        run_id=run_id,
        timestamp=time.time() - seconds_ago,
        job_name="songstats_backfill",
        dagster_event=event,
    )
