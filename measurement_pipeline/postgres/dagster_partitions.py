"""Statements on the partitions in Dagster's database, for `defs/partition_order.py`, which runs them on Dagster's connection."""

from measurement_pipeline.postgres.sql import statements

_SQL = statements("dagster_partitions")

PLACES = _SQL["partition_places"]
BETWEEN = _SQL["partitions_between"]
NEAR = _SQL["partitions_near"]
