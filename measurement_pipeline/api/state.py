"""State of the running API: connection pool, threads, rate limits and caches. The application opens and closes it."""

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

# Small numbers, because Dagster and its runs need connections of the same server. Fewer intake threads than connections, so that
# long intakes leave some connections for other writes.
_CONNECTIONS = 12
_READ_CONNECTIONS = 8
_PAYMENT_THREADS = 8
_INTAKE_THREADS = 8
# Tries of a transaction that the server rolled back.
_MAX_TRIES = 3
# At shutdown, the time for unfinished work. The HTTP server has waited before that.
_DRAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ApiState:
    """Connections, threads and caches of one API process.

    `payment_threads` ask Stripe and `intake_threads` process requests. They are separate, so that a Stripe that does not answer
    delays neither reads nor captures. `name` identifies this process in `measurement_jobs.run_id`.
    """

    config: ApiConfig
    pool: Pool
    read_pool: Pool
    payment_threads: ThreadPoolExecutor
    intake_threads: ThreadPoolExecutor
    rate_limiter: RateLimiter
    totals: TotalsCache
    token_verifier: BearerTokenVerifier | None
    name: str
    busy_connections: set[Connection] = field(default_factory=set)

    @classmethod
    def create(cls, config: ApiConfig) -> "ApiState":
        """Create the state. It opens no connection yet."""
        return cls(
            config=config,
            pool=pool(config.database_url, size=_CONNECTIONS, timeout_seconds=config.database_within_seconds),
            read_pool=pool(
                config.database_url,
                size=_READ_CONNECTIONS,
                timeout_seconds=config.database_within_seconds,
                prepared_reads_within_seconds=config.read_within_seconds,
            ),
            payment_threads=ThreadPoolExecutor(_PAYMENT_THREADS, "payment"),
            intake_threads=ThreadPoolExecutor(_INTAKE_THREADS, "intake"),
            rate_limiter=RateLimiter(config.requests_per_minute),
            totals=TotalsCache(config.read_within_seconds),
            token_verifier=None if config.bearer is None else BearerTokenVerifier(config.bearer),
            name=f"api-{uuid4()}",
        )

    def open(self) -> None:
        """Open the pools without waiting for connections: without a database the API starts and reports that it is not ready."""
        self.pool.open(wait=False)
        self.read_pool.open(wait=False)

    def read(self, query: Callable[[Connection], T]) -> T:
        """Return the result of one query, limited by the read timeout. Raises `StatementTimeout` and `DatabaseUnavailable`.

        A pooled connection may have ended since its last use. The query is then repeated on a new one.
        """
        with self.read_pool.connection() as connection:
            try:
                return self._read(connection, query)
            except DatabaseError:
                if not connection.closed:
                    raise
        # The server has probably restarted, so the other connections have ended, too.
        self.read_pool.drain()
        with self.read_pool.connection() as connection:
            return self._read(connection, query)

    def _read(self, connection: Connection, query: Callable[[Connection], T]) -> T:
        if connection.prepare_threshold is not None:
            return query(connection)
        # Behind a pooler the session's timeout would apply to others.
        with transaction_with_timeout(connection, seconds=self.config.read_within_seconds):
            return query(connection)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection in a transaction with the read timeout. Raises `StatementTimeout` and `DatabaseUnavailable`."""
        with (
            self.connection_without_timeout() as connection,
            transaction_with_timeout(connection, seconds=self.config.read_within_seconds),
        ):
            yield connection

    @contextmanager
    def connection_without_timeout(self) -> Iterator[Connection]:
        """Yield a connection for an intake: a catalogue of 100,000 recordings takes its time. Raises `DatabaseUnavailable`."""
        with self.pool.connection() as connection:
            self.busy_connections.add(connection)
            try:
                yield connection
            except DatabaseError as error:
                if is_read_only(error):
                    # A session that started on a read-only server stays read-only, so replace all pooled sessions.
                    self.pool.drain()
                raise
            finally:
                self.busy_connections.discard(connection)

    def write_with_retry(self, write: Callable[[Connection], T]) -> T:
        """Run `write` in a short transaction; retry if the server rolled it back or was read-only.

        Raises `StatementTimeout` and `DatabaseError`.
        """
        for _ in range(_MAX_TRIES - 1):
            try:
                with self.connection() as connection:
                    return write(connection)
            except DatabaseError as error:
                if not (is_undone(error) or is_read_only(error)):
                    raise
        with self.connection() as connection:
            return write(connection)

    def close(self) -> None:
        """Start nothing new, wait a limited time for running work, then cancel it. A cancelled intake stays a queued job."""
        for threads in (self.payment_threads, self.intake_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        self.totals.close()
        # Closes idle connections and rejects waiting requests. Busy connections are cancelled below.
        self.read_pool.close(timeout=0)
        self.pool.close(timeout=0)
        started_at = time.monotonic()
        while self.busy_connections and time.monotonic() < started_at + 2 * _DRAIN_SECONDS:
            time.sleep(0.1)
            if time.monotonic() > started_at + _DRAIN_SECONDS:
                for connection in list(self.busy_connections):
                    with suppress(DatabaseError):  # it has just finished
                        connection.cancel_safe()
