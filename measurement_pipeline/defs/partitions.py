"""The partitions of the project, registered when a request asks for them: one a recording, by ISRC; one a capture, by its id."""

import dagster as dg

isrc_partitions = dg.DynamicPartitionsDefinition(name="isrc")
snapshot_partitions = dg.DynamicPartitionsDefinition(name="snapshot")
