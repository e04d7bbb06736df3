"""What a person may override: requeue settled rows, close a breaker, end a pause. Each act is recorded."""

from collections.abc import Sequence

from measurement_pipeline.postgres import backfill_queue, measurement_jobs, operator_acts, songstats_ledger
from measurement_pipeline.postgres.database import Connection


def requeue(connection: Connection, songs: Sequence[str], *, rebuy: bool, actor: str) -> list[str]:
    """Set settled rows, except stored ones, to pending again, and reopen the requests that pay for them; which rows."""
    with connection.transaction():
        requeued = backfill_queue.requeue(connection, songs, rebuy=rebuy)
        reopened = measurement_jobs.reopen(connection, requeued)
        if requeued:
            detail = {"songs": requeued, "rebuy": rebuy, "requests": [str(job) for job in reopened]}
            operator_acts.record(connection, actor=actor, act="requeued", detail=detail)
    return requeued


def close_breaker(connection: Connection, *, actor: str) -> list[str]:
    """Close the breaker and end a pause; the acts that this took. Streaks are counted from zero again."""
    done: dict[str, dict[str, str | None]] = {}
    with connection.transaction():
        before = songstats_ledger.vendor_state(connection)
        if songstats_ledger.close_breaker(connection):
            done["breaker closed"] = {"reason": before.reason}
        if songstats_ledger.end_pause(connection):
            done["pause lifted"] = {"until": before.paused_until.isoformat() if before.paused_until else None}
        for act, detail in done.items():
            operator_acts.record(connection, actor=actor, act=act, detail=detail)
    return list(done)
