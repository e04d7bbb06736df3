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

from measurement_pipeline.local.errors import RefusedError
from measurement_pipeline.local.process_group import OrphanReaper, end, lives
from measurement_pipeline.local.signals import Interrupted, held, interruptible

__all__ = [
    "Interrupted",
    "RestartPolicy",
    "Service",
    "ServiceError",
    "Supervisor",
    "answers",
    "free_port",
    "interruptible",
    "says",
    "supervised",
]

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_POLL_SECONDS = 0.1
_TAIL_CHARACTERS = 3000


class ServiceError(RefusedError):
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
    spares_children: bool = False


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """With services that die: the wait before the first new start is doubled with each death, up to the longest one.

    One that has run for `well_seconds` is well again: its next death counts as its first.
    """

    deaths_allowed: int = 5
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 30.0
    well_seconds: float = 60.0

    def wait_seconds(self, deaths: int) -> float:
        """How long to wait after so many deaths in a row."""
        return min(self.first_wait_seconds * 2.0 ** (deaths - 1), self.longest_wait_seconds)


_PATIENCE = RestartPolicy()


def answers(url: str) -> Callable[[str], bool]:
    """Ready once a GET of `url` is answered without a server's error."""

    def ready(_: str) -> bool:
        try:
            answer = httpx.get(url, timeout=5.0, trust_env=False)
        except httpx.TransportError:
            return False
        return not answer.is_server_error

    return ready


def says(text: str) -> Callable[[str], bool]:
    """Ready once its log has `text`."""
    return lambda log: text in log


@contextmanager
def supervised(
    services: Sequence[Service], *, stop_seconds: float = 30.0, patience: RestartPolicy = _PATIENCE
) -> Iterator["Supervisor"]:
    """Run `services`, started in this order and each ready before the next, for as long as the block lasts.

    They are stopped in reverse order; each has `stop_seconds` to end with all that it started, then
    it is killed. Should this process be killed by force, a keeper stops them in its place. A service
    that dies is started again as `patience` has it. A stop signal ends the block with `Interrupted`.
    Raises `ServiceError`.
    """
    with interruptible(), ExitStack() as stack:
        # Nobody who stops may be stopped in the middle of it: what comes then waits for the end.
        keeper = stack.enter_context(OrphanReaper(seconds=stop_seconds))
        supervisor = Supervisor(keeper, stop_seconds=stop_seconds, patience=patience)
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

    def __init__(self, keeper: OrphanReaper, *, stop_seconds: float, patience: RestartPolicy) -> None:
        self._keeper = keeper
        self._stop_seconds = stop_seconds
        self._patience = patience
        self._running: dict[str, _Running] = {}
        # Groups whose first process is dead, and whose others were spared.
        self._spared: list[int] = []

    def start(self, service: Service) -> str:
        """Start one more and wait until it is ready; what it has logged by then. Raises `ServiceError`."""
        self._spawn(service, deaths=0)
        running = self._running[service.name]
        deadline = time.monotonic() + service.ready_seconds
        while service.ready is not None and not service.ready(_logged(running)):
            status = running.process.poll()
            if status is not None:
                raise ServiceError(_in_words(running, f"ended with status {status} before it was ready"))
            if time.monotonic() > deadline:
                raise ServiceError(_in_words(running, f"is not ready after {service.ready_seconds:g} s"))
            time.sleep(_POLL_SECONDS)
        return _logged(running)

    def check(self) -> None:
        """Start again what has died; to be called every second or so. Raises `ServiceError` where it keeps dying.

        Status 0 is a death too: a daemon that somebody else told to stop ends with it.
        """
        for running in list(self._running.values()):
            if running.restart_at is None and running.process.poll() is not None:
                self._after_death(running)
            if running.restart_at is not None and time.monotonic() >= running.restart_at:
                self._spawn(running.service, deaths=running.deaths)
        for group in [group for group in self._spared if not lives(group)]:
            self._spared.remove(group)
            self._keeper.forget(group)

    def pid(self, name: str) -> int | None:
        """The process of the service `name`; None while it is dead."""
        process = self._running[name].process
        return process.pid if process.poll() is None else None

    def wait(self, tend: Callable[[], None] = lambda: None) -> None:
        """Check, after a call of `tend`, until a stop signal comes; it is what was waited for, so that this returns.

        Raises `ServiceError`, and what `tend` raises.
        """
        try:
            while True:
                tend()
                self.check()
                time.sleep(_POLL_SECONDS * 5)
        except Interrupted as signal:
            logger.info("%s: stopping", signal)

    def stop(self) -> None:
        """Stop all, the latest started first."""
        with held():
            while self._running:
                _, running = self._running.popitem()
                self._end(running)
            while self._spared:
                self._end_group(self._spared.pop(), "what a dead service had started")

    def _spawn(self, service: Service, *, deaths: int) -> None:
        with ExitStack() as stack:
            log = None
            if service.log is not None:
                service.log.parent.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(service.log.open("ab"))
            # Asked before there is a child: it shares the file's position, and moves it with what it says first.
            begins = log.tell() if log else 0
            # Between its start and our knowing of it, no signal may come.
            stack.enter_context(held())
            process = subprocess.Popen(  # noqa: S603  # the command is the caller's
                _command(service),
                env={"PYTHONUNBUFFERED": "1", **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group of its own: it is signalled as one, and not by our terminal
            )
            self._running[service.name] = _Running(service, process, begins, time.monotonic(), deaths)
            self._keeper.watch(process.pid)

    def _after_death(self, running: _Running) -> None:
        lived = time.monotonic() - running.since
        running.deaths = 1 if lived > self._patience.well_seconds else running.deaths + 1
        found = f"ended by itself with status {running.process.returncode}"
        if running.deaths > self._patience.deaths_allowed:
            raise ServiceError(_in_words(running, f"{found}, {running.deaths} times in a row"))
        wait = self._patience.wait_seconds(running.deaths)
        logger.warning("%s %s: starting it again in %g s", running.service.name, found, wait)
        with held():
            if running.service.spares_children:
                self._spared.append(running.process.pid)
            else:
                # What it had started would otherwise work beside what its successor starts.
                self._end(running)
        running.restart_at = time.monotonic() + wait

    def _end(self, running: _Running) -> None:
        self._end_group(running.process.pid, running.service.name)
        running.process.wait()

    def _end_group(self, group: int, name: str) -> None:
        if not end(group, seconds=self._stop_seconds):
            logger.warning("%s did not stop in %g s: killed", name, self._stop_seconds)
        self._keeper.forget(group)


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


def _logged(running: _Running) -> str:
    if running.service.log is None:
        return ""
    with running.service.log.open("rb") as log:
        log.seek(running.log_offset)
        return log.read().decode(errors="replace")


def _in_words(running: _Running, found: str) -> str:
    where = f" (log: {running.service.log})" if running.service.log else ""
    last = _logged(running)[-_TAIL_CHARACTERS:].strip()
    return f"{running.service.name} {found}{where}" + (f"\n{last}" if last else "")
