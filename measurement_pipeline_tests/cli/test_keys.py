"""The commands `keys` and `api`."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from measurement_pipeline import services
from measurement_pipeline.api import keys as form
from measurement_pipeline.cli import sample_accounts
from measurement_pipeline.local.supervisor import free_port, http_ready
from measurement_pipeline.postgres import api_keys
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline_tests.cli.conftest import SETTINGS, Run, parse_json
from measurement_pipeline_tests.faults.waiting import wait_until

ACCOUNT = "00000000-0000-4000-8000-00000000000a"
JOBS = "/api/research/measurement-jobs"


def test_a_key_is_printed_once_and_found_by_its_prefix(run: Run, connection: Connection):
    created = parse_json(
        run("keys", "create", "--account", ACCOUNT, "--name", "nightly", "--expires", "2199-01-01", "--json")
    )
    assert created["prefix"] == form.parse_prefix(created["key"])
    result = api_keys.find(connection, created["prefix"])
    assert result is not None
    assert form.matches_digest(created["key"], result.digest, secret=services.SANDBOX_KEY_SECRET)
    (listed,) = parse_json(run("keys", "list", "--json"))
    assert (listed["name"], listed["account"], listed["prefix"]) == ("nightly", ACCOUNT, created["prefix"])
    assert listed["expires_at"].startswith("2199-01-01")
    assert "digest" not in listed
    assert "nightly" in run("keys", "list", "--account", ACCOUNT).stdout
    assert parse_json(run("keys", "list", "--json", "--account", ACCOUNT[:-1] + "b")) == []


def test_a_key_that_has_already_expired_is_not_created(run: Run):
    result = run("keys", "create", "--account", ACCOUNT, "--name", "late", "--expires", "2020-01-01")
    assert (result.exit_code, "--expires 2020-01-01 is in the past" in result.stderr) == (1, True)
    assert parse_json(run("keys", "list", "--json")) == []


@pytest.mark.parametrize("name", ["", "  \t"])
def test_a_key_without_a_name_is_wrong_usage(run: Run, name: str):
    result = run("keys", "create", "--account", ACCOUNT, "--name", name)
    assert (result.exit_code, "the name is blank" in result.stderr) == (2, True)
    assert parse_json(run("keys", "list", "--json")) == []


def test_the_sandbox_key_is_valid_until_it_is_revoked_or_the_secret_changes(run: Run, connection: Connection):
    secret = services.SANDBOX_KEY_SECRET
    assert sample_accounts.ensure_api_key(connection, secret) == sample_accounts.API_KEY
    assert sample_accounts.ensure_api_key(connection, f"not {secret}") is None
    assert run("keys", "revoke", form.parse_prefix(sample_accounts.API_KEY)).exit_code == 0
    assert sample_accounts.ensure_api_key(connection, secret) is None


def test_without_json_stdout_contains_only_the_key(run: Run):
    result = run("keys", "create", "--account", ACCOUNT, "--name", "x")
    assert form.parse_prefix(result.stdout.strip())


def test_a_key_is_revoked_once_and_both_actions_are_recorded(run: Run, connection: Connection):
    prefix = parse_json(run("keys", "create", "--account", ACCOUNT, "--name", "x", "--json"))["prefix"]
    assert run("keys", "revoke", prefix).exit_code == 0
    again = run("keys", "revoke", prefix)
    assert (again.exit_code, "see `measurement-pipeline keys list`" in again.stderr) == (1, True)
    acts = connection.execute("select act, detail ->> 'prefix' as prefix from operator_acts order by id").fetchall()
    assert [(act["act"], act["prefix"]) for act in acts] == [("key created", prefix), ("key revoked", prefix)]


def test_a_live_deployment_without_a_secret_creates_no_key(run: Run, connection: Connection):
    connection.execute("update deployment set kind = 'live'")
    result = run("keys", "create", "--account", ACCOUNT, "--name", "x")
    assert (result.exit_code, "API_KEY_SECRET is not set" in result.stderr) == (1, True)


def test_api_listens_until_a_stop_signal_and_logs_no_key(
    run: Run, keys: dict[str, str], database_url: str, tmp_path: Path
):
    key = parse_json(run("keys", "create", "--account", ACCOUNT, "--name", "x", "--json"))["key"]
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [Path(sys.executable).parent / "measurement-pipeline", "api", "--port", str(port)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**environment, **keys, "DATABASE_URL": database_url}, stdout=output, stderr=output
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or http_ready(f"{url}/readyz")(""), what="the API")
        assert httpx.get(url + JOBS, headers={"x-api-key": key}).status_code == 200
        assert "server" not in httpx.get(url + JOBS).headers
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0, log.read_text()
    lines = re.findall(r'^\{"request".*$', log.read_text(), re.MULTILINE)
    assert any(f'"path": "{JOBS}", "status": 200' in line for line in lines), log.read_text()
    assert key not in log.read_text()


def test_api_loads_no_dagster():
    seen = "import measurement_pipeline.cli.api_command, sys; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", seen], check=False).returncode == 0


def test_api_rejects_a_database_of_the_other_kind(run: Run, keys: dict[str, str], connection: Connection):
    connection.execute("update deployment set kind = 'live'")
    result = run("api", **keys)
    assert (result.exit_code, "stamped `live`" in result.stderr) == (1, True)
