"""Enqueueing a catalogue: one request for all of it, beside COPY of the same rows into the same tables.

Then ten times the catalogue in one request, and many small requests.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from statistics import median
from typing import LiteralString
from uuid import UUID, uuid4

import psutil

from measurement_pipeline.intake import process as intake
from measurement_pipeline.postgres import measurement_jobs, songs
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.songs import CatalogLine
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Deployment, Lab, doubles, isrcs
from measurement_pipeline_bench.sql import statements

_SQL = statements("enqueue")

_ACCOUNTS = 100
# Each way, alternating.
_TIMES = 3
_LARGE = 10


def measure(lab: Lab) -> Findings:
    """Measure the intake use case on a catalogue and beside COPY, then on a large catalogue, then on small requests."""
    size = lab.size(100_000, 2_000)
    with doubles(points=1) as sandbox:
        ours, copied = [], []
        for _ in range(_TIMES):
            ours.append(queue_catalogue(lab, lab.deployment(sandbox), size).seconds)
            copied.append(_copy_catalogue(lab, lab.deployment(sandbox), size))
        large = queue_catalogue(lab, lab.deployment(sandbox), _LARGE * size)
        requests = lab.size(1_000, 100)
        answered = _answer_requests(lab, lab.deployment(sandbox), sandbox, requests)
        scripted = _answer_by_script(lab, lab.deployment(sandbox), requests)
    seconds = median(ours)
    return Findings(
        [
            Figure(
                f"enqueueing a catalogue of {size:,} in one request",
                "recordings/s",
                size / seconds,
                "COPY into the same tables, same foreign keys",
                size / median(copied),
                Target("ratio", at_least=0.8),
                f"enqueueing: median of {_TIMES}. COPY knows the recordings and their ranks, and looks up nothing",
            ),
            Figure(
                f"enqueueing {_LARGE * size:,} in one request",
                "s",
                large.seconds,
                f"{size:,} in one request",
                seconds,
                Target("ratio", at_most=12),
            ),
            Figure(
                f"intake of {requests:,} requests for one recording each, of {_ACCOUNTS} accounts",
                "s",
                answered,
                "a script that writes the same rows",
                scripted,
                Target("ours", at_most=10),
                "intake: with Stripe, asked once an account. The script trusts each request: it reads no scope, asks no vendor, "
                "counts no attempt and holds no lock",
            ),
        ],
        {
            "enqueueing": {
                "each time, in seconds": ", ".join(f"{one:.2f}" for one in ours),
                "COPY, in seconds": ", ".join(f"{one:.2f}" for one in copied),
                f"growth of this process by {_LARGE * size:,} in one request, in MB": round(
                    large.growth_bytes / 1e6, 1
                ),
            }
        },
    )


def import_catalogue(lab: Lab, deployment: Deployment, size: int) -> UUID:
    """Create a catalogue of the account whose recordings all have a play count; return its id."""
    lab.say(f"importing a catalogue of {size:,}")
    lines = [
        CatalogLine(isrc, f"Title {n}", "Artist", "Album", None, (n * 7_919) % 1_000_003)
        for n, isrc in enumerate(isrcs(size))
    ]
    with deployment.connect() as connection:
        deployment.know_account(connection)
        return songs.import_catalog(
            connection, lines, account=deployment.account, name="bench", as_of=date(2026, 9, 1), raw_ref="bench.csv"
        )


@dataclass(frozen=True, slots=True)
class Intake:
    """What one request took of intake, after the payment check."""

    seconds: float
    growth_bytes: int


def queue_catalogue(lab: Lab, deployment: Deployment, size: int) -> Intake:
    """Import and request a catalogue."""
    catalogue = import_catalogue(lab, deployment, size)
    decide = deployment.services().stripe.decide
    deployment.submit_scope({"catalog_id": str(catalogue)})
    lab.say(f"intake of one request for {size:,} recordings")
    opened = intake.load_batch(deployment.database_url)
    decisions = intake.check_payments(opened, decide)
    memory = psutil.Process().memory_info().rss
    since = time.monotonic()
    (taken,) = intake.process_batch(deployment.database_url, opened, decisions, run="bench")
    seconds = time.monotonic() - since
    if taken.receipt is None or taken.receipt.enqueued != size:
        raise RuntimeError(f"expected {size} recordings to be enqueued, intake said {taken}")
    lab.say(f"intake took {seconds:.1f} s")
    return Intake(seconds, psutil.Process().memory_info().rss - memory)


def _copy_catalogue(lab: Lab, deployment: Deployment, size: int) -> float:
    """Seconds of COPY for the rows of a request for `size` recordings, in one transaction, the request's answer included."""
    catalogue = import_catalogue(lab, deployment, size)
    job = deployment.submit_scope({"catalog_id": str(catalogue)})
    ranked = [(song, rank) for rank, song in enumerate(isrcs(size))]
    with deployment.connect() as connection:
        since = time.monotonic()
        with connection.transaction():
            _copy(connection, _SQL["copy_asked"], ((job, song) for song, _ in ranked))
            _copy(connection, _SQL["copy_queue"], ranked)
            connection.execute(_SQL["accept"], {"job": job})
        return time.monotonic() - since


def _copy(connection: Connection, statement: LiteralString, rows: Iterable[tuple[object, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _answer_requests(lab: Lab, deployment: Deployment, sandbox: SandboxClient, requests: int) -> float:
    """Seconds of intake for so many small requests: selection, parsing, the payment check and the rows."""
    for account in _ask_one_by_one(deployment, requests):
        sandbox.card(str(account))
    decide = deployment.services().stripe.decide
    lab.say(f"intake of {requests:,} requests for one recording each")
    since = time.monotonic()
    opened = intake.load_batch(deployment.database_url)
    decisions = intake.check_payments(opened, decide)
    taken = intake.process_batch(deployment.database_url, opened, decisions, run="bench")
    seconds = time.monotonic() - since
    if sum(one.receipt is not None for one in taken) != requests:
        raise RuntimeError(f"expected {requests} requests to be accepted, intake answered {len(taken)}")
    return seconds


def _answer_by_script(lab: Lab, deployment: Deployment, requests: int) -> float:
    """Seconds of a script that writes the rows of so many requests, each in its own transaction."""
    _ask_one_by_one(deployment, requests)
    lab.say(f"a script that answers {requests:,} requests")
    with deployment.connect() as connection:
        jobs = connection.execute(_SQL["jobs"]).fetchall()
        since = time.monotonic()
        for row, song in zip(jobs, isrcs(requests), strict=True):
            with connection.transaction():
                connection.execute(_SQL["song"], {"song": song})
                connection.execute(_SQL["ask"], {"job": row["id"], "song": song})
                connection.execute(_SQL["upsert"], {"song": song})
                connection.execute(_SQL["accept"], {"job": row["id"]})
        return time.monotonic() - since


def _ask_one_by_one(deployment: Deployment, requests: int) -> list[UUID]:
    """Submit requests for one recording each; return their accounts."""
    accounts = [uuid4() for _ in range(_ACCOUNTS)]
    with deployment.connect() as connection, connection.transaction():
        for number, song in enumerate(isrcs(requests)):
            scope = {"isrcs": [song]}
            measurement_jobs.submit(connection, account=accounts[number % _ACCOUNTS], source="historical", scope=scope)
    return accounts
