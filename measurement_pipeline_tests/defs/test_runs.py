"""Effects of the real jobs on the queue and in Dagster, for planned and for operators' runs."""

import json

import dagster as dg

from measurement_pipeline.backfill.run import BackfillRun
from measurement_pipeline.defs import tags
from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.dagster_private import create_execution_plan
from measurement_pipeline_tests.defs.conftest import Stage
from measurement_pipeline_tests.workbench import OPERATORS, isrcs


def test_a_planned_run_materializes_each_recording_with_its_outcome(stage: Stage):
    songs = isrcs(3)
    job = stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sandbox.faults(HISTORY, status=404, isrc=songs[2])
    result = stage.backfill(songs)
    assert result.success
    materialized = stage.metadata_by_isrc()
    assert {song: materialized[song]["outcome"] for song in songs} == {
        songs[0]: "stored",
        songs[1]: "stored",
        songs[2]: "no_history",
    }
    metadata = materialized[songs[0]]
    assert metadata["points"] > 0
    assert metadata["hit"] is True
    assert metadata["cost_eur"] == 0.0833
    assert metadata["measurement_job"] == str(job)
    assert len(metadata["response_sha256"]) == 64
    assert metadata["first_date"] < metadata["last_date"]
    run = stage.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[f"measurement_job/{job}"] == "requested"
    assert run.tags[f"account/{stage.bench.account}"] == "pays"


def test_a_run_logs_its_progress(stage: Stage):
    songs = isrcs(4)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.backfill(songs[:1])
    stage.bench.sandbox.faults(HISTORY, isrc=songs[1], status=404)
    stage.bench.sandbox.faults(HISTORY, isrc=songs[2], body="not json")
    run = stage.backfill(songs)
    assert "2 of 3 claimed recordings settled, 1 already stored, 1 failed; 3 calls made" in stage.log(run.run_id)


def test_a_run_yields_empty_batches_while_no_row_is_settled(stage: Stage):
    songs = isrcs(1)
    stage.bench.submit_request(songs)
    stage.bench.sandbox.faults(HISTORY, delay=1.2)
    coverage = BackfillRun(
        songs, run="run", is_operator=False, config=stage.bench.config, dependencies=stage.bench.dependencies
    )
    seen = [(len(batch), coverage.progress) for batch in coverage.batches()]
    assert seen[0] == (0, "0 of 1 claimed recordings settled; 1 call made")
    assert "1 of 1 claimed recordings settled; 1 call made" in dict(reversed(seen)).values()


def test_deferred_recordings_stay_missing_and_the_run_succeeds(stage: Stage):
    songs = isrcs(8)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sandbox.faults(HISTORY, status=429, retry_after=600, isrc=songs[4])
    result = stage.backfill(songs)
    assert result.success
    assert 0 < len(stage.metadata_by_isrc()) < 8
    statuses = stage.partition_statuses()
    assert "FAILED" not in statuses.values()
    assert songs[4] not in stage.metadata_by_isrc()
    totals = stage.totals()
    assert totals["deferred"] >= 1
    assert "asks for a pause" in totals["stopped because"]


def test_a_failed_row_has_a_failed_partition_and_settled_rows_stay_materialized(stage: Stage):
    songs = isrcs(6)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.backfill(songs[:2])
    stage.bench.sandbox.faults(HISTORY, body="not json", isrc=songs[4])
    result = stage.backfill(songs)
    assert not result.success
    assert stage.partition_statuses() == {song: "FAILED" if song == songs[4] else "MATERIALIZED" for song in songs}
    assert "1 recording failed (" in stage.failure_message(result)
    assert stage.bench.sandbox.hits() == 6


def test_a_breaker_that_opens_fails_the_run_with_the_reason(stage: Stage):
    songs = isrcs(30)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sandbox.faults("/enterprise", status=401)
    result = stage.backfill(songs)
    assert not result.success
    assert "the breaker opened" in stage.failure_message(result)
    assert stage.bench.sandbox.hits() <= 5


