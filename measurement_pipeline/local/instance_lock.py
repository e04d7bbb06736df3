"""That a `dev` or `demo` runs on a directory of state: the lock that keeps it alone, and what it says there of itself.

One that ends says when; one that was killed leaves what it said when it began.

Who wants to know reads the file and locks nothing, so that it stands in nobody's way.
"""

import fcntl
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from measurement_pipeline.domain.text import utc
from measurement_pipeline.local.errors import CommandError


@contextmanager
def acquire_instance_lock(
    home: Path, command: str, *, doubles_port: int | None = None, api_url: str | None = None
) -> Iterator[None]:
    """Hold `home` for one `dev` or `demo`: two daemons on one Dagster instance would get in each other's way.

    Raises `CommandError`. The kernel lets go when the process dies, however it dies.
    """
    home.mkdir(parents=True, exist_ok=True)
    with _lock_file(home, command).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(f"`measurement-pipeline {command}` runs already, with its state in {home}") from None

        def say(**said: object) -> None:
            lock.truncate(0)
            lock.write(json.dumps(said).encode())
            lock.flush()

        say(doubles_port=doubles_port, api_url=api_url, started_at=datetime.now(UTC).isoformat())
        try:
            yield
        finally:
            say(stopped_at=datetime.now(UTC).isoformat())


def seconds_since_start(home: Path, command: str) -> float | None:
    """How long `command` has run on `home`; None: it does not, or nothing is known of it."""
    started_at = _read_state(home, command).get("started_at")
    return None if started_at is None else (datetime.now(UTC) - datetime.fromisoformat(started_at)).total_seconds()


def stopped_at(home: Path, command: str) -> datetime | None:
    """When `command` ended on `home`, with all that it ran; None: it runs, was killed, or never ran."""
    moment = _read_state(home, command).get("stopped_at")
    return None if moment is None else datetime.fromisoformat(moment)


def doubles_port(home: Path) -> int | None:
    """Where the doubles of the `dev` on `home` listen; None: there are none, or it was killed."""
    port = _read_state(home, "dev").get("doubles_port")
    return int(port) if port is not None and is_listening("127.0.0.1", int(port)) else None


def api_url(home: Path) -> str | None:
    """Where the HTTP API of the `dev` on `home` is; None: it has none, or does not run."""
    return _read_state(home, "dev").get("api_url")


def describe_end(home: Path, command: str) -> str | None:
    """How `command` ended on `home`, for a person; None: it runs, or never ran.

    A command that was killed left no end behind: then the port on which it listened tells.
    """
    stopped = stopped_at(home, command)
    if stopped is not None:
        return f"was stopped {utc(stopped)}"
    ports = [found for found in (_api_port(home), _read_state(home, command).get("doubles_port")) if found is not None]
    return "was killed" if ports and not any(is_listening("127.0.0.1", int(port)) for port in ports) else None


def _api_port(home: Path) -> int | None:
    address = api_url(home)
    return None if address is None else urlsplit(address).port


def is_listening(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def _read_state(home: Path, command: str) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(_lock_file(home, command).read_text(encoding="utf-8") or "{}")
    except (FileNotFoundError, ValueError):  # never run, or half written
        return {}
    return found


def _lock_file(home: Path, command: str) -> Path:
    return home / f"{command}.lock"
