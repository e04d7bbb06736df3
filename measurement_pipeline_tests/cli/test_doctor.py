"""The lines of `doctor` in each state, on a real database and a real Dagster instance."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from psycopg import sql

from measurement_pipeline.cli.checks import CheckStatus, fail, ok, report_causes_once, run_checks
from measurement_pipeline.cli.environment import open_environment
from measurement_pipeline.definitions import defs
from measurement_pipeline.domain.blockers import BlockerKind
from measurement_pipeline.health import incidents
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.local.dagster_processes import INSTANCE_FILE
from measurement_pipeline.local.instance_lock import acquire_instance_lock
from measurement_pipeline.local.supervisor import free_port
from measurement_pipeline.postgres import conninfo, migrate, server_settings, vendor_state
from measurement_pipeline.postgres.conninfo import sqlalchemy_url
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.conftest import DURABILITY, Server
from measurement_pipeline_tests.dagster_private import (
    DaemonHeartbeat,
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
    SerializableErrorInfo,
    TickData,
    TickStatus,
    create_run_for_test,
)
from measurement_pipeline_tests.defs.conftest import dagster_template, instance  # noqa: F401 - fixtures
from measurement_pipeline_tests.defs.test_sensors import started_event
from measurement_pipeline_tests.workbench import isrcs

DAEMONS = ("ASSET", "BACKFILL", "MONITORING", "QUEUED_RUN_COORDINATOR", "SCHEDULER", "SENSOR")
STATUS = "/enterprise/v1/status"
SECRET = "hunter2secret"


@pytest.fixture(scope="module", autouse=True)
def durable(server: Server) -> Iterator[None]:
    """Make the test server durable, as an operator's is; for speed it normally is not."""
    own = "DATABASE_URL" not in os.environ
    for setting in DURABILITY if own else ():
        server.set(setting, "on")
    yield
    for setting in DURABILITY if own else ():
        server.set(setting, "off")


@pytest.fixture
def dagster_storage(instance) -> str:  # noqa: F811
    return sqlalchemy_url(instance.event_log_storage.postgres_url)


