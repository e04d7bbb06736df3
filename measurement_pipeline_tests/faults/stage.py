"""The whole pipeline in real processes, to be killed: PostgreSQL, code server, daemon, and the run that is going on.

The server, its databases and Dagster's home are the test's own, for PostgreSQL is killed too. The doubles run in the test's
process and survive. What dies is started again by the code that does so for `dev`; how and when it is killed is the tests'.
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
    Doubles,
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
from measurement_pipeline_tests.faults.reckoning import hits_of, measurements_are_whole
from measurement_pipeline_tests.workbench import Workbench, workbench

CODE_SERVER, DAEMON = "code-server", "dagster-daemon"
RUN, POSTGRESQL = "run", "PostgreSQL"
VICTIMS = (RUN, CODE_SERVER, DAEMON, POSTGRESQL)

CLAIM_TIMEOUT_SECONDS = 4.0
MAX_ATTEMPTS = 20

# Whatever dies is started again within a second, however often it has died: here it is killed on purpose.
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
class Stage:
    """A deployment whose processes run, and what a test does to them."""

    target: CliEnvironment
    sandbox: SandboxClient
    running: supervisor.Supervisor
    dagster: DagsterProcesses
    keep_server_up: Callable[[], None]
    account: UUID
    killed: Counter[str] = field(default_factory=Counter)

    @property
    def bench(self) -> Workbench:
        """The same deployment, as the other fault tests look at one."""
        found = workbench(self.target.database_url, self.sandbox)
        rules = replace(found.terms.rules, max_attempts=MAX_ATTEMPTS, claim_timeout_seconds=CLAIM_TIMEOUT_SECONDS)
        return replace(found, terms=replace(found.terms, rules=rules), account=self.account)

    def tend(self) -> None:
        """What `dev` does every half second: start again what has died."""
        self.keep_server_up()
        self.running.check()

    def ask_for(self, songs: Sequence[str]) -> UUID:
        """Insert a request, as a client does."""
        with self.target.connect() as connection:
            return measurement_jobs.submit(
                connection, account=self.account, source="historical", scope={"isrcs": list(songs)}
            )

    # --- looking -------------------------------------------------------------------------------------------------------

    def settled(self) -> int | None:
        """How many recordings are settled; None while the database is away."""
        return self._count(self.target.database_url, _SETTLED)

    def at_rest(self) -> bool:
        """Whether every request is answered, every row settled, and every run ended."""
        runs = "select count(*) as n from runs where status <> all(%s)"
        return (
            self._count(self.target.database_url, _OPEN_REQUESTS) == 0
            and self._count(self.target.database_url, _UNSETTLED) == 0
            and self._count(self.target.dagster_url, runs, list(_ENDED)) == 0
        )

    def run_processes(self) -> list[int]:
        """The processes that work on runs: the code server's spawned children, those it left when it was killed too."""
        return [process.pid for process in psutil.process_iter() if self._is_a_run(process)]

    def pid(self, victim: str) -> int | None:
        """A process to kill; None where there is none at the moment."""
        if victim == RUN:
            return next(iter(self.run_processes()), None)
        if victim == POSTGRESQL:
            try:
                return int((self.target.home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
            except (FileNotFoundError, IndexError, ValueError):
                return None
        return self.running.pid(victim)

    # --- doing ---------------------------------------------------------------------------------------------------------

    def kill(self, victim: str, how: signal.Signals = signal.SIGKILL) -> bool:
        """Kill it at once; whether there was one. SIGQUIT is PostgreSQL's own word for an immediate stop."""
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
        """Tend until `holds`. Raises `AssertionError` with what the processes logged last."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{what} did not come in {seconds:.0f} s\n{self.logged()}"
            self.tend()
            time.sleep(0.1)

    def reclaim(self) -> None:
        """The hourly sweep, through daemon and code server, as its schedule would launch it."""
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
        """The sweep, where a death left it something: a recording stored and not shown, a hit that nobody settled."""
        bench = self.bench
        done = {row["song"] for row in bench.sql("select song from songstats_backfill_queue where status = 'done'")}
        if done - self.materialized() or any(hit["settled_at"] is None for hit in bench.ledger()):
            self.reclaim()

    def materialized(self) -> set[str]:
        """The ISRCs that Dagster shows as materialized."""
        with connect(self.target.dagster_url) as connection:
            return {row["partition"] for row in connection.execute(_MATERIALIZED)}

    def logged(self) -> str:
        """The end of each process's log."""
        logs = sorted((self.target.home / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def _is_a_run(self, process: psutil.Process) -> bool:
        try:
            return (
                any("spawn_main" in argument for argument in process.cmdline())
                and process.environ().get("DAGSTER_HOME") == str(self.target.dagster_home)
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:  # gone, or somebody else's
            return False

    def _count(self, url: str, statement: str, *parameters: object) -> int | None:
        """What `statement` counts; None while the database is away."""
        try:
            with connect(url) as connection:
                (row,) = connection.execute(statement, parameters)
        except DatabaseUnavailable:
            return None
        return int(row["n"])


@contextmanager
def stage(*, latency_seconds: float = 0.08, **settings: str) -> Iterator[Stage]:
    """The processes, ready; all of them, and their files, are gone at the end."""
    names = {setting.alias for setting in Settings.model_fields.values()}
    kept = {name: value for name, value in os.environ.items() if name not in names and not name.startswith("DAGSTER_")}
    environment = {
        **kept,
        "CLAIM_TIMEOUT_SECONDS": str(CLAIM_TIMEOUT_SECONDS),
        "MAX_ATTEMPTS": str(MAX_ATTEMPTS),
        "SONGSTATS_HIT_LIMIT": "1000000",
        "SONGSTATS_TIMEOUT_SECONDS": "10",
        **settings,
    }
    with ExitStack() as stack:
        stack.enter_context(supervisor.interruptible())
        # Not pytest's own: each start of pytest shuts its parent to the user that PostgreSQL runs as below root.
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="mp_stage", ignore_cleanup_errors=True)))
        sandbox = stack.enter_context(running(behaviour=replace(PLAIN, latency=latency_seconds)))
        doubles = Doubles.from_keys(sandbox.songstats_url, sandbox)
        target = stack.enter_context(open_environment(environment, state=directory, doubles=doubles))
        migrate.upgrade(target.database_url, kind=target.kind)
        dagster = prepare_dagster(target)
        account = uuid4()
        sandbox.card(str(account))
        with target.connect() as connection:
            ensure_account(connection, account)
        keep_server_up = stack.enter_context(keep_server_running(target))
        its_services = [dagster.code_server(), dagster.daemon()]
        processes = stack.enter_context(supervisor.supervised(its_services, stop_seconds=20, restart_policy=_PATIENCE))
        yield Stage(target, sandbox, processes, dagster, keep_server_up, account)


def everything_is_stored_and_accounted_for(processes: Stage, songs: Sequence[str]) -> Counter[str]:
    """All that was asked for is stored once, every request that the vendor saw has a row of the ledger; the causes of those."""
    bench = processes.bench
    with processes.target.connect() as connection:
        found = audit(connection, max_attempts=MAX_ATTEMPTS, at_rest=True, materialized=processes.materialized())
    assert [f"{one.invariant}: {breach}" for one in found for breach in one.breaches] == []
    assert bench.statuses() == {"stored": len(songs)}
    measurements_are_whole(bench)
    ledger = bench.ledger()
    stored = Counter(hit["song"] for hit in ledger if hit["reason"] == "stored")
    # Whoever died with a call in the air left a row whose fate nobody knows: it counts as spent.
    unknown = Counter(hit["song"] for hit in ledger if hit["reason"] != "stored" and hit["billable"] is None)
    assert stored == dict.fromkeys(songs, 1)
    assert stored.total() + unknown.total() == len(ledger), (
        "each call is stored, or of a fate that is known to be unknown"
    )
    hits = hits_of(bench)
    assert {song: (n, 1 + unknown[song]) for song, n in hits.items() if not 1 <= n <= 1 + unknown[song]} == {}
    return Counter(hit["reason"] for hit in ledger)
