"""`python -P -m measurement_pipeline.defs.forked_runs api grpc …`: Dagster's command line, whose code server forks its runs.

Dagster's code server starts a Python process for each run, which imports Dagster, its storage and this project: 2.5 s of CPU.
Here a run is forked from a process that has imported them (`multiprocessing`'s fork server). That process has neither settings
nor connections: a run still reads its environment, verifies its database and builds its definitions itself. Cancellation and the
report of a killed run are Dagster's own. Plain `dagster api grpc …` works as well.
"""

import multiprocessing
import pkgutil
import runpy
from multiprocessing import forkserver

from measurement_pipeline import defs
from measurement_pipeline.defs.dagster_private import start_runs_in

# Without `measurement_pipeline.definitions`, which reads the settings and connects. `loading` first: it filters warnings.
_PRELOADED = ["measurement_pipeline.defs.loading", "dagster._grpc.impl"]


def main() -> None:
    """Run Dagster's command line; its code server takes runs from a fork server."""
    context = multiprocessing.get_context("forkserver")
    own = [module.name for module in pkgutil.walk_packages(defs.__path__, f"{defs.__name__}.")]
    context.set_forkserver_preload([*_PRELOADED, *own])
    # Now, so that the first run need not wait for the imports.
    forkserver.ensure_running()
    start_runs_in(context)
    runpy.run_module("dagster", run_name="__main__")


if __name__ == "__main__":
    main()
