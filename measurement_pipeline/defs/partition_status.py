"""Partitions that Dagster shows as failed although they did not fail.

Dagster shows a partition as failed if the last run that planned it failed and did not materialize it, even if the run never
reached it. A run of 100 recordings that fails at the first one turns 99 others red, including stored ones.
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

# The most that one sweep restores, so that it takes seconds. The next sweep restores more.
_MAX_RESTORED = 5_000


def forget_failed_partitions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> None:
    """Make Dagster compute again which partitions failed: it caches them until each is materialized."""
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
    failed_among: Callable[[Sequence[str]], AbstractSet[str]],
) -> int:
    """Restore the status of partitions that did not fail, and return their number. `failed_among`: those that did fail.

    The calling run plans them, materializes none and succeeds. Then the last run that planned them has not failed.
    """
    red = failed_partitions(context.instance, asset, partitions)
    failed = failed_among(red) if red else frozenset()
    restored = [key for key in red if key not in failed][:_MAX_RESTORED]
    if not restored:
        return 0
    batch_id, step = str(uuid4()), context.get_step_execution_context().step.key
    for key in restored:
        context.instance.report_dagster_event(
            DagsterEvent.build_asset_materialization_planned_event(
                context.job_name, step, AssetMaterializationPlannedData(asset, partition=key)
            ),
            context.run_id,
            logging.DEBUG,
            batch_metadata=DagsterEventBatchMetadata(batch_id, is_end=key is restored[-1]),
        )
    forget_failed_partitions(context.instance, asset)
    return len(restored)