def test_a_transient_failure_is_retried_within_the_run(stage: Stage):
    songs = isrcs(2)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sandbox.faults(HISTORY, status=502, isrc=songs[1], count=1)
    result = stage.backfill(songs)
    assert result.success
    assert {metadata["outcome"] for metadata in stage.metadata_by_isrc().values()} == {"stored"}
    materialized = stage.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert len(materialized) == 2, "rows that the first try settled are not reported again"
    assert stage.bench.row(songs[1])["attempts"] == 1


def test_an_operators_launch_of_a_stored_recording_spends_no_hit_and_reports_it(stage: Stage):
    songs = isrcs(1)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.backfill(songs)
    result = stage.backfill(songs, planned=False)
    assert result.success
    assert stage.bench.sandbox.hits() == 1
    (latest,) = stage.instance.fetch_materializations(SONGSTATS_HISTORY, limit=1).records
    assert latest.asset_materialization is not None
    assert "no hit was spent" in str(latest.asset_materialization.description)


def test_an_operators_run_that_cannot_buy_fails_with_one_line(stage: Stage):
    songs = isrcs(2)
    stage.register(songs)
    result = stage.backfill(songs, planned=False)
    assert not result.success
    assert "2 selected recordings could not be bought" in stage.failure_message(result)
    assert "BACKFILL_ACCOUNT_ID" in stage.failure_message(result)
    assert stage.bench.sandbox.hits() == 0


def test_an_operator_buys_an_absent_recording_for_the_operators_account(stage: Stage):
    songs = isrcs(1)
    stage.register(songs)
    stage.bench.sandbox.card(str(OPERATORS))
    result = stage.backfill(songs, planned=False)
    assert result.success
    assert stage.metadata_by_isrc()[songs[0]]["account"] == str(OPERATORS)


def test_re_executing_a_planned_run_is_an_operators_launch(stage: Stage):
    songs = isrcs(1)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sandbox.faults(HISTORY, body="not json", count=1)
    assert not stage.backfill(songs).success
    run = stage.instance.get_runs()[0]
    assert not tags.is_operators(run)
    assert tags.is_operators(run._replace(parent_run_id=run.run_id))


def test_intake_turns_a_request_into_queue_rows_and_an_answer(stage: Stage):
    songs = isrcs(3)
    job = stage.submit_request({"isrcs": songs})
    result = stage.intake()
    assert result.success
    (row,) = stage.bench.sql("select * from measurement_jobs where id = %s", job)
    assert (row["state"], row["status_code"], row["asked"], row["enqueued"], row["skipped"]) == (
        "accepted",
        202,
        3,
        3,
        0,
    )
    assert stage.bench.statuses() == {"pending": 3}


def test_a_request_without_a_card_gets_a_checkout_link_and_continues_with_a_card(stage: Stage):
    stage.bench.sandbox.card(str(stage.bench.account), on_file=False)
    job = stage.submit_request({"isrcs": isrcs(2)})
    stage.intake()
    (row,) = stage.bench.sql("select * from measurement_jobs where id = %s", job)
    assert (row["state"], row["status_code"]) == ("payment_required", 402)
    assert row["checkout_url"].startswith(stage.bench.sandbox.stripe_url)
    assert stage.bench.statuses() == {}
    stage.bench.sandbox.card(str(stage.bench.account))
    assert stage.reclaim().success
    (row,) = stage.bench.sql("select * from measurement_jobs where id = %s", job)
    assert (row["state"], row["enqueued"], row["error"]) == ("accepted", 2, None)


def test_an_unreachable_stripe_leaves_the_request_queued_without_a_decision(stage: Stage):
    stage.bench.sandbox.faults("/v1/", status=500)
    job = stage.submit_request({"isrcs": isrcs(2)})
    assert stage.intake().success
    (row,) = stage.bench.sql("select * from measurement_jobs where id = %s", job)
    assert row["state"] == "queued"
    assert row["not_before"] is not None
    assert row["attempts"] == 0
    assert stage.bench.statuses() == {}
    assert stage.bench.sql("select * from payment_decisions") == []


