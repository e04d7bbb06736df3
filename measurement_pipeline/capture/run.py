"""One capture, from its claim to its end: what is bought is bought once, whatever dies between two of these steps.

A run of the actor is a row before it is started, and its id is kept the moment it is known; one whose start was never heard of is
looked for before another is started. A result is kept as received before it is mapped.
"""

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import count
from typing import Any
from uuid import UUID

from measurement_pipeline.capture import retry_mapping
from measurement_pipeline.capture.actor_runner import ActorRunner, NotReadyError
from measurement_pipeline.capture.config import CaptureServices
from measurement_pipeline.capture.mapping import SpotifyLookup
from measurement_pipeline.capture.outcome import CaptureResultKind, determine_result
from measurement_pipeline.domain.capture import SnapshotState, cost_usd, describe_over_cap, split_into_chunks
from measurement_pipeline.domain.text import counted
from measurement_pipeline.postgres import apify_runs, captures, measurement_jobs, operator_acts, vendor_state
from measurement_pipeline.postgres.apify_runs import CaptureLostError
from measurement_pipeline.postgres.captures import ClaimedCapture
from measurement_pipeline.postgres.database import Connection, DatabaseError, execute_with_retry
from measurement_pipeline.postgres.errors import is_transient
from measurement_pipeline.vendors.apify.client import ApifyClient
from measurement_pipeline.vendors.apify.errors import (
    RejectedError,
    ThrottledError,
    TokenRefusedError,
    UnavailableError,
)

APIFY = "apify"

# Where Apify says 429 without saying for how long, and where it takes the token no more: then a person has to act.
_THROTTLED_SECONDS = 60.0
_REFUSED_SECONDS = 900.0
# Somebody who cancels a run wants it gone for a while.
_INTERRUPTED_SECONDS = 300.0


class Launch(StrEnum):
    """Who wants a capture made: the sensor what is due; a person whatever they choose."""

    PLANNED = "planned"
    OPERATOR = "operator's"


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """What a run did: `reason` in one line, the capture's row afterwards, what the run paid, and tracks without an ISRC."""

    kind: CaptureResultKind
    reason: str | None = None
    row: dict[str, Any] = field(default_factory=dict)
    paid_usd: Decimal = Decimal(0)
    unmapped: tuple[str, ...] = ()


def make_capture(
    snapshot: UUID,
    services: CaptureServices,
    *,
    run_id: str,
    launch: Launch = Launch.PLANNED,
    retry_number: int = 0,
    is_last_try: bool = True,
) -> CaptureOutcome:
    """Take a capture as far as it goes. `is_last_try`: the run has no further try after this one.

    A database that is away or read-only for a while costs nothing: every step finds what the one before it came to.
    Raises `LookupError` where there is no such capture, and what the database raises.
    """
    tries = count()

    def make(connection: Connection) -> CaptureOutcome:
        # Only the first of these tries pays for anything again: the others go on where the database failed.
        is_first = next(tries) == 0
        shown = captures.get(connection, snapshot)
        if shown is None:
            raise LookupError(f"there is no capture {snapshot}")
        work = _Work(
            connection,
            services,
            snapshot,
            shown["account"],
            run_id,
            is_first_try=is_first and retry_number == 0,
            is_retry=is_first and retry_number > 0,
            last_try=is_last_try,
        )
        return _make(work, shown, launch)

    terms = services.config
    return execute_with_retry(terms.database_url, make, patience_seconds=terms.database_retry_seconds)


def _make(work: "_Work", shown: dict[str, Any], launch: Launch) -> CaptureOutcome:
    if shown["state"] == SnapshotState.DONE:
        return work.look_at_a_done_one(shown, launch)
    refusal = work.why_not(shown, launch)
    if refusal is not None:
        return refusal
    claimed = work.claim(shown, launch)
    if isinstance(claimed, CaptureOutcome):
        return claimed
    if claimed.attempts > work.services.config.max_attempts and launch is Launch.PLANNED:
        gone = counted(claimed.attempts - 1, "attempt")
        return work.give_up(f"given up after {gone}: {shown['error'] or 'no attempt came to an end'}")
    try:
        return work.do(split_into_chunks(claimed.album_ids))
    except Exception as error:
        # An error of our own. The next try of this run goes on with what it holds; a later run waits a little.
        if work.last_try and not is_transient(error):
            work.release(f"{type(error).__name__} interrupted it", seconds=None, attempt_back=False)
        raise
    except BaseException:
        # Cancelled: Dagster's interrupt is no Exception. Raised again, as whatever else ends the process is.
        work.release("its run was interrupted", seconds=_INTERRUPTED_SECONDS, attempt_back=True)
        raise


