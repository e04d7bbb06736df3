"""What `doctor` says in each state, on a real database and a real Dagster instance: the truth, and what to do."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import time_machine
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType, TickData, TickStatus
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo
from psycopg import sql

from measurement_pipeline.cli.checks import CheckStatus, fail, ok, report_causes_once, run_checks
from measurement_pipeline.cli.environment import open_environment
from measurement_pipeline.defs.sensors import sensors
from measurement_pipeline.health import incidents
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.local.dagster_processes import INSTANCE_FILE
from measurement_pipeline.local.instance_lock import acquire_instance_lock
from measurement_pipeline.local.supervisor import free_port
from measurement_pipeline.postgres import conninfo, migrate, server_settings, vendor_state
from measurement_pipeline.postgres.dagster_url import dagster_url
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.conftest import DURABILITY, Server
from measurement_pipeline_tests.defs.conftest import dagster_template, instance  # noqa: F401 - fixtures
from measurement_pipeline_tests.defs.test_sensors import started_event
from measurement_pipeline_tests.workbench import isrcs

DAEMONS = ("ASSET", "BACKFILL", "MONITORING", "QUEUED_RUN_COORDINATOR", "SCHEDULER", "SENSOR")
STATUS = "/enterprise/v1/status"
SECRET = "hunter2secret"


@pytest.fixture(scope="module", autouse=True)
def durable(server: Server) -> Iterator[None]:
    """As an operator's server: that of the tests keeps nothing over a power cut, for speed."""
    own = "DATABASE_URL" not in os.environ
    for setting in DURABILITY if own else ():
        server.set(setting, "on")
    yield
    for setting in DURABILITY if own else ():
        server.set(setting, "off")


@pytest.fixture
def dagster_storage(instance) -> str:  # noqa: F811
    return dagster_url(instance.event_log_storage.postgres_url)


@pytest.fixture
def doctor(cli, database_url, keys, dagster_storage, tmp_path):
    """`doctor(SONGSTATS_API_KEY=…)`: the lines by name, as (verdict, words), and the exit status under "status"."""
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
        told = json.loads(done.stdout)
        assert told["healthy"] == (done.exit_code == 0)
        assert told["healthy"] == all(line["verdict"] != "FAIL" for line in told["lines"])
        return {line["name"]: (line["verdict"], line["words"]) for line in told["lines"]} | {"status": done.exit_code}

    return run


def beat(instance, *, seconds_ago: float = 0.0) -> None:  # noqa: F811
    for name in DAEMONS:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - seconds_ago, name, None, None))


@pytest.fixture
def well(instance) -> None:  # noqa: F811
    """Daemons beat and sensors tick; sensors and schedules are as the code declares them."""
    beat(instance)
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
    for sensor in sensors:
        if sensor.name != but:
            tick(instance, str(sensor.name), TickStatus.SKIPPED)


ALL = [
    "settings", "database", "schema", "stamp", "encoding", "durability", "isolation", "sessions", "incidents",
    "breaker", "pause", "clock", "budget", "queue", "requests", "captures", "Dagster's storage", "Dagster's schema", "daemon",
    "run monitoring", "sensors", "schedules", "runs", "Songstats key", "Stripe key", "Apify token", "Spotify client",
    "HTTP API", "webhook",
]  # fmt: skip


def test_where_all_is_well_each_line_says_so_and_no_hit_is_spent(doctor, well, sandbox):
    found = doctor()
    status = found.pop("status")
    assert {name: line for name, line in found.items() if line[0] != "ok"} == {}
    assert status == 0
    assert list(found) == ALL
    assert sandbox.hits() == 0
    assert sandbox.actor_usage()["runs"] == 0


def test_a_server_that_a_crash_can_rob_fails(doctor, well, server, database_url):
    name = conninfo.parse(database_url)["dbname"]
    with connect(database_url) as connection:
        connection.execute(sql.SQL("alter database {} set synchronous_commit = off").format(sql.Identifier(name)))
    told = doctor()
    assert told["status"] == 1
    verdict, words = told["durability"]
    assert verdict == "FAIL"
    assert "synchronous_commit = off, synchronous_commit = off for every login of the database" in words


