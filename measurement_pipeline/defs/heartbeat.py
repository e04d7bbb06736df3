"""Signs of life of a run while it waits for somebody outside. A run that buys beats from within its drain instead."""

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
    """Let `run` beat from a thread for as long as the block lasts.

    For waits alone: a thread beats on where the work beside it hangs, and nobody would notice.
    """
    over = Event()
    thread = Thread(
        target=_write_heartbeats, args=(database_url, run, every_seconds, over), name=f"beat of {run}", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _write_heartbeats(database_url: str, run: str, every_seconds: float, over: Event) -> None:
    while not over.wait(every_seconds):
        # A failed beat ends neither this thread nor the work beside it: the next beat makes up for it.
        try:
            with connect(database_url) as connection:
                run_heartbeats.renew(connection, run)
        except DatabaseError as error:
            level = logging.DEBUG if is_transient(error) else logging.ERROR
            logger.log(level, "run %s could not write its heartbeat: %s", run, first_line(error))
