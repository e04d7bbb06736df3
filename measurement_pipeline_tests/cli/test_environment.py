"""Which deployment a command works on, and the mixtures that are refused before anything is done."""

import os
import signal
import time
from pathlib import Path

import pytest

from measurement_pipeline.cli.environment import Doubles, keep_server_running, open_environment, prepare_dagster
from measurement_pipeline.local.instance_lock import acquire_instance_lock
from measurement_pipeline.postgres import migrate
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox import PLAIN
from measurement_pipeline.settings import SettingsError

DOUBLES = Doubles.from_keys("http://127.0.0.1:9", PLAIN)
KEYS = {"SONGSTATS_API_KEY": "a-key", "STRIPE_SECRET_KEY": "sk_test_x"}


def test_without_keys_it_is_a_sandbox_whose_processes_are_handed_the_doubles(database_url, tmp_path):
    with open_environment({"DATABASE_URL": database_url}, state=tmp_path, doubles=DOUBLES) as target:
        assert target.kind == "sandbox"
        assert target.variables.items() >= DOUBLES.environment().items()
        assert target.variables["DAGSTER_HOME"] == str(tmp_path / "sandbox" / "dagster")
        assert target.variables["DAGSTER_POSTGRES_URL"].startswith("postgresql+psycopg2://")
        target.require_own_database()


def test_with_both_keys_the_doubles_of_the_checkout_stay_out_of_it(database_url, tmp_path):
    with open_environment({"DATABASE_URL": database_url, **KEYS}, state=tmp_path, doubles=DOUBLES) as target:
        assert target.kind == "live"
        assert "SONGSTATS_BASE_URL" not in target.variables
        with pytest.raises(migrate.WrongDeploymentError):
            target.require_own_database()


def test_keys_for_doubles_that_somebody_else_runs_make_a_sandbox(database_url, tmp_path):
    theirs = {"SONGSTATS_BASE_URL": "http://127.0.0.1:1", "STRIPE_API_BASE": "http://127.0.0.1:1"}
    with open_environment({"DATABASE_URL": database_url, **KEYS, **theirs}, state=tmp_path, doubles=DOUBLES) as target:
        assert target.kind == "sandbox"
        assert target.variables["SONGSTATS_BASE_URL"] == "http://127.0.0.1:1"


@pytest.mark.parametrize(("given", "missing"), [tuple(KEYS), tuple(reversed(KEYS))])
def test_one_key_of_two_is_refused_by_name_and_not_by_value(database_url, tmp_path, given, missing):
    with (
        pytest.raises(SettingsError, match=missing) as refused,
        open_environment({"DATABASE_URL": database_url, given: KEYS[given]}, state=tmp_path),
    ):
        pass
    assert KEYS[given] not in str(refused.value)


def test_a_real_vendor_beside_a_double_is_refused(database_url, tmp_path):
    mixed = {"DATABASE_URL": database_url, **KEYS, "STRIPE_API_BASE": "http://127.0.0.1:1"}
    with pytest.raises(SettingsError, match="STRIPE_API_BASE"), open_environment(mixed, state=tmp_path):
        pass


def test_a_command_that_asks_no_vendor_goes_by_the_stamp_of_a_live_database(empty_database_url, tmp_path):
    migrate.upgrade(empty_database_url, kind="live")
    with open_environment({"DATABASE_URL": empty_database_url}, state=tmp_path) as target:
        assert target.kind == "live"
        target.require_own_database()
    # With doubles it asks them, and must not.
    with open_environment({"DATABASE_URL": empty_database_url}, state=tmp_path, doubles=DOUBLES) as target:
        assert target.kind == "sandbox"
        with pytest.raises(migrate.WrongDeploymentError):
            target.require_own_database()


def test_one_database_for_both_is_refused(database_url, tmp_path):
    both = {
        "DATABASE_URL": database_url,
        "DAGSTER_POSTGRES_URL": database_url.replace("postgresql:", "postgresql+psycopg2:"),
    }
    with pytest.raises(SettingsError, match="expected two databases"), open_environment(both, state=tmp_path):
        pass


@pytest.mark.parametrize("url", ["postgresql://u:hush%zz@h/d", "postgresql://u:hush@h:5432"])
def test_an_address_that_cannot_be_read_is_refused_without_its_password(tmp_path, url):
    with (
        pytest.raises(SettingsError, match="DATABASE_URL") as refused,
        open_environment({"DATABASE_URL": url}, state=tmp_path),
    ):
        pass
    assert "hush" not in str(refused.value)


def test_a_server_that_is_away_is_told_in_one_line_without_the_password(cli):
    away = {"DATABASE_URL": "postgresql://u:hush@127.0.0.1:9/d"}
    for command in (("queue",), ("db", "upgrade"), ("db", "status")):
        result = cli(*command, **away)
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert "hush" not in result.output
    assert cli("queue", **away, DEPLOYMENT_KIND="sandbox").exit_code == 1


def test_with_no_database_named_the_embedded_server_of_the_kind_is_used(tmp_path_factory):
    state = Path(os.path.realpath(tmp_path_factory.mktemp("s")))
    with open_environment({}, state=state, doubles=DOUBLES) as target:
        migrate.upgrade(target.database_url, kind=target.kind)
        target.require_own_database()
        prepare_dagster(target)
        with connect(target.dagster_url) as connection:
            assert connection.execute("select current_database() as name").fetchone() == {"name": "dagster"}
        assert (target.dagster_home / "dagster.yaml").exists()
        assert target.database_location == f"the embedded server in {state / 'sandbox' / 'postgres'}"


def test_two_dev_servers_on_one_state_get_in_each_others_way_and_the_second_is_refused(cli, database_url, tmp_path):
    with (
        open_environment({"DATABASE_URL": database_url}, state=tmp_path / "local", doubles=DOUBLES) as target,
        acquire_instance_lock(target.home, "dev"),
    ):
        result = cli("dev", "--port", "1", DATABASE_URL=database_url)
        assert result.exit_code == 1


def test_an_embedded_server_that_was_killed_is_started_again_at_the_same_address(tmp_path, capsys):
    with open_environment({}, state=tmp_path, doubles=DOUBLES) as target, keep_server_running(target) as check:
        check()
        assert not capsys.readouterr().err
        pid_file = target.home / "postgres" / "data" / "postmaster.pid"
        os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)
        said = ""
        for _ in range(100):  # the kernel may take a moment to close a killed process's socket
            check()
            said += capsys.readouterr().err
            if said:
                break
            time.sleep(0.1)
        assert "POSTGRESQL DIED" in said
        with target.connect() as connection:
            assert connection.execute("select 1 as one").fetchone() == {"one": 1}
    assert not pid_file.exists(), "stopped with its last owner"
