"""Ending a process and all that it started, by its process group; and the last will of whoever started them.

A group is what a child started with `start_new_session` makes: its own children stay in it, Dagster's run workers too. Which
children there are, and when they are to run, is `services`'.
"""

import os
import signal
import time
from contextlib import suppress

import psutil

_POLL_SECONDS = 0.05
# After SIGKILL a process goes as soon as the kernel gets round to it.
_KILL_SECONDS = 10.0


def is_alive(group: int) -> bool:
    """Whether a process of `group` is left. A zombie is not: it runs no more, and waits for a parent that may never look."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return False
    return any(_is_running_in(pid, group) for pid in psutil.pids())


def terminate(group: int, *, grace_seconds: float) -> bool:
    """Ask every process of `group` to end, wait up to `seconds`, then kill; whether all ended by themselves.

    Each is asked, not the first alone: a Dagster run worker takes SIGTERM for an interrupt and
    releases what it holds, while the servers above it would end and let it run on.
    """
    _signal(group, signal.SIGTERM)
    if _wait_until_gone(group, grace_seconds):
        return True
    _signal(group, signal.SIGKILL)
    _wait_until_gone(group, _KILL_SECONDS)
    return False


def _is_running_in(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False


def _signal(group: int, number: signal.Signals) -> None:
    # Nobody there, or, on macOS, zombies only.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _wait_until_gone(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
