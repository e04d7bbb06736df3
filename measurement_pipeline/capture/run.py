"""Runs one capture from its claim to its result. Each actor run is paid for once, even if the process dies between two steps.

An actor run is a row before it is started, and its id is stored as soon as it is known. If the response to a start is lost, the
run is searched for before another one is started. A result is stored as received before it is mapped.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from enum import StrEnum
from itertools import count
from typing import Any
from uuid import UUID

from measurement_pipeline.capture import retry_mapping
from measurement_pipeline.capture.actor_runner import ActorRunner, NotReadyError
from measurement_pipeline.capture.attempt import CaptureAttempt
from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.capture.mapping import SpotifyLookup
from measurement_pipeline.capture.outcome import CaptureOutcome, CaptureResultKind, determine_result
from measurement_pipeline.domain.capture import SnapshotState, describe_over_cap, split_into_chunks
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import apify_runs, captures, vendor_state
from measurement_pipeline.postgres.apify_runs import CaptureLostError
from measurement_pipeline.postgres.captures import ClaimedCapture
from measurement_pipeline.postgres.database import Connection, execute_with_retry
from measurement_pipeline.postgres.errors import is_transient
from measurement_pipeline.vendors.errors import CredentialsRejectedError, ThrottledError, VendorError

APIFY = "apify"

# The pause after a 429 without a `Retry-After`, and after rejected credentials, when an operator has to act.
_THROTTLED_SECONDS = 60.0
_REJECTED_SECONDS = 900.0
# An operator who cancels a run expects it to stay away for a while.
_INTERRUPTED_SECONDS = 300.0


class Launch(StrEnum):
    """Who launched the run: the sensor, for a due capture, or an operator, for any capture."""

    PLANNED = "planned"
    OPERATOR = "operator's"


def make_capture(
    snapshot: UUID,
    services: CaptureServices,
    *,
    run_id: str,
    launch: Launch = Launch.PLANNED,
    retry_number: int = 0,
    is_last_try: bool = True,
) -> CaptureOutcome:
    """Take a capture as far as possible. `is_last_try`: the run has no further attempt after this one.

    A database that is unavailable or read-only for a while costs nothing: every step continues from the stored state.
    Raises `LookupError` if the capture does not exist, and the database's errors.
    """
    tries = count()

    def attempt_once(connection: Connection) -> CaptureOutcome:
        # Only the first of these tries pays for anything again; the others continue after a database error.
        is_first = next(tries) == 0
        row = captures.get(connection, snapshot)
        if row is None:
            raise LookupError(f"there is no capture {snapshot}")
        attempt = CaptureAttempt(
            connection,
            services,
            snapshot,
            row["account"],
            run_id,
            is_first_try=is_first and retry_number == 0,
            is_retry=is_first and retry_number > 0,
            is_last_try=is_last_try,
        )
        return _run(attempt, row, launch)

    config = services.config
    return execute_with_retry(config.database_url, attempt_once, patience_seconds=config.database_retry_seconds)


def _run(attempt: CaptureAttempt, row: dict[str, Any], launch: Launch) -> CaptureOutcome:
    if row["state"] == SnapshotState.DONE:
        return _handle_done(attempt, row, launch)
    refusal = _refuse(attempt, row, launch)
    if refusal is not None:
        return refusal
    claimed = _claim(attempt, row, launch)
    if isinstance(claimed, CaptureOutcome):
        return claimed
    if claimed.attempts > attempt.services.config.max_attempts and launch is Launch.PLANNED:
        attempts = counted(claimed.attempts - 1, "attempt")
        return attempt.give_up(f"given up after {attempts}: {row['error'] or 'no attempt came to an end'}")
    try:
        return _run_chunks(attempt, split_into_chunks(claimed.album_ids), has_reused=claimed.reused_albums > 0)
    except Exception as error:
        # A programming error. The next attempt of this run continues with what it holds; a later run waits a little.
        if attempt.is_last_try and not is_transient(error):
            reason = f"{type(error).__name__} interrupted it"
            attempt.release_if_possible(reason, seconds=None, refund_attempt=False)
        raise
    except BaseException:
        # Cancelled: Dagster's interrupt is not an Exception. Raised again, like everything else that ends the process.
        attempt.release_if_possible("its run was interrupted", seconds=_INTERRUPTED_SECONDS, refund_attempt=True)
        raise


def _handle_done(attempt: CaptureAttempt, row: dict[str, Any], launch: Launch) -> CaptureOutcome:
    """A done capture is never paid for again. An operator's launch maps its stored results again."""
    if (
        launch is Launch.OPERATOR
        and attempt.is_first_try
        and retry_mapping.has_unmapped_results(attempt.connection, attempt.snapshot)
    ):
        attempt.record_act("capture mapped again", row)
        result = retry_mapping.remap_capture(attempt.snapshot, attempt.services, run_id=attempt.run_id)
        return attempt.outcome(*result)
    runs = apify_runs.list_latest_runs(attempt.connection, attempt.snapshot)
    if all(run.is_mapped for run in runs.values()):
        return attempt.outcome(CaptureResultKind.ALREADY_DONE, None)
    # An earlier run may have been unable to report this.
    return attempt.outcome(CaptureResultKind.PARTLY_DONE, row["error"])


def _refuse(attempt: CaptureAttempt, row: dict[str, Any], launch: Launch) -> CaptureOutcome | None:
    """The outcome if there is nothing to do; None if there is."""
    if row["state"] == SnapshotState.FAILED and not _is_repurchase(attempt, launch):
        is_not_found = row["status_code"] == captures.NOT_FOUND
        kind = CaptureResultKind.NOT_FOUND if is_not_found else CaptureResultKind.FAILED
        return attempt.outcome(kind, row["error"])
    pause = vendor_state.get_pause(attempt.connection, APIFY)
    if launch is Launch.PLANNED and pause is not None:
        reason = f"requests to Apify are paused until {pause.until:%H:%M:%S} UTC: {pause.reason}"
        return attempt.outcome(CaptureResultKind.POSTPONED, reason)
    return None