@pytest.mark.skipif("DATABASE_URL" in os.environ, reason="the settings of a server that was given are left alone")
@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_setting_of_the_server_that_loses_commits_fails(server, database_url, setting):
    server.set(setting, "off")
    try:
        with connect(database_url) as connection:
            assert server_settings.list_not_durable(connection) == [f"{setting} = off"]
    finally:
        server.set(setting, "on")


def test_a_login_that_writes_here_and_loses_commits_in_every_database_is_named(connection):
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
def test_an_encoding_that_cannot_hold_titles_is_refused_in_one_line(doctor, cli, keys, server, encoding):
    name = server.make(encoding=encoding)
    url = server.url(name)
    verdict, words = doctor(DATABASE_URL=url)["encoding"]
    assert (verdict, words.startswith(f"the database's encoding is {encoding}, which cannot hold")) == ("FAIL", True)
    done = cli("db", "upgrade", **keys, DATABASE_URL=url)
    assert (done.exit_code, done.stderr.splitlines()) == (1, [f"Error: {words}"])
    assert migrate.current_version(url) is None
    server.drop(name)


def test_a_pooler_that_keeps_the_isolation_level_out_is_told(database_url):
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


@pytest.mark.parametrize("url", NASTY)
@pytest.mark.parametrize("variable", ["DATABASE_URL", "DAGSTER_POSTGRES_URL"])
def test_no_command_shows_a_part_of_a_password(cli, keys, database_url, variable, url):
    given = {**keys, "DATABASE_URL": database_url, variable: url}
    for command in (["doctor"], ["doctor", "--json"], ["audit"], ["db", "status"], ["queue"]):
        output = cli(*command, **given).output
        assert not re.search("hush|half", output), command


def test_a_person_reads_one_line_each(cli, doctor, well, database_url, keys):
    words = cli("doctor", DATABASE_URL=database_url, **keys).stdout
    verdicts = [line.split()[0] for line in words.strip().splitlines() if line]
    assert verdicts.count("ok") >= 10
    assert "ALERT_WEBHOOK_URL is not set" in words


def test_a_database_that_is_away_is_told_and_the_others_are_asked_all_the_same(doctor, well):
    away = f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/x"
    found = doctor(DATABASE_URL=away)
    assert found["status"] == 1
    assert found["database"][0] == "FAIL"
    assert "cannot be reached" in found["database"][1]
    for name in ("Dagster's storage", "daemon", "Songstats key", "Stripe key"):
        assert found[name][0] == "ok"


