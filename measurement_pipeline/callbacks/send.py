"""Sends the due callbacks of the outbox, signed, at least once each. A failed one is due again later, for three days."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from measurement_pipeline.domain.callback import SIGNATURE_HEADER, account_secret, seconds_until_retry, sign
from measurement_pipeline.postgres import job_callbacks
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.postgres.job_callbacks import DueCallback
from measurement_pipeline.vendors.callback import CallbackSender
from measurement_pipeline.vendors.errors import UnavailableError

# Sent at once. One slow receiver delays only its own callback.
_BATCH = 20
# Longer than an attempt can take.
_LEASE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class SendResult:
    """How many callbacks were delivered, failed for now, and were abandoned after three days."""

    delivered: int = 0
    failed: int = 0
    abandoned: int = 0


@dataclass(frozen=True, slots=True)
class _Attempt:
    callback: DueCallback
    status_code: int | None
    error: str | None


def send_due(
    database_url: str,
    sender: CallbackSender,
    *,
    secret: str,
    max_batches: int = 50,
    clock: Callable[[], float] = time.time,
) -> SendResult:
    """Send what is due. `secret`: CALLBACK_SECRET. `clock`: the Unix time of signatures."""
    delivered = failed = abandoned = 0
    with connect(database_url) as connection:
        for _ in range(max_batches):
            due = job_callbacks.take(connection, limit=_BATCH, lease_seconds=_LEASE_SECONDS)
            if not due:
                break
            for attempt in asyncio.run(_send_all(due, sender, secret=secret, clock=clock)):
                callback = attempt.callback
                if attempt.error is None and attempt.status_code is not None:
                    job_callbacks.record_delivered(connection, callback.id, status_code=attempt.status_code)
                    delivered += 1
                    continue
                was_last = job_callbacks.record_failed(
                    connection,
                    callback.id,
                    status_code=attempt.status_code,
                    error=attempt.error or "no answer",
                    wait_seconds=seconds_until_retry(callback.attempts),
                )
                abandoned += was_last
                failed += not was_last
    return SendResult(delivered, failed, abandoned)


async def _send_all(
    due: Sequence[DueCallback], sender: CallbackSender, *, secret: str, clock: Callable[[], float]
) -> list[_Attempt]:
    return await asyncio.gather(*(_send(one, sender, secret=secret, clock=clock) for one in due))


async def _send(callback: DueCallback, sender: CallbackSender, *, secret: str, clock: Callable[[], float]) -> _Attempt:
    event = {"id": str(callback.id), "created_at": callback.created_at.isoformat(), **callback.body}
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    signature = sign(body, key=account_secret(secret, callback.account), timestamp=int(clock()))
    try:
        status = await sender.send(callback.url, body, {SIGNATURE_HEADER: signature})
    except UnavailableError as error:
        return _Attempt(callback, None, str(error))
    is_accepted = 200 <= status < 300
    redirect = ", and a redirect is not followed" if 300 <= status < 400 else ""
    return _Attempt(callback, status, None if is_accepted else f"the receiver answered {status}{redirect}")
