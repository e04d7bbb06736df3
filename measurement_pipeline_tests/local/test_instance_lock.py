"""The instance lock: one `dev` per directory, and the state that other commands read from the lock file."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from measurement_pipeline.local import instance_lock
from measurement_pipeline.local.errors import CommandError
from measurement_pipeline.local.supervisor import free_port
from measurement_pipeline.sandbox import SandboxClient

HOLD = """
import sys
from pathlib import Path
from measurement_pipeline.local.instance_lock import acquire_instance_lock
with acquire_instance_lock(Path(sys.argv[1]), "dev", doubles_port=1):
    print("held", flush=True)
    sys.stdin.read()
"""


def port_of(sandbox: SandboxClient) -> int:
    return int(sandbox.songstats_url.rsplit(":", 1)[1])


@contextmanager
def another_process(home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that holds the lock on `home` until it is killed."""
    command = [sys.executable, "-c", HOLD, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.send_signal(signal.SIGKILL)


def test_the_port_of_doubles_that_do_not_listen_is_ignored(tmp_path: Path):
    with instance_lock.acquire_instance_lock(tmp_path, "dev", doubles_port=free_port()):
        assert instance_lock.doubles_port(tmp_path) is None


def test_a_second_dev_on_the_same_directory_fails(tmp_path: Path):
    with (
        another_process(tmp_path),
        pytest.raises(CommandError, match="already running"),
        instance_lock.acquire_instance_lock(tmp_path, "dev"),
    ):
        pass


def test_a_killed_dev_releases_the_lock_and_the_next_one_writes_its_own_state(tmp_path: Path, sandbox: SandboxClient):
    with another_process(tmp_path):
        assert instance_lock.describe_end(tmp_path, "dev") is None
    assert instance_lock.describe_end(tmp_path, "dev") == "was killed"
    assert instance_lock.seconds_since_start(tmp_path, "dev") is None
    with instance_lock.acquire_instance_lock(tmp_path, "dev", doubles_port=port_of(sandbox)):
        assert instance_lock.doubles_port(tmp_path) == port_of(sandbox)
        assert 0 <= (instance_lock.seconds_since_start(tmp_path, "dev") or -1) < 60
        assert instance_lock.stopped_at(tmp_path, "dev") is None
        assert instance_lock.describe_end(tmp_path, "dev") is None
    assert instance_lock.seconds_since_start(tmp_path, "dev") is None
    assert instance_lock.doubles_port(tmp_path) is None
    assert instance_lock.stopped_at(tmp_path, "dev") is not None
    assert "was stopped 2" in (instance_lock.describe_end(tmp_path, "dev") or "")


def test_a_dev_is_starting_until_it_is_marked_ready(tmp_path: Path):
    assert not instance_lock.is_starting(tmp_path, "dev")
    with instance_lock.acquire_instance_lock(tmp_path, "dev") as mark_ready:
        assert instance_lock.is_starting(tmp_path, "dev")
        mark_ready()
        assert not instance_lock.is_starting(tmp_path, "dev")
        assert instance_lock.seconds_since_start(tmp_path, "dev") is not None
    assert not instance_lock.is_starting(tmp_path, "dev")


@pytest.mark.parametrize("content", ["", '{"started_'])
def test_an_incomplete_lock_file_counts_as_no_state(tmp_path: Path, content: str):
    (tmp_path / "dev.lock").write_text(content)
    assert instance_lock.seconds_since_start(tmp_path, "dev") is None
    assert instance_lock.doubles_port(tmp_path) is None
    assert instance_lock.describe_end(tmp_path, "dev") is None