def test_dagsters_storage_that_is_away_is_told_and_the_others_are_asked_all_the_same(doctor, well):
    found = doctor(DAGSTER_POSTGRES_URL=f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/x")
    assert found["Dagster's storage"][0] == "FAIL"
    assert "DAGSTER_POSTGRES_URL" in found["Dagster's storage"][1]
    assert found["queue"][0] == found["Stripe key"][0] == "ok"


def test_a_storage_that_dagster_never_used_is_left_as_it_is(doctor, empty_database_url):
    found = doctor(DAGSTER_POSTGRES_URL=empty_database_url)
    assert found["Dagster's storage"][0] == "FAIL"
    assert "never started" in found["Dagster's storage"][1]
    with connect(empty_database_url) as connection:
        assert not connection.execute("select from pg_class where relname = 'runs'").fetchall()


@pytest.mark.parametrize(
    ("state", "name", "words"),
    [
        ("update alembic_version set version_num = '0001'", "schema", "run `measurement-pipeline db upgrade`"),
        ("update deployment set kind = 'live'", "stamp", "the database is `live`"),
        (
            "update vendor_state set breaker = 'open', breaker_kind = 'key', reason = 'HTTP 401', opened_at = now()",
            "breaker",
            "HTTP 401; put SONGSTATS_API_KEY right",
        ),
        (
            "update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = 'odd', opened_at = now()",
            "breaker",
            "measurement-pipeline breaker close",
        ),
    ],
)
def test_what_a_person_has_to_put_right_fails_with_what_to_do(doctor, well, bench, state, name, words):
    bench.sql(state)
    found = doctor()
    assert found["status"] == 1
    assert found[name][0] == "FAIL"
    assert words in found[name][1]
    assert found["daemon"][0] == found["Songstats key"][0] == "ok"


def test_an_embedded_server_that_is_not_there_is_told_and_not_made(doctor, well, tmp_path):
    state = tmp_path / "local"
    found = doctor(DATABASE_URL="")
    assert found["status"] == 1
    assert found["database"][0] == "FAIL"
    assert f"none was made in {state / 'sandbox'} yet: start `measurement-pipeline dev`" in found["database"][1]
    assert found["Songstats key"][0] == "ok"
    assert not state.exists()


def test_an_embedded_server_that_is_there_is_asked(doctor, well, tmp_path):
    with open_environment({}, state=tmp_path / "local") as target:
        migrate.upgrade(target.database_url, kind="sandbox")
    found = doctor(DATABASE_URL="")
    assert found["database"] == ("ok", f"reached: the embedded server in {tmp_path / 'local' / 'sandbox' / 'postgres'}")
    assert found["schema"][0] == "ok"


def test_a_database_of_another_schema_is_not_asked_what_only_ours_can_answer(doctor, well, empty_database_url):
    found = doctor(DATABASE_URL=empty_database_url)
    assert found["schema"][0] == "FAIL"
    assert found["stamp"][0] == "warn"
    assert found["stamp"][1].endswith("(cause: see schema)")
    for name in ("incidents", "breaker", "budget", "queue", "captures"):
        assert found[name] == ("warn", found["breaker"][1])
        assert "not asked" in found[name][1]


def test_what_passes_by_itself_warns(doctor, well, bench):
    bench.sql("update vendor_state set paused_until = now() + interval '1 hour'")
    found = doctor(SONGSTATS_HIT_LIMIT="0")
    assert found["status"] == 0
    assert found["pause"][0] == "warn"
    assert "paused until" in found["pause"][1]
    assert found["budget"][0] == "warn"
    assert "no hits are allowed" in found["budget"][1]


def test_times_that_are_ahead_of_the_databases_clock_are_named_with_what_to_do(doctor, well, bench):
    bench.sql("update vendor_state set next_call_at = now() + interval '2 days'")
    bench.sql("insert into run_heartbeats (run_id, beat_at) values ('gone', now() + interval '2 days')")
    found = doctor()
    assert (found["status"], found["clock"][0]) == (0, "warn")
    assert "vendor_state.next_call_at (1 row, up to " in found["clock"][1]
    assert "run_heartbeats.beat_at (1 row" in found["clock"][1]
    assert "measurement-pipeline reclaim" in found["clock"][1]


def test_the_age_of_the_oldest_pending_row_is_told_and_silence_is_an_alarm(doctor, well, bench):
    bench.ask_for(isrcs(3))
    waiting = doctor()["queue"]
    assert waiting[0] == "ok"
    assert "3 recordings wait" in waiting[1]
    assert "the oldest since" in waiting[1]
    bench.sql("update songstats_backfill_queue set created_at = now() - interval '7 hours'")
    silent = doctor()["queue"]
    assert silent[0] in {"warn", "FAIL"}
    assert "none was settled since" in silent[1]


def test_what_went_wrong_and_is_not_over_is_told(doctor, well, database_url):
    incidents.record_failure(database_url, "analytics_refresh", "the disk is full", run="0f0f0f0f-0000")
    found = doctor()
    assert found["status"] == 0, "a run that failed once may have met what has passed"
    verdict, words = found["incidents"]
    assert verdict == "warn"
    assert re.match(r"1 OPEN\. Since 20\S+ \d\d:\d\d UTC: analytics_refresh failed: the disk is full", words)
    incidents.record_failure(database_url, "analytics_refresh", "the disk is full", run="1f0f0f0f-0000")
    found = doctor()
    assert found["status"] == 1
    assert found["incidents"][0] == "FAIL"
    assert ", 2 times: analytics_refresh failed" in found["incidents"][1]
    assert "`measurement-pipeline incidents` lists them" in found["incidents"][1]


def test_what_a_check_says_fails_until_it_passes_and_the_first_few_of_many_are_told(doctor, well, database_url):
    for number in range(4):
        failing = HealthResult(False, f"total {number} is torn", should_alert=True, reason=f"{number}")
        incidents.record_result(database_url, "totals_add_up", failing)
    verdict, words = doctor()["incidents"]
    assert verdict == "FAIL"
    assert words.startswith("4 OPEN. Since 20")
    assert "total 2 is torn" in words
    assert "total 3 is torn" not in words
    incidents.record_result(database_url, "totals_add_up", HealthResult(True, "they do"))
    assert doctor()["incidents"] == ("ok", "none is open")


def test_captures_that_are_open_are_told_with_what_they_wait_for(doctor, well, bench):
    assert doctor()["captures"] == ("ok", "no capture waits to be made")
    bench.sql("insert into accounts (id) values (%s)", bench.account)
    bench.sql(
        "insert into playcount_snapshots"
        " (account, album_ids, albums_digest, platforms, schedule, album_count, estimated_cost_usd)"
        " values (%s, '{a}', '', '{spotify}', 'once', 1, 0.003)",
        bench.account,
    )
    verdict, words = doctor()["captures"]
    assert verdict == "ok"
    assert "; the oldest since 20" in words
    bench.sql("update playcount_snapshots set error = 'Apify asks to wait', not_before = now() + interval '1 hour'")
    verdict, words = doctor()["captures"]
    assert verdict == "warn"
    assert words.endswith("; one of them says: Apify asks to wait")
    bench.sql("update playcount_snapshots set created_at = now() - interval '7 hours'")
    verdict, words = doctor()["captures"]
    assert verdict in {"warn", "FAIL"}
    assert "the oldest one says: Apify asks to wait" in words


@pytest.mark.parametrize(("vendor", "name"), [("apify", "Apify"), ("spotify", "Spotify")])
def test_a_vendor_of_captures_that_is_left_alone_is_told_with_the_reason(doctor, well, bench, vendor, name):
    with connect(bench.database_url) as connection:
        vendor_state.pause(connection, vendor, seconds=3600, reason="HTTP 429")
    verdict, words = doctor()["captures"]
    assert verdict == "warn"
    assert words.startswith(f"no capture waits to be made; {name} is left alone until 20")
    assert words.endswith(": HTTP 429")


def test_what_waits_while_its_sensor_is_off_is_not_called_well(doctor, well, bench, instance):  # noqa: F811
    bench.ask_for(isrcs(1))
    bench.sql("insert into measurement_jobs (account, source, scope) values (%s, 'historical', '{}')", bench.account)
    state_of(instance, "backfill_queue_sensor", InstigatorStatus.STOPPED)
    found = doctor()
    assert found["queue"][0] == "warn"
    assert found["queue"][1].startswith("1 recording waits: backfill_queue_sensor is switched off; switch it on")
    assert found["requests"] == ("ok", "1 request waits; silence is an alarm after 6 hours")


# --- Dagster


def test_a_daemon_that_does_not_beat_fails_whether_it_never_did_or_stopped(doctor, instance):  # noqa: F811
    never = doctor()
    assert never["status"] == 1
    assert "it never ran" in never["daemon"][1]
    beat(instance, seconds_ago=300)
    stopped = doctor()["daemon"]
    assert stopped[0] == "FAIL"
    assert "its last sign of life was 20" in stopped[1]
    assert "dagster-daemon run" in stopped[1]


def test_a_daemon_that_was_stopped_with_its_dev_is_not_called_running(doctor, well, instance, tmp_path):  # noqa: F811
    with acquire_instance_lock(tmp_path / "local" / "sandbox", "dev"):
        beat(instance)
        assert doctor()["daemon"][0] == "ok"
    verdict, words = doctor()["daemon"]
    assert verdict == "FAIL"
    assert words.startswith("NOT RUNNING: `dev` was stopped 20")
    beat(instance)
    assert doctor()["daemon"][0] == "ok", "another one runs"


def test_a_part_of_the_daemon_that_does_not_beat_is_named(doctor, well, instance):  # noqa: F811
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 300, "SENSOR", None, None))
    found = doctor()["daemon"]
    assert found[0] == "FAIL"
    assert "NOT RUNNING: SENSOR last beat 20" in found[1]
    assert "BACKFILL" not in found[1]


