"""Tracks which processes own the embedded server, and stops it after an owner that died without doing so.

An owner holds a shared lock on a file. The kernel releases it when the owner dies, so ownership cannot go stale. Each owner
starts `python -m measurement_pipeline.local.embedded_guard DIRECTORY`, which waits until its standard input ends. That happens
when its owner is gone. It then stops the server unless another process owns it; every owner has its own guard.
"""

import fcntl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from measurement_pipeline.local.embedded_cluster import EmbeddedCluster

_ATTEMPTS = 20


@contextmanager
def state_lock(directory: Path) -> Iterator[None]:
    """Let one process at a time start or stop the server in `directory`."""
    with (directory / "state.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def open_owners_file(directory: Path) -> IO[bytes]:
    """Open the file on which owners hold a shared lock; closing it ends the ownership."""
    return (directory / "owners.lock").open("ab")


def stop_if_unowned(cluster: "EmbeddedCluster") -> bool:
    """Stop the server unless a process owns it; whether it was unowned. Call it under `state_lock`."""
    with open_owners_file(cluster.directory) as owners:
        try:
            fcntl.flock(owners, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        cluster.stop()
        return True


def main(directory: Path) -> None:
    """Wait until the owner is gone, then stop the server if no other process owns it."""
    while sys.stdin.buffer.read(4096):
        pass
    # Imported late to save memory: most guards only wait, and their owner kills them.
    from measurement_pipeline.local.embedded_cluster import EmbeddedCluster

    for _ in range(_ATTEMPTS):
        if not directory.exists():
            return
        with state_lock(directory):
            if stop_if_unowned(EmbeddedCluster(directory)):
                return
        # The kernel may close a dying process's pipe a moment before it releases the lock.
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
