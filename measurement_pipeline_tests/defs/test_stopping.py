"""A run that is stopped while it buys stores the calls in flight and logs one line about them."""

import os
import signal
import threading
import time
from dataclasses import replace

import dagster as dg
import pytest

from measurement_pipeline.defs.health.interruptions import interruption
from measurement_pipeline.defs.stopping import CANCELLED, TERMINATED
from measurement_pipeline.domain.text import counted
from measurement_pipeline.services import Songstats
from measurement_pipeline_tests.defs.conftest import Stage, definitions
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import Gate, isrcs


def stopped(stage: Stage, *, cancelled: bool) -> dg.DagsterRun:
    """Run a backfill and interrupt it as Dagster does, once its first call is in flight."""
    songs = isrcs(8)
    stage.bench.submit_request(songs)
    stage.register(songs)
    gate = Gate()
    dependencies = gate.delay_responses(stage.services.backfill_dependencies, stage.bench.sandbox)
    stage.services = replace(stage.services, songstats=Songstats(dependencies.new_client))
    stage.definitions = definitions(stage.services)

    def interrupt() -> None:
        wait_until(lambda: bool(stage.bench.sandbox.hits()), what="a call")
        if cancelled:
            (run,) = stage.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
            stage.instance.report_run_canceling(run)
        os.kill(os.getpid(), signal.SIGTERM)
        # The run's thread takes the signal while it waits for answers, and not while it shows one.
        time.sleep(1)
        gate.open()

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = stage.backfill(songs)
    thread.join()
    run = stage.instance.get_run_by_id(result.run_id)
    assert run is not None
    return run


def stacks(stage: Stage, run: dg.DagsterRun) -> list[str]:
    """The errors in the run's log that come with a stack."""
    errors = [
        getattr(entry.dagster_event.event_specific_data, "error", None)
        for entry in stage.instance.all_logs(run.run_id)
        if entry.dagster_event is not None
    ]
    return [error.message for error in errors if error and (error.stack or error.cause or error.context)]


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_stopped_run_stores_calls_in_flight_and_ends_with_one_line(stage: Stage, *, cancelled: bool):
    run = stopped(stage, cancelled=cancelled)
    assert run.status is (dg.DagsterRunStatus.CANCELED if cancelled else dg.DagsterRunStatus.FAILURE)
    assert stacks(stage, run) == []
    log = "".join(str(entry.dagster_event) for entry in stage.instance.all_logs(run.run_id))
    assert (CANCELLED if cancelled else TERMINATED) in log
    settled = stage.bench.sandbox.hits()
    assert f"{settled} of 8 claimed recordings settled; {counted(settled, 'call')} made" in stage.log(run.run_id)
    statuses = stage.bench.statuses()
    assert statuses["stored"] == stage.bench.sandbox.hits()
    assert statuses["stored"] + statuses.get("pending", 0) == 8
    assert set(stage.metadata_by_isrc()) == {
        row["song"] for row in stage.bench.sql("select song from songstats_backfill_queue where outcome = 'stored'")
    }


def test_a_run_terminated_by_a_stopped_dev_is_an_interruption(stage: Stage):
    stopped(stage, cancelled=False)
    (run,) = stage.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert "terminated" in str(interruption(stage.instance, run))
