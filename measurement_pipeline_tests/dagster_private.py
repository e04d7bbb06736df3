"""Everything that the tests use of Dagster's private modules. `defs/dagster_private.py` names the tested version.

- `Instigator…`, `Tick…`, `Remote…Origin`, `RegisteredCodeLocationOrigin`, `DaemonHeartbeat`, `create_run_for_test`,
  `make_new_run_id`: records of sensors, daemons and runs in a state that Dagster itself reaches only by failing.
- `EngineEventData`, `StepMaterializationData`, `get_run_crash_explanation`: events as Dagster logs them when a run dies.
- `SensorExecutionData`, `DagsterRunReaction`: what a tick returns when it is evaluated as the daemon does it.
- `in_process_test_workspace`, `LoadableTargetOrigin`: a code location as the webserver sees it, to read what the UI shows.
- `create_execution_plan`: a run that was planned before its retry.
"""

from dagster._core.definitions.run_request import DagsterRunReaction, InstigatorType
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import EngineEventData, StepMaterializationData
from dagster._core.execution.api import create_execution_plan
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus
from dagster._core.test_utils import create_run_for_test, in_process_test_workspace
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import make_new_run_id
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils import get_run_crash_explanation

from measurement_pipeline.defs.dagster_private import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    EventLogEntry,
    JobFailureData,
    RunFailureReason,
    SerializableErrorInfo,
)

__all__ = [
    "AssetMaterializationPlannedData",
    "DaemonHeartbeat",
    "DagsterEvent",
    "DagsterRunReaction",
    "EngineEventData",
    "EventLogEntry",
    "InstigatorState",
    "InstigatorStatus",
    "InstigatorType",
    "JobFailureData",
    "LoadableTargetOrigin",
    "RegisteredCodeLocationOrigin",
    "RemoteInstigatorOrigin",
    "RemoteRepositoryOrigin",
    "RunFailureReason",
    "SensorExecutionData",
    "SerializableErrorInfo",
    "StepMaterializationData",
    "TickData",
    "TickStatus",
    "create_execution_plan",
    "create_run_for_test",
    "get_run_crash_explanation",
    "in_process_test_workspace",
    "make_new_run_id",
]
