"""PartitionState that Dagster shows as failed although nothing failed about them.

Dagster shows a partition as failed while the last run that planned it failed and did not materialize it, whether or not that
run came to it. A run over 100 recordings that fails at the first one turns 99 others red, stored ones among them.
"""

import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from uuid import uuid4

import dagster as dg

from measurement_pipeline.defs.dagster_private import (
    AssetMaterializationPlannedData,
    AssetPartitionStatus,
    DagsterEvent,
    DagsterEventBatchMetadata,
)


def forget_failed_partitions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> None:
    """Let Dagster count anew which partitions failed: it remembers them until each is materialized."""
    instance.event_log_storage.wipe_asset_cached_status(asset)


def failed_partitions(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: dg.DynamicPartitionsDefinition
) -> list[str]:
    """The partitions that Dagster shows as failed."""
    keys = instance.get_dynamic_partitions(str(partitions.name))
    statuses = instance.get_status_by_partition(asset, keys, partitions) or {}
    return [key for key, status in statuses.items() if status is AssetPartitionStatus.FAILED]


def restore_statuses(
    context: dg.OpExecutionContext,
    asset: dg.AssetKey,
    partitions: dg.DynamicPartitionsDefinition,
    failed: Callable[[Sequence[str]], AbstractSet[str]],
) -> int:
    """Let the partitions that did not fail show what they showed before; how many. `failed`: those of the given ones that did.

    The run that calls this plans them, materializes none and succeeds. So the last run that planned them did not fail.
    """
    red = failed_partitions(context.instance, asset, partitions)
    really = failed(red) if red else frozenset()
    repaired = [key for key in red if key not in really]
    if not repaired:
        return 0
    batch_id, step = str(uuid4()), context.get_step_execution_context().step.key
    for key in repaired:
        context.instance.report_dagster_event(
            DagsterEvent.build_asset_materialization_planned_event(
                context.job_name, step, AssetMaterializationPlannedData(asset, partition=key)
            ),
            context.run_id,
            logging.DEBUG,
            batch_metadata=DagsterEventBatchMetadata(batch_id, is_end=key is repaired[-1]),
        )
    forget_failed_partitions(context.instance, asset)
    return len(repaired)
