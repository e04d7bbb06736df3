"""What a person may override: settled rows put back, a breaker closed, a pause lifted. Each is recorded with its deed."""

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


def close_breaker(connection: Connection, *, actor: str) -> list[str]:
    """Let calls go out again, a pause lifted too; the acts that this took. Streaks are counted afresh from here."""
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
