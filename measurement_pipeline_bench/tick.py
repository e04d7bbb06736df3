"""A tick of `backfill_queue_sensor` over a deep queue, beside a listing of Dagster's partitions, which it does not need."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import dagster as dg

from measurement_pipeline.defs.loading import load_definitions
from measurement_pipeline.defs.partitions import isrc_partitions, register_requested
from measurement_pipeline.defs.resources import resource_definitions
from measurement_pipeline.services import Services
from measurement_pipeline_bench.enqueue import queue_catalogue
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Deployment, Lab, doubles

_SENSOR = "backfill_queue_sensor"
_TIMES = 3


def measure(lab: Lab) -> Findings:
    """Measure ticks that each plan as many recordings as a plan holds, over queues of two sizes."""
    with doubles(points=1) as sandbox:
        figures = [
            figure
            for size, seconds in ((lab.size(100_000, 2_000), 0.3), (lab.size(300_000, 4_000), 1.0))
            for figure in _measure_queue(lab, lab.deployment(sandbox), size, Target("ours", at_most=seconds))
        ]
    return Findings(figures)


def _measure_queue(lab: Lab, deployment: Deployment, size: int, target: Target) -> list[Figure]:
    """The first tick after intake, and later ones. All recordings are registered, as they are before they are planned."""
    partitions = str(isrc_partitions.name)
    queue_catalogue(lab, deployment, size)
    services = deployment.services()
    definitions = load_definitions(lambda: services)
    with TemporaryDirectory(prefix="mp_bench") as directory, _instance(deployment, Path(directory)) as instance:

        def tick() -> None:
            _tick(definitions, services, instance)

        def list_partitions() -> None:
            instance.get_dynamic_partitions(partitions)

        list_partitions()  # makes Dagster's tables
        while len(instance.get_dynamic_partitions(partitions)) < size:
            register_requested(instance, deployment.database_url)
        lab.say(f"tick: {size:,} rows pending and registered")
        first = _seconds(tick)
        steady = median(_seconds(tick) for _ in range(_TIMES))
        listing = median(_seconds(list_partitions) for _ in range(_TIMES))
    alone = "listing the partitions alone"
    return [
        Figure(f"first tick after intake, {size:,} rows pending", "s", first, alone, listing),
        Figure(f"steady tick, {size:,} rows pending", "s", steady, alone, listing, target),
    ]


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
