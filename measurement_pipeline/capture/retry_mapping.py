"""Maps the stored results of a done capture again. This costs nothing and runs beside other work.

The capture and its requests stay closed. Only tracks and results that could not be mapped before are added. `run` buys.
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
    """Whether another mapping might add anything."""
    return any(_is_incomplete(run) for run in apify_runs.list_latest_runs(connection, snapshot).values())


def remap_capture(snapshot: UUID, services: CaptureServices, *, run_id: str) -> tuple[CaptureResultKind, str | None]:
    """Map again, and return the capture's result with its message. Raises the database's errors."""
    with connect(services.config.database_url) as connection:
        timeout = services.config.claim_timeout_seconds
        before = captures.claim_done(connection, snapshot, run=run_id, claim_timeout_seconds=timeout)
        if before is None:
            return CaptureResultKind.UNCHANGED, "another run works on the capture, or it is not done"
        try:
            with closing(SpotifyLookup(services.dependencies)) as spotify:
                for run in apify_runs.list_latest_runs(connection, snapshot).values():
                    if _is_incomplete(run):
                        map_result(connection, run, spotify, snapshot=snapshot, run_id=run_id)
            runs = apify_runs.list_latest_runs(connection, snapshot).values()
            kind, message = determine_result(runs, known_albums=(), is_last_try=True)
            with connection.transaction():
                if not captures.finish(
                    connection,
                    snapshot,
                    run=run_id,
                    state=SnapshotState.DONE,
                    status_code=captures.FAILED,
                    error=message,
                ):
                    return CaptureResultKind.UNCHANGED, "another run has taken the capture over"
                measurement_jobs.correct_error(connection, snapshot, before=before.error, error=message)
        except CaptureLostError as error:
            return CaptureResultKind.UNCHANGED, str(error)
        finally:
            # If the database cannot be reached, the claim expires.
            with suppress(DatabaseError):
                captures.release_done(connection, snapshot, run=run_id)
    return (CaptureResultKind.DONE if kind is CaptureResultKind.DONE else CaptureResultKind.PARTLY_DONE), message


def _is_incomplete(run: ActorRunRow) -> bool:
    return run.has_result and (bool(run.unmapped) or not run.is_mapped)