@pytest.fixture
def doctor(cli, database_url, keys, dagster_storage, tmp_path):
    """Call `doctor(SONGSTATS_API_KEY=…)`: the lines by name as (level, message), and the exit status under "status"."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(INSTANCE_FILE)
    usual = {
        **keys,
        "DATABASE_URL": database_url,
        "DAGSTER_POSTGRES_URL": dagster_storage,
        "DAGSTER_HOME": str(home),
        "ALERT_WEBHOOK_URL": f"https://hooks.example/{SECRET}",
    }

    secrets = ("SONGSTATS_API_KEY", "STRIPE_SECRET_KEY", "APIFY_TOKEN", "SPOTIFY_CLIENT_SECRET")

    def run(*arguments, **environment):
        given = {**usual, **environment}
        done = cli("doctor", "--json", *arguments, **given)
        for secret in (*map(given.get, secrets), SECRET):
            assert not secret or secret not in done.output
        report = json.loads(done.stdout)
        assert report["healthy"] == (done.exit_code == 0)
        assert report["healthy"] == all(line["verdict"] != "FAIL" for line in report["lines"])
        return {line["name"]: (line["verdict"], line["words"]) for line in report["lines"]} | {"status": done.exit_code}

    return run


def send_heartbeats(instance, *, seconds_ago: float = 0.0) -> None:  # noqa: F811
    for name in DAEMONS:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - seconds_ago, name, None, None))


@pytest.fixture
def healthy(instance) -> None:  # noqa: F811
    """Running daemons, ticking sensors, and sensors and schedules as the code declares them."""
    send_heartbeats(instance)
    tick_all(instance)


def state_of(instance, name: str, status: InstigatorStatus) -> InstigatorState:  # noqa: F811
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("measurement_pipeline"), "__repository__")
    state = InstigatorState(RemoteInstigatorOrigin(repository, name), InstigatorType.SENSOR, status)
    if instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is None:
        instance.add_instigator_state(state)
    else:
        instance.update_instigator_state(state)
    return state


def tick(instance, sensor: str, status: TickStatus, *, seconds_ago: float = 1) -> None:  # noqa: F811
    state = state_of(instance, sensor, InstigatorStatus.DECLARED_IN_CODE)
    instance.create_tick(
        TickData(
            state.instigator_origin_id,
            sensor,
            InstigatorType.SENSOR,
            status,
            time.time() - seconds_ago,
            selector_id=state.selector_id,
            error=SerializableErrorInfo("it broke", [], None) if status is TickStatus.FAILURE else None,
        )
    )


def tick_all(instance, *, but: str = "") -> None:  # noqa: F811
    for sensor in defs.sensors or ():
        if sensor.name != but:
            tick(instance, str(sensor.name), TickStatus.SKIPPED)


ALL = [
    "settings", "database", "schema", "stamp", "encoding", "durability", "isolation", "sessions", "incidents",
    "breaker", "answers", "pause", "clock", "budget", "queue", "requests", "captures", "Dagster's storage", "Dagster's schema",
    "daemon",
    "run monitoring", "sensors", "schedules", "runs", "Songstats key", "Stripe key", "Apify token", "Spotify client",
    "HTTP API", "webhook",
]  # fmt: skip


def test_a_healthy_deployment_passes_every_check_and_spends_no_hit(doctor, healthy, sandbox):
    checks = doctor()
    status = checks.pop("status")
    assert {name: line for name, line in checks.items() if line[0] != "ok"} == {}
    assert status == 0
    assert list(checks) == ALL
    assert sandbox.hits() == 0
    assert sandbox.actor_usage()["runs"] == 0


def test_a_database_that_can_lose_commits_fails(doctor, healthy, server, database_url):
    name = conninfo.parse(database_url)["dbname"]
    with connect(database_url) as connection:
        connection.execute(sql.SQL("alter database {} set synchronous_commit = off").format(sql.Identifier(name)))
    report = doctor()
    assert report["status"] == 1
    level, message = report["durability"]
    assert level == "FAIL"
    assert "synchronous_commit = off, synchronous_commit = off for every login of the database" in message


@pytest.mark.skipif("DATABASE_URL" in os.environ, reason="the tests do not change the settings of another server")
@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_setting_that_can_lose_commits_is_listed(server, database_url, setting):
    server.set(setting, "off")
    try:
        with connect(database_url) as connection:
            assert server_settings.list_not_durable(connection) == [f"{setting} = off"]
    finally:
        server.set(setting, "on")


def test_a_writing_login_that_can_lose_commits_is_listed(connection):
    writer, reader = sql.Identifier("mp_test_careless"), sql.Identifier("mp_test_careless_reader")
    for role in (writer, reader):
        connection.execute(sql.SQL("create role {} login").format(role))
        connection.execute(sql.SQL("alter role {} set synchronous_commit = off").format(role))
    try:
        connection.execute(sql.SQL("grant insert on measurement_jobs to {}").format(writer))
        assert server_settings.list_not_durable(connection) == ["synchronous_commit = off for login mp_test_careless"]
    finally:
        connection.execute(sql.SQL("drop owned by {}").format(writer))
        for role in (writer, reader):
            connection.execute(sql.SQL("drop role {}").format(role))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_an_encoding_that_cannot_store_titles_fails_in_one_line(doctor, cli, keys, server, encoding):
    name = server.create_database(encoding=encoding)
    url = server.url(name)
    level, message = doctor(DATABASE_URL=url)["encoding"]
    assert (level, encoding in message) == ("FAIL", True)
    done = cli("db", "upgrade", **keys, DATABASE_URL=url)
    assert (done.exit_code, done.stderr.splitlines()) == (1, [f"Error: {message}"])
    assert migrate.current_version(url) is None
    server.drop(name)


def test_a_pooler_that_keeps_another_isolation_level_is_detected(database_url):
    with connect(database_url) as connection:
        assert server_settings.find_other_isolation(connection) is None
        connection.execute("set default_transaction_isolation = serializable")
        assert server_settings.find_other_isolation(connection) == "serializable"


NASTY = [
    "postgresql://u:hush/half@127.0.0.1:9/d",
    "postgresql://u:hush@half@127.0.0.1:9/d",
    "postgresql://u:hush?half@127.0.0.1:9/d",
    "postgresql://u:hush#half@127.0.0.1:9/d",
    "postgresql://u:9/hush@half@127.0.0.1:9/d",
    "postgresql://u:hush%half@127.0.0.1:9/d",
    "postgresql://u:hush:half@127.0.0.1:9/d",
    "host=127.0.0.1 port=9 user=u password=hush half dbname=d",
    "host=127.0.0.1 port=9 user=u password='hush half' dbname=d",
]


@pytest.mark.parametrize("variable", ["DATABASE_URL", "DAGSTER_POSTGRES_URL"])
def test_no_command_shows_a_part_of_a_password(cli, keys, database_url, variable):
    for url in NASTY:
        given = {**keys, "DATABASE_URL": database_url, variable: url}
        for command in (["doctor"], ["doctor", "--json"], ["audit"], ["db", "status"], ["queue"]):
            output = cli(*command, **given).output
            assert not re.search("hush|half", output), (command, url)


def test_text_output_has_one_line_per_check(cli, doctor, healthy, database_url, keys):
    message = cli("doctor", DATABASE_URL=database_url, **keys).stdout
    verdicts = [line.split()[0] for line in message.strip().splitlines() if line]
    assert verdicts.count("ok") >= 10
    assert "ALERT_WEBHOOK_URL is not set" in message


def test_an_unreachable_database_fails_and_the_other_checks_run(doctor, healthy):
    away = f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/x"
    checks = doctor(DATABASE_URL=away)
    assert checks["status"] == 1
    assert checks["database"][0] == "FAIL"
    assert "cannot be reached" in checks["database"][1]
    for name in ("Dagster's storage", "daemon", "Songstats key", "Stripe key"):
        assert checks[name][0] == "ok"


def test_an_unreachable_dagster_storage_fails_and_the_other_checks_run(doctor, healthy):
    checks = doctor(DAGSTER_POSTGRES_URL=f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/x")
    assert checks["Dagster's storage"][0] == "FAIL"
    assert "DAGSTER_POSTGRES_URL" in checks["Dagster's storage"][1]
    assert checks["queue"][0] == checks["Stripe key"][0] == "ok"


def test_an_unused_dagster_storage_fails_and_is_not_changed(doctor, empty_database_url):
    checks = doctor(DAGSTER_POSTGRES_URL=empty_database_url)
    assert checks["Dagster's storage"][0] == "FAIL"
    assert "never started" in checks["Dagster's storage"][1]
    with connect(empty_database_url) as connection:
        assert not connection.execute("select from pg_class where relname = 'runs'").fetchall()


@pytest.mark.parametrize(
    ("state", "name", "message"),
    [
        ("update alembic_version set version_num = '0001'", "schema", "run `measurement-pipeline db upgrade`"),
        ("update deployment set kind = 'live'", "stamp", "the database is `live`"),
        (
            "update vendor_state set breaker = 'open', breaker_kind = 'key', reason = 'HTTP 401', opened_at = now()",
            "breaker",
            "HTTP 401. Correct SONGSTATS_API_KEY",
        ),
        (
            "update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = 'odd', opened_at = now()",
            "breaker",
            "measurement-pipeline breaker close",
        ),
    ],
)
def test_a_problem_that_a_person_must_correct_fails_with_the_next_step(doctor, healthy, bench, state, name, message):
    bench.sql(state)
    checks = doctor()
    assert checks["status"] == 1
    assert checks[name][0] == "FAIL"
    assert message in checks[name][1]
    assert checks["daemon"][0] == checks["Songstats key"][0] == "ok"


def test_a_missing_embedded_server_fails_and_is_not_created(doctor, healthy, tmp_path):
    state = tmp_path / "local"
    checks = doctor(DATABASE_URL="")
    assert checks["status"] == 1
    assert checks["database"][0] == "FAIL"
    assert str(state / "sandbox") in checks["database"][1]
    assert checks["Songstats key"][0] == "ok"
    assert not state.exists()


def test_an_existing_embedded_server_is_checked(doctor, healthy, tmp_path):
    with open_environment({}, state=tmp_path / "local") as environment:
        migrate.upgrade(environment.database_url, kind="sandbox")
    checks = doctor(DATABASE_URL="")
    assert checks["database"] == (
        "ok",
        f"reachable: the embedded server in {tmp_path / 'local' / 'sandbox' / 'postgres'}",
    )
    assert checks["schema"][0] == "ok"


def test_a_database_without_this_schema_skips_the_checks_that_need_it(doctor, healthy, empty_database_url):
    checks = doctor(DATABASE_URL=empty_database_url)
    assert checks["schema"][0] == "FAIL"
    assert checks["stamp"][0] == "warn"
    assert checks["stamp"][1].endswith("(cause: see schema)")
    for name in ("incidents", "breaker", "budget", "queue", "captures"):
        assert checks[name] == ("warn", checks["breaker"][1])
        assert "not checked" in checks[name][1]


def test_a_temporary_problem_warns(doctor, healthy, bench):
    bench.sql("update vendor_state set paused_until = now() + interval '1 hour'")
    checks = doctor(SONGSTATS_HIT_LIMIT="0")
    assert checks["status"] == 0
    assert checks["pause"][0] == "warn"
    assert "paused until 20" in checks["pause"][1]
    assert checks["budget"][0] == "warn"
    assert "quota is 0 hits" in checks["budget"][1]


def test_stored_times_in_the_future_are_listed_with_the_next_step(doctor, healthy, bench):
    bench.sql("update vendor_state set next_call_at = now() + interval '2 days'")
    bench.sql("insert into run_heartbeats (run_id, beat_at) values ('gone', now() + interval '2 days')")
    checks = doctor()
    assert (checks["status"], checks["clock"][0]) == (0, "warn")
    assert "vendor_state.next_call_at (1 row, up to " in checks["clock"][1]
    assert "run_heartbeats.beat_at (1 row" in checks["clock"][1]
    assert "measurement-pipeline reclaim" in checks["clock"][1]


def test_the_queue_line_shows_the_oldest_pending_row_and_a_stall(doctor, healthy, bench):
    bench.submit_request(isrcs(3))
    waiting = doctor()["queue"]
    assert waiting[0] == "ok"
    assert "3 recordings wait" in waiting[1]
    assert "the oldest since" in waiting[1]
    bench.sql("update songstats_backfill_queue set created_at = now() - interval '7 hours'")
    silent = doctor()["queue"]
    assert silent[0] in {"warn", "FAIL"}
    assert "3 recordings wait, and none was settled since 20" in silent[1]


def test_open_incidents_are_shown(doctor, healthy, database_url):
    incidents.record_failure(database_url, "analytics_refresh", "the disk is full", run="0f0f0f0f-0000")
    checks = doctor()
    assert checks["status"] == 0, "one failed run may have a temporary cause"
    level, message = checks["incidents"]
    assert level == "warn"
    assert re.match(r"1 OPEN\. Since 20\S+ \d\d:\d\d UTC: analytics_refresh failed: the disk is full", message)
    incidents.record_failure(database_url, "analytics_refresh", "the disk is full", run="1f0f0f0f-0000")
    checks = doctor()
    assert checks["status"] == 1
    assert checks["incidents"][0] == "FAIL"
    assert ", 2 times: analytics_refresh failed" in checks["incidents"][1]
    assert "`measurement-pipeline incidents` lists all" in checks["incidents"][1]


def test_failing_health_checks_fail_until_they_pass_and_only_the_first_are_listed(doctor, healthy, database_url):
    for number in range(4):
        failing = HealthResult(False, f"total {number} is torn", should_alert=True, reason=f"{number}")
        incidents.record_result(database_url, "totals_add_up", failing)
    level, message = doctor()["incidents"]
    assert level == "FAIL"
    assert message.startswith("4 OPEN. Since 20")
    assert "total 2 is torn" in message
    assert "total 3 is torn" not in message
    incidents.record_result(database_url, "totals_add_up", HealthResult(True, "they do"))
    assert doctor()["incidents"] == ("ok", "none is open")


def test_open_captures_are_shown_with_their_error(doctor, healthy, bench):
    assert doctor()["captures"][0] == "ok"
    bench.sql("insert into accounts (id) values (%s)", bench.account)
    bench.sql(
        "insert into playcount_snapshots"
        " (account, album_ids, albums_digest, platforms, schedule, album_count, estimated_cost_usd)"
        " values (%s, '{a}', '', '{spotify}', 'once', 1, 0.003)",
        bench.account,
    )
    level, message = doctor()["captures"]
    assert level == "ok"
    assert "; the oldest since 20" in message
    bench.sql("update playcount_snapshots set error = 'Apify asks to wait', not_before = now() + interval '1 hour'")
    level, message = doctor()["captures"]
    assert level == "warn"
    assert message.endswith("the oldest error: Apify asks to wait")
    bench.sql("update playcount_snapshots set created_at = now() - interval '7 hours'")
    level, message = doctor()["captures"]
    assert level in {"warn", "FAIL"}
    assert "Apify asks to wait" in message


@pytest.mark.parametrize(("vendor", "name"), [("apify", "Apify"), ("spotify", "Spotify")])
def test_a_paused_capture_vendor_is_shown_with_the_reason(doctor, healthy, bench, vendor, name):
    with connect(bench.database_url) as connection:
        vendor_state.pause(connection, vendor, seconds=3600, reason="HTTP 429")
    level, message = doctor()["captures"]
    assert level == "warn"
    assert message.startswith(f"no capture waits to be made; {name} is paused until 20")
    assert message.endswith(": HTTP 429")


def test_work_that_waits_for_a_switched_off_sensor_warns(doctor, healthy, bench, instance):  # noqa: F811
    bench.submit_request(isrcs(1))
    bench.sql("insert into measurement_jobs (account, source, scope) values (%s, 'historical', '{}')", bench.account)
    state_of(instance, "backfill_queue_sensor", InstigatorStatus.STOPPED)
    checks = doctor()
    assert checks["queue"][0] == "warn"
    assert "backfill_queue_sensor is switched off" in checks["queue"][1]
    assert checks["requests"][0] == "ok"
    assert "1 request waits" in checks["requests"][1]


# --- Dagster


def test_a_daemon_without_recent_heartbeats_fails(doctor, instance):  # noqa: F811
    never = doctor()
    assert never["status"] == 1
    assert "it never ran" in never["daemon"][1]
    send_heartbeats(instance, seconds_ago=300)
    stopped = doctor()["daemon"]
    assert stopped[0] == "FAIL"
    assert "its last heartbeat was 20" in stopped[1]
    assert "dagster-daemon run" in stopped[1]


def test_a_daemon_that_stopped_with_dev_fails_at_once(doctor, healthy, instance, tmp_path):  # noqa: F811
    with acquire_instance_lock(tmp_path / "local" / "sandbox", "dev"):
        send_heartbeats(instance)
        assert doctor()["daemon"][0] == "ok"
    level, message = doctor()["daemon"]
    assert level == "FAIL"
    assert message.startswith("NOT RUNNING: `dev` was stopped 20")
    send_heartbeats(instance)
    assert doctor()["daemon"][0] == "ok", "another daemon runs"


def test_a_part_of_the_daemon_without_recent_heartbeats_is_named(doctor, healthy, instance):  # noqa: F811
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 300, "SENSOR", None, None))
    checks = doctor()["daemon"]
    assert checks[0] == "FAIL"
    assert "NOT RUNNING: SENSOR sent its last heartbeat 20" in checks[1]
    assert "BACKFILL" not in checks[1]


def test_a_sensor_that_is_switched_off_is_named(doctor, healthy, instance):  # noqa: F811
    state_of(instance, "backfill_queue_sensor", InstigatorStatus.STOPPED)
    checks = doctor()
    assert checks["status"] == 1
    assert checks["sensors"][0] == "FAIL"
    assert "SWITCHED OFF: backfill_queue_sensor" in checks["sensors"][1]
    assert checks["schedules"][0] == "ok"


@pytest.mark.parametrize(
    ("status", "seconds_ago", "message"),
    [
        (TickStatus.FAILURE, 1, "backfill_queue_sensor failed at its last tick"),
        (TickStatus.SKIPPED, 3600, "backfill_queue_sensor has not ticked since"),
        (TickStatus.SKIPPED, 1, None),
    ],
)
def test_a_sensor_that_is_on_and_fails_warns(doctor, instance, status, seconds_ago, message):  # noqa: F811
    send_heartbeats(instance)
    tick_all(instance, but="backfill_queue_sensor")
    tick(instance, "backfill_queue_sensor", status, seconds_ago=seconds_ago)
    checks = doctor()["sensors"]
    if message is None:
        assert checks[0] == "ok"
    else:
        assert checks[0] == "warn"
        assert message in checks[1]


def test_sensors_that_never_ticked_fail_even_with_a_running_daemon(doctor, instance):  # noqa: F811
    send_heartbeats(instance)
    level, message = doctor()["sensors"]
    assert level == "FAIL"
    assert "the code location does not load" in message


def test_one_sensor_that_never_ticked_is_named(doctor, instance):  # noqa: F811
    send_heartbeats(instance)
    tick_all(instance, but="backfill_queue_sensor")
    level, message = doctor()["sensors"]
    assert level == "warn"
    assert "backfill_queue_sensor has never ticked" in message


def test_a_dev_that_is_starting_only_warns(doctor, instance, tmp_path, empty_database_url):  # noqa: F811
    with acquire_instance_lock(tmp_path / "local" / "sandbox", "dev"):
        assert doctor(DAGSTER_POSTGRES_URL=empty_database_url)["Dagster's storage"][0] == "warn"
        checks = doctor()
        assert checks["status"] == 0
        assert re.fullmatch(r"`dev` started \d s ago: it never ran", checks["daemon"][1])
        send_heartbeats(instance)
        checks = doctor()
        assert checks["daemon"][0] == "ok"
        assert checks["sensors"][0] == "warn"
        assert re.fullmatch(r"none has ticked yet; `dev` started \d s ago", checks["sensors"][1])
    assert doctor()["sensors"][0] == "FAIL", "dev is not running"


def test_the_daemon_line_shows_the_age_of_the_last_heartbeat(doctor, healthy, instance):  # noqa: F811
    send_heartbeats(instance, seconds_ago=100)
    level, message = doctor()["daemon"]
    assert level == "ok"
    assert re.search(r"in the last 10\d s", message)


def test_an_outdated_dagster_schema_fails(doctor, healthy, dagster_storage):
    with connect(dagster_storage.replace("+psycopg2", "")) as connection:
        connection.execute("update alembic_version set version_num = '7e2f3204cf8e'")
    checks = doctor()["Dagster's schema"]
    assert checks[0] == "FAIL"
    assert "dagster instance migrate" in checks[1]


def test_a_run_without_heartbeats_warns(doctor, healthy, instance, bench):  # noqa: F811
    run = create_run_for_test(instance, job_name="songstats_backfill").run_id
    instance.handle_new_event(started_event(run, seconds_ago=1000))
    bench.sql("insert into run_heartbeats (run_id) values (%s)", run)
    assert doctor()["runs"][0] == "ok"
    bench.sql("update run_heartbeats set beat_at = now() - interval '10 minutes'")
    checks = doctor()["runs"]
    assert checks[0] == "warn"
    assert f"no heartbeat from {run[:8]}" in checks[1]
    bench.sql("delete from run_heartbeats")
    assert doctor()["runs"][0] == "warn", "without a heartbeat, the start time counts"
    assert bench.sql("select from run_heartbeats") == [], "doctor must not write"


# --- vendors


def test_a_songstats_key_that_is_rejected_fails(doctor, healthy):
    checks = doctor(SONGSTATS_API_KEY="not-the-right-one")
    assert checks["status"] == 1
    assert checks["Songstats key"][0] == "FAIL"
    assert "HTTP 401" in checks["Songstats key"][1]
    assert "SONGSTATS_API_KEY" in checks["Songstats key"][1]


def test_an_unusable_response_of_a_vendor_leaves_its_credentials_unknown(doctor, healthy, sandbox):
    for fault in ({"status": 503}, {"body": "<html>"}, {"close": True}, {"status": 429}):
        for path in (STATUS, "/v2/", "/api/token"):
            sandbox.faults(path, **fault)
        checks = doctor()
        assert checks["status"] == 0, fault
        for name in ("Songstats key", "Apify token", "Spotify client"):
            assert checks[name][0] == "warn", (name, fault)
            assert checks[name][1].startswith("unknown: "), (name, fault)
        sandbox.clear_faults()


def test_a_stripe_key_that_is_rejected_fails(doctor, healthy):
    checks = doctor(STRIPE_SECRET_KEY="sk_test_not_the_right_one")
    assert checks["Stripe key"][0] == "FAIL"
    assert "STRIPE_SECRET_KEY" in checks["Stripe key"][1]
    assert checks["Songstats key"][0] == "ok"


def test_an_unreachable_or_failing_stripe_leaves_the_key_unknown(doctor, healthy, sandbox):
    away = doctor(STRIPE_API_BASE=f"http://127.0.0.1:{free_port()}")
    assert away["status"] == 0
    assert away["Stripe key"][0] == "warn"
    assert "could not be reached" in away["Stripe key"][1]
    sandbox.faults("/v1/customers", status=500)
    assert doctor()["Stripe key"][0] == "warn"


def test_a_stripe_key_without_access_to_customers_fails(doctor, healthy, sandbox):
    body = json.dumps({"error": {"type": "invalid_request_error", "message": "no"}})
    sandbox.faults("/v1/customers", status=403, body=body)
    checks = doctor()["Stripe key"]
    assert checks[0] == "FAIL"
    assert "lacks a permission" in checks[1]


def test_an_apify_token_that_is_rejected_fails(doctor, healthy):
    checks = doctor(APIFY_TOKEN="not-the-right-one")
    assert checks["status"] == 1
    assert checks["Apify token"][0] == "FAIL"
    assert "APIFY_TOKEN (HTTP 401" in checks["Apify token"][1]
    assert checks["Spotify client"][0] == "ok"


def test_a_spotify_client_that_is_rejected_fails(doctor, healthy):
    checks = doctor(SPOTIFY_CLIENT_SECRET="not-the-right-one")
    assert checks["status"] == 1
    assert checks["Spotify client"][0] == "FAIL"
    assert "check SPOTIFY_CLIENT_ID and SPOTIFY_CLIENT_SECRET" in checks["Spotify client"][1]
    assert checks["Apify token"][0] == "ok"


def test_no_apify_token_is_ok_and_a_token_without_a_spotify_client_warns(doctor, healthy):
    none = doctor(APIFY_TOKEN="", SPOTIFY_CLIENT_ID="", SPOTIFY_CLIENT_SECRET="")
    assert none["Apify token"][0] == "ok"
    assert none["Spotify client"][0] == "ok"
    half = doctor(SPOTIFY_CLIENT_ID="", SPOTIFY_CLIENT_SECRET="")
    assert half["Spotify client"][0] == "warn"
    assert "new tracks stay unmapped" in half["Spotify client"][1]


@contextmanager
def serving(status: int) -> Iterator[int]:
    """Run an HTTP server that always returns `status`, and yield its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


