"""What to ask Dagster for next, or why for nothing: gathers what `domain/plan` decides on. Only reads."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.domain import plan
from measurement_pipeline.domain.plan import PartitionRange
from measurement_pipeline.postgres import backfill_queue, songstats_ledger
from measurement_pipeline.postgres.database import connect

# Registered in one tick, so that a tick stays short however much is enqueued at once.
MAX_REGISTERED_PER_TICK = 20_000


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What Dagster knows: every partition's place in order of registration, and the ones runs under way cover."""

    registered: Mapping[str, int]
    covered: AbstractSet[str]


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """Ranges to launch, or why there are none; and the due rows that lack a partition, best rank first."""

    ranges: Sequence[PartitionRange]
    unregistered: Sequence[str]
    skip_reason: str | None


def plan_backfill(
    config: BackfillConfig, partitions: Callable[[], PartitionState], register: Callable[[Sequence[str]], None]
) -> BackfillPlan:
    """Plan what is due. Dagster is asked for its partitions only once there is something to plan."""
    with connect(config.database_url) as connection:
        state = songstats_ledger.vendor_state(connection)
        if state.breaker == "open":
            return _nothing(f"breaker open because {state.reason}")
        if state.pause_description is not None:
            return _nothing(state.pause_description)
        budget = songstats_ledger.budget(connection, hits_allowed=config.hits_allowed)
        if budget.left == 0:
            frees = budget.next_hit_frees_at
            when = "never, with no hits allowed" if frees is None else f"at {frees.isoformat(timespec='seconds')}"
            return _nothing(f"budget spent ({budget.hits} of {budget.allowed} hits); the next hit frees {when}")
        due = backfill_queue.due(connection, config.rules)
        if not due:
            return _nothing(_why_nothing_is_due(backfill_queue.counts(connection)))
    known = partitions()
    unregistered = [row.song for row in due if row.song not in known.registered][:MAX_REGISTERED_PER_TICK]
    if unregistered:
        register(unregistered)
        known = partitions()
    ranges = plan.plan_ranges(
        due,
        registered=known.registered,
        covered=known.covered,
        budget=budget.left,
        placed_before=budget.calls_ever + len(known.covered),
    )
    why = (
        None
        if ranges
        else f"runs in flight cover {len(known.covered)} of {len(due)} due recordings or the whole budget"
    )
    return BackfillPlan(ranges, unregistered, why)


def _nothing(why: str) -> BackfillPlan:
    return BackfillPlan((), (), why)


def _why_nothing_is_due(counts: Mapping[str, object]) -> str:
    words = []
    if counts["waiting"]:
        words.append(f"{counts['waiting']} wait to be retried, the next at {counts['next_retry_at']}")
    if counts["in_progress"]:
        words.append(f"{counts['in_progress']} are being bought")
    unpaid = int(str(counts["pending"])) - int(str(counts["waiting"]))
    if unpaid > 0:
        words.append(f"{unpaid} are pending that no accepted request of an account with a card pays for")
    return "nothing due" + (": " + "; ".join(words) if words else "")
