"""Estimates a historical request before it is made: hits, euros, days. Only reads."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from measurement_pipeline.domain.coverage import ValuePoint, select_recordings, value_per_hit
from measurement_pipeline.domain.measurement_job import NOTHING_RESOLVED, UNKNOWN_CATALOG, MeasurementRequest, Source
from measurement_pipeline.domain.spend import cost_eur
from measurement_pipeline.postgres import backfill_queue, history_imports, measurement_jobs, songstats_ledger
from measurement_pipeline.postgres.database import Connection

_BUDGET_DAYS = 30.0
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class HitEstimate:
    """`imported`: of these, with daily plays that an artist exported and no bought history; what they cover need not be bought.

    `asked` = `owned` (or settled: no hit) + `queued` (another request pays) + `hits`.

    `value`: what the first hits would cover. `left_out`, `covered`: what the request's aim leaves out, and its share of the known
    plays. `days`: until the last of them is bought with the present budget, after the rows queued before them. None: never.
    """

    asked: int
    owned: int
    queued: int
    hits: int
    eur: float
    days: int | None
    hits_left_now: int
    hits_allowed_in_30_days: int
    left_out: int
    covered: float | None
    value: tuple[ValuePoint, ...]
    imported: int


class NothingToEstimateError(LookupError):
    """The scope resolves to nothing; the text is the error that intake would answer."""


def estimate_hits(
    connection: Connection, request: MeasurementRequest, *, account: UUID, hits_allowed: int, eur_per_hit: float
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
    waiting = backfill_queue.counts(connection)
    before = int(waiting["pending"]) + int(waiting["in_progress"]) if hits else counts["queued"]
    seconds = seconds_until_bought(
        hits + before,
        allowed=hits_allowed,
        counted=budget.hits,
        frees_in=lambda place: songstats_ledger.frees_in(connection, place),
    )
    return HitEstimate(
        asked=counts["asked"],
        owned=counts["owned"],
        queued=counts["queued"],
        hits=hits,
        eur=float(cost_eur(hits, eur_per_hit)),
        days=None if seconds is None else math.ceil(seconds / _DAY_SECONDS),
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


def seconds_until_bought(
    hits: int, *, allowed: int, counted: int, frees_in: Callable[[int], float | None]
) -> float | None:
    """When the last of `hits` can be spent, if each is spent as soon as the budget allows. None: no hit is allowed.

    `counted` hits of the last 30 days count against `allowed`; `frees_in(n)` returns after how many seconds n of them no longer
    do.
    """
    beyond = hits - max(0, allowed - counted)
    if beyond <= 0:
        return 0.0
    if allowed == 0:
        return None
    # Each spent hit becomes available again 30 days later, so the hits beyond the budget come in rounds of `allowed`.
    rounds, place = divmod(beyond - 1, allowed)
    place += 1 + max(0, counted - allowed)
    first = frees_in(place) if place <= counted else None
    return rounds * _BUDGET_DAYS * _DAY_SECONDS + (first if first is not None else _BUDGET_DAYS * _DAY_SECONDS)
