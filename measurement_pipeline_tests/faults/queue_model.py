"""A model of the queue, its hits and its requests in plain Python, without SQL or a clock.

Two flags represent time: an owner is `silent` once its last heartbeat is older than the claim timeout, and a row `waits` until
its `not_before` has passed. The real database supplies each row's `age`, because its clock decides.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from measurement_pipeline.domain.backfill_queue import Settlement, Status
from measurement_pipeline.domain.outcome import Cause, Outcome
from measurement_pipeline.postgres.songstats_ledger import ReservationVerdict

SETTLED = {Outcome.STORED, Outcome.NO_HISTORY, Outcome.REJECTED, Outcome.MALFORMED, Outcome.EXHAUSTED}
UNINFORMATIVE_CAUSES = {Cause.THROTTLED, Cause.REFUSED_KEY}


@dataclass
class Row:
    """A queue row. `is_requeued`: its age starts again."""

    rank: int
    status: Status = Status.PENDING
    outcome: Outcome | None = None
    lease: int = 0
    attempts: int = 0
    attempt_run: str | None = None
    owner: str | None = None
    silent: bool = False
    waits: bool = False
    launched: bool = False
    suspect: bool = False
    is_requeued: bool = False
    age: datetime | None = None

    def requeue(self, *, attempts: int | None = None) -> None:
        """Make the row pending, behind the others of its rank, as after a failure."""
        self.status, self.outcome, self.waits, self.is_requeued = Status.PENDING, None, False, True
        if attempts is not None:
            self.attempts, self.attempt_run, self.suspect = attempts, None, False


@dataclass
class Hit:
    """A row of the ledger."""

    song: str
    run: str
    lease: int
    account: UUID
    job: UUID | None
    is_open: bool = True
    billable: bool | None = None
    cause: Cause | None = None

    @property
    def is_uninformative(self) -> bool:
        """Whether the response says nothing about the recording: throttled, refused, or not from the vendor."""
        return self.cause in UNINFORMATIVE_CAUSES or (self.cause is Cause.TRANSIENT and self.billable is None)


@dataclass
class Response:
    """The response to a hit. `read_by` is the version of the parser that has read it, or None."""

    song: str
    hit: int
    read_by: int | None = None


@dataclass
class Request:
    """An account's request that intake has accepted."""

    account: UUID
    songs: frozenset[str]
    is_done: bool = False


