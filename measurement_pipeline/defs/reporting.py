"""Writing to Dagster's own database without letting a refusal fail the work."""

import logging
from collections.abc import Callable

from measurement_pipeline.defs.storage import STORAGE_ERRORS
from measurement_pipeline.postgres.errors import first_line

logger = logging.getLogger(__name__)


def try_report(report: Callable[[], None]) -> bool:
    """Call `report`, which only writes to Dagster's database. False: the database is unavailable or refuses the write."""
    try:
        report()
    except STORAGE_ERRORS as error:
        # To the process's own log: the run's log is in the database that refuses.
        logger.warning("Dagster's database refused a report: %s", first_line(error))
        return False
    return True
