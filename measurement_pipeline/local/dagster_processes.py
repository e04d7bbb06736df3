"""Describes Dagster's processes: code server, daemon and webserver, connected by a unix socket. `supervisor` runs them.

The code server is a separate process, not a hidden child of daemon and webserver. If one of the three dies, it restarts alone
and the others reconnect (docs/decisions/0012).
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measurement_pipeline.local import supervisor
from measurement_pipeline.local.supervisor import Service, ServiceError
from measurement_pipeline.local.unix_sockets import fits_socket_path

# The configuration of the Dagster instance.
INSTANCE_FILE = Path(__file__).resolve().parents[1] / "dagster.yaml"

# The name in workspace.yaml too: Dagster stores the state of sensors and schedules by location name.
_LOCATION = "measurement_pipeline"
# An empty working directory, so that modules in the current directory are not loaded.
_CODE_ARGUMENTS = ("--module-name", "measurement_pipeline.definitions", "--empty-working-directory")


@dataclass(frozen=True, slots=True)
class DagsterProcesses:
    """The processes of one Dagster instance.

    `directory` holds their logs, the workspace file and the socket. `environment` must set DAGSTER_HOME. `code_arguments` name
    the code that the code server loads.
    """

    directory: Path
    environment: Mapping[str, str] = field(repr=False)
    code_arguments: Sequence[str] = _CODE_ARGUMENTS

    def code_server(self) -> Service:
        """The process that serves definitions, evaluates sensors and launches runs. Runs are its children and survive it."""
        return self._service(
            "code-server",
            [
                sys.executable,
                "-P",  # as above, for this module and for the processes of runs
                "-m",
                "measurement_pipeline.defs.forked_runs",
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
        """The process for sensors, schedules and the run queue; one per instance."""
        return self._service(
            "dagster-daemon",
            ["dagster-daemon", "run", "-w", str(self._workspace())],
            ready=supervisor.log_contains("Instance is configured with the following daemons"),
        )

    def webserver(self, port: int, *, read_only: bool = False) -> Service:
        """The UI on 127.0.0.1. A `read_only` one rejects launches and reported events."""
        return self._service(
            "read-only-webserver" if read_only else "dagster-webserver",
            ["dagster-webserver", "-w", str(self._workspace()), "-h", "127.0.0.1", "-p", str(port)]
            + (["--read-only"] if read_only else []),
            ready=supervisor.http_ready(f"http://127.0.0.1:{port}/server_info"),
        )

    @property
    def logs(self) -> Path:
        """The directory with one log file per process."""
        return self.directory / "logs"

    def _service(self, name: str, command: Sequence[str], **more: object) -> Service:
        return Service(name, command, self.environment, log=self.logs / f"{name}.log", **more)  # type: ignore[arg-type]

    def _workspace(self) -> Path:
        path = self.directory / "workspace.yaml"
        server = {"socket": str(self._socket()), "location_name": _LOCATION}
        path.write_text(json.dumps({"load_from": [{"grpc_server": server}]}) + "\n", encoding="utf-8")  # YAML too
        return path

    def _socket(self) -> Path:
        """The socket in `directory`, or in a temporary directory named after it if the path is too long for a socket."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "code-server.sock"
        if fits_socket_path(path):
            return path
        name = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        short = Path(tempfile.gettempdir()) / f"measurement-pipeline-{name}"
        short.mkdir(mode=0o700, exist_ok=True)
        if short.is_symlink() or short.stat().st_uid != os.geteuid():
            raise ServiceError(f"{short} belongs to another user: remove it, or set TMPDIR to another directory")
        return short / path.name


def prepare_home(path: Path) -> None:
    """Create `path` as DAGSTER_HOME with a link to the package's dagster.yaml. Keep an operator's own dagster.yaml."""
    path.mkdir(parents=True, exist_ok=True)
    link = path / "dagster.yaml"
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(INSTANCE_FILE)
