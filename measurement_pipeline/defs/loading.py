"""Load every definition of this package: a new module in any slice is found without being listed."""

import warnings
from collections.abc import Callable

import dagster as dg

from measurement_pipeline import defs
from measurement_pipeline.defs.resources import resource_definitions
from measurement_pipeline.services import Services

# `owners` of jobs, sensors and schedules is beta in this version: at worst, the label is not shown.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message="Parameter `owners`")


def load_definitions(get_services: Callable[[], Services], *, tick_seconds: float = 0.0) -> dg.Definitions:
    """All assets, checks, jobs, sensors and schedules. `get_services` is called when a run or a tick first needs a resource.

    `tick_seconds`: how long a sensor's tick may wait for work. Only Dagster's daemon ticks often enough to need it.
    """
    with warnings.catch_warnings():
        # Loading a package is in preview. The lock pins the version, and test_definitions.py lists every definition.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.load_definitions_from_package_module(
            defs,
            resources=resource_definitions(get_services, tick_seconds=tick_seconds),
            executor=dg.in_process_executor,
        )
