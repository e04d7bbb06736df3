"""`dev` as a real process: its services, both UIs, an operator's partition backfill, and its end."""

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
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.cli.conftest import Run
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.workbench import OPERATORS, isrcs

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
ADD_PARTITION = """
mutation Add($key: String!) {
  addDynamicPartition(
    repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "measurement_pipeline"}
    partitionsDefName: "isrc"
    partitionKey: $key
  ) { __typename }
}
"""
LAUNCH_BACKFILL = """
mutation Launch($keys: [String!]!) {
  launchPartitionBackfill(
    backfillParams: {assetSelection: [{path: ["songstats_history"]}], partitionNames: $keys, title: "an operator's"}
  ) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL_STATUS = """
query Status($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }
"""
PARTITION_STATUSES = """
{
  assetNodeOrError(assetKey: {path: ["songstats_history"]}) {
    ... on AssetNode {
      assetPartitionStatuses {
        ... on DefaultPartitionStatuses { materializedPartitions failedPartitions unmaterializedPartitions }
      }
    }
  }
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


def query(url: str, text: str, **variables: object) -> dict[str, Any]:
    answer = httpx.post(f"{url}/graphql", json={"query": text, "variables": variables}, timeout=120)
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
    environment |= {"BACKFILL_ACCOUNT_ID": str(OPERATORS)}
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
            every=0.25,
            what="the HTTP API, which is the last to start",
        )
        assert process.poll() is None, log.read_text()
        yield result
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, log.read_text()


def assert_a_partition_backfill_shows_each_isrc_as_it_is(dev: Dev) -> None:
    """An operator's backfill over chosen partitions, as the UI launches and shows it."""
    songs = isrcs(6)
    with SandboxClient(dev.doubles) as sandbox:
        sandbox.card(str(OPERATORS))
        sandbox.faults(HISTORY, isrc=songs[1], status=404)
        sandbox.faults(HISTORY, isrc=songs[4], body="not json")
        for song in songs:
            assert query(dev.ui, ADD_PARTITION, key=song)["data"]["addDynamicPartition"]["__typename"] == (
                "AddDynamicPartitionSuccess"
            )
        launched = query(dev.ui, LAUNCH_BACKFILL, keys=songs[:5])["data"]["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

        def has_ended() -> bool:
            found = query(dev.ui, BACKFILL_STATUS, id=launched["backfillId"])["data"]["partitionBackfillOrError"]
            return found["status"] in {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED"}

        wait_until(has_ended, seconds=240, every=0.25, what="the end of the backfill")
        shown = query(dev.ui, PARTITION_STATUSES)["data"]["assetNodeOrError"]["assetPartitionStatuses"]
        assert set(shown["materializedPartitions"]) == set(songs[:4])
        assert shown["failedPartitions"] == [songs[4]]
        # Dagster counts a failed partition among the unmaterialized ones too; the UI shows it as failed.
        assert set(shown["unmaterializedPartitions"]) == {songs[4], songs[5]}
        assert sandbox.hits() == 5


@pytest.mark.dagster
def test_dev_runs_an_operators_backfill_has_a_read_only_ui_and_restarts_dead_processes(dev: Dev):
    assert ["songstats_history"] in assets(dev.ui)
    assert ["songstats_history"] in assets(dev.read_only)
    assert query(dev.read_only, LAUNCH)["data"]["launchRun"]["__typename"] == "UnauthorizedError"
    assert httpx.post(f"{dev.read_only}{REPORT}", timeout=120).status_code == 401

    assert find_doubles(None, dev.state)["SONGSTATS_BASE_URL"] == dev.doubles, (
        "commands of the same state find the doubles"
    )

    assert_a_partition_backfill_shows_each_isrc_as_it_is(dev)
    # Only now: a partition that the UI has reported is materialized.
    assert httpx.post(f"{dev.ui}{REPORT}", timeout=120).status_code == 200

    requested = httpx.post(
        f"{dev.api}/api/research/measurement-jobs",
        json={"source": "historical", "scope": {"isrcs": isrcs(1, start=10)}},
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
        every=0.25,
        what="another of each",
    )
    wait_until(lambda: http_ready(f"{dev.ui}/server_info")(""), every=0.25, what="the UI")
    wait_until(lambda: http_ready(f"{dev.api}/readyz")(""), every=0.25, what="the API")
    wait_until(
        lambda: query(dev.ui, LAUNCH)["data"]["launchRun"]["__typename"] == "LaunchRunSuccess",
        every=0.25,
        what="a launch through the new code server without a reload",
    )


def test_both_uis_need_different_ports(cli: Run):
    port = free_port()
    result = cli("dev", "--port", port, "--read-only-port", port)
    assert result.exit_code == 1
    assert f"port {port} is given for both UIs" in result.stderr
