"""The steps of one run on one capture that it owns: start, find, look, fetch, map, until every part is over.

What comes next for a part is decided in `steps`; what stops all of them is raised, and is `run`'s to say.
"""

import time
from collections.abc import Sequence
from uuid import UUID

from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.capture.mapping import SpotifyLookup, map_result
from measurement_pipeline.capture.steps import Step, next_step, rows_to_restart
from measurement_pipeline.postgres import apify_runs, captures
from measurement_pipeline.postgres.apify_runs import ActorRunRow
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.vendors.apify.client import ActorRun, ApifyClient
from measurement_pipeline.vendors.apify.errors import (
    NotAllThereYetError,
    NotSeenError,
    RejectedError,
    ThrottledError,
    TokenRefusedError,
    UnavailableError,
)
from measurement_pipeline.vendors.apify.items import MalformedItemsError, read_items

# Once the start has been given up, so long until a run that it started is in Apify's own list, on whichever of its machines.
_LISTED_SECONDS = 60.0
# What is known to exist and cannot be seen for so long does not exist any more.
_GONE_SECONDS = 3600.0


class NotReadyError(Exception):
    """What is waited for takes longer than one run waits. `seconds`: until it is worth another look."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class ActorRunner:
    """One try at one capture. Raises `ApifyError`s, `NotReadyError` and `CaptureLostError`."""

    def __init__(
        self,
        connection: Connection,
        terms: CaptureConfig,
        actor: ApifyClient,
        spotify: SpotifyLookup,
        *,
        snapshot: UUID,
        account: UUID,
        run: str,
        is_retry: bool,
        deadline: float,
    ) -> None:
        self._connection = connection
        self._terms = terms
        self._actor = actor
        self._spotify = spotify
        self._snapshot = snapshot
        self._run = run
        self._deadline = deadline
        self._short_since: dict[int, float] = {}
        again = rows_to_restart(apify_runs.list_latest_runs(connection, snapshot).values(), is_retry=is_retry)
        # What failed is paid for, and so is its next start: where the month does not allow that, what was captured stays.
        within_cap = not again or captures.spent_this_month(connection, account) <= terms.cap_usd
        self._again = again if within_cap else frozenset[int]()

    def run(self, parts: Sequence[Sequence[str]]) -> None:
        """Work on the parts until each is over."""
        while True:
            bought = apify_runs.list_latest_runs(self._connection, self._snapshot)
            steps = [next_step(bought.get(chunk), restartable=self._again) for chunk in range(len(parts))]
            if all(step is Step.FINISHED for step in steps):
                return
            in_the_air = 0
            for chunk, step in enumerate(steps):
                if step is Step.START and in_the_air >= self._terms.max_concurrent_chunks:
                    continue
                # The first one in the air is waited for; the others are only looked at.
                wait = 0.0 if in_the_air else self._terms.poll_seconds
                in_the_air += self._do(step, chunk, parts[chunk], bought.get(chunk), wait)
            if in_the_air and time.monotonic() > self._deadline:
                why = f"the actor is still at work on {in_the_air} of {len(parts)} parts"
                raise NotReadyError(why, seconds=self._terms.max_wait_seconds / 2)

    def _do(self, step: Step, chunk: int, album_ids: Sequence[str], bought: ActorRunRow | None, wait: float) -> bool:
        """Do the next step of a part; whether the actor is at work on it now."""
        if step is Step.START:
            return self._start(chunk, album_ids)
        if bought is None or step is Step.FINISHED:
            return False
        if step is Step.FIND:
            return self._find(bought)
        if step is Step.POLL:
            return self._look(bought, wait)
        if step is Step.FETCH:
            return self._fetch(bought, wait)
        map_result(self._connection, bought, self._spotify, snapshot=self._snapshot, run=self._run)
        return False

    def _start(self, chunk: int, album_ids: Sequence[str]) -> bool:
        row = apify_runs.record_intent(self._connection, self._snapshot, chunk, album_ids, run=self._run)
        try:
            started = self._actor.start_run(album_ids)
        except (ThrottledError, TokenRefusedError, RejectedError) as error:
            apify_runs.record_not_started(self._connection, row, message=str(error))
            raise
        except UnavailableError as error:
            if not error.may_have_been_received:
                apify_runs.record_not_started(self._connection, row, message=str(error))
            raise
        apify_runs.record_start(self._connection, row, actor_run=started.id, status=started.status)
        return self._note(row, started)

    def _find(self, bought: ActorRunRow) -> bool:
        taken = apify_runs.list_recorded_runs(self._connection, since=bought.intended_at)
        try:
            found = self._actor.find_run(bought.album_ids, since=bought.intended_at, exclude=taken)
        except NotSeenError:
            # A run of the list whose input is gone: it could be this one, for as long as inputs are kept waiting.
            if bought.age_seconds < _GONE_SECONDS:
                raise
            found = None
        if found is not None:
            apify_runs.record_start(self._connection, bought.id, actor_run=found.id, status=found.status)
            return self._note(bought.id, found)
        patience = self._terms.start_timeout_seconds + _LISTED_SECONDS
        if bought.age_seconds < patience:
            why = "whether Apify started the actor is not known yet"
            raise NotReadyError(why, seconds=min(patience, patience - bought.age_seconds))
        apify_runs.record_not_started(self._connection, bought.id, message="Apify knows of no such run")
        return False

    def _look(self, bought: ActorRunRow, wait: float) -> bool:
        try:
            return self._note(bought.id, self._actor.get_run(str(bought.actor_run), wait_seconds=wait))
        except NotSeenError as error:
            return self._gone(bought, error)

    def _fetch(self, bought: ActorRunRow, wait: float) -> bool:
        try:
            body = self._actor.download_items(self._actor.get_run(str(bought.actor_run)))
        except NotAllThereYetError:
            time.sleep(min(wait, 1.0))
            return True
        except NotSeenError as error:
            return self._gone(bought, error)
        if _albums_with_tracks(body) < len(bought.album_ids):
            # Kept as it is once it has had time to become whole; whichever albums then lack their tracks are said.
            short_since = self._short_since.setdefault(bought.id, time.monotonic())
            if time.monotonic() < short_since + self._terms.result_settle_seconds:
                time.sleep(min(wait, 1.0))
                return True
        apify_runs.store_result(self._connection, bought.id, body)
        return False

    def _gone(self, bought: ActorRunRow, error: NotSeenError) -> bool:
        """Give up a run that Apify has not shown for an hour; until then it may be one of Apify's machines that does not know."""
        if bought.seconds_since_seen < _GONE_SECONDS:
            raise error
        apify_runs.record_status(
            self._connection, bought.id, status=apify_runs.GONE, message=str(error), finished_at=None
        )
        return False

    def _note(self, row: int, stands: ActorRun) -> bool:
        apify_runs.record_status(
            self._connection, row, status=stands.status, message=stands.message, finished_at=stands.finished_at
        )
        return not stands.status.has_ended


def _albums_with_tracks(body: bytes) -> int:
    try:
        return sum(bool(album.tracks) for album in read_items(body))
    except MalformedItemsError:
        return 0
