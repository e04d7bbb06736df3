"""A tick of `backfill_queue_sensor` over a deep queue, beside a listing of Dagster's partitions alone."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import dagster as dg

from measurement_pipeline.defs.loading import load_definitions
from measurement_pipeline.defs.partitions import isrc_partitions
from measurement_pipeline.defs.resources import resource_definitions
from measurement_pipeline.services import Services
from measurement_pipeline_bench.enqueue import queue_catalogue
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Deployment, Lab, doubles

_SENSOR = "backfill_queue_sensor"
_MOST_SECONDS = 5
_TIMES = 3


def measure(lab: Lab) -> Findings:
    """Measure the first tick, which registers everything, and a later one, which finds it registered."""
    size = lab.size(100_000, 2_000)
    partitions = str(isrc_partitions.name)
    with doubles(points=1) as sandbox, TemporaryDirectory(prefix="mp_bench") as directory:
        deployment = lab.deployment(sandbox)
        queue_catalogue(lab, deployment, size)
        services = deployment.services()
        definitions = load_definitions(lambda: services)
        with _instance(deployment, Path(directory)) as instance:

            def tick() -> None:
                _tick(definitions, services, instance)

            def list_partitions() -> None:
                instance.get_dynamic_partitions(partitions)

            list_partitions()  # makes Dagster's tables
            lab.say(f"tick: {size:,} rows pending, none registered")
            first = _seconds(tick)
            listing_after_first = _seconds(list_partitions)
            registering = 0
            while len(instance.get_dynamic_partitions(partitions)) < size:
                tick()
                registering += 1
            lab.say(f"tick: all registered after {registering} more")
            steady = median(_seconds(tick) for _ in range(_TIMES))
            listing = median(_seconds(list_partitions) for _ in range(_TIMES))
    target = Target("ours", at_most=_MOST_SECONDS)
    alone = "listing the partitions alone"
    return Findings(
        [
            Figure(f"first tick, {size:,} rows pending", "s", first, alone, listing_after_first, target),
            Figure(f"steady tick, {size:,} rows pending", "s", steady, alone, listing, target),
        ],
        {f"registering {size:,} partitions": {"ticks, the first included": registering + 1}},
    )


def _tick(definitions: dg.Definitions, services: Services, instance: dg.DagsterInstance) -> None:
    """One evaluation as the code server does it, without launching the requested runs."""
    with dg.build_sensor_context(
        instance=instance,
        resources=resource_definitions(lambda: services),
        sensor_name=_SENSOR,
        definitions=definitions,
    ) as context:
        asked = definitions.resolve_sensor_def(_SENSOR).evaluate_tick(context)
    if not asked.run_requests:
        raise RuntimeError(f"the sensor asked for no run: {asked.skip_message}")


def _instance(deployment: Deployment, directory: Path) -> dg.DagsterInstance:
    """An instance with the project's own storage class."""
    storage = {
        "module": "measurement_pipeline.defs.storage",
        "class": "PooledPostgresStorage",
        "config": {"postgres_url": deployment.dagster_url},
    }
    overrides = {"storage": {"custom": storage}, "telemetry": {"enabled": False}}
    return dg.DagsterInstance.local_temp(str(directory), overrides=overrides)


def _seconds(work: Callable[[], None]) -> float:
    since = time.monotonic()
    work()
    return time.monotonic() - since
