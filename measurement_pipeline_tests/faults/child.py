"""A use case in a process of its own, for the tests that kill it or put its clock wrong. Takes one argument: `Orders` as JSON.

What it has to say it prints as its last line, as JSON. Whole Dagster processes are not its business.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Orders:
    """What the process is to do: a use case by its name in `_USE_CASES`, and on what terms."""

    does: str
    database_url: str
    sandbox_url: str
    songs: list[str] = field(default_factory=list)
    run: str = "child"
    claim_timeout_seconds: float = 1.0
    max_attempts: int = 5
    requests_per_second: float = 0.0
    hits_allowed: int = 900
    # Added to the clock that the process goes by.
    clock_off_seconds: float = 0.0
    dagster_url: str = ""
    directory: str = ""
    # The capture to be made, or whose captures are to be asked for, and how much a month they may cost.
    snapshot: str = ""
    account: str = ""
    cap_usd: str = "25"


CAPTURE, ASK_FOR_CAPTURES = "capture", "ask for captures"
RUN, INTAKE, UNPAID_INTAKE, SWEEP, DAGSTER_RUN = "run", "intake", "unpaid intake", "sweep", "Dagster run"


@contextmanager
def child(orders: Orders) -> Iterator["subprocess.Popen[str]"]:
    """The process, which is dead at the end in any case."""
    with subprocess.Popen(
        [sys.executable, "-m", "measurement_pipeline_tests.faults.child", json.dumps(asdict(orders))],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What the process says of itself once it has ended well."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"it ended with {process.returncode}"
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def main(orders: Orders) -> None:
    """Do as ordered. Whatever asks the time is imported once the clock is what it is to be."""
    if orders.clock_off_seconds:
        import time_machine

        time_machine.travel(time.time() + orders.clock_off_seconds, tick=True).start()
    # So that sessions of libraries that give themselves no name can be told too.
    os.environ["PGAPPNAME"] = f"measurement_pipeline {os.getpid()}"
    result = _USE_CASES[orders.does](orders)
    sys.stdout.write(json.dumps({"clock": time.time(), **result}) + "\n")


def _run(orders: Orders) -> dict[str, Any]:
    from measurement_pipeline.backfill.run import BackfillDependencies, BackfillRun
    from measurement_pipeline.domain.payment import Decision, PaymentVerdict
    from measurement_pipeline.postgres.payment_decisions import PaymentDecisions

    bench = _bench(orders)
    asked: list[str] = []

    def check_payment(account: Any) -> PaymentVerdict:
        asked.append(str(account))
        PaymentDecisions(orders.database_url).record(account, Decision(PaymentVerdict.ALLOWED, "a card"))
        return PaymentVerdict.ALLOWED

    means = BackfillDependencies(bench.means.new_client, check_payment)
    coverage = BackfillRun(orders.songs, run=orders.run, operator=False, terms=bench.terms, dependencies=means)
    told = {one.song: str(one.kind) for one in coverage}
    return {
        "told": told,
        "asked about payment": asked,
        "calls": coverage.summary.calls,
        "stopped": coverage.summary.stop_reason,
    }


def _intake(orders: Orders, *, unpaid: bool = False) -> dict[str, Any]:
    from measurement_pipeline.domain.payment import Decision, PaymentVerdict
    from measurement_pipeline.intake import process as intake
    from measurement_pipeline.postgres.payment_decisions import PaymentDecisions

    def decide(account: Any) -> Decision:
        decision = Decision(PaymentVerdict.DENIED, "no card") if unpaid else Decision(PaymentVerdict.ALLOWED, "a card")
        PaymentDecisions(orders.database_url).record(account, decision)
        return decision

    opened = intake.load_batch(orders.database_url, unpaid=unpaid)
    taken = intake.process_batch(orders.database_url, opened, intake.check_payments(opened, decide), run=orders.run)
    return {"states": {str(one.id): str(one.state) for one in taken}}


def _unpaid_intake(orders: Orders) -> dict[str, Any]:
    return _intake(orders, unpaid=True)


def _sweep(orders: Orders) -> dict[str, Any]:
    from measurement_pipeline.backfill.reclaim import reclaim_backfill

    bench = _bench(orders)
    swept = reclaim_backfill(bench.terms, bench.means)
    return {"reservations": swept.reservations, "exhausted": swept.exhausted, "transient": swept.transient}


def _capture(orders: Orders) -> dict[str, Any]:
    from uuid import UUID

    from measurement_pipeline.defs.heartbeat import heartbeats
    from measurement_pipeline.postgres import run_heartbeats
    from measurement_pipeline.postgres.database import connect
    from measurement_pipeline.sandbox import SandboxClient
    from measurement_pipeline_tests.capture.conftest import new_harness

    harness = new_harness(orders.database_url, SandboxClient(orders.sandbox_url))
    captures = harness.with_config(claim_timeout_seconds=orders.claim_timeout_seconds, max_attempts=orders.max_attempts)
    with connect(orders.database_url) as connection:
        run_heartbeats.renew(connection, orders.run)
    with heartbeats(orders.database_url, orders.run, every_seconds=orders.claim_timeout_seconds / 4):
        ended = harness.run_capture(UUID(orders.snapshot), captures=captures, run=orders.run)
    return {"kind": ended.kind, "reason": ended.reason}


def _ask_for_captures(orders: Orders) -> dict[str, Any]:
    """A thread for each of `songs`, which names the first of the albums that it asks for, one capture after the other."""
    from collections import Counter
    from concurrent.futures import ThreadPoolExecutor
    from decimal import Decimal
    from uuid import UUID

    from measurement_pipeline.domain.capture import CaptureSpec
    from measurement_pipeline.postgres import captures
    from measurement_pipeline.postgres.database import connect

    def ask(prefix: str) -> Counter[str]:
        told: Counter[str] = Counter()
        with connect(orders.database_url) as connection:
            for number in range(5):
                albums = tuple(f"{prefix}-{number}-{one}" for one in range(3))
                wanted = CaptureSpec(UUID(orders.account), albums)
                with connection.transaction():
                    opened = captures.open_capture(connection, wanted, cap_usd=Decimal(orders.cap_usd))
                told[type(opened).__name__] += 1
        return told

    with ThreadPoolExecutor(len(orders.songs)) as pool:
        return dict(sum(pool.map(ask, orders.songs), Counter[str]()))


def _dagster_run(orders: Orders) -> dict[str, Any]:
    from measurement_pipeline_tests.faults.dagster_stage import stage

    with stage(orders) as found:
        return {"success": found.backfill(orders.songs).success}


def _bench(orders: Orders) -> Any:
    from dataclasses import replace

    from measurement_pipeline.sandbox import SandboxClient
    from measurement_pipeline_tests.workbench import workbench

    bench = workbench(orders.database_url, SandboxClient(orders.sandbox_url))
    rules = replace(
        bench.terms.rules, claim_timeout_seconds=orders.claim_timeout_seconds, max_attempts=orders.max_attempts
    )
    bench.terms = replace(
        bench.terms,
        rules=rules,
        heartbeat_seconds=orders.claim_timeout_seconds / 4,
        requests_per_second=orders.requests_per_second,
        hits_allowed=orders.hits_allowed,
    )
    return bench


_USE_CASES: dict[str, Callable[[Orders], dict[str, Any]]] = {
    RUN: _run,
    INTAKE: _intake,
    UNPAID_INTAKE: _unpaid_intake,
    SWEEP: _sweep,
    DAGSTER_RUN: _dagster_run,
    CAPTURE: _capture,
    ASK_FOR_CAPTURES: _ask_for_captures,
}


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
