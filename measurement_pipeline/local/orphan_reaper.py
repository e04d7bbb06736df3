"""Ends process groups after the process that started them has died, even by SIGKILL."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self

from measurement_pipeline.local.process_group import terminate


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

    def add(self, group: int) -> None:
        """End `group` when we are gone."""
        self._send(f"+{group}\n")

    def remove(self, group: int) -> None:
        """It is gone, and its number may soon be somebody else's."""
        self._send(f"-{group}\n")

    def close(self) -> None:
        """Nothing is left to be ended."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, line: str) -> None:
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
            pool.submit(terminate, group, grace_seconds=seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]))
