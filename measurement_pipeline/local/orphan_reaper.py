"""Terminates process groups after the process that started them has died, even by SIGKILL."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self

from measurement_pipeline.local.process_group import terminate


class OrphanReaper:
    """A small child process that terminates the registered groups once this process is gone."""

    def __init__(self, *, grace_seconds: float) -> None:
        # A new session, because it must survive a signal to this process group. Inheritable file descriptors stay open:
        # the embedded database keeps its owner until the processes that use it have ended.
        self._process = subprocess.Popen(  # noqa: S603  # this module
            [sys.executable, "-m", __name__, str(grace_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=False,
        )

    def add(self, group: int) -> None:
        """Register `group`, to terminate it once this process is gone."""
        self._send(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Remove a group that has ended, because the kernel may reuse its number."""
        self._send(f"-{group}\n")

    def close(self) -> None:
        """Stop the child process without terminating any group."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the child was killed: it is a last resort, so its loss is no failure
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def main(grace_seconds: float) -> None:
    """Read group numbers until stdin closes, which means that the parent is gone; then terminate the groups."""
    groups = set[int]()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    with ThreadPoolExecutor() as pool:
        for group in groups:
            pool.submit(terminate, group, grace_seconds=grace_seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]))
