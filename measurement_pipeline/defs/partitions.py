"""The partitions of the project, registered as they come up: a recording by its ISRC, a capture and a catalogue by its id."""

from collections.abc import Sequence

import dagster as dg

from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import connect

isrc_partitions = dg.DynamicPartitionsDefinition(name="isrc")
snapshot_partitions = dg.DynamicPartitionsDefinition(name="snapshot")
catalog_partitions = dg.DynamicPartitionsDefinition(name="catalog")

# One statement takes so many in about a second.
_BLOCK = 20_000
# What one call registers, so that a sensor's tick stays far below its minute: about 5 s.
_MOST_RECORDINGS = 100_000
_MOST_REQUESTS = 1_000


def register(
    instance: dg.DagsterInstance,
    partitions: dg.DynamicPartitionsDefinition,
    keys: Sequence[str],
    *,
    block: int = _BLOCK,
) -> None:
    """Make each key a partition, in this order. One that is a partition already keeps its place."""
    for start in range(0, len(keys), block):
        instance.add_dynamic_partitions(str(partitions.name), list(keys[start : start + block]))


def register_requested(instance: dg.DagsterInstance, database_url: str) -> int:
    """Make the recordings of accepted requests partitions, the most played first; how many.

    Apart from intake, which commits whether or not Dagster's storage can be reached, and which an HTTP request does without
    Dagster. What could not be registered now is registered by the next call.
    """
    with connect(database_url) as connection:
        jobs = measurement_jobs.without_partitions(connection, recordings=_MOST_RECORDINGS, requests=_MOST_REQUESTS)
        if not jobs:
            return 0
        songs = measurement_jobs.songs_by_rank(connection, jobs)
        register(instance, isrc_partitions, songs)
        measurement_jobs.mark_partitions(connection, jobs)
    return len(songs)
