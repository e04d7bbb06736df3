"""The lock that allows one `dev` or `demo` per state directory, and the state that the process writes into the lock file.

A command that stops records when. A command that was killed leaves the state from its start. Readers do not take the lock, so
they never block a command that starts.
"""

import fcntl
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from measurement_pipeline.domain.text import utc
from measurement_pipeline.local.errors import CommandError


@contextmanager
def acquire_instance_lock(
    home: Path, command: str, *, doubles_port: int | None = None, api_url: str | None = None
) -> Iterator[Callable[[], None]]:
    """Hold the lock on `home` for one `dev` or `demo`, because two daemons must not share a Dagster instance.

    Yields a function to call once `command` is ready to serve. Raises `CommandError` if another process holds the lock. The
    kernel releases the lock when the process dies.
    """
    home.mkdir(parents=True, exist_ok=True)
    with _lock_file(home, command).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"`measurement-pipeline {command}` is already running with its state in {home}: stop it first, or choose "
                "another directory with --state"
            ) from None

        def write_state(**state: object) -> None:
            lock.truncate(0)
            lock.write(json.dumps(state).encode())
            lock.flush()

        process = psutil.Process()
        state: dict[str, object] = {
            "doubles_port": doubles_port,
            "api_url": api_url,
            "started_at": datetime.now(UTC).isoformat(),
            # The kernel reuses pids; the creation time makes this one unique.
            "process": [process.pid, process.create_time()],
        }
        write_state(**state)
        try:
            yield lambda: write_state(**state, is_ready=True)
        finally:
            write_state(stopped_at=datetime.now(UTC).isoformat())


def seconds_since_start(home: Path, command: str) -> float | None:
    """How long `command` has been running on `home`; None if it is not running."""
    state = _read_state(home, command)
    if not _is_running(state):
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(state["started_at"])).total_seconds()


def is_starting(home: Path, command: str) -> bool:
    """Whether `command` runs on `home` and is not ready yet."""
    state = _read_state(home, command)
    return _is_running(state) and not state.get("is_ready")


def stopped_at(home: Path, command: str) -> datetime | None:
    """When `command` stopped on `home`; None if it is running, was killed, or never ran."""
    moment = _read_state(home, command).get("stopped_at")
    return None if moment is None else datetime.fromisoformat(moment)


def doubles_port(home: Path) -> int | None:
    """The port of the vendor doubles that the `dev` on `home` runs; None if nothing listens there."""
    port = _read_state(home, "dev").get("doubles_port")
    return int(port) if port is not None and is_listening("127.0.0.1", int(port)) else None


def api_url(home: Path) -> str | None:
    """The base URL of the HTTP API that the `dev` on `home` runs; None if there is none."""
    return _read_state(home, "dev").get("api_url")


def describe_end(home: Path, command: str) -> str | None:
    """How `command` ended on `home`, as text; None if it is running or never ran."""
    stopped = stopped_at(home, command)
    if stopped is not None:
        return f"was stopped {utc(stopped)}"
    state = _read_state(home, command)
    # A killed command records no end.
    return "was killed" if state and not _is_running(state) else None


def is_listening(host: str, port: int) -> bool:
    """Whether a process accepts connections on this port."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def _is_running(state: dict[str, Any]) -> bool:
    if "process" not in state:
        return False
    pid, created_at = state["process"]
    try:
        return bool(psutil.Process(pid).create_time() == created_at)
    except psutil.NoSuchProcess:
        return False


def _read_state(home: Path, command: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(_lock_file(home, command).read_text(encoding="utf-8") or "{}")
    except (FileNotFoundError, ValueError):  # the command never ran, or is writing
        return {}
    return state


def _lock_file(home: Path, command: str) -> Path:
    return home / f"{command}.lock"
