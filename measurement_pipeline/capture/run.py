"""One capture, from its claim to its end: what is bought is bought once, whatever dies between two of these steps.

A run of the actor is a row before it is started, and its id is kept the moment it is known; one whose start was never heard of is
looked for before another is started. A result is kept as received before it is mapped.
"""

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from measurement_pipeline.apify.client import ActorRun, ApifyActor, RunStatus
from measurement_pipeline.apify.errors import (
    NotAllThereYetError,
    RejectedError,
    ThrottledError,
    TokenRefusedError,
    UnavailableError,
)
from measurement_pipeline.apify.items import MalformedItemsError
from measurement_pipeline.capture.mapping import Spotify, map_result
from measurement_pipeline.capture.steps import Step, next_step
from measurement_pipeline.capture.terms import Captures
from measurement_pipeline.domain.capture import SnapshotState, chunks
from measurement_pipeline.domain.wording import counted
from measurement_pipeline.postgres import apify_runs, measurement_jobs, operator_acts, snapshots
from measurement_pipeline.postgres.apify_runs import Bought, NotOursError
from measurement_pipeline.postgres.database import Connection, DatabaseError, connect

APIFY = "apify"

# Where Apify says 429 without saying for how long, and where it takes the token no more: then a person has to act.
_THROTTLED_SECONDS = 60.0
_REFUSED_SECONDS = 900.0
# By then a run that was started is in Apify's own list of runs, on whichever of its machines.
_LISTED_SECONDS = 30.0


class Kind(StrEnum):
    """How a run's work on a capture ended."""

    DONE = "done"
    DONE_BEFORE = "done before"
    FAILED = "failed"
    TRY_AGAIN = "try again"
    PUT_OFF = "put off"
    LEFT_ALONE = "left alone"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Ended:
    """What a run did: `reason` in one line, the capture's row afterwards, and its tracks without an ISRC, the most played first.

    `STOPPED`: nothing is lost and it goes on by itself, but a person has to act.
    """

    kind: Kind
    reason: str | None = None
    shown: dict[str, Any] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()


