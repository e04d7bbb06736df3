"""Is the vendor back? Asks `GET /status`, which is free, where the answer could let calls go out again.

A pause that the vendor asked for (Retry-After) is kept to; a streak breaker is a person's to close.
"""

from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.backfill.run import Means
from measurement_pipeline.backfill.terms import Terms
from measurement_pipeline.postgres import songstats_ledger
from measurement_pipeline.postgres.database import connect

# A sensor's tick has 60 s, and asks again soon.
_PATIENCE_SECONDS = 10.0


def end_guessed_pause(terms: Terms, means: Means) -> str | None:
    """End a pause of which only we thought that it must be so long, once the vendor answers; what came of it.

    None: there is no such pause. Whether the vendor really is back the next call shows: one goes out alone, and a 429 begins
    the next, longer pause. So in a storm one call goes unanswered each time, costing nothing, and no more than that.
    """
    with connect(terms.database_url) as connection:
        if not songstats_ledger.deployment(connection).may_probe:
            return None
    if not vendor_status.ask(means.new_client, seconds=_PATIENCE_SECONDS).key_works:
        return "Songstats gives no good answer yet: the pause goes on"
    with connect(terms.database_url) as connection:
        ended = songstats_ledger.end_guessed_pause(connection)
    return "Songstats answers again: the pause is over" if ended else None


def close_key_breaker(terms: Terms, means: Means) -> str | None:
    """Close a breaker that a refused key opened, once the key works; what came of it. None: there is no such breaker."""
    with connect(terms.database_url) as connection:
        state = songstats_ledger.deployment(connection)
    if state.breaker != "open" or state.breaker_kind != "key":
        return None
    works = vendor_status.ask(means.new_client, seconds=_PATIENCE_SECONDS).key_works
    if not works:
        return "the key is still refused" if works is False else "Songstats could not be asked"
    with connect(terms.database_url) as connection:
        songstats_ledger.close_breaker(connection, kind="key")
    return "the key works again: closed"
