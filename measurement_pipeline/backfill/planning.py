"""Plans the next backfill runs, or says why there are none. Reads what `domain/fair_share`, `plan` and `blockers` decide on.

Only what a plan needs is read: counts of each account, then as many rows of each as the plan has places for. A tick costs the
same however long the queue is.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.domain import plan
from measurement_pipeline.domain.backfill_queue import DueRow
from measurement_pipeline.domain.blockers import (
    BackfillState,
    Blocker,
    backfill_blockers,
    call_blockers,
    capped_accounts,
    describe_all,
    runs_in_flight,
)
from measurement_pipeline.domain.fair_share import AccountShare, FairShare, share_out
from measurement_pipeline.domain.plan import PartitionRange
from measurement_pipeline.domain.vendor_state import Budget
from measurement_pipeline.postgres import account_shares, health, songstats_ledger
from measurement_pipeline.postgres.account_shares import WaitingAccount
from measurement_pipeline.postgres.database import Connection, connect


class Partitions(Protocol):
    """What Dagster knows of the partitions."""

    def covered(self) -> Sequence[str]:
        """The partitions of unfinished runs."""
        ...

    def places(self, songs: Sequence[str]) -> Mapping[str, int]:
        """Places of the registered ones among `songs` in order of registration.

        Places that follow each other mean partitions that do.
        """
        ...

    def near(self, songs: Sequence[str], distance: int) -> Sequence[str]:
        """The partitions at most `distance` before or after one of `songs`."""
        ...

    def register(self, songs: Sequence[str]) -> None:
        """Make each of `songs` a partition."""
        ...


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """Ranges to launch, or why there are none. `shares`: how many recordings of each account the ranges hold."""

    ranges: Sequence[PartitionRange]
    skip_reason: str | None
    shares: Mapping[UUID, int]


@dataclass(frozen=True, slots=True)
class _QueueState:
    """Who waits for what, at one moment. `planned`: rows of unfinished runs that still need a hit, by account."""

    covered: Sequence[str]
    accounts: Sequence[WaitingAccount]
    planned: Mapping[UUID | None, int]
    fair: FairShare[UUID]
    hits_before: Mapping[UUID, int]


def plan_backfill(config: BackfillConfig, partitions: Partitions) -> BackfillPlan:
    """Plan what is due. Reads Dagster's partitions only if there is something to plan."""
    with connect(config.database_url) as connection:
        vendor = songstats_ledger.vendor_state(connection)
        budget = songstats_ledger.budget(connection, hits_allowed=config.hits_allowed)
        stops = call_blockers(vendor, budget)
        if stops:
            return _nothing(stops)
        state = _read_queue_state(connection, config, partitions.covered())
        chosen, order = _choose(connection, config, state, budget)
        if chosen:
            return _plan_ranges(connection, config, partitions, state, chosen, order)
        planned = sum(state.planned.values())
        due = sum(account.waiting for account in state.accounts)
        if planned:
            return _nothing([runs_in_flight(covered=planned, due=planned + due)])
        if state.accounts:
            return _nothing([capped_accounts(len(state.accounts), due=due)])
        backlog = health.read_backlog(connection, operators_account=config.rules.operators_account)
        return _nothing(backfill_blockers(BackfillState(vendor, budget, backlog)))


