"""Dagster as this project runs it: a home, and three processes that know each other by a socket. What to start, not when.

The code server is a process of its own, not a hidden child of daemon and webserver, so that whichever of the three dies is
started again alone, and the others find it again by themselves (docs/decisions/0012). Keeping them up is `services`'.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measurement_pipeline.local import supervisor
from measurement_pipeline.local.supervisor import Service, ServiceError

# How the instance is set up.
INSTANCE_FILE = Path(__file__).resolve().parents[1] / "dagster.yaml"

# As in workspace.yaml, which loads the same by hand: sensors and schedules are remembered by the location's name.
_LOCATION = "measurement_pipeline"
# An empty working directory: nothing of the directory that somebody happens to start it in is loaded.
_CODE_ARGUMENTS = ("--module-name", "measurement_pipeline.definitions", "--empty-working-directory")

# sun_path is 108 bytes on Linux and 104 on macOS, the closing zero included.
_LONGEST_SOCKET_PATH = 103


@dataclass(frozen=True, slots=True)
class DagsterProcesses:
    """The processes of one Dagster instance. `directory`, not DAGSTER_HOME, gets their logs, the workspace file, the socket.

    `environment` must name DAGSTER_HOME. `code`: what the code server loads, if not the project's.
    """

    directory: Path
    environment: Mapping[str, str] = field(repr=False)
    code_arguments: Sequence[str] = _CODE_ARGUMENTS

    def code_server(self) -> Service:
        """What the other two ask for definitions, sensor ticks and new runs. Runs are its children, and outlive it."""
        return self._service(
            "code-server",
            [
                "dagster",
                "api",
                "grpc",
                "--socket",
                str(self._socket()),
                "--location-name",
                _LOCATION,
                *self.code_arguments,
            ],
            ready=supervisor.log_contains("Started Dagster code server"),
            keeps_children=True,
        )

    def daemon(self) -> Service:
        """Sensors, schedules, the run queue. One an instance."""
        return self._service(
            "dagster-daemon",
            ["dagster-daemon", "run", "-w", str(self._workspace())],
            ready=supervisor.log_contains("Instance is configured with the following daemons"),
        )

    def webserver(self, port: int, *, read_only: bool = False) -> Service:
        """The UI on 127.0.0.1; `read_only`: for onlookers, who can neither launch nor report anything."""
        return self._service(
            "read-only-webserver" if read_only else "dagster-webserver",
            ["dagster-webserver", "-w", str(self._workspace()), "-h", "127.0.0.1", "-p", str(port)]
            + (["--read-only"] if read_only else []),
            ready=supervisor.http_ready(f"http://127.0.0.1:{port}/server_info"),
        )

    @property
    def logs(self) -> Path:
        """Where each process writes a file of its name."""
        return self.directory / "logs"

    def _service(self, name: str, command: Sequence[str], **more: object) -> Service:
        return Service(name, command, self.environment, log=self.logs / f"{name}.log", **more)  # type: ignore[arg-type]

    def _workspace(self) -> Path:
        path = self.directory / "workspace.yaml"
        server = {"socket": str(self._socket()), "location_name": _LOCATION}
        path.write_text(json.dumps({"load_from": [{"grpc_server": server}]}) + "\n", encoding="utf-8")  # YAML too
        return path

    def _socket(self) -> Path:
        """In the directory, or, where that has a path too long for a socket, in a short place of our own named after it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "code-server.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        name = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        short = Path(tempfile.gettempdir()) / f"measurement-pipeline-{name}"
        short.mkdir(mode=0o700, exist_ok=True)
        if short.is_symlink() or short.stat().st_uid != os.geteuid():
            raise ServiceError(f"{short} is not ours: expected a directory of this user; remove it, or set TMPDIR")
        return short / path.name


def prepare_home(path: Path) -> None:
    """Make `path` a DAGSTER_HOME: a directory with a link to the package's dagster.yaml. An operator's own file stays."""
    path.mkdir(parents=True, exist_ok=True)
    link = path / "dagster.yaml"
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(INSTANCE_FILE)
