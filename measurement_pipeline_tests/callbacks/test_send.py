"""From a request that ends to a receiver: the outbox, the signature, retries for three days, and a callback sent again."""

import hmac
from collections.abc import Callable, Iterator
from hashlib import sha256
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.callbacks.send import SendResult, send_due
from measurement_pipeline.domain.callback import account_secret
from measurement_pipeline.domain.payment import Decision
from measurement_pipeline.postgres import job_callbacks, measurement_jobs
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.vendors.callback import CallbackSender
from measurement_pipeline_tests.health.receiver import Receiver, listening
from measurement_pipeline_tests.intake.conftest import IntakeBench, paid, unpaid
from measurement_pipeline_tests.workbench import isrcs

__all__ = ["paid"]
SECRET = "a secret of 32 characters, or so"


@pytest.fixture
def bench(database_url: str) -> IntakeBench:
    return IntakeBench(database_url)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as opened:
        yield opened


def submit(bench: IntakeBench, receiver: Receiver, *, account: UUID) -> UUID:
    with connect(bench.database_url) as connection:
        return measurement_jobs.submit(
            connection,
            account=account,
            source="historical",
            scope={"isrcs": isrcs(1)},
            callback_url=receiver.url,
        )


def settle(bench: IntakeBench) -> None:
    bench.settle_row(isrcs(1)[0], "stored")
    with connect(bench.database_url) as connection:
        measurement_jobs.settle(connection)


def send(bench: IntakeBench) -> SendResult:
    return send_due(
        bench.database_url, CallbackSender(allow_loopback=True), secret=SECRET, clock=lambda: 1_800_000_000.9
    )


def test_a_request_that_is_done_is_reported_once_and_signed(
    bench: IntakeBench, receiver: Receiver, paid: Callable[[UUID], Decision]
):
    account = uuid4()
    job = submit(bench, receiver, account=account)
    bench.process(paid)
    assert send(bench) == SendResult()
    settle(bench)
    assert send(bench) == SendResult(delivered=1)
    assert send(bench) == SendResult()
    (event,) = receiver.posted
    (row,) = bench.sql("select id, created_at from job_callbacks")
    assert (event["id"], event["type"]) == (str(row["id"]), "measurement_job.done")
    assert (event["job"]["id"], event["job"]["state"], event["job"]["asked"]) == (str(job), "done", 1)
    signed = hmac.new(account_secret(SECRET, account).encode(), b"1800000000." + receiver.bodies[0], sha256).hexdigest()
    assert receiver.headers[0]["measurement-signature"] == f"t=1800000000,v1={signed}"


def test_a_request_that_needs_a_card_is_reported_and_one_without_an_address_is_not(
    bench: IntakeBench, receiver: Receiver
):
    submit(bench, receiver, account=uuid4())
    bench.submit({"isrcs": isrcs(1)})
    bench.process(unpaid)
    send(bench)
    assert [event["type"] for event in receiver.posted] == ["measurement_job.payment_required"]


def test_a_failed_callback_is_sent_again_for_three_days_and_then_by_hand(
    bench: IntakeBench, receiver: Receiver, paid: Callable[[UUID], Decision]
):
    submit(bench, receiver, account=uuid4())
    bench.process(paid)
    settle(bench)
    receiver.status = 503
    assert send(bench) == SendResult(failed=1)
    assert send(bench) == SendResult()
    row = "select attempts, last_status_code, last_error, next_attempt_at > now() + interval '50 s' as waits from job_callbacks"
    assert tuple(bench.sql(row)[0].values()) == (1, 503, "the receiver answered 503", True)
    bench.sql("update job_callbacks set next_attempt_at = now(), retry_until = now()")
    assert send(bench) == SendResult(abandoned=1)
    bench.sql("update job_callbacks set next_attempt_at = now()")
    assert send(bench) == SendResult()
    receiver.status = 200
    with connect(bench.database_url) as connection:
        (listed,) = job_callbacks.list_recent(connection, undelivered=True)
        assert job_callbacks.resend(connection, listed["id"])
        assert not job_callbacks.resend(connection, uuid4())
    assert send(bench) == SendResult(delivered=1)


def test_a_callback_whose_process_was_killed_is_due_again_after_the_lease(
    bench: IntakeBench, receiver: Receiver, paid: Callable[[UUID], Decision]
):
    submit(bench, receiver, account=uuid4())
    bench.process(paid)
    settle(bench)
    with connect(bench.database_url) as connection:
        assert len(job_callbacks.take(connection, limit=10, lease_seconds=120)) == 1
    assert send(bench) == SendResult()
    bench.sql("update job_callbacks set next_attempt_at = now()")
    assert send(bench) == SendResult(delivered=1)
