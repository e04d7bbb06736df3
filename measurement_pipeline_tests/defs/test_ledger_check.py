"""The daily comparison with the vendor's count, as Dagster shows it to an operator."""

import asyncio

import dagster as dg

from measurement_pipeline.defs.asset_keys import PIPELINE_HEALTH
from measurement_pipeline_tests.defs.conftest import Stage
from measurement_pipeline_tests.workbench import isrcs

HISTORY = "/enterprise/v1/tracks/historic_stats"
STATUS = "/enterprise/v1/status"


def compare(stage: Stage) -> dg.AssetCheckEvaluation:
    job = stage.definitions.resolve_job_def("ledger_reconciliation")
    run = job.execute_in_process(instance=stage.instance, raise_on_error=False)
    assert run.success, "a drift warns, it fails nothing"
    (row,) = run.get_asset_check_evaluations()
    assert (row.asset_key, row.check_name) == (PIPELINE_HEALTH, "ledger_matches_vendor")
    assert row.severity is dg.AssetCheckSeverity.WARN
    return row


def figure(evaluation: dg.AssetCheckEvaluation, name: str) -> object:
    return evaluation.metadata[name].value


def test_a_ledger_equal_to_the_vendors_count_passes_with_both_figures(stage: Stage, sandbox):
    stage.bench.submit_request(isrcs(9))
    stage.bench.run_backfill(isrcs(9))
    result = compare(stage)
    assert result.passed
    assert figure(result, "Songstats: requests") == figure(result, "ledger: counted") == 9
    assert figure(result, "Songstats: objects") == figure(result, "ledger: recordings answered") == 9
    assert sandbox.hits() == 9, "asking costs no hit"


def test_calls_with_lost_responses_explain_the_vendors_count(stage: Stage, sandbox):
    stage.bench.submit_request(isrcs(1))
    sandbox.faults(HISTORY, close=True, count=1)
    stage.bench.run_backfill(isrcs(1))
    result = compare(stage)
    assert result.passed
    assert figure(result, "ledger: unknown") == 1
    assert figure(result, "Songstats: requests") == 1
    assert figure(result, "drift: requests, unexplained") == 0


def test_another_user_of_the_key_is_reported_as_drift_and_stops_nothing(stage: Stage, sandbox):
    async def call_as_another_user() -> None:
        async with stage.bench.dependencies.new_client() as client:
            for song in isrcs(8, start=100):
                await client.fetch_history(song)

    asyncio.run(call_as_another_user())
    stage.bench.submit_request(isrcs(2))
    result = compare(stage)
    assert not result.passed
    assert "+8 requests" in (result.description or "")
    assert figure(result, "drift: requests, unexplained") == 8
    assert stage.breaker() == "closed"
    stage.bench.run_backfill(isrcs(2))
    assert stage.bench.statuses() == {"stored": 2}


def test_an_unreachable_vendor_or_a_rejected_key_is_unknown_and_does_not_pass(stage: Stage, sandbox):
    stage.bench.submit_request(isrcs(1))
    stage.bench.run_backfill(isrcs(1))
    for fault, why in (
        ({"status": 503}, "HTTP 503"),
        ({"status": 401}, "HTTP 401"),
        ({"body": "<html>"}, "the response is not JSON"),
    ):
        sandbox.clear_faults()
        sandbox.faults(STATUS, **fault)
        result = compare(stage)
        assert not result.passed
        assert f"is unknown ({why}" in (result.description or "").replace("its answer is ", "")
        assert figure(result, "Songstats: requests") == "unknown"
        assert "drift: requests" not in result.metadata
    assert stage.breaker() == "closed", "errors during a comparison are no evidence"
