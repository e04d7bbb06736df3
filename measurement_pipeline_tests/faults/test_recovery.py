"""How soon a backfill resumes after the vendor recovers, in real processes and however long the pause had become."""

import pytest

from measurement_pipeline_tests.faults.local_deployment import LocalDeployment, start_deployment
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.workbench import isrcs

# All routes of the vendor, including `GET /status`.
VENDOR = "/enterprise/"
_PAUSE = """
select coalesce(extract(epoch from paused_until - clock_timestamp()), 0) as seconds
from vendor_state
where vendor = 'songstats'
"""


def pause_seconds(processes: LocalDeployment) -> float:
    return float(processes.bench.sql(_PAUSE)[0]["seconds"])


@pytest.mark.long
@pytest.mark.dagster
def test_a_backfill_resumes_within_a_minute_after_the_last_429(record_proof: ProofRecorder):
    songs = isrcs(40)
    with start_deployment() as processes:
        processes.sandbox.faults(VENDOR, status=429)
        processes.submit_request(songs)
        # Pauses double: without the probe, the current one would last longer than a minute.
        processes.wait(lambda: pause_seconds(processes) > 70, seconds=300, what="a pause of more than a minute")
        processes.sandbox.clear_faults()
        processes.wait(processes.count_settled, seconds=60, what="the first recording after the vendor's return")
        processes.wait(processes.is_at_rest, seconds=120, what="the end of the backfill")
        bench = processes.bench
        assert {row["attempts"] for row in bench.sql("select attempts from songstats_backfill_queue")} == {1}
        causes = {(hit["reason"], hit["billable"]) for hit in bench.ledger()}
        assert causes == {("stored", True), ("throttled", False)}
        assert sum(hit["billable"] for hit in bench.ledger()) == len(songs)
        processes.reclaim()
        stored = [hit for hit in bench.ledger() if hit["reason"] == "stored"]
        assert len(stored) == len(songs)
    record_proof("vendor: 429 until pauses last longer than a minute, then recovered", ["I6", "I9", "I11"])
