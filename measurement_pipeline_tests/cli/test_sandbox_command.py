"""The vendor doubles: how commands find them, and their memory across restarts and new databases."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.cli import sandbox_command
from measurement_pipeline.cli.environment import SANDBOX_PORT
from measurement_pipeline.health.reconciliation import ledger_matches_vendor
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.local.instance_lock import acquire_instance_lock
from measurement_pipeline.local.supervisor import free_port
from measurement_pipeline.postgres import spend
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_tests.cli.conftest import Run, parse_json
from measurement_pipeline_tests.workbench import create_workbench, isrcs


def compare(database_url: str, connection: Connection, sandbox: SandboxClient) -> HealthResult:
    counted = vendor_status.fetch_vendor_status(create_workbench(database_url, sandbox).dependencies.new_client).month
    # The middle of a month, whenever the test runs: hits near its ends may belong to the other month.
    month = replace(spend.read_month(connection), early=0, late=0)
    return ledger_matches_vendor(month, month, counted)


def buy(database_url: str, sandbox: SandboxClient, count: int) -> None:
    bench = create_workbench(database_url, sandbox)
    bench.submit_request(isrcs(count))
    bench.run_backfill(isrcs(count))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_the_ledger_matches_the_vendor_after_a_restart(
    database_url: str, connection: Connection, state: Path, capsys: pytest.CaptureFixture[str]
):
    with sandbox_command.run_doubles("sandbox", state) as sandbox:
        sandbox_command.bind_to_database(sandbox, connection)
        buy(database_url, sandbox, 12)
    with sandbox_command.run_doubles("sandbox", state) as sandbox:
        sandbox_command.bind_to_database(sandbox, connection)
        result = compare(database_url, connection, sandbox)
    assert result.passed
    assert result.metadata["Songstats: requests"] == result.metadata["ledger: counted"] == 12
    assert capsys.readouterr().err == ""


def test_doubles_with_an_old_file_start_from_zero_for_a_new_database(
    database_url: str, connection: Connection, state: Path
):
    with sandbox_command.run_doubles("sandbox", state) as sandbox:
        sandbox_command.bind_to_database(sandbox, connection)
        buy(database_url, sandbox, 12)
    # For the doubles, a new database differs by its stamp and by a ledger without calls.
    connection.execute("update deployment set created_at = created_at + %s", (timedelta(hours=1),))
    connection.execute("truncate songstats_quota_ledger cascade")
    with sandbox_command.run_doubles("sandbox", state) as sandbox:
        sandbox_command.bind_to_database(sandbox, connection)
        result = compare(database_url, connection, sandbox)
    assert result.passed
    assert result.metadata["Songstats: requests"] == 0


def test_doubles_with_a_new_file_warn_that_an_old_database_has_more_hits(
    database_url: str, connection: Connection, state: Path, capsys: pytest.CaptureFixture[str]
):
    with sandbox_command.run_doubles("sandbox", state) as sandbox:
        sandbox_command.bind_to_database(sandbox, connection)
        buy(database_url, sandbox, 12)
    sandbox_command.memory_file("sandbox", state).unlink()
    with sandbox_command.run_doubles("sandbox", state) as sandbox:
        sandbox_command.bind_to_database(sandbox, connection)
        assert not compare(database_url, connection, sandbox).passed
    assert "12 hits" in capsys.readouterr().err


def test_commands_use_the_doubles_of_the_running_dev_unless_a_port_is_given(
    run: Run, sandbox: SandboxClient, tmp_path: Path
):
    state = tmp_path / "local"
    port = int(sandbox.songstats_url.rsplit(":", 1)[1])
    with acquire_instance_lock(state / "sandbox", "dev", doubles_port=port):
        parse_json(run("reclaim", "--json"))
        assert run("reclaim", "--sandbox-port", free_port()).exit_code == 1
    assert sandbox_command.find_doubles(None, state)["SONGSTATS_BASE_URL"] == f"http://127.0.0.1:{SANDBOX_PORT}"


def test_an_unreadable_file_of_the_doubles_ends_the_command_with_its_name(cli: Run, tmp_path: Path):
    file = sandbox_command.memory_file("sandbox", tmp_path / "local")
    file.parent.mkdir(parents=True)
    file.write_text("no database" * 100)
    result = cli("sandbox", "--port", "0")
    assert result.exit_code == 1
    assert str(file) in result.stderr
    assert "delete the file" in result.stderr
