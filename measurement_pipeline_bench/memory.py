"""Peak memory of a run, and whether it grows with the number of recordings."""

import json
import os
import subprocess
import sys

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Lab, doubles, isrcs

_POINTS = 1_100


def measure(lab: Lab) -> Findings:
    """Run the backfill use case in its own process, over a number of recordings and over three times as many."""
    number = lab.size(100, 10)
    with doubles(points=_POINTS) as sandbox:
        small, large = (_peak(lab, sandbox, count) for count in (number, 3 * number))
    return Findings(
        [
            Figure(
                f"peak memory, {3 * number} recordings of {_POINTS:,} points",
                "MB",
                large["peak"],
                f"{number} of them",
                small["peak"],
                Target("ratio", at_most=1.15),
                "memory: peak resident set of the process that runs the use case, without Dagster",
            )
        ],
        {"memory, in MB": {"before the run (interpreter and imports)": large["before"]}},
    )


def _peak(lab: Lab, sandbox: SandboxClient, count: int) -> dict[str, float]:
    deployment = lab.deployment(sandbox)
    songs = isrcs(count)
    deployment.submit(songs)
    deployment.process_requests()
    lab.say(f"memory: a run of {count} recordings of {_POINTS:,} points")
    found = subprocess.run(
        [sys.executable, "-m", "measurement_pipeline_bench.worker_run"],
        env={**os.environ, **deployment.environment},
        input="\n".join(songs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    peaks: dict[str, float] = json.loads(found.stdout)
    return peaks
