"""Starts or joins an embedded PostgreSQL server, returns URLs to it, and stops it with its last owner.

An owner is a process, or one of several `EmbeddedServer`s in it. `embedded_guard` tracks owners; `embedded_cluster` controls
the server process.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote, urlencode

from measurement_pipeline.local.embedded_cluster import PORT, SUPERUSER, EmbeddedCluster, EmbeddedServerError
from measurement_pipeline.local.embedded_guard import open_owners_file, state_lock, stop_if_unowned
from measurement_pipeline.postgres.database import create_database

__all__ = ["EmbeddedServer", "EmbeddedServerError"]


class EmbeddedServer:
    """The PostgreSQL server in `directory`, which is created if absent. A context manager: `start` on entry, `stop` on exit.

    `settings` (`fsync`, `max_connections` …) apply only if this process starts the server. A forked child must open its own
    `EmbeddedServer`, because it would share its parent's ownership.
    """

    def __init__(self, directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._cluster = EmbeddedCluster(directory.resolve())
        self._settings = dict(settings or {})
        self._ownership: IO[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def exists(self) -> bool:
        """Whether the directory holds a server's data, running or not."""
        return self._cluster.exists

    def start(self) -> Self:
        """Start the server, or join a running one. Raises `EmbeddedServerError`, and OSError if the directory is inaccessible."""
        if self._ownership is not None:
            return self
        directory = self._cluster.directory
        directory.mkdir(parents=True, exist_ok=True)
        with state_lock(directory):
            ownership = open_owners_file(directory)
            try:
                fcntl.flock(ownership, fcntl.LOCK_SH)
                self._cluster.start(self._settings)
            except BaseException:
                ownership.close()
                raise
            self._ownership = ownership
            # Stops the server if this process dies without doing so: it waits for the end of a pipe that only this process holds.
            self._guard = subprocess.Popen(  # noqa: S603  # our own module
                [
                    sys.executable,
                    "-m",
                    "measurement_pipeline.local.embedded_guard",
                    str(directory),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            # A child started with close_fds=False (Python's default is True) shares the ownership, because a child that
            # cleans up after this process still needs the server.
            for inherited in (ownership, self._guard.stdin):
                if inherited is not None:
                    os.set_inheritable(inherited.fileno(), True)
        return self

    def stop(self) -> None:
        """Release the ownership, and stop the server if this was the last owner. A second call does nothing."""
        if self._ownership is None or self._guard is None:
            return
        with state_lock(self._cluster.directory):
            self._ownership.close()
            self._ownership = None
            stop_if_unowned(self._cluster)
        self._guard.kill()
        self._guard.communicate()
        self._guard = None

    def url(self, database: str) -> str:
        """The `postgresql://…` URL of `database` through the unix socket. The server must be started."""
        if self._ownership is None:
            raise EmbeddedServerError("the embedded server was not started")
        where = urlencode({"host": str(self._cluster.socket_directory()), "port": PORT}, quote_via=quote, safe="/")
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?{where}"

    def create_database(self, name: str) -> None:
        """Create the database `name` unless it exists."""
        create_database(self.url("postgres"), name)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
