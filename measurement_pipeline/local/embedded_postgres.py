"""An embedded PostgreSQL: start it or join the one that runs, URLs to it, and stop it when its last owner is gone.

Owners are processes (or several `EmbeddedServer`s in one) that hold a shared lock on a file: the kernel drops it when they
die, however they die, so that who owns the server cannot go stale. The server's process itself is `embedded_cluster`'s.
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
from measurement_pipeline.postgres.dagster_url import dagster_url
from measurement_pipeline.postgres.database import create_database

__all__ = ["EmbeddedServer", "EmbeddedServerError", "dagster_url"]


class EmbeddedServer:
    """The PostgreSQL server in `directory`, which is made if absent. A context manager: `start` on entry, `stop` on exit.

    `settings` (`fsync`, `max_connections` …) apply where this process is the one that starts the server. Not for forked
    children: they share their parent's ownership; let them open their own.
    """

    def __init__(self, directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._cluster = EmbeddedCluster(directory.resolve())
        self._settings = dict(settings or {})
        self._ownership: IO[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def exists(self) -> bool:
        """Whether the directory holds a server, running or not."""
        return self._cluster.exists

    def start(self) -> Self:
        """Start the server, or join it where it runs. Raises `EmbeddedServerError`, and OSError for a directory out of reach."""
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
            # Stops the server if this process dies without doing so: it waits for the end of a pipe that only we hold.
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
            # A child started with close_fds=False (Python's default is True) shares the ownership: one
            # that cleans up after us must still find the server.
            for inherited in (ownership, self._guard.stdin):
                if inherited is not None:
                    os.set_inheritable(inherited.fileno(), True)
        return self

    def stop(self) -> None:
        """Give the server up; whoever is the last to do so stops it. A second call does nothing."""
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
        """`postgresql://…` of `database`, through the unix socket. The server must have been started."""
        if self._ownership is None:
            raise EmbeddedServerError("the embedded server was not started")
        where = urlencode({"host": str(self._cluster.socket_directory()), "port": PORT}, quote_via=quote, safe="/")
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?{where}"

    def create_database(self, name: str) -> None:
        """Make the database `name`, unless it is there."""
        create_database(self.url("postgres"), name)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
