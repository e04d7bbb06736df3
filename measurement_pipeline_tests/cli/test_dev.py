"""`dev` as a real process: its services, both UIs, and its end."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from measurement_pipeline.cli import sample_accounts
from measurement_pipeline.cli.sandbox_command import find_doubles
from measurement_pipeline.local.supervisor import free_port, http_ready
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.cli.conftest import Run
from measurement_pipeline_tests.faults.waiting import wait_until

LAUNCH = """
mutation {
  launchRun(executionParams: {
    mode: "default"
    selector: {
      repositoryLocationName: "measurement_pipeline", repositoryName: "__repository__", jobName: "measurement_job_intake"
    }
  }) { __typename }
}
"""
ASSETS = "{ assetNodes { assetKey { path } } }"
REPORT = "/report_asset_materialization/songstats_history?partition=AA6Q72000001"


@dataclass
class Dev:
    """A running `dev`."""

    process: "subprocess.Popen[bytes]"
    ui: str
    read_only: str
    doubles: str
    api: str
    state: Path

    def pids(self) -> dict[str, int]:
        """Its services' process ids by command."""
        result = {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # a zombie too
                command = " ".join(child.cmdline())
                for name in ("api grpc", "dagster-daemon", "dagster-webserver", "api --host"):
                    if name in command and "--read-only" not in command:
                        result[name] = child.pid
        return result


def query(url: str, query: str) -> dict[str, Any]:
    answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=120)
    result: dict[str, Any] = answer.json()
    return result


def assets(url: str) -> list[list[str]]:
    return [node["assetKey"]["path"] for node in query(url, ASSETS)["data"]["assetNodes"]]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not pytest's directory: pytest closes its parent to the user that PostgreSQL runs as under root."""
    with tempfile.TemporaryDirectory(prefix="mp_dev") as path:
        yield Path(path)


@pytest.fixture
def dev(directory: Path) -> Iterator[Dev]:
    settings = {field.alias for field in Settings.model_fields.values()}
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    ports = [free_port() for _ in range(4)]
    state = directory / "state"
    options = ["--port", "--read-only-port", "--sandbox-port", "--api-port"]
    command = [Path(sys.executable).parent / "measurement-pipeline", "--state", str(state), "dev"]
    command += [text for option, port in zip(options, ports, strict=True) for text in (option, str(port))]
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    result = Dev(process, *(f"http://127.0.0.1:{port}" for port in ports), state)
    try:
        wait_until(
            lambda: process.poll() is not None or (http_ready(f"{result.api}/readyz")("")),
            seconds=120,
            what="the HTTP API, which is the last to start",
        )
        assert process.poll() is None, log.read_text()
        yield result
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, log.read_text()


@pytest.mark.dagster
def test_the_second_ui_is_read_only_and_dead_processes_are_restarted(dev: Dev):
    assert ["songstats_history"] in assets(dev.ui)
    assert ["songstats_history"] in assets(dev.read_only)
    assert query(dev.ui, LAUNCH)["data"]["launchRun"]["__typename"] == "LaunchRunSuccess"
    assert query(dev.read_only, LAUNCH)["data"]["launchRun"]["__typename"] == "UnauthorizedError"
    assert httpx.post(f"{dev.ui}{REPORT}", timeout=120).status_code == 200
    assert httpx.post(f"{dev.read_only}{REPORT}", timeout=120).status_code == 401

    assert find_doubles(None, dev.state)["SONGSTATS_BASE_URL"] == dev.doubles, (
        "commands of the same state find the doubles"
    )

    requested = httpx.post(
        f"{dev.api}/api/research/measurement-jobs",
        json={"source": "historical", "scope": {"isrcs": ["AA6Q72000001"]}},
        headers={"x-api-key": sample_accounts.API_KEY},
        timeout=120,
    )
    assert (requested.status_code, requested.json()["state"]) == (202, "accepted")

    before = dev.pids()
    assert set(before) == {"api grpc", "dagster-daemon", "dagster-webserver", "api --host"}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: dev.pids().keys() == before.keys() and not set(dev.pids().values()) & set(before.values()),
        what="another of each",
    )
    wait_until(lambda: http_ready(f"{dev.ui}/server_info")(""), what="the UI")
    wait_until(lambda: http_ready(f"{dev.api}/readyz")(""), what="the API")
    wait_until(
        lambda: query(dev.ui, LAUNCH)["data"]["launchRun"]["__typename"] == "LaunchRunSuccess",
        what="a launch through the new code server without a reload",
    )


def test_both_uis_need_different_ports(cli: Run):
    port = free_port()
    result = cli("dev", "--port", port, "--read-only-port", port)
    assert result.exit_code == 1
    assert f"port {port} is given for both UIs" in result.stderr
