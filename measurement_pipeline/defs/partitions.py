"""The partitions of the project, registered as they come up: a recording by its ISRC, a capture and a catalogue by its id."""

import dagster as dg

isrc_partitions = dg.DynamicPartitionsDefinition(name="isrc")
snapshot_partitions = dg.DynamicPartitionsDefinition(name="snapshot")
catalog_partitions = dg.DynamicPartitionsDefinition(name="catalog")
