"""The supervisor of the processes that `dev`, `demo` and the benchmark run: start, log, restart, stop.

It is handed commands and environments and knows nothing of databases or vendors. Nothing that it
started outlives it, nor what those started in their turn. Unix only.
"""

import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.local.orphan_reaper import OrphanReaper
from measurement_pipeline.local.process_group import is_alive, terminate
from measurement_pipeline.local.signals import Interrupted, defer_signals, interruptible

__all__ = [
    "Interrupted",
    "RestartPolicy",
    "Service",
    "ServiceError",
    "Supervisor",
    "free_port",
    "http_ready",
    "interruptible",
    "log_contains",
    "supervised",
]

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_POLL_SECONDS = 0.1
_TAIL_CHARACTERS = 3000


class ServiceError(CommandError):
    """A service does not start, or not stay up; the text says which, and what it logged last."""


@dataclass(frozen=True, slots=True)
class Service:
    """A process to keep running.

    `environment` is all that it gets. What it writes goes to the file `log`, or, without one, where
    our own output goes. `ready` is asked, with what it has logged since its start, until it says so.
    `spares_children`: what it started works on when it dies, until all is stopped.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log: Path | None = None
    ready: Callable[[str], bool] | None = None
    ready_seconds: float = 90.0
    keeps_children: bool = False


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """With services that die: the wait before the first new start is doubled with each death, up to the longest one.

    One that has run for `well_seconds` is well again: its next death counts as its first.
    """

    max_deaths: int = 5
    first_wait_seconds: float = 1.0
    max_wait_seconds: float = 30.0
    reset_seconds: float = 60.0

    def wait_seconds(self, deaths: int) -> float:
        """How long to wait after so many deaths in a row."""
        return min(self.first_wait_seconds * 2.0 ** (deaths - 1), self.max_wait_seconds)


_DEFAULT_RESTART_POLICY = RestartPolicy()


def http_ready(url: str) -> Callable[[str], bool]:
    """Ready once a GET of `url` is answered without a server's error."""

    def ready(_: str) -> bool:
        try:
            answer = httpx.get(url, timeout=5.0, trust_env=False)
        except httpx.TransportError:
            return False
        return not answer.is_server_error

    return ready


def log_contains(text: str) -> Callable[[str], bool]:
    """Ready once its log has `text`."""
    return lambda log: text in log


@contextmanager
def supervised(
    services: Sequence[Service], *, stop_seconds: float = 30.0, restart_policy: RestartPolicy = _DEFAULT_RESTART_POLICY
) -> Iterator["Supervisor"]:
    """Run `services`, started in this order and each ready before the next, for as long as the block lasts.

    They are stopped in reverse order; each has `stop_seconds` to end with all that it started, then
    it is killed. Should this process be killed by force, a keeper stops them in its place. A service
    that dies is started again as `patience` has it. A stop signal ends the block with `Interrupted`.
    Raises `ServiceError`.
    """
    with interruptible(), ExitStack() as stack:
        # Nobody who stops may be stopped in the middle of it: what comes then waits for the end.
        reaper = stack.enter_context(OrphanReaper(seconds=stop_seconds))
        supervisor = Supervisor(reaper, stop_seconds=stop_seconds, restart_policy=restart_policy)
        stack.callback(supervisor.stop)
        for service in services:
            supervisor.start(service)
        yield supervisor


@dataclass(slots=True)
class _Running:
    service: Service
    process: subprocess.Popen[bytes]
    log_offset: int
    since: float
    deaths: int
    restart_at: float | None = None


