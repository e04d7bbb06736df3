"""Plans the next backfill runs, or says why there are none. Reads what `domain/plan` and `domain/blockers` decide on."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.domain.blockers import (
    BackfillState,
    Blocker,
    backfill_blockers,
    call_blockers,
    describe,
    describe_all,
    runs_in_flight,
)
from measurement_pipeline.domain.plan import PartitionRange, plan_ranges
from measurement_pipeline.postgres import backfill_queue, health, songstats_ledger
from measurement_pipeline.postgres.database import connect

# Keeps a tick short however many recordings are enqueued at once.
MAX_REGISTERED_PER_TICK = 20_000


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What Dagster knows: each partition's place in order of registration, and the ones that unfinished runs cover."""

    registered: Mapping[str, int]
    covered: AbstractSet[str]


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """Ranges to launch, or why there are none; and the due rows that had no partition, best rank first."""

    ranges: Sequence[PartitionRange]
    unregistered: Sequence[str]
    skip_reason: str | None


def plan_backfill(
    config: BackfillConfig, partitions: Callable[[], PartitionState], register: Callable[[Sequence[str]], None]
) -> BackfillPlan:
    """Plan what is due. Reads Dagster's partitions only if there is something to plan."""
    with connect(config.database_url) as connection:
        vendor = songstats_ledger.vendor_state(connection)
        budget = songstats_ledger.budget(connection, hits_allowed=config.hits_allowed)
        stops = call_blockers(vendor, budget)
        if stops:
            return _nothing(stops)
        due = backfill_queue.due(connection, config.rules)
        if not due:
            backlog = health.read_backlog(connection, operators_account=config.rules.operators_account)
            return _nothing(backfill_blockers(BackfillState(vendor, budget, backlog)))
    known = partitions()
    unregistered = [row.song for row in due if row.song not in known.registered][:MAX_REGISTERED_PER_TICK]
    if unregistered:
        register(unregistered)
        known = partitions()
    ranges = plan_ranges(
        due,
        registered=known.registered,
        covered=known.covered,
        budget=budget.left,
        placed_before=budget.calls_ever + len(known.covered),
        requests_per_second=config.requests_per_second,
    )
    if not ranges:
        return BackfillPlan((), unregistered, describe(runs_in_flight(covered=len(known.covered), due=len(due))))
    return BackfillPlan(ranges, unregistered, None)


def _nothing(blockers: Sequence[Blocker]) -> BackfillPlan:
    # A claim that is about to be released, or attempts that are used up, leave nothing due and no blocker.
    return BackfillPlan((), (), describe_all(blockers) or "No recording is due.")
