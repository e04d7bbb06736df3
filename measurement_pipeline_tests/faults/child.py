"""Runs one use case in its own process, so that a test can kill it or shift its clock. Takes one argument: `ChildTask` as JSON.

The last line of its output is its result as JSON. It starts no Dagster daemon.
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
class ChildTask:
    """What the process runs: a use case by its name in `_USE_CASES`, and its configuration."""

    does: str
    database_url: str
    sandbox_url: str
    songs: list[str] = field(default_factory=list)
    run: str = "child"
    claim_timeout_seconds: float = 1.0
    max_attempts: int = 5
    requests_per_second: float = 0.0
    hits_allowed: int = 900
    # Added to the process's clock.
    clock_off_seconds: float = 0.0
    dagster_url: str = ""
    directory: str = ""
    # The capture to run, or the account to request captures for, and the account's monthly cap.
    snapshot: str = ""
    account: str = ""
    cap_usd: str = "25"


CAPTURE, REQUEST_CAPTURES = "capture", "ask for captures"
RUN, INTAKE, UNPAID_INTAKE, RECLAIM, DAGSTER_RUN = "run", "intake", "unpaid intake", "reclaim", "Dagster run"


@contextmanager
def child(task: ChildTask) -> Iterator["subprocess.Popen[str]"]:
    """Start the process; kill it when the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "measurement_pipeline_tests.faults.child", json.dumps(asdict(task))],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The process's result, once it has succeeded."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"the process ended with exit code {process.returncode}"
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def main(task: ChildTask) -> None:
    """Run the use case. Modules that read the time are imported after the clock is shifted."""
    if task.clock_off_seconds:
        import time_machine

        time_machine.travel(time.time() + task.clock_off_seconds, tick=True).start()
    # Names the sessions of libraries that set no application name themselves.
    os.environ["PGAPPNAME"] = f"measurement_pipeline {os.getpid()}"
    result = _USE_CASES[task.does](task)
    sys.stdout.write(json.dumps({"clock": time.time(), **result}) + "\n")


def _run(task: ChildTask) -> dict[str, Any]:
    from measurement_pipeline.backfill.run import BackfillDependencies, BackfillRun
    from measurement_pipeline.domain.payment import Decision, PaymentVerdict
    from measurement_pipeline.postgres.payment_decisions import PaymentDecisions

    bench = _bench(task)
    checked_accounts: list[str] = []

    def check_payment(account: Any) -> PaymentVerdict:
        checked_accounts.append(str(account))
        PaymentDecisions(task.database_url).record(account, Decision(PaymentVerdict.ALLOWED, "a card"))
        return PaymentVerdict.ALLOWED

    dependencies = BackfillDependencies(bench.dependencies.new_client, check_payment)
    backfill_run = BackfillRun(
        task.songs, run=task.run, is_operator=False, config=bench.config, dependencies=dependencies
    )
    results = {one.song: str(one.kind) for one in backfill_run}
    return {
        "results": results,
        "payment checks": checked_accounts,
        "calls": backfill_run.summary.calls,
        "stopped": backfill_run.summary.stop_reason,
    }


def _intake(task: ChildTask, *, unpaid: bool = False) -> dict[str, Any]:
    from measurement_pipeline.domain.payment import Decision, PaymentVerdict
    from measurement_pipeline.intake import process as intake
    from measurement_pipeline.postgres.payment_decisions import PaymentDecisions

    def decide(account: Any) -> Decision:
        decision = Decision(PaymentVerdict.DENIED, "no card") if unpaid else Decision(PaymentVerdict.ALLOWED, "a card")
        PaymentDecisions(task.database_url).record(account, decision)
        return decision

    opened = intake.load_batch(task.database_url, unpaid=unpaid)
    results = intake.process_batch(task.database_url, opened, intake.check_payments(opened, decide), run=task.run)
    return {"states": {str(one.id): str(one.state) for one in results}}


