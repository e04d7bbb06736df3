"""When the recordings of a request are bought: reads the queue and runs the planner's rules ahead. Only reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from measurement_pipeline.domain.completion import Completion, Quota, complete, hits_until
from measurement_pipeline.domain.fair_share import FairShare, share_out
from measurement_pipeline.postgres import account_shares, songstats_ledger
from measurement_pipeline.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class QueueAhead:
    """The queue and the quota, as the planner would go on from now. `caps`: the quota of each account with a limit of its own."""

    fair: FairShare[UUID]
    quota: Quota
    caps: Mapping[UUID, Quota]
    now: datetime


def read_queue_ahead(
    connection: Connection, *, hits_allowed: int, requests_per_second: float, added: Mapping[UUID, int] | None = None
) -> QueueAhead:
    """Read the queue. `added`: recordings that accounts would have to buy as well."""
    budget = songstats_ledger.budget(connection, hits_allowed=hits_allowed)
    accounts = account_shares.open_accounts(connection, also=(added or {}).keys())
    shares = share_out(account_shares.read_shares(connection), account_shares.hits_since(connection))
    waiting = {one.account: one.waiting for one in accounts}
    weights = {one.account: one.weight for one in accounts}
    for account, count in (added or {}).items():
        waiting[account] = waiting.get(account, 0) + count
    for account in waiting.keys() - shares.hits.keys():
        shares.fair.add(account, weight=weights.get(account, 1))
    for account in shares.hits.keys() | waiting.keys():
        shares.fair.set_waiting(account, waiting.get(account, 0))
    caps = {
        one.account: Quota(one.cap, one.counted, partial(account_shares.cap_frees_in, connection, one.account))
        for one in accounts
        if one.cap is not None
    }
    quota = Quota(hits_allowed, budget.hits, partial(songstats_ledger.frees_in, connection), requests_per_second)
    return QueueAhead(shares.fair, quota, caps, songstats_ledger.vendor_state(connection).now)


def read_completions(
    connection: Connection, jobs: Sequence[UUID], *, hits_allowed: int, requests_per_second: float
) -> dict[UUID, Completion]:
    """When the last recording of each request is bought. Requests without a date are absent.

    They have none if they have nothing to buy, if an account without a card has to pay, or if no hit is allowed.
    """
    places_of = {
        job: places for job, places in account_shares.last_places(connection, jobs).items() if None not in places
    }
    if not places_of:
        return {}
    ahead = read_queue_ahead(connection, hits_allowed=hits_allowed, requests_per_second=requests_per_second)
    wanted = {
        (account, last.place)
        for places in places_of.values()
        for account, last in places.items()
        if account is not None
    }
    hits = hits_until(ahead.fair, wanted)
    found = {}
    for job, places in places_of.items():
        # The request is complete when the last of its accounts has bought its part.
        parts = [
            complete(
                ahead.quota,
                now=ahead.now,
                own_hits=last.waiting,
                hits=hits[account, last.place],
                cap=ahead.caps.get(account),
            )
            for account, last in places.items()
            if account is not None
        ]
        known = [part for part in parts if part is not None]
        if known and len(known) == len(parts):
            found[job] = max(known, key=lambda part: part.expected)
    return found