API = {"API_KEY_SECRET": "0123456789abcdef0123456789abcdef"}


def test_the_api_line_follows_the_status_of_readyz(doctor, healthy):
    for status, level in ((200, "ok"), (503, "FAIL"), (404, "FAIL")):
        with serving(status) as port:
            assert doctor(**API, API_PORT=str(port), API_HOST="0.0.0.0")["HTTP API"][0] == level, status


def test_an_api_that_does_not_listen_warns_or_fails(doctor, healthy, tmp_path):
    port = free_port()
    checks, message = doctor(**API, API_PORT=str(port))["HTTP API"]
    assert (checks, "start `measurement-pipeline api`" in message) == ("warn", True)
    # The API of a `dev` must respond once `dev` is ready.
    api_url = f"http://127.0.0.1:{port}"
    with acquire_instance_lock(tmp_path / "local" / "sandbox", "dev", api_url=api_url) as mark_ready:
        checks, message = doctor()["HTTP API"]
        assert (checks, api_url in message) == ("warn", True)
        mark_ready()
        assert doctor()["HTTP API"][0] == "FAIL"


def test_a_sandbox_without_running_doubles_fails(doctor, healthy, keys):
    nowhere = dict.fromkeys(keys, "")
    checks = doctor("--sandbox-port", free_port(), **nowhere)
    assert checks["status"] == 1
    assert checks["doubles"][0] == "FAIL"
    assert "vendor doubles" in checks["doubles"][1]
    assert checks["stamp"][0] == "ok"


