"""An operator's partition backfill through the real webserver, daemon and run workers, over the UI's GraphQL."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from measurement_pipeline.local.dagster_processes import INSTANCE_FILE
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.conftest import Server
from measurement_pipeline_tests.workbench import OPERATORS, Workbench, isrcs

ROOT = Path(__file__).parents[2]

LAUNCH = """
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
ADD = """
mutation Add($key: String!) {
  addDynamicPartition(
    repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "measurement_pipeline"}
    partitionsDefName: "isrc"
    partitionKey: $key
  ) { __typename }
}
"""
PROGRESS = """
query Progress($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
  assetNodeOrError(assetKey: {path: ["songstats_history"]}) {
    ... on AssetNode {
      assetPartitionStatuses {
        ... on DefaultPartitionStatuses { materializedPartitions failedPartitions unmaterializedPartitions }
      }
    }
  }
}
"""


@dataclass
class Operator:
    """The UI's GraphQL endpoint."""

    url: str

    def query(self, query: str, **variables: object) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=120).json()
        assert "errors" not in answer, answer
        result: dict[str, Any] = answer["data"]
        return result


@pytest.fixture
def operator(server: Server, bench: Workbench, sandbox: SandboxClient, tmp_path: Path) -> Iterator[Operator]:
    storage = server.create_database()
    shutil.copy(INSTANCE_FILE, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "DATABASE_URL": bench.database_url,
        "DAGSTER_POSTGRES_URL": server.url(storage),
        "DAGSTER_HOME": str(tmp_path),
        "SONGSTATS_API_KEY": sandbox.songstats_key,
        "SONGSTATS_BASE_URL": sandbox.songstats_url,
        "SONGSTATS_REQUESTS_PER_SECOND": "0",
        "STRIPE_SECRET_KEY": sandbox.stripe_key,
        "STRIPE_API_BASE": sandbox.stripe_url,
        "BACKFILL_ACCOUNT_ID": str(OPERATORS),
    }
    log = (tmp_path / "dagster.log").open("w")
    command = [Path(sys.executable).parent / "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-p", str(port)]
    dagster = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: dagster.poll() is None and answers(url), "the webserver", log_of=tmp_path)
        yield Operator(url)
    finally:
        os.killpg(dagster.pid, signal.SIGTERM)
        try:
            dagster.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(dagster.pid, signal.SIGKILL)
            dagster.wait()
        log.close()
        server.drop(storage)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/server_info", timeout=120).is_success
    except httpx.TransportError:
        return False


def wait_for(holds: Any, what: str, *, log_of: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come in {seconds} s:\n{(log_of / 'dagster.log').read_text()[-4000:]}")
        time.sleep(0.1)


@pytest.mark.dagster
def test_a_partition_backfill_shows_the_true_status_of_each_isrc(
    operator: Operator, bench: Workbench, sandbox: SandboxClient, tmp_path: Path
):
    songs = isrcs(6)
    sandbox.card(str(OPERATORS))
    sandbox.faults(HISTORY, isrc=songs[1], status=404)
    sandbox.faults(HISTORY, isrc=songs[4], body="not json")
    for song in songs:
        assert operator.query(ADD, key=song)["addDynamicPartition"]["__typename"] == "AddDynamicPartitionSuccess"
    launched = operator.query(LAUNCH, keys=[*songs[:3], *songs[4:]])["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def status() -> dict[str, Any]:
        return operator.query(PROGRESS, id=launched["backfillId"])

    wait_for(
        lambda: status()["partitionBackfillOrError"]["status"] in {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED"},
        "the end of the backfill",
        log_of=tmp_path,
    )
    shown = status()["assetNodeOrError"]["assetPartitionStatuses"]
    assert set(shown["materializedPartitions"]) == {songs[0], songs[1], songs[2], songs[5]}
    assert shown["failedPartitions"] == [songs[4]]
    # Dagster counts a failed partition among the unmaterialized ones too; the UI shows it as failed.
    assert set(shown["unmaterializedPartitions"]) == {songs[3], songs[4]}
    assert sandbox.hits() == 5
    assert bench.statuses() == {"stored": 3, "no_history": 1, "malformed": 1}