class _NotYetError(Exception):
    """What is waited for takes longer than one run waits."""

    def __init__(self, message: str, *, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.seconds = seconds


def make_capture(
    snapshot: UUID, captures: Captures, *, run: str, operator: bool, retry_number: int = 0, last_try: bool = True
) -> Ended:
    """Take a capture as far as it goes. `last_try`: the run has no further try after this one.

    Raises `LookupError` where there is no such capture, and what the database raises.
    """
    terms = captures.terms
    with connect(terms.database_url) as connection:
        shown = snapshots.show(connection, snapshot)
        if shown is None:
            raise LookupError(f"there is no capture {snapshot}")
        over = _over_already(connection, shown, operator=operator)
        if over is not None:
            return over
        claimed = snapshots.claim(
            connection, snapshot, run=run, operator=operator, claim_timeout_seconds=terms.claim_timeout_seconds
        )
        if claimed is None:
            return Ended(Kind.LEFT_ALONE, "another run works on it, or it waits for its time", shown)
        if operator:
            _note_the_launch(connection, shown, run)
        if claimed.attempts > terms.max_attempts:
            why = f"given up after {counted(claimed.attempts - 1, 'attempt')}: {shown['error'] or 'no attempt came to an end'}"
            return _finish(connection, snapshot, run, SnapshotState.FAILED, why)
        try:
            return _Purchase(connection, captures, snapshot, run, retry_number).to_the_end(
                chunks(claimed.album_ids), last_try=last_try
            )
        except BaseException as error:
            # Interrupted, or an error of our own: it is due again at once. What cannot be said now, the claim's age says.
            with suppress(DatabaseError):
                why = f"{type(error).__name__} interrupted it"
                snapshots.release(connection, snapshot, run=run, seconds=0.0, error=why, attempt_back=False)
            raise


@dataclass(frozen=True, slots=True)
class _Purchase:
    """The steps of one run on one capture that it owns."""

    connection: Connection
    captures: Captures
    snapshot: UUID
    run: str
    retry_number: int

    def to_the_end(self, parts: Sequence[Sequence[str]], *, last_try: bool) -> Ended:
        """Every part, until each is over; what stops that is said on the capture's row."""
        try:
            with self.captures.means.new_actor() as actor, closing(Spotify(self.captures.means)) as spotify:
                self._buy(actor, spotify, parts)
        except _NotYetError as error:
            return self._put_off(Kind.PUT_OFF, str(error), seconds=error.seconds)
        except ThrottledError as error:
            seconds = max(error.retry_after_seconds or 0.0, _THROTTLED_SECONDS)
            snapshots.pause(self.connection, APIFY, seconds=seconds, reason=str(error))
            return self._put_off(Kind.PUT_OFF, str(error), seconds=seconds)
        except TokenRefusedError as error:
            snapshots.pause(self.connection, APIFY, seconds=_REFUSED_SECONDS, reason=str(error))
            return self._put_off(Kind.STOPPED, str(error), seconds=_REFUSED_SECONDS)
        except UnavailableError as error:
            if not last_try:
                return Ended(Kind.TRY_AGAIN, str(error))
            return self._put_off(Kind.STOPPED, str(error), seconds=None)
        except RejectedError as error:
            return self._put_off(Kind.STOPPED, str(error), seconds=None, attempt_back=False)
        except NotOursError as error:
            return Ended(Kind.LEFT_ALONE, str(error))
        return self._conclude(parts, last_try=last_try)

    def _buy(self, actor: ApifyActor, spotify: Spotify, parts: Sequence[Sequence[str]]) -> None:
        deadline = time.monotonic() + self.captures.terms.patience_seconds
        while True:
            bought = apify_runs.of_snapshot(self.connection, self.snapshot)
            in_the_air = 0
            for chunk, album_ids in enumerate(parts):
                latest = bought.get(chunk)
                step = next_step(latest, retry_number=self.retry_number)
                if step is Step.MAP and latest is not None:
                    self._map(latest, spotify)
                    continue
                if step is Step.START and in_the_air >= self.captures.terms.chunks_at_once:
                    continue
                # The first one in the air is waited for; the others are only looked at.
                wait = 0.0 if in_the_air else self.captures.terms.poll_seconds
                in_the_air += self._do(step, actor, chunk, album_ids, latest, wait)
            if not in_the_air and not self._anything_left(parts):
                return
            if in_the_air and time.monotonic() > deadline:
                raise _NotYetError(f"the actor is still at work on {in_the_air} of {len(parts)} parts")

    def _anything_left(self, parts: Sequence[Sequence[str]]) -> bool:
        bought = apify_runs.of_snapshot(self.connection, self.snapshot)
        steps = (next_step(bought.get(chunk), retry_number=self.retry_number) for chunk in range(len(parts)))
        return any(step is not Step.OVER for step in steps)

    def _do(
        self, step: Step, actor: ApifyActor, chunk: int, album_ids: Sequence[str], bought: Bought | None, wait: float
    ) -> bool:
        """Do the next step of a part; whether the actor is at work on it now."""
        if step is Step.START:
            return self._start(actor, chunk, album_ids)
        if bought is None or step is Step.OVER:
            return False
        match step:
            case Step.FIND:
                return self._find(actor, bought)
            case Step.LOOK if bought.actor_run is not None:
                return self._look(actor, bought.id, bought.actor_run, wait)
            case Step.FETCH if bought.actor_run is not None:
                return self._fetch(actor, bought.id, bought.actor_run, wait)
        return False

    def _start(self, actor: ApifyActor, chunk: int, album_ids: Sequence[str]) -> bool:
        row = apify_runs.intend(self.connection, self.snapshot, chunk, album_ids, run=self.run)
        try:
            started = actor.start(album_ids)
        except (ThrottledError, TokenRefusedError, RejectedError) as error:
            apify_runs.not_started(self.connection, row, message=str(error))
            raise
        except UnavailableError as error:
            if not error.perhaps_started:
                apify_runs.not_started(self.connection, row, message=str(error))
            raise
        apify_runs.started(self.connection, row, actor_run=started.id, status=started.status)
        return self._note(row, started)

    def _find(self, actor: ApifyActor, bought: Bought) -> bool:
        taken = apify_runs.taken(self.connection, since=bought.intended_at)
        found = actor.find(bought.album_ids, since=bought.intended_at, besides=taken)
        if found is None and bought.age_seconds < _LISTED_SECONDS:
            raise _NotYetError("whether Apify started the actor is not known yet", seconds=_LISTED_SECONDS)
        if found is None:
            apify_runs.not_started(self.connection, bought.id, message="Apify knows of no such run")
            return False
        apify_runs.started(self.connection, bought.id, actor_run=found.id, status=found.status)
        return self._note(bought.id, found)

    def _look(self, actor: ApifyActor, row: int, actor_run: str, wait: float) -> bool:
        return self._note(row, actor.look(actor_run, wait_seconds=wait))

    def _fetch(self, actor: ApifyActor, row: int, actor_run: str, wait: float) -> bool:
        try:
            apify_runs.keep(self.connection, row, actor.result(actor.look(actor_run)))
        except NotAllThereYetError:
            time.sleep(min(wait, 1.0))
            return True
        return False

    def _note(self, row: int, stands: ActorRun) -> bool:
        apify_runs.seen(
            self.connection, row, status=stands.status, message=stands.message, finished_at=stands.finished_at
        )
        return not stands.status.ended

    def _map(self, bought: Bought, spotify: Spotify) -> None:
        try:
            map_result(self.connection, bought, spotify, snapshot=self.snapshot, run=self.run)
        except MalformedItemsError as error:
            apify_runs.malformed(self.connection, bought.id, message=str(error))

    def _conclude(self, parts: Sequence[Sequence[str]], *, last_try: bool) -> Ended:
        bought = apify_runs.of_snapshot(self.connection, self.snapshot)
        missing = [one for one in bought.values() if not one.is_mapped]
        if not missing:
            return _finish(self.connection, self.snapshot, self.run, SnapshotState.DONE, None)
        why = "; ".join(dict.fromkeys(_in_words(one) for one in missing))
        if len(missing) == len(parts):
            return _finish(self.connection, self.snapshot, self.run, SnapshotState.FAILED, why)
        if not last_try and any(one.status != apify_runs.MALFORMED for one in missing):
            return Ended(Kind.TRY_AGAIN, why)
        albums = sum(len(one.album_ids) for one in missing)
        asked = sum(map(len, parts))
        why = f"{albums:,} of {counted(asked, 'album')} could not be captured: {why}"
        return _finish(self.connection, self.snapshot, self.run, SnapshotState.DONE, why)

    def _put_off(self, kind: Kind, why: str, *, seconds: float | None, attempt_back: bool = True) -> Ended:
        snapshots.release(
            self.connection, self.snapshot, run=self.run, seconds=seconds, error=why, attempt_back=attempt_back
        )
        return Ended(kind, why, snapshots.show(self.connection, self.snapshot) or {})


def _over_already(connection: Connection, shown: dict[str, Any], *, operator: bool) -> Ended | None:
    """A capture that is over is left as it is; a person's launch maps it again where tracks are without an ISRC, for nothing."""
    if shown["state"] == SnapshotState.DONE:
        if not (operator and (shown["unmapped"] or shown["error"])):
            return Ended(Kind.DONE_BEFORE, None, shown, apify_runs.unmapped(connection, shown["id"]))
        apify_runs.take_up_again(connection, shown["id"])
    if shown["state"] == SnapshotState.FAILED:
        if not operator:
            return Ended(Kind.LEFT_ALONE, f"it failed: {shown['error']}", shown)
        apify_runs.take_up_again(connection, shown["id"])
    return None


def _note_the_launch(connection: Connection, shown: dict[str, Any], run: str) -> None:
    if shown["state"] in {SnapshotState.DONE, SnapshotState.FAILED}:
        detail = {"snapshot": str(shown["id"]), "was": shown["state"]}
        operator_acts.record(connection, actor=f"run {run}", act="capture taken up again", detail=detail)


def _finish(connection: Connection, snapshot: UUID, run: str, state: SnapshotState, why: str | None) -> Ended:
    with connection.transaction():
        if not snapshots.finish(connection, snapshot, run=run, state=state, error=why):
            return Ended(Kind.LEFT_ALONE, "another run has taken it over")
        measurement_jobs.settle(connection)
    kind = Kind.DONE if state is SnapshotState.DONE else Kind.FAILED
    return Ended(kind, why, snapshots.show(connection, snapshot) or {}, apify_runs.unmapped(connection, snapshot))


def _in_words(bought: Bought) -> str:
    if bought.status == apify_runs.MALFORMED:
        return f"what run {bought.actor_run} brought cannot be read ({bought.message}); it is kept"
    status = RunStatus(bought.status).value if bought.status else "unknown"
    return f"run {bought.actor_run} of the actor ended as {status}" + (f": {bought.message}" if bought.message else "")
