"""The crash points of crash_points.py, hit by a run of the real daemon, which then continues by itself."""

import os
import signal

import pytest

from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.faults import crash_points
from measurement_pipeline_tests.faults.crash_points import CrashDatabase, CrashPoint, arm
from measurement_pipeline_tests.faults.local_deployment import (
    LocalDeployment,
    assert_all_requests_accounted_for,
    start_deployment,
)
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import isrcs

POINTS = (crash_points.AFTER_THE_RESERVATION, crash_points.AFTER_KEEPING, crash_points.AFTER_STORING)
RECORDINGS = 30
OCCURRENCE = 2

_HELD = "select pid from pg_locks where locktype = 'advisory' and not granted"
_END = f"select pg_terminate_backend(pid) from ({_HELD}) as held"


@pytest.mark.long
@pytest.mark.dagster
def test_the_next_run_finishes_the_work_of_a_run_killed_at_a_point(record_proof: ProofRecorder):
    with start_deployment(SONGSTATS_REQUESTS_PER_SECOND="20") as processes:
        requested: list[str] = []
        for number, point in enumerate(POINTS):
            songs = isrcs(RECORDINGS, start=number * RECORDINGS)
            kill_run_at(processes, point, songs)
            requested += songs
            processes.wait(
                processes.is_at_rest, seconds=180, what=f"the end of the backfill after a death {point.name}"
            )
            processes.reclaim()
            causes = assert_all_requests_accounted_for(processes, requested)
            # A second call only if the first response was never stored.
            assert causes["stored"] == len(requested)
            assert processes.sandbox.hits() <= causes.total()
            record_proof(
                f"SIGKILL of a Dagster run {point.name}",
                ["I1", "I2", "I3", "I4", "I5", "I6", "I10", "I11", "I12", "I13", "I14"],
            )


def kill_run_at(processes: LocalDeployment, point: CrashPoint, songs: list[str]) -> None:
    """Submit `songs` and kill the first run that blocks at `point`; its current statement is undone."""
    url = processes.target.dagster_url if point.database is CrashDatabase.DAGSTER else processes.target.database_url
    with arm(url, point, occurrence=OCCURRENCE), connect(url) as tester:
        processes.submit_request(songs)
        processes.wait(lambda: tester.execute(_HELD).fetchone(), seconds=120, what=f"a run held {point.name}")
        (victim,) = processes.run_processes()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in processes.run_processes(), what="the death of the run")
        tester.execute(_END)
        wait_until(lambda: not tester.execute(_HELD).fetchone(), what="the end of what it was in the middle of")
