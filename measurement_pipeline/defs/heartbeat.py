"""Heartbeats of a run while it waits for a vendor. A run that buys writes its heartbeats in its own event loop instead."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from measurement_pipeline.postgres import run_heartbeats
from measurement_pipeline.postgres.database import DatabaseError, connect
from measurement_pipeline.postgres.errors import first_line, is_transient

logger = logging.getLogger(__name__)


@contextmanager
def heartbeats(database_url: str, run: str, *, every_seconds: float) -> Iterator[None]:
    """Write heartbeats of `run` from a thread for as long as the block lasts.

    For waits only: the thread would also hide work that hangs.
    """
    ended = Event()
    thread = Thread(
        target=_write_heartbeats,
        args=(database_url, run, every_seconds, ended),
        name=f"heartbeat of {run}",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write_heartbeats(database_url: str, run: str, every_seconds: float, ended: Event) -> None:
    while not ended.wait(every_seconds):
        # A failed heartbeat ends neither this thread nor the work: the next heartbeat replaces it.
        try:
            with connect(database_url) as connection:
                run_heartbeats.renew(connection, run)
        except DatabaseError as error:
            level = logging.DEBUG if is_transient(error) else logging.ERROR
            logger.log(level, "run %s could not write its heartbeat: %s", run, first_line(error))
