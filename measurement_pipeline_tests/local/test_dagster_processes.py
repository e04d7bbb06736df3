"""The commands and files of Dagster's processes. `test_dev` and the fault tests run them together."""

import stat
from pathlib import Path

import yaml

from measurement_pipeline.local.dagster_processes import INSTANCE_FILE, DagsterProcesses, prepare_home


def test_the_home_links_to_the_packages_dagster_yaml(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    for _ in range(2):
        prepare_home(home)
    assert (home / "dagster.yaml").read_text() == INSTANCE_FILE.read_text()


def test_an_operators_own_dagster_yaml_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    prepare_home(tmp_path)
    assert (tmp_path / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def _socket(processes: DagsterProcesses) -> Path:
    """The code server's socket, which must be the one in the workspace file."""
    processes.daemon()
    (loaded,) = yaml.safe_load((processes.directory / "workspace.yaml").read_text())["load_from"]
    socket = loaded["grpc_server"]["socket"]
    command = list(processes.code_server().command)
    assert command[command.index("--socket") + 1] == socket
    return Path(socket)


def test_the_location_has_the_name_of_workspace_yaml(tmp_path: Path) -> None:
    processes = DagsterProcesses(tmp_path, {})
    assert _socket(processes) == tmp_path / "code-server.sock"
    committed = yaml.safe_load((Path(__file__).parents[2] / "workspace.yaml").read_text())["load_from"][0][
        "python_module"
    ]
    (generated,) = yaml.safe_load((tmp_path / "workspace.yaml").read_text())["load_from"]
    assert generated["grpc_server"]["location_name"] == committed["location_name"]
    assert committed["module_name"] in processes.code_server().command


def test_the_code_server_loads_no_module_of_its_working_directory(tmp_path: Path) -> None:
    """`-m` alone would load them, for the server and its runs. Dagster's option is for the definitions."""
    command = list(DagsterProcesses(tmp_path, {}).code_server().command)
    assert command.index("-P") < command.index("-m")
    assert "--empty-working-directory" in command


def test_a_path_too_long_for_a_socket_is_replaced_by_a_private_short_directory(tmp_path: Path) -> None:
    deep = [tmp_path / ("x" * 100) / name for name in ("one", "two")]
    one, two = (_socket(DagsterProcesses(directory, {})) for directory in deep)
    try:
        assert len(str(one)) <= 103
        assert one.parent != two.parent
        assert stat.S_IMODE(one.parent.stat().st_mode) == 0o700
        assert _socket(DagsterProcesses(deep[0], {})) == one
    finally:
        for socket in (one, two):
            socket.parent.rmdir()


def test_the_root_of_the_checkout_has_no_dagster_yaml() -> None:
    """It reads its database from a variable, so without the variable `dagster definitions validate` would fail."""
    assert not (Path(__file__).parents[2] / "dagster.yaml").exists()
    assert yaml.safe_load(INSTANCE_FILE.read_text())["freshness"] == {"enabled": False}
