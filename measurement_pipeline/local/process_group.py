"""Ending a process and all that it started, by its process group; and the last will of whoever started them.

A group is what a child started with `start_new_session` makes: its own children stay in it, Dagster's run workers too. Which
children there are, and when they are to run, is `services`'.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self

import psutil

_POLL_SECONDS = 0.05
# After SIGKILL a process goes as soon as the kernel gets round to it.
_KILL_SECONDS = 10.0


def lives(group: int) -> bool:
    """Whether a process of `group` is left. A zombie is not: it runs no more, and waits for a parent that may never look."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return False
    return any(_runs_in(pid, group) for pid in psutil.pids())


def end(group: int, *, seconds: float) -> bool:
    """Ask every process of `group` to end, wait up to `seconds`, then kill; whether all ended by themselves.

    Each is asked, not the first alone: a Dagster run worker takes SIGTERM for an interrupt and
    releases what it holds, while the servers above it would end and let it run on.
    """
    _signal(group, signal.SIGTERM)
    if _gone(group, seconds):
        return True
    _signal(group, signal.SIGKILL)
    _gone(group, _KILL_SECONDS)
    return False


def _runs_in(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False


def _signal(group: int, number: signal.Signals) -> None:
    # Nobody there, or, on macOS, zombies only.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _gone(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while lives(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


class OrphanReaper:
    """A small process that ends the groups it was told of once this process is gone, SIGKILL included."""

    def __init__(self, *, seconds: float) -> None:
        # In a session of its own: it must outlive a signal to our group. With what is inheritable left
        # open: what we own (the embedded database) stays owned until those who need it have ended.
        self._process = subprocess.Popen(  # noqa: S603  # this module
            [sys.executable, "-m", __name__, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=False,
        )

    def watch(self, group: int) -> None:
        """End `group` when we are gone."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """It is gone, and its number may soon be somebody else's."""
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Nothing is left to be ended."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # somebody killed it: it is a last resort, not a reason to fail
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def main(seconds: float) -> None:
    """The keeper: read groups until the one who names them is gone, then end them."""
    groups = set[int]()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    with ThreadPoolExecutor() as pool:
        for group in groups:
            pool.submit(end, group, seconds=seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]))
