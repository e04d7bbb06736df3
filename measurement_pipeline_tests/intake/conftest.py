"""Requests in the test's database, and helpers to submit and process them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.intake.process import RequestResult, check_payments, load_batch, process_batch
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline_tests.database import execute

CHECKOUT = "https://checkout.example/session"


def isrcs(count: int, *, start: int = 0) -> list[str]:
    """ISRCs of IFPI's example registrant, which are never real recordings."""
    return [f"AA6Q72{number:06d}" for number in range(start, start + count)]


@dataclass
class IntakeBench:
    """Submits and processes requests in one database."""

    database_url: str

    def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        return execute(self.database_url, statement, parameters)

    def submit(
        self,
        scope: object,
        *,
        account: UUID | None = None,
        source: str | None = "historical",
        platforms: str = "{spotify}",
    ) -> UUID:
        """Insert a request as a client does."""
        (row,) = self.sql(
            "insert into measurement_jobs (account, source, scope, platforms) values (%s, %s, %s, %s::text[]) returning id",
            account or uuid4(), source, Jsonb(scope), platforms,
        )  # fmt: skip
        return UUID(str(row["id"]))

    def catalogue(self, songs: Sequence[str], *, account: UUID) -> UUID:
        self.sql("insert into accounts (id) values (%s) on conflict do nothing", account)
        (row,) = self.sql(
            "insert into catalogs (account, name) values (%s, gen_random_uuid()::text) returning id", account
        )
        self.sql("insert into songs (isrc) select unnest(%s::text[]) on conflict do nothing", list(songs))
        self.sql("insert into catalog_songs (catalog, song) select %s, unnest(%s::text[])", row["id"], list(songs))
        return UUID(str(row["id"]))

    def measured(self, song: str, count: int, *, source: str = "import", day: str = "2026-01-01") -> None:
        self.sql(
            "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
            " values (%s, 'spotify', 'platform_displayed_play_count', %s, %s, %s)",
            song, day, source, count,
        )  # fmt: skip

    def process(
        self, check: Callable[[UUID], Decision], *, unpaid: bool = False, run: str = "intake-1", limit: int = 100
    ) -> list[RequestResult]:
        """Process one batch as an intake run does, or with `unpaid` as a reclaim run does."""
        opened = load_batch(self.database_url, unpaid=unpaid, limit=limit)
        return process_batch(self.database_url, opened, check_payments(opened, check), run=run)

    def job(self, job: UUID) -> dict[str, Any]:
        """The request's row without its scope, which Python may be unable to read."""
        return self.sql(
            "select id, account, source, platforms, state, status_code, error, checkout_url, asked, enqueued, skipped, snapshot,"
            " attempts, not_before, run_id, created_at, updated_at from measurement_jobs where id = %s",
            job,
        )[0]

    def receipt(self, job: UUID) -> tuple[int, int, int, int]:
        """The numbers of requested, enqueued, skipped and already queued recordings."""
        row = self.job(job)
        requested, enqueued, skipped = row["asked"], row["enqueued"], row["skipped"]
        return requested, enqueued, skipped, requested - enqueued - skipped

    def queue(self) -> dict[str, str]:
        """Song → outcome, or status if it has none."""
        return {
            row["song"]: row["result"]
            for row in self.sql("select song, coalesce(outcome, status) as result from songstats_backfill_queue")
        }

    def settle_row(self, song: str, outcome: str) -> None:
        status = "done" if outcome in {"stored", "no_history", "rejected"} else "failed"
        self.sql(
            "update songstats_backfill_queue set status = %s, outcome = %s, attempts = 5 where song = %s",
            status,
            outcome,
            song,
        )


@pytest.fixture
def intake_bench(database_url: str) -> IntakeBench:
    return IntakeBench(database_url)


@pytest.fixture
def paid(database_url: str) -> Callable[[UUID], Decision]:
    """A check that allows and records every account."""

    def check(account: UUID) -> Decision:
        decision = Decision(PaymentVerdict.ALLOWED, "A card is on file.")
        PaymentDecisions(database_url).record(account, decision)
        return decision

    return check


def unpaid(_account: UUID) -> Decision:
    return Decision(
        PaymentVerdict.DENIED, "No card is on file for this account.", CHECKOUT, datetime.now(UTC) + timedelta(hours=24)
    )


def unknown(_account: UUID) -> Decision:
    return Decision(PaymentVerdict.UNKNOWN, "Stripe could not be reached.", retry_after_seconds=600.0)