def test_the_reclaim_run_reports_rows_that_a_crash_left_unreported(stage: Stage):
    songs = isrcs(3)
    stage.bench.submit_request(songs)
    stage.bench.run_backfill(songs)  # stored without Dagster
    assert stage.metadata_by_isrc() == {}
    assert stage.reclaim().success
    assert set(stage.metadata_by_isrc()) == set(songs)
    assert set(stage.partition_statuses().values()) == {"MATERIALIZED"}


def test_the_reclaim_run_restores_partitions_that_a_failed_run_did_not_reach(stage: Stage):
    stored, failed, untried, absent = songs = isrcs(4)
    stage.bench.submit_request(songs[:3])
    stage.register(songs)
    assert stage.backfill([stored]).success
    stage.bench.sandbox.faults(HISTORY, isrc=failed, body="not json")
    stage.backfill([failed])
    run = stage.instance.create_run_for_job(
        stage.definitions.resolve_job_def("songstats_backfill"),
        tags={tags.RANGE_START: stored, tags.RANGE_END: absent},
    )
    stage.instance.report_run_failed(run, "the disk is full")
    assert stage.partition_statuses() == dict.fromkeys(songs, "FAILED")
    assert stage.reclaim().success
    assert stage.partition_statuses() == {stored: "MATERIALIZED", failed: "FAILED"}
    assert stage.instance.get_materialized_partitions(SONGSTATS_HISTORY) == {stored}
    assert untried in stage.instance.get_dynamic_partitions("isrc")


def test_the_reclaim_run_closes_only_a_key_breaker_once_the_key_works(stage: Stage):
    songs = isrcs(10)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sandbox.faults("/enterprise", status=401)
    stage.backfill(songs)
    stage.reclaim()
    assert stage.breaker() == "open"
    stage.bench.sandbox.clear_faults()
    stage.reclaim()
    assert stage.breaker() == "closed"
    stage.bench.sandbox.faults(HISTORY, status=400)
    stage.backfill(songs)
    stage.bench.sandbox.clear_faults()
    stage.reclaim()
    assert stage.breaker() == "open", "only a person closes a streak breaker"


def test_the_reclaim_run_fails_with_the_database(stage: Stage):
    stage.bench.sql("drop table run_heartbeats")
    assert not stage.reclaim().success


def test_logs_and_rows_of_a_run_contain_no_secret(stage: Stage):
    songs = isrcs(3)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sandbox.faults(HISTORY, status=400, isrc=songs[0])
    result = stage.backfill(songs)
    logs = json.dumps([dg.serialize_value(entry) for entry in stage.instance.all_logs(result.run_id)])
    rows = str(stage.bench.sql("select * from songstats_responses")) + str(
        stage.bench.sql("select * from songstats_quota_ledger")
    )
    for secret in (stage.bench.sandbox.songstats_key, stage.bench.sandbox.stripe_key):
        assert secret not in logs
        assert secret not in rows


def test_a_retry_within_the_run_does_not_hide_an_earlier_failure(stage: Stage):
    songs = isrcs(4)
    stage.bench.submit_request(songs)
    stage.register(songs)
    stage.bench.sandbox.faults(HISTORY, isrc=songs[1], body="not json")
    stage.bench.sandbox.faults(HISTORY, isrc=songs[2], status=502, count=1)
    result = stage.backfill(songs)
    assert not result.success
    assert "1 recording failed (1 malformed)" in stage.failure_message(result)
    assert stage.partition_statuses() == {song: "FAILED" if song == songs[1] else "MATERIALIZED" for song in songs}


def test_step_outputs_are_persisted_so_that_a_failed_step_can_run_again(stage: Stage):
    job = stage.definitions.resolve_job_def("songstats_backfill")
    plan = create_execution_plan(job, instance_ref=stage.instance.get_ref(), tags={tags.PARTITION: "AA6Q72000000"})
    assert plan.artifacts_persisted
