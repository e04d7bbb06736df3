"""Asks `GET /status`, which is free, whether the vendor is back, where the answer could end a pause or close the breaker.

A pause that the vendor asked for (Retry-After) is kept for a day at most without a test. A streak breaker is closed by a person.
"""

from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.postgres import songstats_ledger
from measurement_pipeline.postgres.database import connect

# A sensor's tick has 60 s, and asks again soon.
_PATIENCE_SECONDS = 10.0


def end_guessed_pause(config: BackfillConfig, dependencies: BackfillDependencies) -> str | None:
    """End a pause that may be probed once the vendor answers; what came of it, in words.

    None: there is no such pause. It is one of our own guesses, or one that the vendor asked for more than a day ago. The next
    call shows whether the vendor really is back: one goes out alone, and a 429, which is not billed, begins the next pause.
    """
    with connect(config.database_url) as connection:
        if not songstats_ledger.vendor_state(connection).is_probe_allowed:
            return None
    if not vendor_status.fetch_vendor_status(dependencies.new_client, seconds=_PATIENCE_SECONDS).key_works:
        with connect(config.database_url) as connection:
            songstats_ledger.postpone_probe(connection)
        return "Songstats gives no good answer yet: the pause goes on"
    with connect(config.database_url) as connection:
        ended = songstats_ledger.end_guessed_pause(connection)
    return "Songstats answers again: the pause is over" if ended else None


def close_key_breaker(config: BackfillConfig, dependencies: BackfillDependencies) -> str | None:
    """Close a breaker that a refused key opened, once the key works; what came of it. None: there is no such breaker."""
    with connect(config.database_url) as connection:
        state = songstats_ledger.vendor_state(connection)
    if state.breaker != "open" or state.breaker_kind != "key":
        return None
    works = vendor_status.fetch_vendor_status(dependencies.new_client, seconds=_PATIENCE_SECONDS).key_works
    if not works:
        return "the key is still refused" if works is False else "Songstats could not be asked"
    with connect(config.database_url) as connection:
        songstats_ledger.close_breaker(connection, kind="key")
    return "the key works again: closed"