def test_a_sensor_that_is_switched_off_is_named(doctor, well, instance):  # noqa: F811
    state_of(instance, "backfill_queue_sensor", InstigatorStatus.STOPPED)
    found = doctor()
    assert found["status"] == 1
    assert found["sensors"] == (
        "FAIL",
        "SWITCHED OFF: backfill_queue_sensor; switch on in Dagster (Automation)",
    )
    assert found["schedules"][0] == "ok"


@pytest.mark.parametrize(
    ("status", "seconds_ago", "words"),
    [
        (TickStatus.FAILURE, 1, "backfill_queue_sensor failed at its last tick"),
        (TickStatus.SKIPPED, 3600, "backfill_queue_sensor has not ticked since"),
        (TickStatus.SKIPPED, 1, None),
    ],
)
def test_a_sensor_that_is_on_and_does_not_work_is_a_warning(doctor, instance, status, seconds_ago, words):  # noqa: F811
    beat(instance)
    tick_all(instance, but="backfill_queue_sensor")
    tick(instance, "backfill_queue_sensor", status, seconds_ago=seconds_ago)
    found = doctor()["sensors"]
    if words is None:
        assert found[0] == "ok"
    else:
        assert found[0] == "warn"
        assert words in found[1]


def test_where_no_sensor_has_ever_ticked_nothing_runs_however_well_the_daemon_beats(doctor, instance):  # noqa: F811
    beat(instance)
    verdict, words = doctor()["sensors"]
    assert verdict == "FAIL"
    assert "the code location does not load" in words


