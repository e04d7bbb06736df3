"""The deployment that a command works on, and rejected combinations."""

import os
import signal
import time
from pathlib import Path

import pytest

from measurement_pipeline.cli.environment import keep_server_running, open_environment, prepare_dagster
from measurement_pipeline.local.instance_lock import acquire_instance_lock
from measurement_pipeline.postgres import migrate
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox import PLAIN
from measurement_pipeline.settings import SettingsError

DOUBLES = PLAIN.environment("http://127.0.0.1:9")
KEYS = {"SONGSTATS_API_KEY": "a-key", "STRIPE_SECRET_KEY": "sk_test_x"}


def test_without_keys_the_sandbox_and_its_doubles_are_used(database_url, tmp_path):
    with open_environment({"DATABASE_URL": database_url}, state=tmp_path, doubles=DOUBLES) as target:
        assert target.kind == "sandbox"
        assert target.variables.items() >= DOUBLES.items()
        assert target.variables["DAGSTER_HOME"] == str(tmp_path / "sandbox" / "dagster")
        assert target.variables["DAGSTER_POSTGRES_URL"].startswith("postgresql+psycopg2://")
        target.require_own_database()


def test_with_both_keys_the_doubles_are_not_used(database_url, tmp_path):
    with open_environment({"DATABASE_URL": database_url, **KEYS}, state=tmp_path, doubles=DOUBLES) as target:
        assert target.kind == "live"
        assert "SONGSTATS_BASE_URL" not in target.variables
        with pytest.raises(migrate.WrongDeploymentError):
            target.require_own_database()


def test_keys_and_urls_of_other_doubles_make_a_sandbox(database_url, tmp_path):
    theirs = {"SONGSTATS_BASE_URL": "http://127.0.0.1:1", "STRIPE_API_BASE": "http://127.0.0.1:1"}
    with open_environment({"DATABASE_URL": database_url, **KEYS, **theirs}, state=tmp_path, doubles=DOUBLES) as target:
        assert target.kind == "sandbox"
        assert target.variables["SONGSTATS_BASE_URL"] == "http://127.0.0.1:1"


@pytest.mark.parametrize(("given", "missing"), [tuple(KEYS), tuple(reversed(KEYS))])
def test_the_error_for_one_key_of_two_shows_names_and_no_value(database_url, tmp_path, given, missing):
    with (
        pytest.raises(SettingsError, match=missing) as error,
        open_environment({"DATABASE_URL": database_url, given: KEYS[given]}, state=tmp_path),
    ):
        pass
    assert KEYS[given] not in str(error.value)


def test_a_real_vendor_with_a_double_is_an_error(database_url, tmp_path):
    mixed = {"DATABASE_URL": database_url, **KEYS, "STRIPE_API_BASE": "http://127.0.0.1:1"}
    with pytest.raises(SettingsError, match="STRIPE_API_BASE"), open_environment(mixed, state=tmp_path):
        pass


def test_a_command_without_vendors_follows_the_stamp_of_a_live_database(empty_database_url, tmp_path):
    migrate.upgrade(empty_database_url, kind="live")
    with open_environment({"DATABASE_URL": empty_database_url}, state=tmp_path) as target:
        assert target.kind == "live"
        target.require_own_database()
    # With doubles it would ask them, which it must not.
    with open_environment({"DATABASE_URL": empty_database_url}, state=tmp_path, doubles=DOUBLES) as target:
        assert target.kind == "sandbox"
        with pytest.raises(migrate.WrongDeploymentError):
            target.require_own_database()


def test_one_database_for_both_uses_is_an_error(database_url, tmp_path):
    both = {
        "DATABASE_URL": database_url,
        "DAGSTER_POSTGRES_URL": database_url.replace("postgresql:", "postgresql+psycopg2:"),
    }
    with pytest.raises(SettingsError, match="expected two databases"), open_environment(both, state=tmp_path):
        pass


@pytest.mark.parametrize("url", ["postgresql://u:hush%zz@h/d", "postgresql://u:hush@h:5432"])
def test_the_error_for_an_invalid_address_omits_the_password(tmp_path, url):
    with (
        pytest.raises(SettingsError, match="DATABASE_URL") as error,
        open_environment({"DATABASE_URL": url}, state=tmp_path),
    ):
        pass
    assert "hush" not in str(error.value)


def test_the_error_for_an_unreachable_server_is_one_line_without_the_password(cli):
    away = {"DATABASE_URL": "postgresql://u:hush@127.0.0.1:9/d"}
    for command in (("queue",), ("db", "upgrade"), ("db", "status")):
        result = cli(*command, **away)
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert "hush" not in result.output
    assert cli("queue", **away, DEPLOYMENT_KIND="sandbox").exit_code == 1


def test_without_a_database_url_the_embedded_server_is_used(tmp_path_factory):
    state = Path(os.path.realpath(tmp_path_factory.mktemp("s")))
    with open_environment({}, state=state, doubles=DOUBLES) as target:
        migrate.upgrade(target.database_url, kind=target.kind)
        target.require_own_database()
        prepare_dagster(target)
        with connect(target.dagster_url) as connection:
            assert connection.execute("select current_database() as name").fetchone() == {"name": "dagster"}
        assert (target.dagster_home / "dagster.yaml").exists()
        assert target.database_location == f"the embedded server in {state / 'sandbox' / 'postgres'}"


def test_a_second_dev_on_the_same_state_is_an_error(cli, database_url, tmp_path):
    with (
        open_environment({"DATABASE_URL": database_url}, state=tmp_path / "local", doubles=DOUBLES) as target,
        acquire_instance_lock(target.home, "dev"),
    ):
        result = cli("dev", "--port", "1", DATABASE_URL=database_url)
        assert result.exit_code == 1


def test_a_killed_embedded_server_is_restarted_at_the_same_address(tmp_path, capsys):
    with open_environment({}, state=tmp_path, doubles=DOUBLES) as target, keep_server_running(target) as check:
        check()
        assert not capsys.readouterr().err
        pid_file = target.home / "postgres" / "data" / "postmaster.pid"
        os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)
        stderr = ""
        for _ in range(100):  # the kernel may take a moment to close a killed process's socket
            check()
            stderr += capsys.readouterr().err
            if stderr:
                break
            time.sleep(0.1)
        assert "PostgreSQL stopped unexpectedly" in stderr
        with target.connect() as connection:
            assert connection.execute("select 1 as one").fetchone() == {"one": 1}
    assert not pid_file.exists(), "stopped with its last owner"
