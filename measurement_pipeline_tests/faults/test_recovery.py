"""How soon a drain goes on once the vendor is back: in real processes, however long the pause had become."""

import pytest

from measurement_pipeline_tests.faults.matrix import Proves
from measurement_pipeline_tests.faults.stage import Stage, stage
from measurement_pipeline_tests.workbench import isrcs

# The whole vendor, `GET /status` too.
VENDOR = "/enterprise/"
_PAUSE = """
select coalesce(extract(epoch from paused_until - clock_timestamp()), 0) as seconds
from vendor_state
where vendor = 'songstats'
"""


def pause_seconds(processes: Stage) -> float:
    return float(processes.bench.sql(_PAUSE)[0]["seconds"])


@pytest.mark.long
@pytest.mark.dagster
def test_after_a_storm_of_429_the_drain_goes_on_within_a_minute_of_the_vendors_return(proves: Proves):
    songs = isrcs(40)
    with stage() as processes:
        processes.sandbox.faults(VENDOR, status=429)
        processes.ask_for(songs)
        # Pauses double: by now the one that goes on would last longer than a minute.
        processes.wait(lambda: pause_seconds(processes) > 70, seconds=300, what="a pause of more than a minute")
        processes.sandbox.clear_faults()
        processes.wait(processes.settled, seconds=60, what="the first recording after the vendor's return")
        processes.wait(processes.at_rest, seconds=120, what="the end of the drain")
        bench = processes.bench
        assert {row["attempts"] for row in bench.sql("select attempts from songstats_backfill_queue")} == {1}
        causes = {(hit["reason"], hit["billable"]) for hit in bench.ledger()}
        assert causes == {("stored", True), ("throttled", False)}
        assert sum(hit["billable"] for hit in bench.ledger()) == len(songs)
        processes.reclaim()
        stored = [hit for hit in bench.ledger() if hit["reason"] == "stored"]
        assert len(stored) == len(songs)
    proves("vendor: 429 until pauses last longer than a minute, then well again", ["I6", "I9", "I11"])