def test_a_sensor_that_never_ticked_though_others_did_is_named(doctor, instance):  # noqa: F811
    beat(instance)
    tick_all(instance, but="backfill_queue_sensor")
    verdict, words = doctor()["sensors"]
    assert verdict == "warn"
    assert words.startswith("on, but backfill_queue_sensor has never ticked; see ")


def test_a_dev_that_has_only_just_started_is_no_failure(doctor, instance, tmp_path, empty_database_url):  # noqa: F811
    with acquire_instance_lock(tmp_path / "local" / "sandbox", "dev"):
        assert doctor(DAGSTER_POSTGRES_URL=empty_database_url)["Dagster's storage"][0] == "warn"
        found = doctor()
        assert found["status"] == 0
        assert re.fullmatch(r"`dev` started \d s ago: it never ran", found["daemon"][1])
        beat(instance)
        found = doctor()
        assert found["daemon"][0] == "ok"
        assert found["sensors"][0] == "warn"
        assert re.fullmatch(r"none has ticked yet; `dev` started \d s ago", found["sensors"][1])
    assert doctor()["sensors"][0] == "FAIL", "no `dev` runs"


def test_the_age_of_the_daemons_last_beat_is_told(doctor, well, instance):  # noqa: F811
    beat(instance, seconds_ago=100)
    verdict, words = doctor()["daemon"]
    assert verdict == "ok"
    assert re.search(r"none longer ago than 10\d s", words)


