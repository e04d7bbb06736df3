"""Estimates a historical request before it is made: hits, euros, days. Only reads."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

from measurement_pipeline.domain.completion import Completion, complete, completion_fields, hits_until
from measurement_pipeline.domain.coverage import ValuePoint, select_recordings, value_per_hit
from measurement_pipeline.domain.measurement_job import NOTHING_RESOLVED, UNKNOWN_CATALOG, MeasurementRequest, Source
from measurement_pipeline.domain.spend import cost_eur
from measurement_pipeline.intake.completion import read_queue_ahead
from measurement_pipeline.postgres import history_imports, measurement_jobs, songstats_ledger
from measurement_pipeline.postgres.database import Connection

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class HitEstimate:
    """`imported`: of these, with daily plays that an artist exported and no bought history; what they cover need not be bought.

    `asked` = `owned` (or settled: no hit) + `queued` (another request pays) + `hits`.
    `value`: what the first hits would cover. `left_out`, `covered`: what the request's aim leaves out, and its share of the known
    plays. `days`, `completion`: until the last of them is bought with the present budget and shares, after the account's own
    recordings that are queued. None: never.
    """

    asked: int
    owned: int
    queued: int
    hits: int
    eur: float
    days: int | None
    completion: Completion | None
    hits_left_now: int
    hits_allowed_in_30_days: int
    left_out: int
    covered: float | None
    value: tuple[ValuePoint, ...]
    imported: int

    def fields(self) -> dict[str, Any]:
        """The fields in which the estimate is shown."""
        shown = asdict(self)
        del shown["completion"]
        return {**shown, **completion_fields(self.completion)}


class NothingToEstimateError(LookupError):
    """The scope resolves to nothing; the text is the error that intake would answer."""


def estimate_hits(
    connection: Connection,
    request: MeasurementRequest,
    *,
    account: UUID,
    hits_allowed: int,
    eur_per_hit: float,
    requests_per_second: float = 0.0,
) -> HitEstimate:
    """The cost of a historical request. Raises `NothingToEstimateError`."""
    songs = measurement_jobs.songs_of(connection, request.scope, account=account)
    if songs is None:
        raise NothingToEstimateError(UNKNOWN_CATALOG)
    if not songs:
        raise NothingToEstimateError(NOTHING_RESOLVED)
    ranked = measurement_jobs.rank(connection, songs)
    selection = select_recordings(ranked, request.aim)
    chosen = ranked[: len(selection.songs)]
    counts = measurement_jobs.estimate(connection, selection.songs)
    hits = counts["asked"] - counts["owned"] - counts["queued"]
    budget = songstats_ledger.budget(connection, hits_allowed=hits_allowed)
    ahead = read_queue_ahead(
        connection, hits_allowed=hits_allowed, requests_per_second=requests_per_second, added={account: hits}
    )
    # Ranked last, since nothing is known of the order in which the account's recordings will be ranked.
    last = (account, ahead.fair.waiting(account))
    until = hits_until(ahead.fair, {last})[last] if hits else counts["queued"]
    done = complete(
        ahead.quota,
        now=ahead.now,
        own_hits=hits or counts["queued"],
        hits=until,
        cap=ahead.caps.get(account) if hits else None,
    )
    # A pace of some minutes is no day.
    seconds = replace(ahead.quota, per_second=0.0).seconds(until)
    return HitEstimate(
        asked=counts["asked"],
        owned=counts["owned"],
        queued=counts["queued"],
        hits=hits,
        eur=float(cost_eur(hits, eur_per_hit)),
        days=None if seconds is None else math.ceil(seconds / _DAY_SECONDS),
        completion=done,
        hits_left_now=budget.left,
        hits_allowed_in_30_days=hits_allowed,
        left_out=selection.left_out,
        covered=selection.covered,
        value=value_per_hit(chosen, share=selection.covered or 0.0),
        imported=history_imports.count_imported(connection, selection.songs),
    )


def value_of_job(connection: Connection, job: Mapping[str, Any]) -> tuple[ValuePoint, ...]:
    """What the first hits of an accepted historical request cover. `job`: its row."""
    if job["source"] != Source.HISTORICAL or not job["asked"]:
        return ()
    ranked = measurement_jobs.rank(connection, measurement_jobs.list_recordings(connection, job["id"]))
    return value_per_hit(ranked, share=1.0 if job["covered_share"] is None else job["covered_share"])
