"""A run in a process of its own, for the tests that kill it. Takes one argument: `Orders` as JSON.

It dies of its own SIGKILL where the moment cannot be seen from outside; else whoever started it does the killing.
"""

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, replace

from measurement_pipeline.backfill.run import Coverage, Means
from measurement_pipeline.sandbox import Sandbox
from measurement_pipeline.songstats.answer import Answer
from measurement_pipeline.songstats.client import SongstatsClient
from measurement_pipeline_tests.workbench import workbench

NEVER, BEFORE_THE_CALL, WHEN_TOLD = "never", "before the call", "when told"


@dataclass(frozen=True)
class Orders:
    """What the run is to do, and when it dies by its own hand."""

    database_url: str
    sandbox_url: str
    songs: list[str]
    run: str
    claim_timeout_seconds: float
    max_attempts: int
    dies: str = NEVER

    def json(self) -> str:
        return json.dumps(asdict(self))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Doomed(SongstatsClient):
    """A client whose process does not live to send anything."""

    async def fetch_history(self, isrc: str) -> Answer:
        die()
        return await super().fetch_history(isrc)


def main(orders: Orders) -> None:
    bench = workbench(orders.database_url, Sandbox(orders.sandbox_url))
    rules = replace(
        bench.terms.rules, claim_timeout_seconds=orders.claim_timeout_seconds, max_attempts=orders.max_attempts
    )
    terms = replace(bench.terms, rules=rules, beat_seconds=orders.claim_timeout_seconds / 4)

    def doomed() -> SongstatsClient:
        return Doomed(
            api_key=bench.sandbox.songstats_key, base_url=orders.sandbox_url, sources=["spotify"], timeout_seconds=2.0
        )

    means = Means(doomed, bench.means.check_payment) if orders.dies == BEFORE_THE_CALL else bench.means
    for _ in Coverage(orders.songs, run=orders.run, operator=False, terms=terms, means=means):
        if orders.dies == WHEN_TOLD:
            die()


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