def test_a_schema_that_is_behind_dagsters_own_is_told(doctor, well, dagster_storage):
    with connect(dagster_storage.replace("+psycopg2", "")) as connection:
        connection.execute("update alembic_version set version_num = '7e2f3204cf8e'")
    found = doctor()["Dagster's schema"]
    assert found[0] == "FAIL"
    assert "dagster instance migrate" in found[1]


def test_a_run_whose_process_is_gone_is_told_from_one_that_beats(doctor, well, instance, bench):  # noqa: F811
    run = create_run_for_test(instance, job_name="songstats_backfill").run_id
    instance.handle_new_event(started_event(run, seconds_ago=1000))
    bench.sql("insert into run_heartbeats (run_id) values (%s)", run)
    assert doctor()["runs"] == ("ok", "1 under way, and alive")
    bench.sql("update run_heartbeats set beat_at = now() - interval '10 minutes'")
    found = doctor()["runs"]
    assert found[0] == "warn"
    assert f"no sign of life from {run[:8]}" in found[1]
    bench.sql("delete from run_heartbeats")
    assert doctor()["runs"][0] == "warn", "one that never beat is judged by when it started"
    assert bench.sql("select from run_heartbeats") == [], "it only reads"


# --- vendors


def test_a_key_that_songstats_refuses_fails(doctor, well):
    found = doctor(SONGSTATS_API_KEY="not-the-right-one")
    assert found["status"] == 1
    assert found["Songstats key"] == ("FAIL", "REFUSED (HTTP 401): put SONGSTATS_API_KEY right")


@pytest.mark.parametrize("fault", [{"status": 503}, {"body": "<html>"}, {"close": True}, {"status": 429}])
def test_a_songstats_that_gives_no_usable_answer_leaves_its_key_unknown(doctor, well, sandbox, fault):
    sandbox.faults(STATUS, **fault)
    found = doctor()
    assert found["status"] == 0
    assert found["Songstats key"][0] == "warn"
    assert found["Songstats key"][1].startswith("unknown, since ")


def test_a_key_that_stripe_refuses_fails(doctor, well):
    found = doctor(STRIPE_SECRET_KEY="sk_test_not_the_right_one")
    assert found["Stripe key"] == ("FAIL", "REFUSED: Stripe does not accept the key: check STRIPE_SECRET_KEY.")
    assert found["Songstats key"][0] == "ok"


def test_a_stripe_that_cannot_be_reached_or_stumbles_leaves_its_key_unknown(doctor, well, sandbox):
    away = doctor(STRIPE_API_BASE=f"http://127.0.0.1:{free_port()}")
    assert away["status"] == 0
    assert away["Stripe key"][0] == "warn"
    assert "could not be reached" in away["Stripe key"][1]
    sandbox.faults("/v1/customers", status=500)
    assert doctor()["Stripe key"][0] == "warn"


def test_a_restricted_key_that_may_not_read_customers_fails(doctor, well, sandbox):
    body = json.dumps({"error": {"type": "invalid_request_error", "message": "no"}})
    sandbox.faults("/v1/customers", status=403, body=body)
    found = doctor()["Stripe key"]
    assert found[0] == "FAIL"
    assert "lacks a permission" in found[1]


def test_a_token_that_apify_refuses_fails(doctor, well):
    found = doctor(APIFY_TOKEN="not-the-right-one")
    assert found["status"] == 1
    assert found["Apify token"][0] == "FAIL"
    assert found["Apify token"][1].startswith(
        "REFUSED: Apify refuses the token, or its account: check APIFY_TOKEN (HTTP 401"
    )
    assert found["Spotify client"][0] == "ok"


def test_a_client_that_spotify_refuses_fails(doctor, well):
    found = doctor(SPOTIFY_CLIENT_SECRET="not-the-right-one")
    assert found["status"] == 1
    assert found["Spotify client"][0] == "FAIL"
    assert "check SPOTIFY_CLIENT_ID and SPOTIFY_CLIENT_SECRET" in found["Spotify client"][1]
    assert found["Apify token"][0] == "ok"


