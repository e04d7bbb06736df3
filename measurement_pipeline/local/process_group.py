"""Stops a process and everything that it started, through its process group.

A child started with `start_new_session` leads a new group. Its own children stay in that group, including Dagster's run workers.
"""

import os
import signal
import time
from contextlib import suppress

import psutil

_POLL_SECONDS = 0.05
# The kernel may need a moment to remove a process after SIGKILL.
_KILL_SECONDS = 10.0


def is_alive(group: int) -> bool:
    """Whether any process of `group` still runs. A zombie does not: its parent may never reap it."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS raises this for a group of zombies
        return False
    return any(_is_running_in(pid, group) for pid in psutil.pids())


def terminate(group: int, *, grace_seconds: float) -> bool:
    """Send SIGTERM to every process of `group`, and SIGKILL after `grace_seconds`; whether SIGTERM was enough.

    SIGTERM goes to every process, not only to the first. A Dagster run worker treats it as an interrupt and releases its
    claims; its parent server would exit and leave the worker running.
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
    # The group is empty, or, on macOS, holds only zombies.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _wait_until_gone(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
