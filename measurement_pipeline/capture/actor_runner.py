"""Executes the steps of one attempt at a capture: start, find, poll, fetch and map, until every chunk is finished.

`steps` decides the next step of a chunk. Errors that stop all chunks are raised, and `run` handles them.
"""

import time
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.capture.mapping import SpotifyLookup, map_result
from measurement_pipeline.capture.steps import Step, next_step, rows_to_restart
from measurement_pipeline.postgres import apify_runs, captures
from measurement_pipeline.postgres.apify_runs import ActorRunRow, PurchasesPausedError
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.vendors.apify.client import ActorRun, ApifyClient
from measurement_pipeline.vendors.apify.items import read_items
from measurement_pipeline.vendors.errors import (
    IncompleteResultError,
    NotVisibleError,
    UnexpectedResponseError,
    VendorError,
)

# After the timeout of a start, how long until each of Apify's servers lists the run that it started.
_LISTING_DELAY_SECONDS = 60.0
# A run that Apify has not shown for so long does not exist any more.
_GONE_SECONDS = 3600.0

# No run is launched while the pause holds, so this is only the shortest time between two attempts.
_PAUSE_SECONDS = 1.0


class NotReadyError(Exception):
    """The actor takes longer than one run waits, or an operator has paused its starts.

    `retry_in_seconds`: when it is worth another look.
    """

    def __init__(self, message: str, *, retry_in_seconds: float) -> None:
        super().__init__(message)
        self.retry_in_seconds = retry_in_seconds


