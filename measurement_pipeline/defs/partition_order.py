"""Reads single partitions in order of registration. Dagster's own interface lists all of them, which takes 4 s for a million."""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import dagster as dg

from measurement_pipeline.defs import tags
from measurement_pipeline.defs.partitions import register
from measurement_pipeline.postgres import dagster_partitions


class RunPartitions:
    """The partitions of one definition, and those that `runs` cover. See `backfill.planning.Partitions`."""

    def __init__(
        self, instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, runs: Sequence[dg.DagsterRun]
    ) -> None:
        self._instance = instance
        self._partitions = partitions
        self._runs = runs

    def covered(self) -> Sequence[str]:
        """The partitions of the runs."""
        first = [run.tags.get(tags.RANGE_START) or run.tags.get(tags.PARTITION) for run in self._runs]
        last = [run.tags.get(tags.RANGE_END) or start for run, start in zip(self._runs, first, strict=True)]
        if not any(first):
            return []
        return [row.partition for row in self._read(dagster_partitions.BETWEEN, first=first, last=last)]

    def places(self, songs: Sequence[str]) -> Mapping[str, int]:
        """Places of the registered ones among `songs`; the places of neighbours follow each other."""
        places: dict[str, int] = {}
        place, next_id = 0, None
        for row in self._read(dagster_partitions.PLACES, keys=list(songs)) if songs else ():
            place += 1 if row.id == next_id else 2
            places[row.partition], next_id = place, row.next_id
        return places

    def near(self, songs: Sequence[str], distance: int) -> Sequence[str]:
        """The partitions at most `distance` before or after one of `songs`."""
        return [row.partition for row in self._read(dagster_partitions.NEAR, keys=list(songs), distance=distance)]

    def register(self, songs: Sequence[str]) -> None:
        """Make each of `songs` a partition."""
        register(self._instance, self._partitions, songs)

    def _read(self, statement: LiteralString, **parameters: object) -> Sequence[Any]:
        # `index_connection` is a method of Dagster's SQL storages only. There is no public way to read some of the partitions.
        storage: Any = self._instance.event_log_storage
        with storage.index_connection() as connection:
            found = connection.exec_driver_sql(statement, {"name": self._partitions.name, **parameters})
            return list(found.fetchall())