def test_invalid_settings_are_the_only_line(doctor):
    checks = doctor(SONGSTATS_HIT_LIMIT="many")
    assert checks.pop("status") == 1
    assert list(checks) == ["settings"]
    assert "SONGSTATS_HIT_LIMIT" in checks["settings"][1]


# --- how checks run


def failing(checks) -> list[str]:
    return [name for name, line in checks.items() if name != "status" and line[0] == "FAIL"]


def test_a_stopped_dev_is_one_failure(doctor, healthy, bench, instance, keys, database_url):  # noqa: F811
    bench.submit_request(isrcs(1))
    bench.sql("update songstats_backfill_queue set created_at = now() - interval '9 hours'")
    bench.sql("insert into measurement_jobs (account, source, scope) values (%s, 'historical', '{}')", bench.account)
    bench.sql("update measurement_jobs set created_at = now() - interval '9 hours'")
    send_heartbeats(instance, seconds_ago=9 * 3600)
    dead = HealthResult(False, "recordings wait", should_alert=True, reason=BlockerKind.DAEMON)
    incidents.record_result(database_url, "backfill_is_progressing", dead)
    checks = doctor("--sandbox-port", free_port(), **dict.fromkeys(keys, ""))
    assert failing(checks) == ["daemon"]
    for name in ("incidents", "queue", "requests", "doubles"):
        assert checks[name][0] == "warn", name
        assert checks[name][1].endswith("(cause: see daemon)"), name