class ActorRunner:
    """One attempt at one capture. Raises `VendorError`, `NotReadyError` and `CaptureLostError`."""

    def __init__(
        self,
        connection: Connection,
        config: CaptureConfig,
        actor: ApifyClient,
        spotify: SpotifyLookup,
        *,
        snapshot: UUID,
        account: UUID,
        run_id: str,
        is_retry: bool,
        deadline: float,
    ) -> None:
        self._connection = connection
        self._config = config
        self._actor = actor
        self._spotify = spotify
        self._snapshot = snapshot
        self._run_id = run_id
        self._deadline = deadline
        self._incomplete_since: dict[int, float] = {}
        self._pause: PurchasesPausedError | None = None
        restartable = rows_to_restart(apify_runs.list_latest_runs(connection, snapshot).values(), is_retry=is_retry)
        # A failed run has been paid for, and so will be its restart. If that exceeds the monthly cap, the captured part stays.
        is_within_cap = (
            not restartable
            or captures.find_exceeded_cap(connection, account, config.limits, cost_usd=Decimal(0)) is None
        )
        self._restartable = restartable if is_within_cap else frozenset[int]()

    def run(self, chunks: Sequence[Sequence[str]]) -> None:
        """Work on the chunks until each is finished."""
        while True:
            runs = apify_runs.list_latest_runs(self._connection, self._snapshot)
            steps = [next_step(runs.get(chunk), restartable=self._restartable) for chunk in range(len(chunks))]
            if all(step is Step.FINISHED for step in steps):
                return
            if self._pause is not None and all(step in {Step.FINISHED, Step.START} for step in steps):
                # What was started is stored. The capture is due again when the pause has ended.
                raise NotReadyError(str(self._pause), retry_in_seconds=_PAUSE_SECONDS)
            running = 0
            for chunk, step in enumerate(steps):
                if step is Step.START and (self._pause or running >= self._config.max_concurrent_chunks):
                    continue
                # Wait for the first running chunk only; the others are read without waiting.
                wait_seconds = 0.0 if running else self._config.poll_seconds
                running += self._execute(step, chunk, chunks[chunk], runs.get(chunk), wait_seconds)
            if running and time.monotonic() > self._deadline:
                message = f"the actor is still at work on {running} of {len(chunks)} parts"
                raise NotReadyError(message, retry_in_seconds=self._config.max_wait_seconds / 2)

    def _execute(
        self, step: Step, chunk: int, album_ids: Sequence[str], run: ActorRunRow | None, wait_seconds: float
    ) -> bool:
        """Execute the next step of a chunk. Returns whether the actor is running for it now."""
        if step is Step.START:
            return self._start(chunk, album_ids)
        if run is None or step is Step.FINISHED:
            return False
        if step is Step.FIND:
            return self._find(run)
        if step is Step.POLL:
            return self._poll(run, wait_seconds)
        if step is Step.FETCH:
            return self._fetch(run, wait_seconds)
        map_result(self._connection, run, self._spotify, snapshot=self._snapshot, run_id=self._run_id)
        return False

    def _start(self, chunk: int, album_ids: Sequence[str]) -> bool:
        cost = self._config.limits.cost_usd(len(album_ids))
        try:
            row = apify_runs.record_intent(
                self._connection, self._snapshot, chunk, album_ids, cost_usd=cost, run=self._run_id
            )
        except PurchasesPausedError as error:
            self._pause = error
            return False
        try:
            started = self._actor.start_run(album_ids)
        except VendorError as error:
            if not error.may_have_been_received:
                apify_runs.record_not_started(self._connection, row, message=str(error))
            raise
        apify_runs.record_start(self._connection, row, actor_run=started.id, status=started.status)
        return self._record_status(row, started)

    def _find(self, run: ActorRunRow) -> bool:
        recorded = apify_runs.list_recorded_runs(self._connection, since=run.intended_at)
        try:
            found = self._actor.find_run(run.album_ids, since=run.intended_at, exclude=recorded)
        except NotVisibleError:
            # Apify lists a run whose input it does not show: it could be this one, for as long as inputs may lag behind.
            if run.age_seconds < _GONE_SECONDS:
                raise
            found = None
        if found is not None:
            apify_runs.record_start(self._connection, run.id, actor_run=found.id, status=found.status)
            return self._record_status(run.id, found)
        listed_after = self._config.start_timeout_seconds + _LISTING_DELAY_SECONDS
        if run.age_seconds < listed_after:
            message = "whether Apify started the actor is not known yet"
            raise NotReadyError(message, retry_in_seconds=min(listed_after, listed_after - run.age_seconds))
        apify_runs.record_not_started(self._connection, run.id, message="Apify lists no such run")
        return False

    def _poll(self, run: ActorRunRow, wait_seconds: float) -> bool:
        try:
            current = self._actor.get_run(str(run.actor_run), wait_seconds=wait_seconds)
        except NotVisibleError as error:
            return self._record_gone(run, error)
        return self._record_status(run.id, current)

    def _fetch(self, run: ActorRunRow, wait_seconds: float) -> bool:
        try:
            body = self._actor.download_items(self._actor.get_run(str(run.actor_run)))
        except IncompleteResultError:
            time.sleep(min(wait_seconds, 1.0))
            return True
        except NotVisibleError as error:
            return self._record_gone(run, error)
        if _count_albums_with_tracks(body) < len(run.album_ids):
            # The result may still gain items. After that time it is stored as it is, and the result message names the albums
            # without tracks.
            incomplete_since = self._incomplete_since.setdefault(run.id, time.monotonic())
            if time.monotonic() < incomplete_since + self._config.result_settle_seconds:
                time.sleep(min(wait_seconds, 1.0))
                return True
        apify_runs.store_result(self._connection, run.id, body)
        return False

    def _record_gone(self, run: ActorRunRow, error: NotVisibleError) -> bool:
        """Give up a run that Apify has not shown for an hour. Until then one of Apify's servers may lag behind."""
        if run.seconds_since_seen < _GONE_SECONDS:
            raise error
        apify_runs.record_status(self._connection, run.id, status=apify_runs.GONE, message=str(error), finished_at=None)
        return False

    def _record_status(self, row: int, run: ActorRun) -> bool:
        apify_runs.record_status(
            self._connection,
            row,
            status=run.status,
            message=run.message,
            finished_at=run.finished_at,
            cost_usd=run.cost_usd if run.status.has_ended else None,
        )
        return not run.status.has_ended


def _count_albums_with_tracks(body: bytes) -> int:
    try:
        return sum(bool(album.tracks) for album in read_items(body))
    except UnexpectedResponseError:
        return 0
