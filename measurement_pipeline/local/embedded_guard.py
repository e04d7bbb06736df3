"""Who owns the embedded server, and the last will of those who do.

Owners hold a shared lock on a file, which the kernel drops when they die, however they die: it cannot go stale. Each starts
`python -m measurement_pipeline.local.embedded_guard DIRECTORY`, which sleeps until its standard input ends, that is until
its owner is gone, and then stops the server unless others own it too: each of those has a guard of its own.
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
    """One process at a time starts or stops the server in `directory`."""
    with (directory / "state.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def open_owners_file(directory: Path) -> IO[bytes]:
    """The file whose shared lock makes an owner; closing it ends the ownership."""
    return (directory / "owners.lock").open("ab")


def stop_if_unowned(cluster: "EmbeddedCluster") -> bool:
    """Stop the server unless a living process owns it; whether nobody did. To be called under `changing`."""
    with open_owners_file(cluster.directory) as owners:
        try:
            fcntl.flock(owners, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        cluster.stop()
        return True


def main(directory: Path) -> None:
    """Wait for the owner's end, then see to the server."""
    while sys.stdin.buffer.read(4096):
        pass
    # Imported only now: most guards sleep for as long as their owner lives, and are then killed by it.
    from measurement_pipeline.local.embedded_cluster import EmbeddedCluster

    for _ in range(_ATTEMPTS):
        if not directory.exists():
            return
        with state_lock(directory):
            if stop_if_unowned(EmbeddedCluster(directory)):
                return
        # Of a dying process, the pipe may close a moment before the lock is dropped.
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
