"""What the running API holds: connections, threads, and what it counts. Opened and closed with the app; no route is here."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

from measurement_pipeline.api.bearer import BearerTokenVerifier
from measurement_pipeline.api.config import ApiConfig
from measurement_pipeline.api.limits import RateLimiter
from measurement_pipeline.api.totals import TotalsCache
from measurement_pipeline.postgres.database import Connection, DatabaseError, Pool, pool, transaction_with_timeout
from measurement_pipeline.postgres.errors import is_read_only, is_undone

T = TypeVar("T")

# Few of each, on a server whose connections Dagster and its runs need too: what waits, waits for one. More connections than
# intakes, so that long ones leave some for reads.
_CONNECTIONS = 16
_QUESTIONS_AT_ONCE = 8
_INTAKES_AT_ONCE = 8
# Of a transaction that the server rolled back and accepts again.
_TRIES = 3
# What was begun has had the server's own patience before.
_FINISH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ApiState:
    """The means of one running API.

    `questions` are threads that ask Stripe, `intakes` those that take requests in: a Stripe that does not answer holds up
    neither reads nor captures. `name` is who handles requests, in `measurement_jobs.run_id`; `at_work`: the connections
    that are lent.
    """

    desk: ApiConfig
    pool: Pool
    questions: ThreadPoolExecutor
    intakes: ThreadPoolExecutor
    allowance: RateLimiter
    totals: TotalsCache
    bearer: BearerTokenVerifier | None
    name: str
    at_work: set[Connection] = field(default_factory=set)

    @classmethod
    def of(cls, desk: ApiConfig) -> "ApiState":
        """An office whose connections are not open yet."""
        return cls(
            desk=desk,
            pool=pool(desk.database_url, size=_CONNECTIONS, timeout_seconds=desk.database_within_seconds),
            questions=ThreadPoolExecutor(_QUESTIONS_AT_ONCE, "question"),
            intakes=ThreadPoolExecutor(_INTAKES_AT_ONCE, "intake"),
            allowance=RateLimiter(desk.requests_per_minute),
            totals=TotalsCache(desk.read_within_seconds),
            bearer=None if desk.bearer is None else BearerTokenVerifier(desk.bearer),
            name=f"api-{uuid4()}",
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """One connection and one transaction, for what is quick. Raises `TooLong` and `DatabaseUnavailable`."""
        with (
            self.unhurried() as connection,
            transaction_with_timeout(connection, seconds=self.desk.read_within_seconds),
        ):
            yield connection

    @contextmanager
    def unhurried(self) -> Iterator[Connection]:
        """One connection without a limit, for an intake: a catalogue of 100,000 takes its time. Raises `DatabaseUnavailable`."""
        with self.pool.connection() as connection:
            self.at_work.add(connection)
            try:
                yield connection
            except DatabaseError as error:
                if is_read_only(error):
                    # Sessions keep what the server was when they began: none of them is used again.
                    self.pool.drain()
                raise
            finally:
                self.at_work.discard(connection)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in one quick transaction, again where the server rolled it back for a deadlock or refused to change anything.

        Raises `TooLong` and `DatabaseError`.
        """
        for _ in range(_TRIES - 1):
            try:
                with self.connection() as connection:
                    return work(connection)
            except DatabaseError as error:
                if not (is_undone(error) or is_read_only(error)):
                    raise
        with self.connection() as connection:
            return work(connection)

    def close(self) -> None:
        """Finish what was begun, for a while, begin nothing more, and let go: what is not finished is a queued row."""
        for threads in (self.questions, self.intakes):
            threads.shutdown(wait=False, cancel_futures=True)
        self.totals.close()
        # Whoever waits for a connection gets none any more; those that are lent are taken back below.
        self.pool.close(timeout=0)
        begun = time.monotonic()
        while self.at_work and time.monotonic() < begun + 2 * _FINISH_SECONDS:
            time.sleep(0.1)
            for connection in list(self.at_work) if time.monotonic() > begun + _FINISH_SECONDS else ():
                with suppress(DatabaseError):  # it has just come to its end
                    connection.cancel_safe()
