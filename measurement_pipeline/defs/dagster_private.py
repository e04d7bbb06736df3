"""Everything that this package uses of Dagster's private modules, with the reason for each.

Private names may change in any release. `TESTED_VERSION` is the release that they were tested with, and a test fails when
another minor version is installed.
"""

# A start and a cancelled run log their events directly: the public `context.log_event` writes one at a time, at 2.4 ms each
# instead of 0.3 ms, and has no planned events at all.
# The base class of errors that Dagster logs without a stack trace.
from dagster._core.errors import DagsterUserCodeProcessError

# Dagster has no public reason for a failed run. It decides whether a failure is an incident or an interruption.
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventBatchMetadata,
    JobFailureData,
    RunFailureReason,
)

# Types that the storage classes override or receive. dagster.yaml names our storage, and only private classes can be extended.
from dagster._core.events.log import EventLogEntry

# Opens an instance from a dictionary, for commands that read it without DAGSTER_HOME.
from dagster._core.instance.ref import InstanceRef

# The types that `all_instigator_state` and `get_ticks` return: the only record of sensors that are switched off or fail.
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick
from dagster._core.storage.event_log import SqlEventLogStorageTable

# The type of the status that `get_status_by_partition` returns for a partition.
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._serdes import ConfigurableClassData

# The type of every error in an event.
from dagster_shared.error import SerializableErrorInfo

TESTED_VERSION = "1.13.27"

__all__ = [
    "TESTED_VERSION",
    "AssetMaterializationPlannedData",
    "AssetPartitionStatus",
    "ConfigurableClassData",
    "DagsterEvent",
    "DagsterEventBatchMetadata",
    "DagsterUserCodeProcessError",
    "EventLogEntry",
    "InstanceRef",
    "InstigatorState",
    "InstigatorTick",
    "JobFailureData",
    "RunFailureReason",
    "SerializableErrorInfo",
    "SqlEventLogStorageTable",
]
