"""The dynamic partitions: one for each recording, capture and catalogue. Keys are registered when they are first needed."""

from collections.abc import Sequence

import dagster as dg

from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import connect

isrc_partitions = dg.DynamicPartitionsDefinition(name="isrc")
snapshot_partitions = dg.DynamicPartitionsDefinition(name="snapshot")
catalog_partitions = dg.DynamicPartitionsDefinition(name="catalog")

# One statement registers this many in about a second.
_BLOCK = 20_000
# One call registers this many, in about 5 s: a sensor's tick has one minute.
_MAX_RECORDINGS = 100_000
_MAX_REQUESTS = 1_000


def register(
    instance: dg.DagsterInstance,
    partitions: dg.DynamicPartitionsDefinition,
    keys: Sequence[str],
    *,
    block: int = _BLOCK,
) -> None:
    """Make each key a partition, in this order. A key that is one already keeps its place."""
    for start in range(0, len(keys), block):
        instance.add_dynamic_partitions(str(partitions.name), list(keys[start : start + block]))


def register_requested(instance: dg.DagsterInstance, database_url: str) -> int:
    """Register the recordings of accepted requests, the most played first, and return their number.

    Intake does not register them: it commits even if Dagster's storage is unavailable, and the HTTP API accepts requests without
    Dagster. Each call continues where the last one stopped: a request of over a million recordings takes several ticks.
    """
    with connect(database_url) as connection:
        jobs = measurement_jobs.without_partitions(connection, recordings=_MAX_RECORDINGS, requests=_MAX_REQUESTS)
        if not jobs:
            return 0
        isrcs = measurement_jobs.songs_by_rank(connection, jobs)
        if len(isrcs) > _MAX_RECORDINGS:
            registered = set(instance.get_dynamic_partitions(str(isrc_partitions.name)))
            isrcs = [isrc for isrc in isrcs if isrc not in registered]
        register(instance, isrc_partitions, isrcs[:_MAX_RECORDINGS])
        if len(isrcs) <= _MAX_RECORDINGS:
            measurement_jobs.mark_partitions(connection, jobs)
    return min(len(isrcs), _MAX_RECORDINGS)