def _read_queue_state(connection: Connection, config: BackfillConfig, covered: Sequence[str]) -> _QueueState:
    """Read who waits, and charge all hits since the last plan to their accounts."""
    account_shares.assign_changed(connection, config.rules)
    accounts = account_shares.waiting_accounts(connection, config.rules, covered=covered, most=plan.MAX_PLACES)
    planned = account_shares.planned_by_account(connection, covered)
    places = {
        one.account: one.waiting
        if one.cap_left is None
        else max(0, min(one.waiting, one.cap_left - planned.get(one.account, 0)))
        for one in accounts
    }
    waiting = {account for account, count in places.items() if count} | {one for one in planned if one is not None}
    with connection.transaction():
        account_shares.lock(connection)
        before = {share.account: share for share in account_shares.read_shares(connection)}
        now = share_out(list(before.values()), account_shares.hits_since(connection))
        after = {share.account: share for share in now.settled}
        new = [one for one in accounts if one.account in waiting and one.account not in after]
        changed = [
            *(replace(share, is_waiting=account in waiting) for account, share in after.items()),
            *(AccountShare(one.account, one.weight, is_waiting=True) for one in new),
        ]
        changed = [share for share in changed if share != before.get(share.account)]
        account_shares.store_shares(connection, changed, shared_up_to=now.shared_up_to)
    for one in new:
        now.fair.add(one.account, weight=one.weight)
    for account in now.hits.keys() | {one.account for one in new}:
        now.fair.set_waiting(account, places.get(account, 0) + planned.get(account, 0))
    for payer, count in planned.items():
        # The rows of unfinished runs are as good as bought.
        if payer is not None and (payer in now.hits or payer in places):
            for _ in range(count):
                now.fair.charge(payer)
    hits_before = {account: now.hits.get(account, 0) + planned.get(account, 0) for account in places}
    return _QueueState(covered, accounts, planned, now.fair, hits_before)


def _choose(
    connection: Connection, config: BackfillConfig, state: _QueueState, budget: Budget
) -> tuple[list[DueRow], list[UUID | None]]:
    """The rows to buy next, and the account of each place."""
    places = min(budget.left - sum(state.planned.values()), plan.MAX_PLACES)
    if places <= 0:
        return [], []
    unparsed = account_shares.unparsed_rows(
        connection,
        config.rules,
        accounts=[one.account for one in state.accounts],
        covered=state.covered,
        most=places,
    )
    order = list(state.fair.take(places - len(unparsed)))
    count = Counter(order)
    oldest = {
        account: plan.oldest_places(state.hits_before.get(account, 0), places) for account, places in count.items()
    }
    rows = account_shares.next_rows(
        connection,
        config.rules,
        by_rank=count,
        by_age=oldest,
        covered=state.covered,
    )
    chosen = plan.choose_rows(order, rows, hits_before=state.hits_before)
    return [*unparsed, *chosen], [*(None for _ in unparsed), *order]


def _plan_ranges(
    connection: Connection,
    config: BackfillConfig,
    partitions: Partitions,
    state: _QueueState,
    chosen: Sequence[DueRow],
    order: Sequence[UUID | None],
) -> BackfillPlan:
    songs = [row.song for row in chosen]
    registered = partitions.places(songs)
    missing = [song for song in songs if song not in registered]
    if missing:
        partitions.register(missing)
        registered = partitions.places(songs)
    rows = {row.song: row for row in chosen}

    def read_beside(ranges: Sequence[PartitionRange], distance: int) -> tuple[Sequence[DueRow], Mapping[str, int]]:
        ends = [song for one in ranges for song in (one.songs[0], one.songs[-1])]
        near = [song for song in partitions.near(ends, distance) if song not in rows]
        beside = account_shares.due_among(connection, config.rules, near, covered=state.covered)
        rows.update({row.song: row for row in beside})
        return beside, partitions.places(list(rows))

    ranges = plan.plan_ranges(
        chosen,
        order,
        registered,
        hits_before=state.hits_before,
        read_beside=read_beside,
        requests_per_second=config.requests_per_second,
    )
    accounts = (rows[song].account for one in ranges for song in one.songs)
    return BackfillPlan(ranges, None, Counter(account for account in accounts if account is not None))


def _nothing(blockers: Sequence[Blocker]) -> BackfillPlan:
    # A claim that is about to be released, or attempts that are used up, leave nothing due and no blocker.
    return BackfillPlan((), describe_all(blockers) or "No recording is due.", {})