class Supervisor:
    """Made by `supervised`; not for several threads."""

    def __init__(self, reaper: OrphanReaper, *, stop_seconds: float, restart_policy: RestartPolicy) -> None:
        self._reaper = reaper
        self._stop_seconds = stop_seconds
        self._restart_policy = restart_policy
        self._running: dict[str, _Running] = {}
        # Groups whose first process is dead, and whose others were spared.
        self._surviving_groups: list[int] = []

    def start(self, service: Service) -> str:
        """Start one more and wait until it is ready; what it has logged by then. Raises `ServiceError`."""
        self._spawn(service, deaths=0)
        running = self._running[service.name]
        deadline = time.monotonic() + service.ready_seconds
        while service.ready is not None and not service.ready(_log_since_start(running)):
            status = running.process.poll()
            if status is not None:
                raise ServiceError(_describe(running, f"ended with status {status} before it was ready"))
            if time.monotonic() > deadline:
                raise ServiceError(_describe(running, f"is not ready after {service.ready_seconds:g} s"))
            time.sleep(_POLL_SECONDS)
        return _log_since_start(running)

    def check(self) -> None:
        """Start again what has died; to be called every second or so. Raises `ServiceError` where it keeps dying.

        Status 0 is a death too: a daemon that somebody else told to stop ends with it.
        """
        for running in list(self._running.values()):
            if running.restart_at is None and running.process.poll() is not None:
                self._schedule_restart(running)
            if running.restart_at is not None and time.monotonic() >= running.restart_at:
                self._spawn(running.service, deaths=running.deaths)
        for group in [group for group in self._surviving_groups if not is_alive(group)]:
            self._surviving_groups.remove(group)
            self._reaper.remove(group)

    def pid(self, name: str) -> int | None:
        """The process of the service `name`; None while it is dead."""
        process = self._running[name].process
        return process.pid if process.poll() is None else None

    def wait(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Check, after a call of `tend`, until a stop signal comes; it is what was waited for, so that this returns.

        Raises `ServiceError`, and what `tend` raises.
        """
        try:
            while True:
                on_tick()
                self.check()
                time.sleep(_POLL_SECONDS * 5)
        except Interrupted as signal:
            logger.info("%s: stopping", signal)

    def stop(self) -> None:
        """Stop all, the latest started first."""
        with defer_signals():
            while self._running:
                _, running = self._running.popitem()
                self._stop_service(running)
            while self._surviving_groups:
                self._stop_group(self._surviving_groups.pop(), "what a dead service had started")

    def _spawn(self, service: Service, *, deaths: int) -> None:
        with ExitStack() as stack:
            log = None
            if service.log is not None:
                service.log.parent.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(service.log.open("ab"))
            # Asked before there is a child: it shares the file's position, and moves it with what it says first.
            begins = log.tell() if log else 0
            # Between its start and our knowing of it, no signal may come.
            stack.enter_context(defer_signals())
            process = subprocess.Popen(  # noqa: S603  # the command is the caller's
                _command(service),
                env={"PYTHONUNBUFFERED": "1", **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group of its own: it is signalled as one, and not by our terminal
            )
            self._running[service.name] = _Running(service, process, begins, time.monotonic(), deaths)
            self._reaper.add(process.pid)

    def _schedule_restart(self, running: _Running) -> None:
        lived = time.monotonic() - running.since
        running.deaths = 1 if lived > self._restart_policy.reset_seconds else running.deaths + 1
        found = f"ended by itself with status {running.process.returncode}"
        if running.deaths > self._restart_policy.max_deaths:
            raise ServiceError(_describe(running, f"{found}, {running.deaths} times in a row"))
        wait = self._restart_policy.wait_seconds(running.deaths)
        logger.warning("%s %s: starting it again in %g s", running.service.name, found, wait)
        with defer_signals():
            if running.service.keeps_children:
                self._surviving_groups.append(running.process.pid)
            else:
                # What it had started would otherwise work beside what its successor starts.
                self._stop_service(running)
        running.restart_at = time.monotonic() + wait

    def _stop_service(self, running: _Running) -> None:
        self._stop_group(running.process.pid, running.service.name)
        running.process.wait()

    def _stop_group(self, group: int, name: str) -> None:
        if not terminate(group, grace_seconds=self._stop_seconds):
            logger.warning("%s did not stop in %g s: killed", name, self._stop_seconds)
        self._reaper.remove(group)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.create_server((_LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def _command(service: Service) -> list[str]:
    # Scripts of our own environment come first, whether or not it is activated.
    program, *arguments = service.command
    path = os.pathsep.join([str(Path(sys.executable).parent), service.environment.get("PATH", os.defpath)])
    found = shutil.which(program, path=path)
    if found is None:
        raise ServiceError(f"{service.name}: there is no program {program!r}")
    return [found, *arguments]


def _log_since_start(running: _Running) -> str:
    if running.service.log is None:
        return ""
    with running.service.log.open("rb") as log:
        log.seek(running.log_offset)
        return log.read().decode(errors="replace")


def _describe(running: _Running, event: str) -> str:
    where = f" (log: {running.service.log})" if running.service.log else ""
    last = _log_since_start(running)[-_TAIL_CHARACTERS:].strip()
    return f"{running.service.name} {event}{where}" + (f"\n{last}" if last else "")