def test_an_open_breaker_is_one_failure(doctor, healthy, bench, database_url):
    bench.submit_request(isrcs(1))
    bench.sql("update songstats_backfill_queue set created_at = now() - interval '9 hours'")
    bench.sql("update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = 'odd', opened_at = now()")
    opened_ = HealthResult(False, "recordings wait", should_alert=True, reason=BlockerKind.BREAKER)
    incidents.record_result(database_url, "backfill_is_progressing", opened_)
    assert failing(doctor()) == ["breaker"]


def test_a_pause_longer_than_the_alarm_fails_and_a_spent_budget_does_not(doctor, healthy, bench):
    bench.submit_request(isrcs(1))
    assert failing(doctor(SONGSTATS_HIT_LIMIT="0")) == []
    bench.sql(
        "update vendor_state set paused_until = now() + interval '30 days', pause_reason = 'HTTP 429', throttled = 1"
    )
    checks = doctor()
    assert failing(checks) == ["pause"]
    assert "longer than SILENCE_ALARM_HOURS" in checks["pause"][1]
    assert "HTTP 429" in checks["pause"][1]
    assert "breaker close" in checks["pause"][1]


def test_a_locked_table_fails_only_its_own_line(doctor, healthy, connection, database_url):
    with connect(database_url) as other, other.transaction():
        other.execute("lock table incidents in access exclusive mode")
        holder = f"process {other.info.backend_pid} (login {other.info.user}, measurement_pipeline"
        checks = doctor()
    assert failing(checks) == ["incidents"]
    assert "no answer within 3 s" in checks["incidents"][1]
    assert holder in checks["incidents"][1]
    assert "pg_terminate_backend" in checks["incidents"][1]
    assert [name for name in ALL if name not in checks] == []


