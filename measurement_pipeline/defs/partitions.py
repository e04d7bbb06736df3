"""The partitions of the project: one a recording, keyed by ISRC, registered when a request asks for it."""

import dagster as dg

isrc_partitions = dg.DynamicPartitionsDefinition(name="isrc")
