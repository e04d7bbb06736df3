"""Starts, logs, restarts and stops the processes of `dev`, `demo` and the benchmarks.

It takes commands and environments, and knows no database or vendor. None of its processes or their children survive it.
Unix only.
"""

import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from measurement_pipeline.domain.backoff import exponential_backoff
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
# Readiness is asked on loopback, without TLS: loading the authorities for each poll would take more CPU than the answer.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TAIL_CHARACTERS = 3000


class ServiceError(CommandError):
    """A service failed to start or keeps dying; the message names it and ends with its last log lines."""


@dataclass(frozen=True, slots=True)
class Service:
    """A process to keep running.

    `environment` is its whole environment. Its output goes to the file `log`, or, without one, to this process's output.
    `ready` takes the log since the start and returns whether the service is ready. With `keeps_children`, its children
    survive its death until the supervisor stops.
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
    """Restart with exponential backoff: each death in a row doubles the wait, up to `max_wait_seconds`.

    The count restarts at one for a service that has run for `reset_seconds`.
    """

    max_deaths: int = 5
    first_wait_seconds: float = 1.0
    max_wait_seconds: float = 30.0
    reset_seconds: float = 60.0

    def wait_seconds(self, deaths: int) -> float:
        """The wait before a restart after `deaths` deaths in a row."""
        return exponential_backoff(deaths - 1, first_seconds=self.first_wait_seconds, max_seconds=self.max_wait_seconds)


_DEFAULT_RESTART_POLICY = RestartPolicy()


def http_ready(url: str) -> Callable[[str], bool]:
    """Return a readiness check that passes once GET `url` returns no 5xx status."""
    # Imported late: most commands start no service, and the import costs 0.1 s.
    import httpx

    def ready(_: str) -> bool:
        try:
            response = httpx.get(url, timeout=5.0, trust_env=False, verify=_NO_TLS)
        except httpx.TransportError:
            return False
        return not response.is_server_error

    return ready


def log_contains(text: str) -> Callable[[str], bool]:
    """Return a readiness check that passes once the log contains `text`."""
    return lambda log: text in log


@contextmanager
def supervised(
    services: Sequence[Service], *, stop_seconds: float = 30.0, restart_policy: RestartPolicy = _DEFAULT_RESTART_POLICY
) -> Iterator["Supervisor"]:
    """Run `services` during the block. They start in this order, each after the previous one is ready.

    They stop in reverse order. Each has `stop_seconds` to end with its children, and is then killed. If this process is
    killed, an `OrphanReaper` stops them instead. `Supervisor.check` restarts dead services. A stop signal ends the block with
    `Interrupted`. Raises `ServiceError`.
    """
    with interruptible(), ExitStack() as stack:
        reaper = stack.enter_context(OrphanReaper(grace_seconds=stop_seconds))
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
    """Runs services; created by `supervised`. Not thread-safe."""

    def __init__(self, reaper: OrphanReaper, *, stop_seconds: float, restart_policy: RestartPolicy) -> None:
        self._reaper = reaper
        self._stop_seconds = stop_seconds
        self._restart_policy = restart_policy
        self._running: dict[str, _Running] = {}
        # Groups of dead services whose children survive.
        self._surviving_groups: list[int] = []

    def start(self, service: Service) -> str:
        """Start a service, wait until it is ready, and return its log. Raises `ServiceError`."""
        self._spawn(service, deaths=0)
        running = self._running[service.name]
        deadline = time.monotonic() + service.ready_seconds
        while service.ready is not None and not service.ready(_log_since_start(running)):
            status = running.process.poll()
            if status is not None:
                raise ServiceError(_describe(running, f"ended with status {status} before it was ready"))
            if time.monotonic() > deadline:
                raise ServiceError(_describe(running, f"was not ready within {service.ready_seconds:g} s"))
            time.sleep(_POLL_SECONDS)
        return _log_since_start(running)

    def check(self) -> None:
        """Restart dead services; call it about once a second. Raises `ServiceError` for a service that keeps dying.

        Exit status 0 counts as a death too: a daemon that receives SIGTERM from elsewhere ends with it.
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
        """The pid of the service `name`; None while it is dead."""
        process = self._running[name].process
        return process.pid if process.poll() is None else None

    def wait(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Call `on_tick` and `check` twice a second, and return on a stop signal.

        Raises `ServiceError`, and any exception of `on_tick`.
        """
        try:
            while True:
                on_tick()
                self.check()
                time.sleep(_POLL_SECONDS * 5)
        except Interrupted as signal:
            logger.info("%s: stopping", signal)

    def stop(self) -> None:
        """Stop all services, the latest first."""
        with defer_signals():
            while self._running:
                _, running = self._running.popitem()
                self._stop_service(running)
            while self._surviving_groups:
                self._stop_group(self._surviving_groups.pop(), "a child of a dead service")

    def _spawn(self, service: Service, *, deaths: int) -> None:
        with ExitStack() as stack:
            log = None
            if service.log is not None:
                service.log.parent.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(service.log.open("ab"))
            # Read before the start, because the child shares the file position and moves it.
            log_start = log.seek(0, os.SEEK_END) if log else 0
            # A signal between the start and the registration would leave an unknown process.
            stack.enter_context(defer_signals())
            process = subprocess.Popen(  # noqa: S603  # the command is the caller's
                _command(service),
                env={"PYTHONUNBUFFERED": "1", **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a separate group: it is signalled as one, and not by this terminal
            )
            self._running[service.name] = _Running(service, process, log_start, time.monotonic(), deaths)
            self._reaper.add(process.pid)

    def _schedule_restart(self, running: _Running) -> None:
        lived = time.monotonic() - running.since
        running.deaths = 1 if lived > self._restart_policy.reset_seconds else running.deaths + 1
        event = f"ended with status {running.process.returncode}"
        if running.deaths > self._restart_policy.max_deaths:
            raise ServiceError(_describe(running, f"{event}, {running.deaths} times in a row"))
        wait = self._restart_policy.wait_seconds(running.deaths)
        logger.warning("%s %s: restarting it in %g s", running.service.name, event, wait)
        with defer_signals():
            if running.service.keeps_children:
                self._surviving_groups.append(running.process.pid)
            else:
                # Its children would otherwise run beside those of its successor.
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
    """Return a loopback port that is free at this moment."""
    with socket.create_server((_LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def _command(service: Service) -> list[str]:
    # Scripts of this virtual environment come first, whether or not it is activated.
    program, *arguments = service.command
    path = os.pathsep.join([str(Path(sys.executable).parent), service.environment.get("PATH", os.defpath)])
    executable = shutil.which(program, path=path)
    if executable is None:
        raise ServiceError(f"{service.name}: the program {program!r} is not installed")
    return [executable, *arguments]


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