def _is_repurchase(attempt: CaptureAttempt, launch: Launch) -> bool:
    """Whether an operator launched a failed capture, knowing that it failed. The attempts that follow do not count."""
    return launch is Launch.OPERATOR and attempt.is_first_try


def _claim(attempt: CaptureAttempt, row: dict[str, Any], launch: Launch) -> ClaimedCapture | CaptureOutcome:
    """Make the run the owner of the capture. An operator's launch reopens a failed one in the same transaction."""
    try:
        with attempt.connection.transaction():
            claimed = captures.claim(
                attempt.connection,
                attempt.snapshot,
                run=attempt.run_id,
                operator=launch is Launch.OPERATOR,
                claim_timeout_seconds=attempt.services.config.claim_timeout_seconds,
            )
            if claimed is None:
                reason = "another run works on the capture, or its next attempt is not due yet"
                return attempt.outcome(CaptureResultKind.UNCHANGED, reason)
            if row["state"] == SnapshotState.FAILED:
                _reopen_failed(attempt, row, claimed)
            return claimed
    except _OverCapError as error:
        return attempt.outcome(CaptureResultKind.UNCHANGED, str(error))


def _reopen_failed(attempt: CaptureAttempt, row: dict[str, Any], claimed: ClaimedCapture) -> None:
    """Let the missing chunks be bought, and the stored results be mapped again. Raises `_OverCapError`."""
    connection, snapshot, limits = attempt.connection, attempt.snapshot, attempt.services.config.limits
    captures.lock_account(connection, attempt.account)
    captures.lock_deployment(connection)
    runs = apify_runs.list_latest_runs(connection, snapshot)
    stored_albums = sum(len(run.album_ids) for run in runs.values() if run.has_result)
    cost = limits.cost_usd(len(claimed.album_ids) - stored_albums)
    # The claim has reopened the capture, so its missing part already counts as spent, and no other capture can spend it.
    over = captures.find_exceeded_cap(connection, attempt.account, limits, cost_usd=Decimal(0))
    if over is not None:
        raise _OverCapError(describe_over_cap(replace(over, spent=over.spent - cost, asked=cost)))
    apify_runs.supersede(connection, snapshot)
    apify_runs.reset_mapping(connection, snapshot)
    captures.reset_captured_at(connection, snapshot)
    captures.reopen_requests(connection, snapshot)
    attempt.record_act("capture taken up again", row)


def _run_chunks(attempt: CaptureAttempt, album_chunks: Sequence[Sequence[str]], *, has_reused: bool) -> CaptureOutcome:
    """Run every chunk until it is finished. An error that stops them is written to the capture's row.

    `has_reused`: a recent capture has the counts of other albums of this one, so that it has not failed as a whole.
    """
    dependencies = attempt.services.dependencies
    try:
        with dependencies.new_actor() as actor, closing(SpotifyLookup(dependencies)) as spotify:
            runner = ActorRunner(
                attempt.connection,
                attempt.services.config,
                actor,
                spotify,
                snapshot=attempt.snapshot,
                account=attempt.account,
                run_id=attempt.run_id,
                is_retry=attempt.is_retry,
                deadline=time.monotonic() + attempt.services.config.max_wait_seconds,
            )
            runner.run(album_chunks)
    except NotReadyError as error:
        return attempt.postpone(CaptureResultKind.POSTPONED, str(error), seconds=error.retry_in_seconds)
    except VendorError as error:
        return _handle_vendor_error(attempt, error)
    except CaptureLostError as error:
        return attempt.outcome(CaptureResultKind.UNCHANGED, str(error))
    runs = apify_runs.list_latest_runs(attempt.connection, attempt.snapshot)
    known = captures.known_albums(attempt.connection, [album for run in runs.values() for album in run.album_ids])
    kind, reason = determine_result(runs.values(), known_albums=known, is_last_try=attempt.is_last_try)
    if has_reused and kind in {CaptureResultKind.FAILED, CaptureResultKind.NOT_FOUND}:
        kind = CaptureResultKind.PARTLY_DONE
    if kind is CaptureResultKind.TRY_AGAIN:
        return CaptureOutcome(kind, reason)
    return attempt.finish(kind, reason)


def _handle_vendor_error(attempt: CaptureAttempt, error: VendorError) -> CaptureOutcome:
    reason = str(error)
    if isinstance(error, ThrottledError):
        seconds = max(error.retry_after_seconds or 0.0, _THROTTLED_SECONDS)
        vendor_state.pause(attempt.connection, APIFY, seconds=seconds, reason=reason)
        return attempt.postpone(CaptureResultKind.POSTPONED, reason, seconds=seconds)
    if isinstance(error, CredentialsRejectedError):
        vendor_state.pause(attempt.connection, APIFY, seconds=_REJECTED_SECONDS, reason=reason)
        return attempt.postpone(CaptureResultKind.STOPPED, reason, seconds=_REJECTED_SECONDS)
    if error.is_retryable and not attempt.is_last_try:
        return CaptureOutcome(CaptureResultKind.TRY_AGAIN, reason)
    return attempt.postpone(CaptureResultKind.STOPPED, reason, seconds=None, refund_attempt=error.is_retryable)


class _OverCapError(Exception):
    """An operator's launch exceeds the monthly cap. Nothing of it is written, not even the claim."""