def test_each_cause_is_one_failure_and_its_effects_name_it():
    lines = [
        fail("database", "away"),
        fail("storage", "away too", cause="database"),
        fail("first key", "no doubles"),
        fail("second key", "no doubles"),
        fail("queue", "silent", cause="daemon"),
        ok("daemon", "running"),
    ]
    assert [(line.name, line.status, line.message) for line in report_causes_once(lines)] == [
        ("database", CheckStatus.FAIL, "away"),
        ("storage", CheckStatus.WARN, "away too (cause: see database)"),
        ("first key", CheckStatus.FAIL, "no doubles"),
        ("second key", CheckStatus.WARN, "no doubles (cause: see first key)"),
        ("queue", CheckStatus.FAIL, "silent"),
        ("daemon", CheckStatus.OK, "running"),
    ]


def test_a_check_that_hangs_or_fails_does_not_block_the_others():
    never = threading.Event()

    def hangs():
        yield ok("first", "before")
        never.wait()

    def breaks():
        yield ok("second", "before")
        raise ZeroDivisionError("with a secret in it")

    result = list(
        run_checks({"hangs": hangs, "breaks": breaks, "healthy": lambda: iter([ok("third", "passed")])}, seconds=0.5)
    )
    never.set()
    assert [(line.name, line.status) for line in result] == [
        ("first", CheckStatus.OK),
        ("hangs", CheckStatus.FAIL),
        ("second", CheckStatus.OK),
        ("breaks", CheckStatus.FAIL),
        ("third", CheckStatus.OK),
    ]
    assert "no answer within 0.5 s after the line first" in result[1].message
    assert "secret" not in result[3].message
