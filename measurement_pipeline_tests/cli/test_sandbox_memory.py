"""The doubles and the database remember the same: over restarts, and when one of the two is new."""

from datetime import timedelta
from pathlib import Path

import pytest

from measurement_pipeline.backfill import vendor_status
from measurement_pipeline.cli import sandbox_command
from measurement_pipeline.health.reconciliation import ledger_matches_vendor
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres import spend
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.sandbox import SandboxClient
from measurement_pipeline_tests.cli.conftest import Run
from measurement_pipeline_tests.workbench import isrcs, workbench


def compare(database_url: str, connection: Connection, sandbox: SandboxClient) -> HealthResult:
    counted = vendor_status.ask(workbench(database_url, sandbox).means.new_client).month
    return ledger_matches_vendor(spend.month(connection), spend.month(connection), counted)


def buy(database_url: str, sandbox: SandboxClient, count: int) -> None:
    bench = workbench(database_url, sandbox)
    bench.ask_for(isrcs(count))
    bench.cover(isrcs(count))


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
        found = compare(database_url, connection, sandbox)
    assert found.passed
    assert found.metadata["Songstats: requests"] == found.metadata["ledger: counted"] == 12
    assert capsys.readouterr().err == ""


def test_a_new_database_beside_an_old_file_meets_vendors_that_counted_nothing(
    database_url: str, connection: Connection, state: Path
):
    with sandbox_command.run_doubles("sandbox", state) as sandbox:
        sandbox_command.bind_to_database(sandbox, connection)
        buy(database_url, sandbox, 12)
    # What a new database differs by, as far as the doubles can see: its stamp, and a ledger without calls.
    connection.execute("update deployment set created_at = created_at + %s", (timedelta(hours=1),))
    connection.execute("truncate songstats_quota_ledger cascade")
    with sandbox_command.run_doubles("sandbox", state) as sandbox:
        sandbox_command.bind_to_database(sandbox, connection)
        found = compare(database_url, connection, sandbox)
    assert found.passed
    assert found.metadata["Songstats: requests"] == 0


def test_an_old_database_beside_a_new_file_is_told_why_the_figures_differ(
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


def test_a_file_that_the_doubles_cannot_read_stops_the_command_with_its_name(cli: Run, tmp_path: Path):
    file = sandbox_command.memory_file("sandbox", tmp_path / "local")
    file.parent.mkdir(parents=True)
    file.write_text("no database" * 100)
    result = cli("sandbox", "--port", "0")
    assert result.exit_code == 1
    assert str(file) in result.stderr
    assert "delete the file" in result.stderr
