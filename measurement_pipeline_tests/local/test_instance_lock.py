"""What a `dev` that runs says of itself, and that other commands go by it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from measurement_pipeline.cli.environment import SANDBOX_PORT
from measurement_pipeline.cli.sandbox_command import find_doubles
from measurement_pipeline.local import instance_lock
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.local.supervisor import free_port
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_tests.cli.conftest import Run, told

HOLD = """
import sys
from pathlib import Path
from measurement_pipeline.local.instance_lock import alone
with alone(Path(sys.argv[1]), "dev", doubles_port=int(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def port_of(sandbox: SandboxClient) -> int:
    return int(sandbox.songstats_url.rsplit(":", 1)[1])


def test_commands_ask_the_doubles_of_the_dev_that_runs_wherever_they_listen(
    run: Run, sandbox: SandboxClient, tmp_path: Path
):
    home = tmp_path / "local" / "sandbox"
    with instance_lock.acquire_instance_lock(home, "dev", doubles_port=port_of(sandbox)):
        told(run("reclaim", "--json"))
        assert run("reclaim", "--sandbox-port", free_port()).exit_code == 1, "what is said goes before what is found"
    assert find_doubles(None, tmp_path / "local").url == f"http://127.0.0.1:{SANDBOX_PORT}"


def test_a_dev_whose_doubles_are_gone_is_not_gone_by(tmp_path: Path):
    with instance_lock.acquire_instance_lock(tmp_path, "dev", doubles_port=free_port()):
        assert instance_lock.doubles_port(tmp_path) is None


def test_one_that_was_killed_holds_nothing_and_the_next_one_says_its_own(tmp_path: Path, sandbox: SandboxClient):
    killed = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"held\n"
        with pytest.raises(CommandError, match="runs already"), instance_lock.acquire_instance_lock(tmp_path, "dev"):
            pass
        killed.send_signal(signal.SIGKILL)
    with instance_lock.acquire_instance_lock(tmp_path, "dev", doubles_port=port_of(sandbox)):
        assert instance_lock.doubles_port(tmp_path) == port_of(sandbox)
        assert 0 <= (instance_lock.seconds_since_start(tmp_path, "dev") or -1) < 60
        assert instance_lock.stopped_at(tmp_path, "dev") is None
    assert instance_lock.seconds_since_start(tmp_path, "dev") is None
    assert instance_lock.doubles_port(tmp_path) is None
    assert instance_lock.stopped_at(tmp_path, "dev") is not None


@pytest.mark.parametrize("said", ["", '{"started_'])
def test_a_record_that_is_not_whole_says_nothing(tmp_path: Path, said: str):
    (tmp_path / "dev.lock").write_text(said)
    assert instance_lock.seconds_since_start(tmp_path, "dev") is None
    assert instance_lock.doubles_port(tmp_path) is None
