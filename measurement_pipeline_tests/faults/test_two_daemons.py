"""Two daemons on one Dagster instance, by mistake, for a whole backfill."""

from dataclasses import replace

import pytest

from measurement_pipeline_tests.faults.local_deployment import (
    DAEMON,
    assert_all_requests_accounted_for,
    start_deployment,
)
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.workbench import isrcs

SECOND = "second-daemon"

# Each daemon thread registers every 30 s, and then sees earlier registrations.
_SEEN = "Another SENSOR daemon is still sending heartbeats"


@pytest.mark.long
@pytest.mark.dagster
def test_two_daemons_buy_nothing_twice_and_the_operator_is_alerted(record_proof: ProofRecorder):
    songs = isrcs(200)
    with start_deployment(SONGSTATS_REQUESTS_PER_SECOND="5") as processes:
        daemon = processes.dagster.daemon()
        second = replace(daemon, name=SECOND, log=processes.dagster.logs / f"{SECOND}.log")
        processes.running.start(second)
        processes.submit_request(songs)
        processes.wait(processes.is_at_rest, seconds=300, what="the end of the backfill")
        logs = [processes.dagster.logs / f"{name}.log" for name in (DAEMON, SECOND)]
        processes.wait(lambda: any(_SEEN in log.read_text() for log in logs), seconds=90, what="the complaint")
        processes.reclaim()
        causes = assert_all_requests_accounted_for(processes, songs)
        assert causes == {"stored": len(songs)}
        assert processes.sandbox.hits() == len(songs)
    record_proof(
        "two daemons on one Dagster instance during a backfill",
        ["I1", "I2", "I3", "I4", "I5", "I6", "I10", "I11", "I12", "I13", "I14"],
    )
