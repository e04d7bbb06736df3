"""A whole drain while run, code server, daemon and PostgreSQL are killed at random moments; whatever died is started again.

Hits are counted at the vendor's end. With `--catalogue FILE` the recordings are those of a catalogue instead of made-up ones.
"""

import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from measurement_pipeline.cli import catalog_file
from measurement_pipeline_tests.faults.matrix import Proves
from measurement_pipeline_tests.faults.stage import (
    CODE_SERVER,
    DAEMON,
    POSTGRESQL,
    RUN,
    VICTIMS,
    Stage,
    everything_is_stored_and_accounted_for,
    stage,
)
from measurement_pipeline_tests.workbench import isrcs

# Shown by the tables, by Dagster's, or by what the vendor saw.
PROVED = ("I1", "I2", "I3", "I4", "I5", "I6", "I10", "I11", "I12", "I13", "I14")
FAULTS = {
    RUN: "a run killed at random",
    CODE_SERVER: "the code server killed at random",
    DAEMON: "the daemon killed at random",
    POSTGRESQL: "PostgreSQL killed, or stopped immediately, at random",
}


@dataclass(frozen=True)
class Form:
    """How much is drained, how fast, and how often something is killed meanwhile, once so many are settled."""

    recordings: int
    kills: int
    per_second: float
    longest_gap_seconds: float
    spared: int = 0


# So long that there are calls in the air whenever a run is killed.
_LATENCY_SECONDS = 0.4

SHORT = Form(recordings=40, kills=4, per_second=8, longest_gap_seconds=1, spared=5)
LONG = Form(recordings=500, kills=50, per_second=6, longest_gap_seconds=6)
CATALOGUE = Form(recordings=0, kills=50, per_second=15, longest_gap_seconds=8)


@pytest.mark.dagster
@pytest.mark.timeout(1200)
def test_a_drain_ends_by_itself_and_buys_nothing_twice_whatever_is_killed_meanwhile(
    long_form: bool, catalogue: Path | None, proves: Proves
):
    form = CATALOGUE if catalogue else LONG if long_form else SHORT
    songs = isrcs(form.recordings) if catalogue is None else sorted(catalog_file.read(catalogue.read_text()).lines)
    with stage(latency_seconds=_LATENCY_SECONDS, SONGSTATS_REQUESTS_PER_SECOND=str(form.per_second)) as processes:
        since = time.monotonic()
        processes.ask_for(songs)
        drain_under_kills(processes, form, seed=20_241_125)
        processes.wait(processes.at_rest, seconds=600, what="the end of the drain")
        seconds = time.monotonic() - since
        processes.reclaim_if_due()
        causes = everything_is_stored_and_accounted_for(processes, songs)
        hits = processes.sandbox.hits()
    assert processes.killed.total() == form.kills
    killed = ", ".join(f"{victim} {processes.killed[victim]}" for victim in VICTIMS)
    say(
        f"{len(songs):,} recordings stored in {seconds:.0f} s with {processes.killed.total()} kills ({killed}): "
        f"{hits:,} hits, {hits / len(songs):.3f} a recording: {hits - len(songs)} of them were in the air when something died; "
        f"{causes.total() - hits} more were set aside and never sent; the ledger: {dict(causes)}"
    )
    for victim in VICTIMS:
        proves(FAULTS[victim], PROVED, times=processes.killed[victim])


def drain_under_kills(processes: Stage, form: Form, *, seed: int) -> None:
    """Kill, at seeded moments and in a seeded order, each victim as often as the others, while there is work to do."""
    dice = random.Random(seed)
    victims = [VICTIMS[number % len(VICTIMS)] for number in range(form.kills)]
    dice.shuffle(victims)
    processes.wait(lambda: (processes.settled() or 0) >= form.spared, seconds=120, what="a first recording")
    since = time.monotonic()
    for number, victim in enumerate(victims, 1):
        tend(processes, dice.uniform(0.2, form.longest_gap_seconds))
        # An immediate stop of PostgreSQL, or its postmaster killed as hard as anybody.
        how = dice.choice([signal.SIGQUIT, signal.SIGKILL]) if victim == POSTGRESQL else signal.SIGKILL
        wait_for_victim(processes, victim, dice)
        assert not processes.at_rest(), f"the drain was over before kill {number} of {form.kills}: set a slower pace"
        while not processes.kill(victim, how):
            wait_for_victim(processes, victim, dice)
        when = f"{time.monotonic() - since:6.1f} s  kill {number} of {form.kills}"
        say(f"{when}: {victim} {how.name}, {processes.settled()} settled")


def wait_for_victim(processes: Stage, victim: str, dice: random.Random) -> None:
    """A run may be minutes away, and is not to be met at its first moment only."""
    if processes.pid(victim) is None:
        processes.wait(lambda: processes.pid(victim) is not None, seconds=180, what=f"a {victim} to kill")
        tend(processes, dice.uniform(0, 4) if victim == RUN else 0)


def tend(processes: Stage, seconds: float) -> None:
    """Let so much time go by: the moment is random."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        processes.tend()
        time.sleep(0.1)


def say(text: str) -> None:
    """Progress, for `-s`."""
    sys.stderr.write(f"{text}\n")
