"""A pipeline on the test's database and vendor doubles, with short helpers for its tests."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import httpx

from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.results import RecordingResult
from measurement_pipeline.backfill.run import BackfillDependencies, BackfillRun
from measurement_pipeline.domain.backfill_queue import QueueRules
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.vendors.songstats.client import SongstatsClient
from measurement_pipeline_tests.database import execute

OPERATORS = UUID("0f0f0f0f-0000-4000-8000-000000000001")


def isrcs(count: int, *, start: int = 0) -> list[str]:
    """ISRCs of IFPI's example registrant, which are never real recordings."""
    return [f"AA6Q72{number:06d}" for number in range(start, start + count)]


@dataclass
class Workbench:
    """The parts that a test of the paid backfill uses."""

    database_url: str
    sandbox: SandboxClient
    config: BackfillConfig
    dependencies: BackfillDependencies
    account: UUID = field(default_factory=uuid4)

    def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        return execute(self.database_url, statement, parameters)

    def allow(self, account: UUID) -> None:
        PaymentDecisions(self.database_url).record(account, Decision(PaymentVerdict.ALLOWED, "a card"))

    def deny(self, account: UUID) -> None:
        PaymentDecisions(self.database_url).record(account, Decision(PaymentVerdict.DENIED, "no card"))

    def submit_request(
        self, songs: Sequence[str], *, account: UUID | None = None, ranks: Sequence[int] | None = None
    ) -> UUID:
        """Create and enqueue an accepted request for `songs`; its account has a card."""
        account = account or self.account
        self.allow(account)
        job = self.sql(
            "insert into measurement_jobs (account, source, scope, state, asked, enqueued, skipped)"
            " values (%s, 'historical', '{}', 'accepted', %s, %s, 0) returning id",
            account,
            len(songs),
            len(songs),
        )[0]["id"]
        self.sql("insert into songs (isrc) select unnest(%s::text[]) on conflict do nothing", list(songs))
        self.sql("insert into measurement_job_songs (job, song) select %s, unnest(%s::text[])", job, list(songs))
        self.sql(
            "insert into songstats_backfill_queue (song, rank_score, account)"
            " select *, %s::uuid from unnest(%s::text[], %s::bigint[]) on conflict do nothing",
            account,
            list(songs),
            list(ranks or range(len(songs), 0, -1)),
        )
        return UUID(str(job))

    def run_backfill(
        self, songs: Sequence[str], *, run: str = "run-1", **options: Any
    ) -> tuple[BackfillRun, list[RecordingResult]]:
        """Run one backfill over `songs` and collect its results."""
        config = options.pop("config", self.config)
        dependencies = options.pop("dependencies", self.dependencies)
        backfill = BackfillRun(
            songs,
            run=run,
            is_operator=options.pop("is_operator", False),
            config=config,
            dependencies=dependencies,
            **options,
        )
        return backfill, list(backfill)

    def row(self, song: str) -> dict[str, Any]:
        return self.sql("select * from songstats_backfill_queue where song = %s", song)[0]

    def statuses(self) -> dict[str, int]:
        return {
            r["s"]: r["n"]
            for r in self.sql("select coalesce(outcome, status) s, count(*) n from songstats_backfill_queue group by 1")
        }

    def ledger(self) -> list[dict[str, Any]]:
        return self.sql("select * from songstats_quota_ledger order by id")


def create_workbench(database_url: str, sandbox: SandboxClient) -> Workbench:
    """A workbench whose payment check always allows. Its timeouts are long; a test about a timeout sets its own."""
    config = BackfillConfig(
        database_url=database_url,
        rules=QueueRules(claim_timeout_seconds=60.0, max_attempts=5, operators_account=OPERATORS),
        hits_allowed=900,
        requests_per_second=0,
        concurrency=20,
        eur_per_hit=0.0833,
        heartbeat_seconds=0.2,
        patience_with_database_seconds=60.0,
    )

    return Workbench(
        database_url,
        sandbox,
        config,
        BackfillDependencies(songstats_client_factory(sandbox), lambda _account: PaymentVerdict.ALLOWED),
    )


def songstats_client_factory(sandbox: SandboxClient, **changed: Any) -> Callable[[], SongstatsClient]:
    """A factory of clients for the Songstats double. `changed` overrides their settings."""
    settings: dict[str, Any] = {
        "api_key": sandbox.songstats_key,
        "base_url": sandbox.songstats_url,
        "sources": ["spotify"],
        "timeout_seconds": 60.0,
        "concurrency": 20,
    }
    return lambda: SongstatsClient(**settings | changed)


class Gate:
    """Delays Songstats' responses after the first `free` until the gate opens, which keeps calls in flight."""

    def __init__(self, *, free: int = 0) -> None:
        self._free = free
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def delay_responses(self, dependencies: BackfillDependencies, sandbox: SandboxClient) -> BackfillDependencies:
        """The same dependencies, with clients whose responses pass the gate."""

        def new_client() -> SongstatsClient:
            return songstats_client_factory(sandbox, transport=_GatedTransport(self))()

        return replace(dependencies, new_client=new_client)

    async def wait_until_open(self) -> None:
        self._free -= 1
        if self._free < 0:
            await asyncio.to_thread(self._opened.wait)


class _GatedTransport(httpx.AsyncBaseTransport):
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._sent_by = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._sent_by.handle_async_request(request)
        await self._gate.wait_until_open()
        return response

    async def aclose(self) -> None:
        await self._sent_by.aclose()
