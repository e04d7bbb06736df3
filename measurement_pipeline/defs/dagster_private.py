"""Everything that this project uses of Dagster beyond its public interface, with the reason for each.

Private names and texts may change in any release. `TESTED_VERSION` is the release that they were tested with, and a test fails
when another minor version is installed.

Imported here from private modules:

- `DagsterEvent`, `DagsterEventBatchMetadata`, `AssetMaterializationPlannedData`: runs log their events as one batch. The public
  `context.log_event` writes one at a time, at 2.4 ms each instead of 0.3 ms, and cannot write planned events.
- `JobFailureData`, `RunFailureReason`: the reason of a failed run, which separates an incident from an interruption.
- `DagsterUserCodeProcessError`: the base of errors that Dagster logs without a stack trace.
- `EventLogEntry`, `SqlEventLogStorageTable`, `ConfigurableClassData`: input of the storage classes that dagster.yaml names.
- `AssetPartitionStatus`: what `get_status_by_partition` returns.
- `InstigatorState`, `InstigatorTick`: what `all_instigator_state` and `get_ticks` return, the only record of sensors that are
  switched off or fail.
- `InstanceRef`: opens an instance from a dictionary, for commands that read it without DAGSTER_HOME.
- `SerializableErrorInfo`: the type of every error in an event.

Used elsewhere, because no public name exists:
- Run tags `dagster/asset_partition_range_start`, `…_range_end`, `dagster/partition`, `dagster/priority` (tags.py): a sensor
  launches a run for a range of partitions only through tags.
- Job name `__ASSET_JOB` (instance_status.py): runs that a person launches from an asset's page have no other mark.
- Texts of engine events (health/interruptions.py): Dagster gives no reason if its code server fails a run.
- `event_log_storage.wipe_asset_cached_status` (partition_status.py): Dagster caches failed partitions until each is materialized.
- `context.get_step_execution_context()` (materializations, partition_status.py): a batch of events needs the running step.
- `DagsterApiServer._mp_ctx` (forked_runs.py): how the code server starts a run's process. There is no setting, and a new process
  takes 2.5 s of CPU to import what a run needs. If the name vanishes, runs start as Dagster starts them.
- `_connect`, `_event_to_row`, `_engine`, `_has_instigators_table` and the constructor of the storages (storage.py): a shared
  pool, one statement for all planned events of a run, and one look for each table. Dagster has no setting for any of them.
"""

from multiprocessing.context import BaseContext
from typing import Any

from dagster._core.errors import DagsterUserCodeProcessError
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventBatchMetadata,
    JobFailureData,
    RunFailureReason,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._serdes import ConfigurableClassData
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
    "start_runs_in",
]


def start_runs_in(context: BaseContext) -> None:
    """Let code servers of this process start their runs in `context`. Their constructor assigns another one: that is ignored."""
    # Imported here: no other process needs the server.
    from dagster._grpc.server import DagsterApiServer

    server: Any = DagsterApiServer
    server._mp_ctx = property(lambda _: context, lambda _, __: None)  # noqa: SLF001
