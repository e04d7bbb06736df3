"""A drain through a vendor's bad weather: run after run, as the planner would ask for them, and every request accounted for.

Time is moved in the database, never slept: what waits for a moment is told that the moment has come.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from typing import Any

from measurement_pipeline.backfill import operator_actions
from measurement_pipeline.backfill.planning import BackfillPlan, PartitionState, plan_backfill
from measurement_pipeline.backfill.run import BackfillRun
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.faults.reckoning import HISTORY, nothing_breaks
from measurement_pipeline_tests.workbench import Workbench

# What the vendor said, as its own log has it → what the ledger may say it came to, and whether the hit counts. A status that is
# None never went out.
_ANSWERED = ("stored", True)
_LOST = frozenset({("transient", None), ("timeout: unknown", None)})
# Something else answered with a status of Songstats'.
_FOREIGN = ("transient", None)
_BY_STATUS: dict[int, tuple[str, bool]] = {
    401: ("refused key", False),
    402: ("refused key", False),
    404: ("no history", True),
    408: ("transient", False),
    425: ("transient", False),
    429: ("throttled", False),
}
# A 200 that met a fault may be whole, of any shape, or cut short.
_SPOILED = _LOST | {_ANSWERED, ("malformed", True), ("no history", True)}

_run = count(1)


def run(bench: Workbench, songs: Sequence[str], **options: Any) -> BackfillRun:
    """One run over all of `songs`, to its end."""
    return bench.cover(songs, run=f"run-{next(_run)}", **options)[0]


def planned(bench: Workbench, songs: Sequence[str]) -> BackfillPlan:
    """What the planner asks for next, where each of `songs` has its partition and no run is under way."""
    places = {song: place for place, song in enumerate(songs)}
    return plan_backfill(bench.terms, lambda: PartitionState(places, frozenset()), lambda _songs: None)


def time_passes(bench: Workbench) -> None:
    """Every pause is over, and every row's wait."""
    bench.sql("update songstats_backfill_queue set not_before = now() where not_before > now()")
    bench.sql("update vendor_state set paused_until = now() where paused_until > now()")


def is_over(bench: Workbench) -> bool:
    """Whether there is nothing left to do."""
    return not {"pending", "in_progress"} & bench.statuses().keys()


def drain(bench: Workbench, songs: Sequence[str], *, runs: int) -> int:
    """Run until nothing is left to do; how many runs that took. Fails where `runs` are not enough."""
    for number in range(1, runs + 1):
        run(bench, songs)
        if is_over(bench):
            return number
        time_passes(bench)
    raise AssertionError(f"after {runs} runs: {bench.statuses()}")


def clears_up(bench: Workbench, songs: Sequence[str]) -> None:
    """The vendor is well, and a person does what is a person's: everything must end stored."""
    bench.sandbox.clear_faults()
    with connect(bench.database_url) as connection:
        operator_actions.close_breaker(connection, actor="a test")
    time_passes(bench)
    drain(bench, songs, runs=12)
    unsold = [row["song"] for row in bench.sql("select song from songstats_backfill_queue where outcome <> 'stored'")]
    with connect(bench.database_url) as connection:
        operator_actions.requeue(connection, unsold, rebuy=True, actor="a test")
    if unsold:
        drain(bench, songs, runs=12)
    assert bench.statuses() == {"stored": len(songs)}
    assert {row["state"] for row in bench.sql("select state from measurement_jobs")} == {"done"}


def each_request_has_its_row(bench: Workbench) -> None:
    """The vendor's log and the ledger tell the same story of each recording, call by call."""
    requests, rows = defaultdict(list), defaultdict(list)
    for request in bench.sandbox.requests(HISTORY):
        requests[request["isrc"]].append(request)
    for hit in bench.ledger():
        rows[hit["song"]].append(hit)
    uneven = {song: (len(requests[song]), len(rows[song])) for song in requests.keys() | rows.keys()}
    assert all(received == told for received, told in uneven.values()), uneven
    told = [(song, *pair) for song in rows for pair in zip(requests[song], rows[song], strict=True)]
    untrue = [
        f"{song}: answered {request['status']}, and the ledger says {hit['reason']}, billable {hit['billable']}"
        for song, request, hit in told
        if (hit["reason"], hit["billable"]) not in _what_it_may_come_to(request)
    ]
    assert not untrue, untrue
    nothing_breaks(bench)


def _what_it_may_come_to(request: dict[str, Any]) -> frozenset[tuple[str, bool | None]]:
    status = request["status"]
    if status is None:
        return _LOST
    if status == 200:
        return _SPOILED if request["fault"] else frozenset({_ANSWERED})
    if status == 403:
        return frozenset({("rejected", True), ("refused key", False), _FOREIGN})
    own = _BY_STATUS.get(status) or (("transient", False) if status >= 500 else ("rejected", True))
    return frozenset({own, _FOREIGN}) if request["fault"] and (own[1] or status == 401) else frozenset({own})


def budget_counts_only(bench: Workbench) -> int:
    """The hits that the budget counts, which are those the table says the vendor counts, or may."""
    (row,) = bench.sql("select count(*) n from songstats_quota_ledger where billable is distinct from false")
    free = {hit["reason"] for hit in bench.ledger() if hit["billable"] is False}
    assert free <= {"throttled", "refused key", "transient"}
    return int(row["n"])
