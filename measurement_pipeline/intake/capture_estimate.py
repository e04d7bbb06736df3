"""Estimates a capture before it is requested: albums, dollars, and what the month allows. Only reads."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from measurement_pipeline.domain.capture import CaptureLimits, CaptureSpec
from measurement_pipeline.domain.measurement_job import (
    NO_ALBUM_KNOWN,
    UNKNOWN_CATALOG,
    MeasurementRequest,
    ScopeByCatalog,
)
from measurement_pipeline.intake.estimate import NothingToEstimateError
from measurement_pipeline.postgres import captures, measurement_jobs
from measurement_pipeline.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class CaptureEstimate:
    """In US dollars. `over_cap`: it exceeds the account's cap or the deployment's.

    `reused`: a capture of the same albums within the hour answers it at no cost.
    """

    albums: int
    cost_usd: Decimal
    reused: bool
    spent_usd_this_month: Decimal
    cap_usd: Decimal
    over_cap: bool


def estimate_capture(
    connection: Connection, request: MeasurementRequest, *, account: UUID, limits: CaptureLimits
) -> CaptureEstimate:
    """The cost of a current request. Raises `NothingToEstimateError`."""
    scope = request.scope
    if isinstance(scope, ScopeByCatalog) and not measurement_jobs.is_theirs(
        connection, scope.catalog_id, account=account
    ):
        raise NothingToEstimateError(UNKNOWN_CATALOG)
    album_ids = captures.resolve_albums(connection, scope)
    if not album_ids:
        raise NothingToEstimateError(NO_ALBUM_KNOWN)
    cost, spent, over, reused = captures.estimate(connection, CaptureSpec(account, album_ids), limits)
    return CaptureEstimate(len(album_ids), cost, reused, spent, limits.cap_usd, over is not None)
