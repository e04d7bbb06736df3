"""The pace: calls a second that reach the vendor in a long backfill, beside the configured pace."""

from datetime import datetime
from itertools import pairwise

from measurement_pipeline_bench import daemon
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Lab, doubles, isrcs

_PER_SECOND = 10
_POINTS = 365
_LATENCY_SECONDS = 0.05
_HISTORY = "/enterprise/v1/tracks/historic_stats"


def measure(lab: Lab) -> Findings:
    """One backfill through the real daemon, counted by the vendor's double from the first call to the last."""
    seconds = lab.size(120, 6)
    songs = isrcs(seconds * _PER_SECOND)
    with doubles(points=_POINTS, latency=_LATENCY_SECONDS) as sandbox:
        deployment = lab.deployment(sandbox, SONGSTATS_REQUESTS_PER_SECOND=str(_PER_SECOND))
        lab.say("pace: starting the daemon")
        with daemon.running(deployment, sensor="backfill_queue_sensor") as supervisor:
            lab.say(f"pace: {seconds} s of calls, {_PER_SECOND} a second")
            found = daemon.drain(lab, deployment, songs, supervisor, patience_seconds=3 * seconds + 60)
        calls = sorted(datetime.fromisoformat(call["at"]) for call in sandbox.requests(_HISTORY))
    rate = (len(calls) - 1) / (calls[-1] - calls[0]).total_seconds()
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(calls)]
    return Findings(
        [
            Figure(
                f"calls a second over {seconds} s",
                "calls/s",
                rate,
                "the pace that was set",
                float(_PER_SECOND),
                Target("ratio", at_least=0.95),
                "pace: counted at the vendor's end, from the first call to the last, gaps between runs included",
            )
        ],
        {"gaps of the pace": {"runs": len(found.runs), "longest gap between two calls, in seconds": max(gaps)}},
    )