@dataclass(frozen=True, slots=True)
class _Work:
    """What one run does with one capture."""

    connection: Connection
    services: CaptureServices
    snapshot: UUID
    account: UUID
    run: str
    is_first_try: bool
    is_retry: bool
    last_try: bool

    def look_at_a_done_one(self, shown: dict[str, Any], launch: Launch) -> CaptureOutcome:
        """Nothing is ever bought for it again; a person's launch has what was kept mapped once more."""
        if (
            launch is Launch.OPERATOR
            and self.is_first_try
            and retry_mapping.has_unmapped_results(self.connection, self.snapshot)
        ):
            self._record("capture mapped again", shown)
            return self._ended(*retry_mapping.remap_capture(self.snapshot, self.services, run_id=self.run))
        bought = apify_runs.list_latest_runs(self.connection, self.snapshot)
        if all(one.is_mapped for one in bought.values()):
            return self._ended(CaptureResultKind.ALREADY_DONE, None)
        # A run that could not say so the first time says it now.
        return self._ended(CaptureResultKind.PARTLY_DONE, shown["error"])

    def why_not(self, shown: dict[str, Any], launch: Launch) -> CaptureOutcome | None:
        """Why there is nothing to do; None where there is."""
        if shown["state"] == SnapshotState.FAILED and not self._is_to_be_bought_again(launch):
            not_found = shown["status_code"] == captures.NOT_FOUND
            return self._ended(CaptureResultKind.NOT_FOUND if not_found else CaptureResultKind.FAILED, shown["error"])
        pause = vendor_state.get_pause(self.connection, APIFY)
        if launch is Launch.PLANNED and pause is not None:
            return self._ended(
                CaptureResultKind.POSTPONED, f"Apify is left alone until {pause.until:%H:%M:%S} UTC: {pause.reason}"
            )
        return None

    def claim(self, shown: dict[str, Any], launch: Launch) -> ClaimedCapture | CaptureOutcome:
        """Make the run its owner. What a person's launch makes of one that is over is decided here, with the claim."""
        try:
            with self.connection.transaction():
                claimed = captures.claim(
                    self.connection,
                    self.snapshot,
                    run=self.run,
                    operator=launch is not Launch.PLANNED,
                    claim_timeout_seconds=self.services.config.claim_timeout_seconds,
                )
                if claimed is None:
                    return self._ended(CaptureResultKind.UNCHANGED, "another run works on it, or it waits for its time")
                if shown["state"] == SnapshotState.FAILED:
                    self._take_up_again(shown, claimed)
                return claimed
        except _OverCapError as error:
            return self._ended(CaptureResultKind.UNCHANGED, str(error))

    def do(self, parts: Sequence[Sequence[str]]) -> CaptureOutcome:
        """Every part, until each is over; what stops that is said on the capture's row."""
        try:
            with (
                self.services.dependencies.new_actor() as actor,
                closing(SpotifyLookup(self.services.dependencies)) as spotify,
            ):
                self._purchase(actor, spotify).run(parts)
        except NotReadyError as error:
            return self._put_off(CaptureResultKind.POSTPONED, str(error), seconds=error.seconds)
        except ThrottledError as error:
            seconds = max(error.retry_after_seconds or 0.0, _THROTTLED_SECONDS)
            vendor_state.pause(self.connection, APIFY, seconds=seconds, reason=str(error))
            return self._put_off(CaptureResultKind.POSTPONED, str(error), seconds=seconds)
        except TokenRefusedError as error:
            vendor_state.pause(self.connection, APIFY, seconds=_REFUSED_SECONDS, reason=str(error))
            return self._put_off(CaptureResultKind.STOPPED, str(error), seconds=_REFUSED_SECONDS)
        except UnavailableError as error:
            if not self.last_try:
                return CaptureOutcome(CaptureResultKind.TRY_AGAIN, str(error))
            return self._put_off(CaptureResultKind.STOPPED, str(error), seconds=None)
        except RejectedError as error:
            return self._put_off(CaptureResultKind.STOPPED, str(error), seconds=None, attempt_back=False)
        except CaptureLostError as error:
            return self._ended(CaptureResultKind.UNCHANGED, str(error))
        bought = apify_runs.list_latest_runs(self.connection, self.snapshot)
        albums = [album for one in bought.values() for album in one.album_ids]
        known = captures.known_albums(self.connection, albums)
        kind, why = determine_result(bought.values(), known_albums=known, last_try=self.last_try)
        return CaptureOutcome(kind, why) if kind is CaptureResultKind.TRY_AGAIN else self._finish(kind, why)

    def give_up(self, why: str) -> CaptureOutcome:
        """End it; what was captured stays."""
        bought = apify_runs.list_latest_runs(self.connection, self.snapshot)
        captured = any(one.is_mapped for one in bought.values())
        return self._finish(CaptureResultKind.PARTLY_DONE if captured else CaptureResultKind.FAILED, why)

    def release(self, why: str, *, seconds: float | None, attempt_back: bool) -> None:
        """Let go of it. Where the database cannot be told, the claim's age says so."""
        with suppress(DatabaseError):
            captures.release(
                self.connection, self.snapshot, run=self.run, seconds=seconds, error=why, refund_attempt=attempt_back
            )

    def _is_to_be_bought_again(self, launch: Launch) -> bool:
        # By a person, who launched it knowing that it failed; not by the tries that follow.
        return launch is Launch.OPERATOR and self.is_first_try

    def _take_up_again(self, shown: dict[str, Any], claimed: ClaimedCapture) -> None:
        """Have what is missing of a failed one bought, and what was kept mapped again. Raises `_OverCapError`."""
        captures.lock_account(self.connection, self.account)
        bought = apify_runs.list_latest_runs(self.connection, self.snapshot)
        kept = sum(len(one.album_ids) for one in bought.values() if one.has_result)
        asked = cost_usd(len(claimed.album_ids) - kept)
        # It is open again since its claim: what is missing is set aside, so that nobody else is let have it meanwhile.
        spent = captures.spent_this_month(self.connection, self.account)
        if spent > self.services.config.cap_usd:
            raise _OverCapError(describe_over_cap(cap=self.services.config.cap_usd, spent=spent - asked, cost=asked))
        apify_runs.supersede(self.connection, self.snapshot)
        apify_runs.reset_mapping(self.connection, self.snapshot)
        captures.reset_captured_at(self.connection, self.snapshot)
        captures.reopen_requests(self.connection, self.snapshot)
        self._record("capture taken up again", shown)

    def _record(self, act: str, shown: dict[str, Any]) -> None:
        detail = {"snapshot": str(self.snapshot), "was": shown["state"]}
        operator_acts.record(self.connection, actor=f"run {self.run}", act=act, detail=detail)

    def _purchase(self, actor: ApifyClient, spotify: SpotifyLookup) -> ActorRunner:
        return ActorRunner(
            self.connection,
            self.services.config,
            actor,
            spotify,
            snapshot=self.snapshot,
            account=self.account,
            run=self.run,
            is_retry=self.is_retry,
            deadline=time.monotonic() + self.services.config.max_wait_seconds,
        )

    def _put_off(
        self, kind: CaptureResultKind, why: str, *, seconds: float | None, attempt_back: bool = True
    ) -> CaptureOutcome:
        captures.release(
            self.connection, self.snapshot, run=self.run, seconds=seconds, error=why, refund_attempt=attempt_back
        )
        return self._ended(kind, why)

    def _finish(self, kind: CaptureResultKind, why: str | None) -> CaptureOutcome:
        state = (
            SnapshotState.FAILED
            if kind in {CaptureResultKind.FAILED, CaptureResultKind.NOT_FOUND}
            else SnapshotState.DONE
        )
        status_code = captures.NOT_FOUND if kind is CaptureResultKind.NOT_FOUND else captures.FAILED
        with self.connection.transaction():
            if not captures.finish(
                self.connection, self.snapshot, run=self.run, state=state, status_code=status_code, error=why
            ):
                return self._ended(CaptureResultKind.UNCHANGED, "another run has taken it over")
            measurement_jobs.settle(self.connection)
        return self._ended(kind, why)

    def _ended(self, kind: CaptureResultKind, why: str | None) -> CaptureOutcome:
        return CaptureOutcome(
            kind,
            why,
            captures.get(self.connection, self.snapshot) or {},
            apify_runs.cost_of_run(self.connection, self.snapshot, run=self.run),
            apify_runs.list_unmapped(self.connection, self.snapshot),
        )


class _OverCapError(Exception):
    """A person's launch that the month does not allow: nothing of it is written, the claim neither."""