@pytest.mark.parametrize("fault", [{"status": 503}, {"body": "<html>"}, {"close": True}, {"status": 429}])
@pytest.mark.parametrize(("name", "path"), [("Apify token", "/v2/"), ("Spotify client", "/api/token")])
def test_a_vendor_of_captures_that_gives_no_usable_answer_leaves_its_key_unknown(
    doctor, well, sandbox, name, path, fault
):
    sandbox.faults(path, **fault)
    found = doctor()
    assert found["status"] == 0
    assert found[name][0] == "warn"
    assert found[name][1].startswith("unknown: ")


def test_without_a_token_captures_are_a_choice_and_without_a_client_half_of_one(doctor, well):
    none = doctor(APIFY_TOKEN="", SPOTIFY_CLIENT_ID="", SPOTIFY_CLIENT_SECRET="")
    assert none["Apify token"] == ("ok", "APIFY_TOKEN is not set: captures are not made")
    assert none["Spotify client"][0] == "ok"
    half = doctor(SPOTIFY_CLIENT_ID="", SPOTIFY_CLIENT_SECRET="")
    assert half["Spotify client"][0] == "warn"
    assert "tracks that are new stay unmapped" in half["Spotify client"][1]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Somebody who answers so; the port."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


API = {"API_KEY_SECRET": "0123456789abcdef0123456789abcdef"}


@pytest.mark.parametrize(("status", "verdict"), [(200, "ok"), (503, "FAIL"), (404, "FAIL")])
def test_an_api_is_asked_whether_it_is_ready(doctor, well, status, verdict):
    with answering(status) as port:
        assert doctor(**API, API_PORT=str(port), API_HOST="0.0.0.0")["HTTP API"][0] == verdict


def test_an_api_that_should_listen_and_does_not_is_told(doctor, well, tmp_path):
    port = free_port()
    found, words = doctor(**API, API_PORT=str(port))["HTTP API"]
    assert (found, "start `measurement-pipeline api`" in words) == ("warn", True)
    # Where a `dev` says that it has one, on whichever port, it has to be there, once it has had time to start.
    with acquire_instance_lock(tmp_path / "local" / "sandbox", "dev", api_url=f"http://127.0.0.1:{port}"):
        found, words = doctor()["HTTP API"]
        assert (found, f"no answer at http://127.0.0.1:{port}" in words) == ("warn", True)
        with time_machine.travel(datetime.now(UTC) + timedelta(minutes=5)):
            assert doctor()["HTTP API"][0] == "FAIL"


def test_a_sandbox_whose_doubles_do_not_run_is_told_so(doctor, well, keys):
    nowhere = dict.fromkeys(keys, "")
    found = doctor("--sandbox-port", free_port(), **nowhere)
    assert found["status"] == 1
    assert found["doubles"][0] == "FAIL"
    assert "no doubles of the vendors listen" in found["doubles"][1]
    assert found["stamp"][0] == "ok"


def test_settings_that_cannot_be_read_are_the_one_line(doctor):
    found = doctor(SONGSTATS_HIT_LIMIT="many")
    assert found.pop("status") == 1
    assert list(found) == ["settings"]
    assert "SONGSTATS_HIT_LIMIT" in found["settings"][1]


# --- how checks run


def failing(found) -> list[str]:
    return [name for name, line in found.items() if name != "status" and line[0] == "FAIL"]


