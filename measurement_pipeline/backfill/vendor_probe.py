"""Calls `GET /status`, which is free, to end a pause or close a key breaker once the vendor is back.

A pause from Retry-After is kept without a probe for a day at most. Only a person closes a streak breaker.
"""

from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.backfill.config import BackfillConfig
from measurement_pipeline.backfill.run import BackfillDependencies
from measurement_pipeline.postgres import songstats_ledger
from measurement_pipeline.postgres.database import connect

# A sensor's tick may take 60 s, and the next one probes again.
_PATIENCE_SECONDS = 10.0


def end_guessed_pause(config: BackfillConfig, dependencies: BackfillDependencies) -> str | None:
    """End a pause that may be probed once the vendor answers; the result as text. None: there is no such pause.

    Such a pause is our own guess, or a Retry-After of more than a day ago. The next call shows whether the vendor really is back:
    it goes out alone, and a 429, which is not billed, begins the next pause.
    """
    with connect(config.database_url) as connection:
        if not songstats_ledger.vendor_state(connection).is_probe_allowed:
            return None
    if not vendor_status.fetch_vendor_status(dependencies.new_client, seconds=_PATIENCE_SECONDS).key_works:
        with connect(config.database_url) as connection:
            songstats_ledger.postpone_probe(connection)
        return "Songstats does not answer `GET /status` yet: the pause continues"
    with connect(config.database_url) as connection:
        ended = songstats_ledger.end_guessed_pause(connection)
    return "Songstats answers `GET /status` again: the pause has ended" if ended else None


def close_key_breaker(config: BackfillConfig, dependencies: BackfillDependencies) -> str | None:
    """Close a breaker that a refused key opened, once the key works; the result as text. None: no such breaker is open."""
    with connect(config.database_url) as connection:
        state = songstats_ledger.vendor_state(connection)
    if state.breaker != "open" or state.breaker_kind != "key":
        return None
    works = vendor_status.fetch_vendor_status(dependencies.new_client, seconds=_PATIENCE_SECONDS).key_works
    if not works:
        return "the key is still refused" if works is False else "Songstats did not answer `GET /status`"
    with connect(config.database_url) as connection:
        songstats_ledger.close_breaker(connection, kind="key")
    return "the key works again: closed"
