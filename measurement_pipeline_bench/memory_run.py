"""`python -m measurement_pipeline_bench.memory_run`: run one backfill over the songs on stdin; print its peak memory in MB."""

import json
import os
import resource
import sys
from pathlib import Path

from measurement_pipeline import services
from measurement_pipeline.backfill.results import ResultKind
from measurement_pipeline.backfill.run import BackfillRun

_STATUS = Path("/proc/self/status")


def peak_mb() -> float:
    """The peak resident memory so far, in MB.

    From /proc if it exists: on Linux, getrusage starts with the peak of the parent process.
    """
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def main() -> None:
    """Run the backfill and print its peak memory."""
    configured = services.load_services(os.environ)
    songs = sys.stdin.read().split()
    before = peak_mb()
    coverage = BackfillRun(
        songs,
        run="bench",
        is_operator=False,
        config=configured.backfill_config,
        dependencies=configured.backfill_dependencies,
    )
    settled = sum(recording.kind is ResultKind.SETTLED for recording in coverage)
    if settled != len(songs):
        raise RuntimeError(f"only {settled} of {len(songs)} recordings were settled: {coverage.summary}")
    sys.stdout.write(json.dumps({"before": before, "peak": peak_mb()}))


if __name__ == "__main__":
    main()
