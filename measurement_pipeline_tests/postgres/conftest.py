"""The test's database and the statements on its rows that tests share."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from measurement_pipeline.domain.backfill_queue import Claim, QueueRules
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.postgres import backfill_queue
from measurement_pipeline.postgres.database import AsyncConnection, connect
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline_tests.database import execute

T = TypeVar("T")

OPERATORS = UUID("0f0f0f0f-0000-4000-8000-000000000001")
RULES = QueueRules(claim_timeout_seconds=60.0, max_attempts=5, operators_account=OPERATORS)


def isrcs(count: int, *, start: int = 0) -> list[str]:
    """ISRCs of IFPI's example registrant, which are never real recordings."""
    return [f"AA6Q72{number:06d}" for number in range(start, start + count)]


@dataclass
class Tables:
    """The measurement tables of one database."""

    database_url: str

    def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        return execute(self.database_url, statement, parameters)

    def in_loop(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run an asynchronous function on its own connection."""

        async def go() -> T:
            opened = await psycopg.AsyncConnection.connect(
                self.database_url, autocommit=True, prepare_threshold=None, row_factory=dict_row
            )
            async with opened as connection:
                return await work(connection)

        return asyncio.run(go())

    def decide(self, account: UUID, verdict: PaymentVerdict = PaymentVerdict.ALLOWED, *, age: str = "0") -> UUID:
        PaymentDecisions(self.database_url).record(account, Decision(verdict, "so it was decided"))
        self.sql("update payment_decisions set checked_at = now() - %s::interval where account = %s", age, account)
        return account

    def request(
        self, songs: Sequence[str], *, account: UUID | None = None, state: str = "accepted", created_at: str = "now"
    ) -> UUID:
        """A request for `songs`, of an account with a card unless one is given."""
        account = account or self.decide(uuid4())
        (row,) = self.sql(
            "insert into measurement_jobs (account, source, scope, state, created_at)"
            " values (%s, 'historical', '{}', %s, %s::timestamptz) returning id",
            account, state, created_at,
        )  # fmt: skip
        self.sql("insert into songs (isrc) select unnest(%s::text[]) on conflict do nothing", list(songs))
        self.sql("insert into measurement_job_songs (job, song) select %s, unnest(%s::text[])", row["id"], list(songs))
        return UUID(str(row["id"]))

    def enqueue(self, songs: Sequence[str], *, ranks: Sequence[int] | None = None) -> None:
        """Pending rows, the first ranked best."""
        self.sql("insert into songs (isrc) select unnest(%s::text[]) on conflict do nothing", list(songs))
        self.sql(
            "insert into songstats_backfill_queue (song, rank_score) select * from unnest(%s::text[], %s::bigint[])",
            list(songs), list(ranks or range(len(songs), 0, -1)),
        )  # fmt: skip

    def wanted(self, songs: Sequence[str]) -> UUID:
        """Pending rows and a request for them by an account with a card."""
        self.enqueue(songs)
        return self.request(songs)

    def claim(self, songs: Sequence[str], *, run: str = "run-1", limit: int = 1000, **options: Any) -> list[Claim]:
        with connect(self.database_url) as connection:
            return backfill_queue.claim(
                connection, songs, run=run, limit=limit, rules=options.pop("rules", RULES), **options
            )

    def abandon(self, songs: Sequence[str]) -> None:
        """Let the claim timeout pass since their owner's last heartbeat."""
        self.sql(
            "update songstats_backfill_queue set heartbeat_at = now() - interval '61 seconds' where song = any(%s)",
            list(songs),
        )

    def row(self, song: str) -> dict[str, Any]:
        return self.sql("select * from songstats_backfill_queue where song = %s", song)[0]

    def outcomes(self) -> dict[str, str]:
        rows = self.sql("select song, coalesce(outcome, status) as state from songstats_backfill_queue")
        return {row["song"]: row["state"] for row in rows}


@pytest.fixture
def tables(database_url: str) -> Tables:
    return Tables(database_url)
