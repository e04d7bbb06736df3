"""What a person may override: settled rows put back on the queue, a breaker closed. Each is recorded with its deed."""

from collections.abc import Sequence

from measurement_pipeline.postgres import backfill_queue, measurement_jobs, operator_acts, songstats_ledger
from measurement_pipeline.postgres.database import Connection


def requeue(connection: Connection, songs: Sequence[str], *, rebuy: bool, actor: str) -> list[str]:
    """Put settled rows, stored ones apart, back to pending; the requests that wanted them are open again, and pay."""
    with connection.transaction():
        put_back = backfill_queue.requeue(connection, songs, rebuy=rebuy)
        reopened = measurement_jobs.reopen(connection, put_back)
        if put_back:
            detail = {"songs": put_back, "rebuy": rebuy, "requests": [str(job) for job in reopened]}
            operator_acts.record(connection, actor=actor, act="requeued", detail=detail)
    return put_back


def close_breaker(connection: Connection, *, actor: str) -> bool:
    """Let calls go out again; whether the breaker was open. Streaks are counted afresh from here."""
    with connection.transaction():
        reason = songstats_ledger.deployment(connection).reason
        closed = songstats_ledger.close_breaker(connection)
        if closed:
            operator_acts.record(connection, actor=actor, act="breaker closed", detail={"reason": reason})
    return closed
