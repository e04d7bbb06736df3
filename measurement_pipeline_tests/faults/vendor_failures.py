"""Backfills through vendor failures: one run after another, as the planner requests them, with every request accounted for.

Tests move time in the database and never sleep: they set the end of each wait to now.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.backfill.planning import BackfillPlan, plan_backfill
from measurement_pipeline.backfill.run import BackfillRun
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.faults.invariants import HISTORY, assert_invariants_hold
from measurement_pipeline_tests.workbench import Workbench

# Status in the vendor's log → the hit's cause and billability in the ledger. Status None means that no response went out.
_ANSWERED = ("stored", True)
_LOST = frozenset({("transient", None), ("timeout: unknown", None)})
# Something other than Songstats responded with one of its statuses.
_FOREIGN = ("transient", None)
_BY_STATUS: dict[int, tuple[str, bool]] = {
    401: ("refused key", False),
    402: ("refused key", False),
    404: ("no history", True),
    408: ("transient", False),
    425: ("transient", False),
    429: ("throttled", False),
}
# A 200 with a fault may be complete, of any shape, or cut short.
_SPOILED = _LOST | {_ANSWERED, ("malformed", True), ("no history", True)}

_run = count(1)


def run_backfill(bench: Workbench, songs: Sequence[str], **options: Any) -> BackfillRun:
    """Run one backfill over all of `songs`."""
    return bench.run_backfill(songs, run=f"run-{next(_run)}", **options)[0]


@dataclass(frozen=True)
class _RegisteredPartitions:
    """A partition for each of `songs`, in this order, and no run in progress."""

    songs: Sequence[str]

    def covered(self) -> Sequence[str]:
        return []

    def places(self, songs: Sequence[str]) -> Mapping[str, int]:
        return {song: self.songs.index(song) for song in songs if song in self.songs}

    def near(self, songs: Sequence[str], distance: int) -> Sequence[str]:
        places = self.places(songs).values()
        return [song for place, song in enumerate(self.songs) if any(abs(place - one) <= distance for one in places)]

    def register(self, songs: Sequence[str]) -> None:
        raise AssertionError(f"{songs} should be partitions already")


def plan_next(bench: Workbench, songs: Sequence[str]) -> BackfillPlan:
    """The planner's next plan, with a partition for each of `songs` and no run in progress."""
    return plan_backfill(bench.config, _RegisteredPartitions(songs))


def end_waits(bench: Workbench) -> None:
    """End every pause and every row's wait."""
    bench.sql("update songstats_backfill_queue set not_before = now() where not_before > now()")
    bench.sql("update vendor_state set paused_until = now() where paused_until > now()")


def is_finished(bench: Workbench) -> bool:
    """Whether no work is left."""
    return not {"pending", "in_progress"} & bench.statuses().keys()


def drain(bench: Workbench, songs: Sequence[str], *, runs: int) -> int:
    """Run until no work is left; return the number of runs. Fails if `runs` are not enough."""
    for number in range(1, runs + 1):
        run_backfill(bench, songs)
        if is_finished(bench):
            return number
        end_waits(bench)
    raise AssertionError(f"after {runs} runs: {bench.statuses()}")


def recover_and_finish(bench: Workbench, songs: Sequence[str]) -> None:
    """Clear the vendor's faults and act as the operator would; everything must end stored."""
    bench.sandbox.clear_faults()
    with connect(bench.database_url) as connection:
        operator_actions.close_breaker(connection, actor="a test")
    end_waits(bench)
    drain(bench, songs, runs=12)
    unsold = [row["song"] for row in bench.sql("select song from songstats_backfill_queue where outcome <> 'stored'")]
    with connect(bench.database_url) as connection:
        operator_actions.requeue(connection, unsold, rebuy=True, actor="a test")
    if unsold:
        drain(bench, songs, runs=12)
    assert bench.statuses() == {"stored": len(songs)}
    assert {row["state"] for row in bench.sql("select state from measurement_jobs")} == {"done"}


def assert_ledger_matches_vendor_log(bench: Workbench) -> None:
    """Assert that the vendor's log and the ledger agree on each recording, call by call."""
    requests, rows = defaultdict(list), defaultdict(list)
    for request in bench.sandbox.requests(HISTORY):
        requests[request["isrc"]].append(request)
    for hit in bench.ledger():
        rows[hit["song"]].append(hit)
    uneven = {song: (len(requests[song]), len(rows[song])) for song in requests.keys() | rows.keys()}
    assert all(received == recorded for received, recorded in uneven.values()), uneven
    pairs = [(song, *pair) for song in rows for pair in zip(requests[song], rows[song], strict=True)]
    untrue = [
        f"{song}: answered {request['status']}, and the ledger says {hit['reason']}, billable {hit['billable']}"
        for song, request, hit in pairs
        if (hit["reason"], hit["billable"]) not in _allowed_outcomes(request)
    ]
    assert not untrue, untrue
    assert_invariants_hold(bench)


def _allowed_outcomes(request: dict[str, Any]) -> frozenset[tuple[str, bool | None]]:
    status = request["status"]
    if status is None:
        return _LOST
    if status == 200:
        return _SPOILED if request["fault"] else frozenset({_ANSWERED})
    if status == 403:
        return frozenset({("rejected", True), ("refused key", False), _FOREIGN})
    own = _BY_STATUS.get(status) or (("transient", False) if status >= 500 else ("rejected", True))
    return frozenset({own, _FOREIGN}) if request["fault"] and (own[1] or status == 401) else frozenset({own})


def count_budgeted_hits(bench: Workbench) -> int:
    """The number of hits that count against the budget; assert that only free causes are excluded."""
    (row,) = bench.sql("select count(*) n from songstats_quota_ledger where billable is distinct from false")
    free = {hit["reason"] for hit in bench.ledger() if hit["billable"] is False}
    assert free <= {"throttled", "refused key", "transient"}
    return int(row["n"])
