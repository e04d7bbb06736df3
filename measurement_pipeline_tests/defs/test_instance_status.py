"""What Dagster's instance shows of backfill runs, those of operators and of the sensor together."""

import dagster as dg
import pytest

from measurement_pipeline.defs.asset_keys import SONGSTATS_HISTORY
from measurement_pipeline.defs.health.checks import ledger_matches_vendor
from measurement_pipeline.defs.instance_status import ASSET_JOB, read_instance_state
from measurement_pipeline.health.stall_checks import InstanceState
from measurement_pipeline_tests.dagster_private import make_new_run_id
from measurement_pipeline_tests.defs.conftest import Stage

PLANNED, BY_HAND = "songstats_backfill", ASSET_JOB


def a_run(stage: Stage, job: str, *, checks: bool = False, failed: bool = False) -> str:
    """A queued or failed run; with `checks`, a launch of these alone from the asset's page."""
    run = dg.DagsterRun(
        job_name=job,
        run_id=make_new_run_id(),
        asset_selection=None if checks or job == PLANNED else frozenset({SONGSTATS_HISTORY}),
        asset_check_selection=frozenset(ledger_matches_vendor.check_keys) if checks else None,
        status=dg.DagsterRunStatus.NOT_STARTED,
    )
    stage.instance.add_run(run)
    if failed:
        stage.instance.report_run_failed(run, "the store is full")
    return run.run_id


def look(stage: Stage) -> InstanceState:
    return read_instance_state(stage.instance, sensor="backfill_queue_sensor", job=PLANNED, asset=SONGSTATS_HISTORY)


@pytest.mark.parametrize("jobs", [(PLANNED, BY_HAND), (BY_HAND, PLANNED)])
def test_the_latest_and_the_oldest_run_include_operators_runs(stage: Stage, jobs: tuple[str, str]):
    failed = [a_run(stage, job, failed=True) for job in jobs]
    queued = [a_run(stage, job) for job in jobs]
    result = look(stage)
    assert result.failed is not None
    assert result.failed.id == failed[-1]
    assert result.queued is not None
    assert result.queued.id == queued[0]


def test_checks_launched_from_the_assets_page_are_not_backfill_runs(stage: Stage):
    a_run(stage, BY_HAND, checks=True, failed=True)
    a_run(stage, BY_HAND, checks=True)
    result = look(stage)
    assert (result.failed, result.queued) == (None, None)
