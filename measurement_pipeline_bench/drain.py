"""The backfill: recordings a second from the request's insert to the last settled row, through the real daemon.

Its comparisons are one run for each recording through the same daemon, and a bare asyncio script. The details show where the
time goes.
"""

import json
import os
import subprocess
import sys
from itertools import pairwise

from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_bench import daemon
from measurement_pipeline_bench.daemon import Timeline
from measurement_pipeline_bench.figures import Figure, Findings, Target
from measurement_pipeline_bench.lab import Lab, doubles, isrcs

_POINTS = 365
_LATENCY_SECONDS = 0.05


def measure(lab: Lab) -> Findings:
    """Measure three backfills, each on fresh databases."""
    with doubles(points=_POINTS, latency=_LATENCY_SECONDS) as sandbox:
        songs = isrcs(lab.size(2000, 60))
        # Ours runs between the other two, so that other load on the machine affects all three alike.
        script = _by_script(lab, sandbox, songs)
        ours = _by_daemon(lab, sandbox, songs)
        few = songs[: lab.size(24, 4)]
        single = _one_run_each(lab, sandbox, few)
    rate = len(songs) / ours.seconds
    what = f"drain of {len(songs):,} recordings of {_POINTS} points"
    # From the first settled row to the last: a long backfill's start-up does not matter.
    single_rate = (len(few) - 1) / (single.last_settled - single.first_settled)
    return Findings(
        [
            Figure(
                what,
                "recordings/s",
                rate,
                "one run a recording, three at once",
                single_rate,
                Target("ratio", at_least=50),
                f"one run a recording: measured on {len(few)} recordings, from the first settled to the last",
            ),
            Figure(
                what,
                "recordings/s",
                rate,
                "a bare asyncio script, same calls and rows",
                len(songs) / script,
                Target("ratio", at_least=0.6),
                "drain: ours from the request's insert on, half way between two ticks of the sensor; the script from its "
                "first connection on, the queue being there",
            ),
            Figure(
                "the same while a run calls and settles",
                "recordings/s",
                len(songs) / ours.calling_seconds,
                "a bare asyncio script, same calls and rows",
                len(songs) / script,
                note="while a run calls and settles: waiting for ticks, queue and new processes left out",
            ),
        ],
        {"where the drain's time goes, in seconds": _where_it_goes(ours), "runs of the drain": _runs(ours)},
    )


def _by_daemon(lab: Lab, sandbox: SandboxClient, songs: list[str]) -> Timeline:
    deployment = lab.deployment(sandbox)
    lab.say("drain: starting the daemon")
    with daemon.running(deployment, sensor="backfill_queue_sensor") as supervisor:
        lab.say(f"drain: a request for {len(songs):,} recordings")
        found = daemon.drain(lab, deployment, songs, supervisor, patience_seconds=300)
    lab.say(f"drain: {found.seconds:.1f} s, {len(songs) / found.seconds:.1f} recordings/s")
    return found


def _one_run_each(lab: Lab, sandbox: SandboxClient, songs: list[str]) -> Timeline:
    deployment = lab.deployment(sandbox)
    lab.say(f"drain: the same with one run a recording, for {len(songs)}")
    code = ["-m", "measurement_pipeline_bench.one_run_each"]
    with daemon.running(deployment, sensor="one_run_a_recording", code=code) as supervisor:
        return daemon.drain(lab, deployment, songs, supervisor, patience_seconds=300)


def _by_script(lab: Lab, sandbox: SandboxClient, songs: list[str]) -> float:
    """The seconds that the bare script takes."""
    deployment = lab.deployment(sandbox)
    lab.say(f"drain: the same by a bare asyncio script, for {len(songs):,}")
    job = deployment.submit(songs)
    deployment.process_requests()
    found = subprocess.run(
        [sys.executable, "-m", "measurement_pipeline_bench.bare_script"],
        env={**os.environ, **deployment.environment, "BENCH_ACCOUNT": str(deployment.account), "BENCH_JOB": str(job)},
        input="\n".join(songs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = float(json.loads(found.stdout)["seconds"])
    lab.say(f"drain: the script took {seconds:.1f} s, {len(songs) / seconds:.1f} recordings/s")
    return seconds


def _where_it_goes(found: Timeline) -> dict[str, float]:
    first, gaps = found.runs[0], list(pairwise(found.runs))
    parts = {
        "insert to accepted (sensor tick, intake run)": found.accepted - found.asked,
        "accepted to first run planned (sensor tick)": first.created - found.accepted,
        "planned to started (queue, new process)": first.started - first.created,
        "started to first call (loading, claim)": first.first_call - first.started,
        "calling and settling": found.calling_seconds,
        "between runs: last settled to run's end": sum(one.ended - one.last_settled for one, _ in gaps),
        "between runs: run's end to next one's start": sum(after.started - one.ended for one, after in gaps),
        "between runs: start to first call": sum(after.first_call - after.started for _, after in gaps),
    }
    return {name: round(seconds, 2) for name, seconds in parts.items()} | {"in all": round(found.seconds, 2)}


def _runs(found: Timeline) -> dict[str, str]:
    return {
        f"run {place}": f"{run.recordings} recordings, {run.recordings / (run.last_settled - run.first_call):.0f}/s"
        for place, run in enumerate(found.runs, 1)
    }
