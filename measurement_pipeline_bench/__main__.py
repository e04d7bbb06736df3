"""`python -m measurement_pipeline_bench`: run the benchmarks, one after the other, and print one table."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

from measurement_pipeline.local import supervisor
from measurement_pipeline_bench import (
    analysts,
    capture,
    drain,
    enqueue,
    http_api,
    ingest,
    lab,
    latency,
    memory,
    pace,
    report,
    tick,
)
from measurement_pipeline_bench.figures import Findings
from measurement_pipeline_bench.lab import Lab

BENCHMARKS: dict[str, Callable[[Lab], Findings]] = {
    "drain": drain.measure,
    "pace": pace.measure,
    "latency": latency.measure,
    "enqueue": enqueue.measure,
    "tick": tick.measure,
    "ingest": ingest.measure,
    "memory": memory.measure,
    "capture": capture.measure,
    "http": http_api.measure,
    "analysts": analysts.measure,
}


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(BENCHMARKS)), help="Run this one; may be repeated.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that it runs, proves nothing.")
def main(only: tuple[str, ...], *, quick: bool) -> None:
    """Measure the pipeline's speed, each figure beside a comparison.

    Takes about twenty minutes on two cores. Writes the figures as JSON to the file that BENCH_JSON names.
    """
    console = Console(stderr=False, width=None if os.isatty(1) else 180)
    since = time.monotonic()
    findings = {}
    with supervisor.interruptible(), lab.opened(console, quick=quick) as opened:
        for name, measure in BENCHMARKS.items():
            if not only or name in only:
                findings[name] = measure(opened)
    seconds = time.monotonic() - since
    report.show(console, findings, quick=quick)
    console.print(f"[dim]{seconds:.0f} s in all[/]", highlight=False)
    destination = os.environ.get("BENCH_JSON")
    if destination:
        report.write(Path(destination), findings, quick=quick, seconds=seconds)


if __name__ == "__main__":
    main()
