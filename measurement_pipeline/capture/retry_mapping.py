"""What was kept of a capture that is done, mapped once more: for nothing, and beside whatever else goes on.

Neither the capture nor its requests are opened for it: only what could not be matched or read before is added. Buying is `run`'s.
"""

from contextlib import closing, suppress
from uuid import UUID

from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.capture.mapping import SpotifyLookup, map_result
from measurement_pipeline.capture.outcome import CaptureResultKind, determine_result
from measurement_pipeline.domain.capture import SnapshotState
from measurement_pipeline.postgres import apify_runs, captures, measurement_jobs
from measurement_pipeline.postgres.apify_runs import ActorRunRow, CaptureLostError
from measurement_pipeline.postgres.database import Connection, DatabaseError, connect


def has_unmapped_results(connection: Connection, snapshot: UUID) -> bool:
    """Whether mapping what was kept of it once more might add anything."""
    return any(_lacks(one) for one in apify_runs.list_latest_runs(connection, snapshot).values())


def remap_capture(snapshot: UUID, services: CaptureServices, *, run_id: str) -> tuple[CaptureResultKind, str | None]:
    """How the capture stands afterwards, and what is to be said of it. Raises what the database raises."""
    with connect(services.config.database_url) as connection:
        timeout = services.config.claim_timeout_seconds
        before = captures.claim_done(connection, snapshot, run=run_id, claim_timeout_seconds=timeout)
        if before is None:
            return CaptureResultKind.UNCHANGED, "another run works on it, or it is not done"
        try:
            with closing(SpotifyLookup(services.dependencies)) as spotify:
                for bought in apify_runs.list_latest_runs(connection, snapshot).values():
                    if _lacks(bought):
                        map_result(connection, bought, spotify, snapshot=snapshot, run=run_id)
            parts = apify_runs.list_latest_runs(connection, snapshot).values()
            kind, why = determine_result(parts, known_albums=(), last_try=True)
            with connection.transaction():
                if not captures.finish(
                    connection, snapshot, run=run_id, state=SnapshotState.DONE, status_code=captures.FAILED, error=why
                ):
                    return CaptureResultKind.UNCHANGED, "another run has taken it over"
                measurement_jobs.correct_error(connection, snapshot, before=before.error, error=why)
        except CaptureLostError as error:
            return CaptureResultKind.UNCHANGED, str(error)
        finally:
            # Where the database cannot be told, the claim's age says so.
            with suppress(DatabaseError):
                captures.release_done(connection, snapshot, run=run_id)
    return (CaptureResultKind.DONE if kind is CaptureResultKind.DONE else CaptureResultKind.PARTLY_DONE), why


def _lacks(bought: ActorRunRow) -> bool:
    return bought.has_result and (bool(bought.unmapped) or not bought.is_mapped)