def test_a_dev_that_was_stopped_is_one_failure_whatever_it_holds_up(doctor, well, bench, instance, keys, database_url):  # noqa: F811
    bench.ask_for(isrcs(1))
    bench.sql("update songstats_backfill_queue set created_at = now() - interval '9 hours'")
    bench.sql("insert into measurement_jobs (account, source, scope) values (%s, 'historical', '{}')", bench.account)
    bench.sql("update measurement_jobs set created_at = now() - interval '9 hours'")
    beat(instance, seconds_ago=9 * 3600)
    dead = HealthResult(False, "recordings wait", should_alert=True, reason="daemon not beating")
    incidents.record_result(database_url, "backfill_is_progressing", dead)
    found = doctor("--sandbox-port", free_port(), **dict.fromkeys(keys, ""))
    assert failing(found) == ["daemon"]
    for name in ("incidents", "queue", "requests", "doubles"):
        assert found[name][0] == "warn", name
        assert found[name][1].endswith("(cause: see daemon)"), name


def test_a_breaker_that_opened_is_one_failure(doctor, well, bench, database_url):
    bench.ask_for(isrcs(1))
    bench.sql("update songstats_backfill_queue set created_at = now() - interval '9 hours'")
    bench.sql("update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = 'odd', opened_at = now()")
    opened_ = HealthResult(False, "recordings wait", should_alert=True, reason="breaker open")
    incidents.record_result(database_url, "backfill_is_progressing", opened_)
    assert failing(doctor()) == ["breaker"]


def test_a_pause_that_outlasts_the_alarm_fails_and_a_spent_budget_is_a_date(doctor, well, bench):
    bench.ask_for(isrcs(1))
    assert failing(doctor(SONGSTATS_HIT_LIMIT="0")) == []
    bench.sql(
        "update vendor_state set paused_until = now() + interval '30 days', pause_reason = 'HTTP 429', throttled = 1"
    )
    found = doctor()
    assert failing(found) == ["pause"]
    assert "HTTP 429; that is longer than SILENCE_ALARM_HOURS" in found["pause"][1]
    assert "breaker close" in found["pause"][1]


def test_a_table_that_somebody_has_locked_fails_its_own_line_alone(doctor, well, connection, database_url):
    with connect(database_url) as other, other.transaction():
        other.execute("lock table incidents in access exclusive mode")
        holder = f"process {other.info.backend_pid} (login {other.info.user}, measurement_pipeline"
        found = doctor()
    assert failing(found) == ["incidents"]
    assert found["incidents"][1].startswith("no answer within 3 s; a session may hold a lock that it needs: ")
    assert holder in found["incidents"][1]
    assert "pg_terminate_backend" in found["incidents"][1]
    assert [name for name in ALL if name not in found] == []


def test_one_cause_is_one_failure_and_the_lines_that_show_its_effect_name_it():
    lines = [
        fail("database", "away"),
        fail("storage", "away too", cause="database"),
        fail("first key", "no doubles"),
        fail("second key", "no doubles"),
        fail("queue", "silent", cause="daemon"),
        ok("daemon", "beats"),
    ]
    assert [(line.name, line.status, line.message) for line in report_causes_once(lines)] == [
        ("database", CheckStatus.FAIL, "away"),
        ("storage", CheckStatus.WARN, "away too (cause: see database)"),
        ("first key", CheckStatus.FAIL, "no doubles"),
        ("second key", CheckStatus.WARN, "no doubles (cause: see first key)"),
        ("queue", CheckStatus.FAIL, "silent"),
        ("daemon", CheckStatus.OK, "beats"),
    ]


def test_a_question_without_an_answer_keeps_no_other_from_being_told():
    never = threading.Event()

    def hangs():
        yield ok("first", "said before")
        never.wait()

    def breaks():
        yield ok("second", "said before")
        raise ZeroDivisionError("with a secret in it")

    found = list(
        run_checks({"hangs": hangs, "breaks": breaks, "well": lambda: iter([ok("third", "said")])}, seconds=0.5)
    )
    never.set()
    assert [(line.name, line.status) for line in found] == [
        ("first", CheckStatus.OK),
        ("hangs", CheckStatus.FAIL),
        ("second", CheckStatus.OK),
        ("breaks", CheckStatus.FAIL),
        ("third", CheckStatus.OK),
    ]
    assert "no answer within 0.5 s to what comes after the line first" in found[1].message
    assert "secret" not in found[3].message