def _unpaid_intake(task: ChildTask) -> dict[str, Any]:
    return _intake(task, unpaid=True)


def _reclaim(task: ChildTask) -> dict[str, Any]:
    from measurement_pipeline.backfill.reclaim import reclaim_backfill

    bench = _bench(task)
    reclaimed = reclaim_backfill(bench.config, bench.dependencies)
    return {"reservations": reclaimed.reservations, "exhausted": reclaimed.exhausted, "transient": reclaimed.transient}


def _capture(task: ChildTask) -> dict[str, Any]:
    from uuid import UUID

    from measurement_pipeline.defs.heartbeat import heartbeats
    from measurement_pipeline.postgres import run_heartbeats
    from measurement_pipeline.postgres.database import connect
    from measurement_pipeline.sandbox import SandboxClient
    from measurement_pipeline_tests.capture.conftest import new_harness

    harness = new_harness(task.database_url, SandboxClient(task.sandbox_url))
    captures = harness.with_config(claim_timeout_seconds=task.claim_timeout_seconds, max_attempts=task.max_attempts)
    with connect(task.database_url) as connection:
        run_heartbeats.renew(connection, task.run)
    with heartbeats(task.database_url, task.run, every_seconds=task.claim_timeout_seconds / 4):
        ended = harness.run_capture(UUID(task.snapshot), captures=captures, run=task.run)
    return {"kind": ended.kind, "reason": ended.reason}


def _request_captures(task: ChildTask) -> dict[str, Any]:
    """Use a thread for each of `songs`. Each requests one capture after the other; `songs` holds the prefixes of their album
    ids.
    """
    from collections import Counter
    from concurrent.futures import ThreadPoolExecutor
    from uuid import UUID

    from measurement_pipeline.domain.capture import CaptureSpec
    from measurement_pipeline.postgres import captures
    from measurement_pipeline.postgres.database import connect
    from measurement_pipeline_tests.capture_limits import capture_limits

    def open_captures(prefix: str) -> Counter[str]:
        verdicts: Counter[str] = Counter()
        with connect(task.database_url) as connection:
            for number in range(5):
                albums = tuple(f"{prefix}-{number}-{one}" for one in range(3))
                spec = CaptureSpec(UUID(task.account), albums)
                with connection.transaction():
                    opened = captures.open_capture(connection, spec, limits=capture_limits(task.cap_usd))
                verdicts[type(opened).__name__] += 1
        return verdicts

    with ThreadPoolExecutor(len(task.songs)) as pool:
        return dict(sum(pool.map(open_captures, task.songs), Counter[str]()))


def _dagster_run(task: ChildTask) -> dict[str, Any]:
    from measurement_pipeline_tests.faults.dagster_instance import shared_instance

    with shared_instance(task) as stage:
        return {"success": stage.backfill(task.songs).success}


def _bench(task: ChildTask) -> Any:
    from dataclasses import replace

    from measurement_pipeline.sandbox import SandboxClient
    from measurement_pipeline_tests.workbench import create_workbench

    bench = create_workbench(task.database_url, SandboxClient(task.sandbox_url))
    rules = replace(
        bench.config.rules, claim_timeout_seconds=task.claim_timeout_seconds, max_attempts=task.max_attempts
    )
    bench.config = replace(
        bench.config,
        rules=rules,
        heartbeat_seconds=task.claim_timeout_seconds / 4,
        requests_per_second=task.requests_per_second,
        hits_allowed=task.hits_allowed,
    )
    return bench


_USE_CASES: dict[str, Callable[[ChildTask], dict[str, Any]]] = {
    RUN: _run,
    INTAKE: _intake,
    UNPAID_INTAKE: _unpaid_intake,
    RECLAIM: _reclaim,
    DAGSTER_RUN: _dagster_run,
    CAPTURE: _capture,
    REQUEST_CAPTURES: _request_captures,
}


if __name__ == "__main__":
    main(ChildTask(**json.loads(sys.argv[1])))
