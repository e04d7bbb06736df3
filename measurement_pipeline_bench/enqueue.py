"""Enqueueing a catalogue: one request for all of it, beside one upsert for each recording, 25 at a time."""

import asyncio
import time
from datetime import date
from uuid import UUID, uuid4

import psycopg

from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.intake import process as intake
from measurement_pipeline.postgres import measurement_jobs, songs
from measurement_pipeline.postgres.payment_decisions import PaymentDecisions
from measurement_pipeline.postgres.songs import CatalogLine
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Deployment, Lab, doubles, isrcs
from measurement_pipeline_bench.sql import statements

_SQL = statements("enqueue")

_AT_A_TIME = 25
_COMMITS = 200
_ACCOUNTS = 10
_ALLOWED = Decision(PaymentVerdict.ALLOWED, "a card")


def measure(lab: Lab) -> Findings:
    """Measure the intake use case on a catalogue, and the comparison on a sample of one."""
    size, sample = lab.size(100_000, 2_000), lab.size(2_500, 250)
    with doubles(points=1) as sandbox:
        deployment = lab.deployment(sandbox)
        seconds = queue_catalogue(lab, deployment, size)
        other = lab.deployment(sandbox)
        catalogue = import_catalogue(lab, other, size)
        job = other.submit_scope({"catalog_id": str(catalogue)})
        lab.say(f"one upsert a recording, for {sample:,}")
        upserts = asyncio.run(_upsert(other.database_url, job, isrcs(size)[:sample]))
        commit = _commit_seconds(other)
        requests = lab.size(1_000, 100)
        answered = answer_requests(lab, lab.deployment(sandbox), requests)
        scripted = _answer_by_script(lab, lab.deployment(sandbox), requests)
    return Findings(
        [
            Figure(
                f"intake of {requests:,} requests for one recording each, of 10 accounts",
                "requests/s",
                requests / answered,
                "a script that writes the same rows",
                requests / scripted,
                Target("ratio", at_least=0.3),
                "the script trusts each request: it reads no scope, asks for no card, counts no attempt and holds no lock",
            ),
            Figure(
                f"enqueueing a catalogue of {size:,} in one request",
                "recordings/s",
                size / seconds,
                f"one upsert a recording, {_AT_A_TIME} at once",
                sample / upserts,
                Target("ratio", at_least=50),
                f"one upsert a recording: measured on {sample:,} of the same catalogue; the same two rows, a statement each",
            ),
        ],
        {
            "enqueueing": {
                "the whole catalogue, in seconds": round(seconds, 2),
                # The comparison consists of commits. It is slower where a commit waits for a disk; ours hardly is.
                "one commit alone on this machine, in ms": round(commit * 1000, 2),
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


def queue_catalogue(lab: Lab, deployment: Deployment, size: int) -> float:
    """Import and request a catalogue; return the seconds that intake takes after the payment check."""
    catalogue = import_catalogue(lab, deployment, size)
    decide = deployment.services().stripe.decide
    deployment.submit_scope({"catalog_id": str(catalogue)})
    lab.say(f"intake of one request for {size:,} recordings")
    opened = intake.load_batch(deployment.database_url)
    decisions = intake.check_payments(opened, decide)
    since = time.monotonic()
    (taken,) = intake.process_batch(deployment.database_url, opened, decisions, run="bench")
    seconds = time.monotonic() - since
    if taken.receipt is None or taken.receipt.enqueued != size:
        raise RuntimeError(f"expected {size} recordings to be enqueued, intake said {taken}")
    lab.say(f"intake took {seconds:.1f} s")
    return seconds


def answer_requests(lab: Lab, deployment: Deployment, requests: int) -> float:
    """Seconds of intake for so many small requests, including their selection and parsing, without Stripe."""
    accounts = _ask_one_by_one(deployment, requests)
    for account in accounts:
        PaymentDecisions(deployment.database_url).record(account, _ALLOWED)
    lab.say(f"intake of {requests:,} requests for one recording each")
    since = time.monotonic()
    opened = intake.load_batch(deployment.database_url)
    taken = intake.process_batch(deployment.database_url, opened, dict.fromkeys(opened.accounts, _ALLOWED), run="bench")
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
    """Submit requests for one recording each, from ten accounts; return the accounts."""
    accounts = [uuid4() for _ in range(_ACCOUNTS)]
    with deployment.connect() as connection, connection.transaction():
        for number, song in enumerate(isrcs(requests)):
            scope = {"isrcs": [song]}
            measurement_jobs.submit(connection, account=accounts[number % _ACCOUNTS], source="historical", scope=scope)
    return accounts


async def _upsert(database_url: str, job: UUID, isrcs_: list[str]) -> float:
    """Seconds to insert so many recordings, one statement for each row, `_AT_A_TIME` recordings at once."""
    connections = [await psycopg.AsyncConnection.connect(database_url, autocommit=True) for _ in range(_AT_A_TIME)]

    async def enqueue(connection: psycopg.AsyncConnection, song: str) -> None:
        await connection.execute(_SQL["ask"], {"job": job, "song": song})
        await connection.execute(_SQL["upsert"], {"song": song})

    since = time.monotonic()
    for start in range(0, len(isrcs_), _AT_A_TIME):
        batch = isrcs_[start : start + _AT_A_TIME]
        await asyncio.gather(*map(enqueue, connections, batch))
    seconds = time.monotonic() - since
    for connection in connections:
        await connection.close()
    return seconds


def _commit_seconds(deployment: Deployment) -> float:
    """Seconds of one small statement with its own commit."""
    with deployment.connect() as connection:
        since = time.monotonic()
        for _ in range(_COMMITS):
            connection.execute(_SQL["small_commit"])
        return (time.monotonic() - since) / _COMMITS
