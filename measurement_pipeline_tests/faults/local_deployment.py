"""The whole pipeline in real processes that a test can kill: PostgreSQL, code server, daemon, and the current run.

The test has its own server, databases and Dagster home, because PostgreSQL is killed too. The doubles run in the test's process
and survive. The same code as in `dev` restarts dead processes; the test decides how and when to kill.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import psutil

from measurement_pipeline.cli.environment import (
    CliEnvironment,
    keep_server_running,
    open_environment,
    prepare_dagster,
)
from measurement_pipeline.local import supervisor
from measurement_pipeline.local.dagster_processes import DagsterProcesses
from measurement_pipeline.postgres import measurement_jobs, migrate
from measurement_pipeline.postgres.audit import audit
from measurement_pipeline.postgres.database import DatabaseUnavailable, connect
from measurement_pipeline.postgres.payment_decisions import ensure_account
from measurement_pipeline.sandbox import PLAIN, SandboxClient, running
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.faults.invariants import assert_measurements_complete, count_hits
from measurement_pipeline_tests.workbench import Workbench, create_workbench

CODE_SERVER, DAEMON = "code-server", "dagster-daemon"
RUN, POSTGRESQL = "run", "PostgreSQL"
VICTIMS = (RUN, CODE_SERVER, DAEMON, POSTGRESQL)

CLAIM_TIMEOUT_SECONDS = 4.0
MAX_ATTEMPTS = 20

# Restarts each process within a second, however often it has died: the test kills on purpose.
_PATIENCE = supervisor.RestartPolicy(max_deaths=1_000, first_wait_seconds=0.2, max_wait_seconds=1.0)

_ENDED = ("SUCCESS", "FAILURE", "CANCELED")
_UNSETTLED = """
select count(*) as n from songstats_backfill_queue
where status in ('pending', 'in_progress') or (status = 'failed' and outcome = 'transient')
"""
_OPEN_REQUESTS = "select count(*) as n from measurement_jobs where state not in ('done', 'rejected', 'failed')"
_MATERIALIZED = """
select distinct partition from event_logs
where dagster_event_type = 'ASSET_MATERIALIZATION' and asset_key = '["songstats_history"]'
"""
_SETTLED = "select count(*) as n from songstats_backfill_queue where status in ('done', 'failed')"


@dataclass
class LocalDeployment:
    """A deployment with running processes, and a test's actions on them."""

    target: CliEnvironment
    sandbox: SandboxClient
    running: supervisor.Supervisor
    dagster: DagsterProcesses
    keep_server_up: Callable[[], None]
    account: UUID
    killed: Counter[str] = field(default_factory=Counter)

    @property
    def bench(self) -> Workbench:
        """The same deployment as a workbench, for the helpers of other fault tests."""
        result = create_workbench(self.target.database_url, self.sandbox)
        rules = replace(result.config.rules, max_attempts=MAX_ATTEMPTS, claim_timeout_seconds=CLAIM_TIMEOUT_SECONDS)
        return replace(result, config=replace(result.config, rules=rules), account=self.account)

    def restart_dead_processes(self) -> None:
        """Restart dead processes, as `dev` does every half second."""
        self.keep_server_up()
        self.running.check()

    def submit_request(self, songs: Sequence[str]) -> UUID:
        """Insert a request, as a client does."""
        with self.target.connect() as connection:
            return measurement_jobs.submit(
                connection, account=self.account, source="historical", scope={"isrcs": list(songs)}
            )

    # --- queries -------------------------------------------------------------------------------------------------------

    def count_settled(self) -> int | None:
        """The number of settled recordings, or None while the database is unavailable."""
        return self._count(self.target.database_url, _SETTLED)

    def is_at_rest(self) -> bool:
        """Whether every request is answered, every row is settled, and every run has ended."""
        runs = "select count(*) as n from runs where status <> all(%s)"
        return (
            self._count(self.target.database_url, _OPEN_REQUESTS) == 0
            and self._count(self.target.database_url, _UNSETTLED) == 0
            and self._count(self.target.dagster_url, runs, list(_ENDED)) == 0
        )

    def run_processes(self) -> list[int]:
        """The processes that work on runs: children of the code server, including those that outlived it."""
        return [process.pid for process in psutil.process_iter() if self._is_run_process(process)]

    def pid(self, victim: str) -> int | None:
        """The process to kill, or None if there is none now."""
        if victim == RUN:
            return next(iter(self.run_processes()), None)
        if victim == POSTGRESQL:
            try:
                return int((self.target.home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
            except (FileNotFoundError, IndexError, ValueError):
                return None
        return self.running.pid(victim)

    # --- actions -------------------------------------------------------------------------------------------------------

    def kill(self, victim: str, how: signal.Signals = signal.SIGKILL) -> bool:
        """Kill the process at once; return whether there was one. SIGQUIT is PostgreSQL's immediate shutdown."""
        pid = self.pid(victim)
        if pid is None:
            return False
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            return False
        self.killed[victim] += 1
        return True

    def wait(self, holds: Callable[[], object], *, seconds: float, what: str) -> None:
        """Restart dead processes until `holds` is true. On timeout, raise `AssertionError` with the processes' last log lines."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}\n{self.read_logs()}"
            self.restart_dead_processes()
            time.sleep(0.1)

    def reclaim(self) -> None:
        """Run the hourly reclaim through daemon and code server, as its schedule launches it."""
        run = str(uuid4())
        launch = ["dagster", "job", "launch", "-w", str(self.target.home / "workspace.yaml"), "-j", "backfill_reclaim"]
        done = subprocess.run(
            [Path(sys.executable).parent / launch[0], *launch[1:], "--run-id", run],
            env=self.target.variables,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        ended = "select count(*) as n from runs where run_id = %s and status = 'SUCCESS'"
        self.wait(lambda: self._count(self.target.dagster_url, ended, run), seconds=120, what="the end of the sweep")

    def reclaim_if_due(self) -> None:
        """Reclaim if a death left work: a recording stored but not materialized, or an unsettled hit."""
        bench = self.bench
        done = {row["song"] for row in bench.sql("select song from songstats_backfill_queue where status = 'done'")}
        if done - self.materialized() or any(hit["settled_at"] is None for hit in bench.ledger()):
            self.reclaim()

    def materialized(self) -> set[str]:
        """The ISRCs that Dagster shows as materialized."""
        with connect(self.target.dagster_url) as connection:
            return {row["partition"] for row in connection.execute(_MATERIALIZED)}

    def read_logs(self) -> str:
        """The end of each process's log."""
        logs = sorted((self.target.home / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def _is_run_process(self, process: psutil.Process) -> bool:
        # A run is a child of the fork server, which has the same command.
        try:
            return (
                _is_forked(process)
                and _is_forked(process.parent())
                and process.environ().get("DAGSTER_HOME") == str(self.target.dagster_home)
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:  # The process has ended, or belongs to another user.
            return False

    def _count(self, url: str, statement: str, *parameters: object) -> int | None:
        """The count that `statement` returns, or None while the database is unavailable."""
        try:
            with connect(url) as connection:
                (row,) = connection.execute(statement, parameters)
        except DatabaseUnavailable:
            return None
        return int(row["n"])


def _is_forked(process: psutil.Process | None) -> bool:
    return process is not None and any("multiprocessing.forkserver" in argument for argument in process.cmdline())


@contextmanager
def start_deployment(*, latency_seconds: float = 0.08, **settings: str) -> Iterator[LocalDeployment]:
    """Start the processes; stop them and delete their files when the block ends."""
    names = {setting.alias for setting in Settings.model_fields.values()}
    stored = {
        name: value for name, value in os.environ.items() if name not in names and not name.startswith("DAGSTER_")
    }
    environment = {
        **stored,
        "CLAIM_TIMEOUT_SECONDS": str(CLAIM_TIMEOUT_SECONDS),
        "MAX_ATTEMPTS": str(MAX_ATTEMPTS),
        "SONGSTATS_HIT_LIMIT": "1000000",
        "SONGSTATS_TIMEOUT_SECONDS": "10",
        **settings,
    }
    with ExitStack() as stack:
        stack.enter_context(supervisor.interruptible())
        # Not pytest's directory: pytest hides its parent from the user that PostgreSQL runs as under root.
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="mp_stage", ignore_cleanup_errors=True)))
        sandbox = stack.enter_context(running(behaviour=replace(PLAIN, latency=latency_seconds)))
        target = stack.enter_context(open_environment(environment, state=directory, doubles=sandbox.environment))
        migrate.upgrade(target.database_url, kind=target.kind)
        dagster = prepare_dagster(target)
        account = uuid4()
        sandbox.card(str(account))
        with target.connect() as connection:
            ensure_account(connection, account)
        keep_server_up = stack.enter_context(keep_server_running(target))
        its_services = [dagster.code_server(), dagster.daemon()]
        processes = stack.enter_context(supervisor.supervised(its_services, stop_seconds=20, restart_policy=_PATIENCE))
        yield LocalDeployment(target, sandbox, processes, dagster, keep_server_up, account)


def assert_all_requests_accounted_for(processes: LocalDeployment, songs: Sequence[str]) -> Counter[str]:
    """Assert that all of `songs` are stored once and that the ledger has a row for every request the vendor saw; count the
    causes.
    """
    bench = processes.bench
    with processes.target.connect() as connection:
        breaches = audit(connection, max_attempts=MAX_ATTEMPTS, at_rest=True, materialized=processes.materialized())
    assert [f"{one.invariant}: {breach}" for one in breaches for breach in one.breaches] == []
    assert bench.statuses() == {"stored": len(songs)}
    assert_measurements_complete(bench)
    ledger = bench.ledger()
    stored = Counter(hit["song"] for hit in ledger if hit["reason"] == "stored")
    # A process that dies with a call in flight leaves a hit of unknown fate, which counts as spent.
    unknown = Counter(hit["song"] for hit in ledger if hit["reason"] != "stored" and hit["billable"] is None)
    assert stored == dict.fromkeys(songs, 1)
    assert stored.total() + unknown.total() == len(ledger), "a hit is neither stored nor of unknown fate"
    hits = count_hits(bench)
    assert {song: (n, 1 + unknown[song]) for song, n in hits.items() if not 1 <= n <= 1 + unknown[song]} == {}
    return Counter(hit["reason"] for hit in ledger)