@dataclass
class Model:
    """The state and its operations. Each operation returns the expected result of the real one."""

    ranks: dict[str, int]
    max_attempts: int
    hits_allowed: int
    operators: UUID
    rows: dict[str, Row] = field(default_factory=dict)
    hits: dict[int, Hit] = field(default_factory=dict)
    responses: dict[int, Response] = field(default_factory=dict)
    requests: dict[UUID, Request] = field(default_factory=dict)
    histories: set[str] = field(default_factory=set)
    # Account → whether its last payment decision allowed it. `fresh` holds the accounts whose decision is recent enough to
    # spend on.
    allowed: dict[UUID, bool] = field(default_factory=dict)
    fresh: set[UUID] = field(default_factory=set)
    is_open: bool = True
    paused: bool = False

    # --- queries ------------------------------------------------------------------------------------------------------

    @property
    def may_call(self) -> bool:
        """Whether neither the breaker nor a pause blocks calls."""
        return self.is_open and not self.paused

    @property
    def hits_left(self) -> int:
        """The remaining budget. Every hit counts unless it is known to be free."""
        return self.hits_allowed - sum(hit.billable is not False for hit in self.hits.values())

    def unread(self, song: str) -> int | None:
        """The latest response that was paid for and never read."""
        return max((n for n, r in self.responses.items() if r.song == song and r.read_by is None), default=None)

    def payer(self, song: str) -> tuple[UUID, UUID | None] | None:
        """The account that pays, and its request: the earliest that can pay, else the operators if they launched the row."""
        for job, request in self.requests.items():
            if not request.is_done and song in request.songs and self.allowed.get(request.account):
                return request.account, job
        if self.rows[song].launched and self.allowed.get(self.operators):
            return self.operators, None
        return None

    def is_held(self, song: str, lease: int, run: str) -> bool:
        """Whether `run` still holds the row under `lease`, so that its writes take effect."""
        row = self.rows[song]
        return (row.status, row.lease, row.owner) == (Status.IN_PROGRESS, lease, run)

    def is_due(self, song: str, *, run: str | None = None, impatient: bool = False) -> bool:
        """Whether the row can be claimed now, by `run` if given."""
        row = self.rows[song]
        return (
            self.may_call
            and (row.status is Status.PENDING or (row.status is Status.IN_PROGRESS and row.silent))
            and (impatient or not row.waits)
            and (
                (self.payer(song) is not None and self._has_attempts(row, run))
                # Reading a paid response needs neither a payer nor an attempt.
                or self.unread(song) is not None
            )
        )

    # --- requests -----------------------------------------------------------------------------------------------------

    def enqueue(self, job: UUID, account: UUID, songs: Collection[str]) -> tuple[int, int, int]:
        """Accept a request; return the numbers of requested, enqueued and skipped recordings."""
        self.requests[job] = Request(account, frozenset(songs))
        enqueued = skipped = 0
        for song in songs:
            row = self.rows.get(song)
            if row is None:
                self.rows[song] = Row(self.ranks[song])
                enqueued += 1
            elif row.outcome is Outcome.EXHAUSTED:
                row.requeue(attempts=0)
                enqueued += 1
            elif row.outcome in SETTLED:
                skipped += 1
        return len(songs), enqueued, skipped

    def settle_requests(self) -> set[UUID]:
        """Finish the requests whose recordings are all settled."""
        done = {
            job
            for job, request in self.requests.items()
            if not request.is_done and all(self.rows[song].outcome in SETTLED for song in request.songs)
        }
        for job in done:
            self.requests[job].is_done = True
        return done

    # --- a run --------------------------------------------------------------------------------------------------------

    def claim(self, songs: Collection[str], *, run: str, limit: int, impatient: bool) -> list[str]:
        """Claim the highest ranked rows, oldest first within a rank."""
        due = [song for song in songs if song in self.rows and self.is_due(song, run=run, impatient=impatient)]
        due.sort(key=lambda song: (-self.rows[song].rank, self.rows[song].age, song))
        for song in due[:limit]:
            row = self.rows[song]
            row.status, row.owner, row.silent, row.waits = Status.IN_PROGRESS, run, False, False
            row.lease += 1
        return due[:limit]

    def heartbeat(self, claims: Iterable[tuple[str, int]], *, run: str) -> set[str]:
        """Renew the rows that the run still holds; lost ones stay unchanged."""
        held = {song for song, lease in claims if self.is_held(song, lease, run)}
        for song in held:
            self.rows[song].silent = False
        return held

    def may_reserve(self, song: str, lease: int, *, run: str) -> ReservationVerdict:
        """The verdict on a reservation of one hit."""
        payer = self.payer(song)
        if not self.is_held(song, lease, run) or self.unread(song) is not None:
            return ReservationVerdict.NO_LONGER_CLAIMED
        if not self.may_call:
            return ReservationVerdict.BREAKER_OPEN_OR_PAUSED
        if payer is None:
            return ReservationVerdict.UNPAID
        if payer[0] not in self.fresh:
            return ReservationVerdict.STALE
        return ReservationVerdict.RESERVED if self.hits_left > 0 else ReservationVerdict.BUDGET

    def reserve(self, number: int, song: str, lease: int, *, run: str) -> int | None:
        """Reserve hit `number`; return the attempt if this is the run's first hit for the row."""
        payer = self.payer(song)
        assert payer is not None
        self.hits[number] = Hit(song, run, lease, *payer)
        row = self.rows[song]
        if row.attempt_run == run:
            return None
        row.attempts, row.attempt_run = row.attempts + 1, run
        return row.attempts

    def store_response(self, number: int, *, billable: bool | None, cause: Cause | None, response: int | None) -> None:
        """Store the response to a hit, even if the run no longer holds the row."""
        hit = self.hits[number]
        hit.is_open, hit.billable, hit.cause = False, billable, cause
        if hit.is_uninformative and self._count_informative_calls(hit.song, hit.run) == 0:
            self._refund_attempt(hit.song, hit.run)
        if response is not None:
            self.responses.setdefault(response, Response(hit.song, number))

    def settle(
        self,
        song: str,
        lease: int,
        settlement: Settlement,
        *,
        run: str,
        cause: Cause | None,
        response: int | None,
        parser: int,
    ) -> bool:
        """Settle the row and mark the response as read, if the lease still holds. The hit's cause is always recorded."""
        if response is not None:
            self.hits[self.responses[response].hit].cause = cause
        if not self.is_held(song, lease, run):
            return False
        row = self.rows[song]
        row.status, row.outcome, row.owner, row.silent = settlement.status, settlement.outcome, None, False
        row.waits = settlement.not_before_seconds is not None
        if settlement.attempt_back and self._count_informative_calls(song, run) <= (
            # A transient response refunds the attempt only if it did not come from the vendor.
            cause not in UNINFORMATIVE_CAUSES | {Cause.TRANSIENT}
        ):
            self._refund_attempt(song, run)
        if response is not None:
            self.responses[response].read_by = parser
        if settlement.outcome is Outcome.STORED:
            self.histories.add(song)
        return True

    def release(self, *, run: str) -> int:
        """Make the rows that the run still holds pending again."""
        held = [row for row in self.rows.values() if row.owner == run]
        for row in held:
            row.status, row.owner, row.silent = Status.PENDING, None, False
        return len(held)

    # --- reclaim ------------------------------------------------------------------------------------------------------

    def exhaust(self, *, spared: str | None) -> int:
        """Fail the rows that have no attempts left, no coming retry and nothing to read."""
        used_up = [
            row
            for song, row in self.rows.items()
            if row.attempts >= self.max_attempts
            and (spared is None or row.attempt_run != spared)
            and (
                (row.status is Status.PENDING and not row.waits)
                or row.outcome is Outcome.TRANSIENT
                or (row.status is Status.IN_PROGRESS and row.silent)
            )
            and self.unread(song) is None
        ]
        for row in used_up:
            row.status, row.outcome, row.owner, row.silent = Status.FAILED, Outcome.EXHAUSTED, None, False
        return len(used_up)

    def reclaim(self, *, parser: int) -> tuple[int, int]:
        """Requeue transient failures and settled rows with an unread response; then rows that a newer parser may read."""
        passing = [
            row
            for song, row in self.rows.items()
            if (row.outcome is Outcome.TRANSIENT and row.attempts < self.max_attempts)
            or (row.outcome not in {None, Outcome.STORED} and self.unread(song) is not None)
        ]
        for row in passing:
            row.requeue()
        readable = 0
        for song, row in self.rows.items():
            if row.outcome is Outcome.MALFORMED:
                latest = self._latest_response(song)
                if latest.read_by is not None and latest.read_by < parser:
                    latest.read_by = None
                    row.requeue()
                    readable += 1
        return len(passing), readable

    def settle_orphaned_hits(self) -> int:
        """Settle open hits whose claims have ended without a response. Their fate is unknown, so they count."""
        orphans = [
            hit
            for hit in self.hits.values()
            if hit.is_open and (not self.is_held(hit.song, hit.lease, hit.run) or self.rows[hit.song].silent)
        ]
        for hit in orphans:
            hit.is_open, hit.cause = False, Cause.CRASHED
        return len(orphans)

    # --- operator actions ---------------------------------------------------------------------------------------------

    def requeue(self, songs: Sequence[str], *, rebuy: bool) -> list[str]:
        """Requeue settled rows, except stored ones, and reopen their requests."""
        chosen = [
            song
            for song in songs
            if song in self.rows and self.rows[song].outcome not in {None, Outcome.STORED}
        ]  # fmt: skip
        for song in chosen:
            row = self.rows[song]
            if row.outcome is Outcome.MALFORMED and not rebuy:
                self._latest_response(song).read_by = None
            row.requeue(attempts=0)
            row.launched = True
        for request in self.requests.values():
            request.is_done = request.is_done and request.songs.isdisjoint(chosen)
        return chosen

    def mark_suspect(self, songs: Collection[str]) -> None:
        """Settled on doubtful evidence."""
        for song in songs:
            if song in self.rows and self.rows[song].status in {Status.DONE, Status.FAILED}:
                self.rows[song].suspect = True

    def _has_attempts(self, row: Row, run: str | None) -> bool:
        # A run that has already counted its attempt may continue.
        return row.attempts < self.max_attempts or (run is not None and row.attempt_run == run)

    def _count_informative_calls(self, song: str, run: str) -> int:
        return sum(
            (hit.song, hit.run, hit.is_open) == (song, run, False) and not hit.is_uninformative
            for hit in self.hits.values()
        )

    def _refund_attempt(self, song: str, run: str) -> None:
        row = self.rows[song]
        if row.attempt_run == run:
            row.attempts, row.attempt_run = row.attempts - 1, None

    def _latest_response(self, song: str) -> Response:
        return self.responses[max(n for n, r in self.responses.items() if r.song == song)]
