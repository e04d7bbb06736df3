"""A whole backfill while run, code server, daemon and PostgreSQL are killed at random moments and restarted.

The vendor's double counts the hits. With `--catalogue FILE`, the recordings come from a catalogue instead of being generated.
"""

import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from measurement_pipeline.cli import catalog_file
from measurement_pipeline_tests.faults.local_deployment import (
    CODE_SERVER,
    DAEMON,
    POSTGRESQL,
    RUN,
    VICTIMS,
    LocalDeployment,
    assert_all_requests_accounted_for,
    start_deployment,
)
from measurement_pipeline_tests.faults.matrix import ProofRecorder
from measurement_pipeline_tests.workbench import isrcs

# Shown by the pipeline's tables, by Dagster's, or by the vendor's log.
PROVED = ("I1", "I2", "I3", "I4", "I5", "I6", "I10", "I11", "I12", "I13", "I14")
FAULTS = {
    RUN: "a run killed at random",
    CODE_SERVER: "the code server killed at random",
    DAEMON: "the daemon killed at random",
    POSTGRESQL: "PostgreSQL killed, or stopped immediately, at random",
}


@dataclass(frozen=True)
class Form:
    """The number of recordings, their rate, and the number of kills."""

    recordings: int
    kills: int
    per_second: float
    longest_gap_seconds: float


# Long enough that calls are in flight whenever a run is killed.
_LATENCY_SECONDS = 0.4

GENERATED = Form(recordings=500, kills=50, per_second=6, longest_gap_seconds=6)
CATALOGUE = Form(recordings=0, kills=50, per_second=15, longest_gap_seconds=8)


@pytest.mark.long
@pytest.mark.dagster
@pytest.mark.timeout(1200)
def test_a_backfill_under_random_kills_finishes_and_buys_nothing_twice(
    catalogue: Path | None, record_proof: ProofRecorder
):
    form = CATALOGUE if catalogue else GENERATED
    songs = isrcs(form.recordings) if catalogue is None else sorted(catalog_file.read(catalogue.read_text()).lines)
    with start_deployment(
        latency_seconds=_LATENCY_SECONDS, SONGSTATS_REQUESTS_PER_SECOND=str(form.per_second)
    ) as processes:
        since = time.monotonic()
        processes.submit_request(songs)
        drain_under_kills(processes, form, seed=20_241_125)
        processes.wait(processes.is_at_rest, seconds=600, what="the end of the backfill")
        seconds = time.monotonic() - since
        processes.reclaim_if_due()
        causes = assert_all_requests_accounted_for(processes, songs)
        hits = processes.sandbox.hits()
    assert processes.killed.total() == form.kills
    killed = ", ".join(f"{victim} {processes.killed[victim]}" for victim in VICTIMS)
    print_progress(
        f"{len(songs):,} recordings stored in {seconds:.0f} s with {processes.killed.total()} kills ({killed}): "
        f"{hits:,} hits, {hits / len(songs):.3f} a recording: {hits - len(songs)} of them were in flight when a process died; "
        f"{causes.total() - hits} more were reserved and never sent; the ledger: {dict(causes)}"
    )
    for victim in VICTIMS:
        record_proof(FAULTS[victim], PROVED, times=processes.killed[victim])


def drain_under_kills(processes: LocalDeployment, form: Form, *, seed: int) -> None:
    """Kill each victim equally often, at seeded moments and in a seeded order, while there is work."""
    generator = random.Random(seed)
    victims = [VICTIMS[number % len(VICTIMS)] for number in range(form.kills)]
    generator.shuffle(victims)
    since = time.monotonic()
    for number, victim in enumerate(victims, 1):
        let_time_pass(processes, generator.uniform(0.2, form.longest_gap_seconds))
        # An immediate shutdown of PostgreSQL, or SIGKILL of its postmaster.
        how = generator.choice([signal.SIGQUIT, signal.SIGKILL]) if victim == POSTGRESQL else signal.SIGKILL
        wait_for_victim(processes, victim, generator)
        assert not processes.is_at_rest(), f"the backfill ended before kill {number} of {form.kills}: set a slower pace"
        while not processes.kill(victim, how):
            wait_for_victim(processes, victim, generator)
        when = f"{time.monotonic() - since:6.1f} s  kill {number} of {form.kills}"
        print_progress(f"{when}: {victim} {how.name}, {processes.count_settled()} settled")


def wait_for_victim(processes: LocalDeployment, victim: str, generator: random.Random) -> None:
    """Wait for a process of `victim`. A run may start minutes later, and must not always be killed in its first moment."""
    if processes.pid(victim) is None:
        processes.wait(lambda: processes.pid(victim) is not None, seconds=180, what=f"a {victim} to kill")
        let_time_pass(processes, generator.uniform(0, 4) if victim == RUN else 0)


def let_time_pass(processes: LocalDeployment, seconds: float) -> None:
    """Let a random time pass."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        processes.restart_dead_processes()
        time.sleep(0.1)


def print_progress(text: str) -> None:
    """Print progress, for `-s`."""
    sys.stderr.write(f"{text}\n")
