"""The points at which a run can die (crash_points.py), met by the real run of the real daemon, which then goes on by itself."""

import os
import signal

import pytest

from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.faults import crash_points
from measurement_pipeline_tests.faults.crash_points import CrashPoint, In, armed
from measurement_pipeline_tests.faults.matrix import Proves
from measurement_pipeline_tests.faults.stage import Stage, everything_is_stored_and_accounted_for, stage
from measurement_pipeline_tests.faults.waiting import until
from measurement_pipeline_tests.workbench import isrcs

POINTS = (crash_points.AFTER_THE_RESERVATION, crash_points.AFTER_KEEPING, crash_points.AFTER_STORING)
RECORDINGS = 30
OCCURRENCE = 2

_HELD = "select pid from pg_locks where locktype = 'advisory' and not granted"
_END = f"select pg_terminate_backend(pid) from ({_HELD}) as held"


@pytest.mark.long
@pytest.mark.dagster
def test_a_run_that_is_killed_at_a_point_is_followed_by_one_that_ends_what_it_began(proves: Proves):
    with stage(SONGSTATS_REQUESTS_PER_SECOND="20") as processes:
        asked: list[str] = []
        for number, point in enumerate(POINTS):
            songs = isrcs(RECORDINGS, start=number * RECORDINGS)
            die_at(processes, point, songs)
            asked += songs
            processes.wait(processes.at_rest, seconds=180, what=f"the end of the drain after a death {point.name}")
            processes.reclaim()
            causes = everything_is_stored_and_accounted_for(processes, asked)
            # A second call only where the first one's answer was never kept.
            assert causes["stored"] == len(asked)
            assert processes.sandbox.hits() <= causes.total()
            proves(
                f"SIGKILL of a Dagster run {point.name}",
                ["I1", "I2", "I3", "I4", "I5", "I6", "I10", "I11", "I12", "I13", "I14"],
            )


def die_at(processes: Stage, point: CrashPoint, songs: list[str]) -> None:
    """Ask for `songs` and kill the run that is the first to be held at `point`; what it was in the middle of is undone."""
    url = processes.target.dagster_url if point.database is In.DAGSTER else processes.target.database_url
    with armed(url, point, occurrence=OCCURRENCE), connect(url) as tester:
        processes.ask_for(songs)
        processes.wait(lambda: tester.execute(_HELD).fetchone(), seconds=120, what=f"a run held {point.name}")
        (victim,) = processes.run_processes()
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in processes.run_processes(), what="the death of the run")
        tester.execute(_END)
        until(lambda: not tester.execute(_HELD).fetchone(), what="the end of what it was in the middle of")
