"""Secrets are not written: backfill with marked secrets and every failure, then search all written texts."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest
from psycopg import sql

from measurement_pipeline.local.dagster_processes import INSTANCE_FILE
from measurement_pipeline.postgres.database import connect
from measurement_pipeline.sandbox import PLAIN, KnownRecording, SandboxClient, running
from measurement_pipeline.sandbox.albums import album_id
from measurement_pipeline.services import create_services
from measurement_pipeline.settings import Settings
from measurement_pipeline_tests.backfill.test_money_path import HISTORY
from measurement_pipeline_tests.conftest import Server
from measurement_pipeline_tests.defs.conftest import Stage, definitions, open_instance, pooled
from measurement_pipeline_tests.defs.test_alerts import Sensor
from measurement_pipeline_tests.defs.test_captures import capture, capture_of
from measurement_pipeline_tests.workbench import OPERATORS, create_workbench, isrcs

ROOT = Path(__file__).parents[1]

# Shaped like real secrets, with letters and digits only: these look the same under any quoting.
SONGSTATS_KEY = "mark5ongstats7hK2pQ9xVb3"
STRIPE_KEY = "rk_test_mark5tripe4nW8sT1yLc6"
WEBHOOK = "T0MARK/B0WEBHOOK/mark3dWebhook5zRj0fD"
PASSWORD = "markPa55word6gHmE4uXo"
APIFY_TOKEN = "apify_api_markAp1fyJ7tZ3uMc8rQe"
SPOTIFY_SECRET = "mark5potify9dFw2LkYs6vNa"
# The form of the Spotify double's tokens.
SPOTIFY_TOKEN = "sandbox-spotify-token"
MARKED = (SONGSTATS_KEY, STRIPE_KEY, WEBHOOK, PASSWORD, APIFY_TOKEN, SPOTIFY_SECRET, SPOTIFY_TOKEN)

# Everything that the UI shows about resources, runs and the instance.
UI = """
query Everything($selector: RepositorySelector!) {
  instance { info runLauncher { name } daemonHealth { allDaemonStatuses { daemonType lastHeartbeatErrors { message stack } } } }
  allTopLevelResourceDetailsOrError(repositorySelector: $selector) {
    ... on ResourceDetailsList {
      results {
        name description resourceType
        configFields { name description defaultValueAsJson }
        configuredValues { key value type }
        nestedResources { name resource { configuredValues { key value } } }
      }
    }
  }
  workspaceOrError {
    ... on Workspace {
      locationEntries { displayMetadata { key value } locationOrLoadError { ... on PythonError { message stack } } }
    }
  }
  sensorsOrError(repositorySelector: $selector) {
    ... on Sensors {
      results {
        name
        sensorState { ticks(limit: 100) { skipReason cursor error { message stack errorChain { error { message stack } } } } }
      }
    }
  }
  runsOrError {
    ... on Runs {
      results {
        jobName status runConfigYaml tags { key value }
        eventConnection(limit: 1000) {
          events {
            ... on MessageEvent { message }
            ... on ErrorEvent { error { message stack errorChain { error { message stack } } } }
          }
        }
      }
    }
  }
}
"""
LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector, runConfigData: "{}"}) {
    __typename
    ... on PythonError { message }
  }
}
"""
SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": "measurement_pipeline"}


@dataclass
class Operator:
    """The UI's GraphQL endpoint."""

    url: str

    def query(self, query: str, **variables: object) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=120).json()
        assert "errors" not in answer, answer
        result: dict[str, Any] = answer["data"]
        return result


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/server_info", timeout=120).is_success
    except httpx.TransportError:
        return False


def wait_for(holds: Callable[[], object], what: str, *, log_of: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come in {seconds} s:\n{(log_of / 'dagster.log').read_text()[-4000:]}")
        time.sleep(0.25)


class WrittenTexts:
    """All written texts, by place. The search covers the text itself and its usual encodings as bytes."""

    def __init__(self) -> None:
        self._written: dict[str, bytes] = {}

    def add(self, where: str, what: bytes) -> None:
        self._written[where] = self._written.get(where, b"") + b"\n" + what
        with suppress(zlib.error):  # Dagster's snapshot of a job
            self._written[where] += zlib.decompress(what)

    def add_database(self, name: str, url: str) -> None:
        with psycopg.connect(url) as connection:
            tables = connection.execute(
                "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE'"
                " and table_schema not in ('pg_catalog', 'information_schema')"
            ).fetchall()
            for schema, table in tables:
                cursor = connection.execute(sql.SQL("select * from {}").format(sql.Identifier(schema, table)))
                for row in cursor:
                    for value in row:
                        what = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                        self.add(f"{name}, table {table}", what)

    def add_files(self, directory: Path) -> None:
        for path in directory.rglob("*"):
            if path.is_file():
                self.add(str(path.relative_to(directory)), path.read_bytes())

    def hold(self, text: str) -> list[str]:
        plain = text.encode()
        shapes = [plain, plain.hex().encode()]
        # In base64 within a longer text, two characters at either end depend on the neighbours.
        shapes += [base64.b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)]
        return [where for where, what in self._written.items() if any(shape in what for shape in shapes)]


@pytest.mark.parametrize("pack", [bytes, zlib.compress, base64.b64encode, lambda text: text.hex().encode()])
@pytest.mark.parametrize("before", [b"", b"a", b"ab"])
def test_the_search_finds_a_written_text(pack: Any, before: bytes):
    everything = WrittenTexts()
    everything.add("here", pack(before + SONGSTATS_KEY.encode() + b" and more"))
    everything.add("there", b"nothing")
    assert everything.hold(SONGSTATS_KEY) == ["here"]
    assert everything.hold(STRIPE_KEY) == []


@pytest.fixture
def marked_sandbox() -> Iterator[SandboxClient]:
    keys = {
        "songstats_key": SONGSTATS_KEY,
        "stripe_key": STRIPE_KEY,
        "apify_token": APIFY_TOKEN,
        "spotify_client_secret": SPOTIFY_SECRET,
    }
    with running(behaviour=replace(PLAIN, **keys)) as sandbox:
        yield sandbox


@pytest.fixture
def pipeline_login(server: Server, database_url: str) -> Iterator[tuple[str, str]]:
    """A login that is a member of measurement_pipeline only, and a database for Dagster's storage."""
    name = f"mp_test_{uuid4().hex}"
    login = sql.Identifier(name)
    with connect(database_url) as connection:
        (me,) = connection.execute("select rolsuper from pg_roles where rolname = current_user").fetchall()
        if not me["rolsuper"]:
            pytest.skip("the login of DATABASE_URL is no superuser: it cannot make one with a marked password")
        password = sql.Literal(PASSWORD)
        connection.execute(sql.SQL("create role {} login password {}").format(login, password))
        connection.execute(sql.SQL("grant measurement_pipeline to {}").format(login))
    storage = server.create_database()
    with connect(server.url(storage)) as connection:
        connection.execute(sql.SQL("grant create on schema public to {}").format(login))
    yield name, storage
    server.drop(storage)
    with connect(database_url) as connection:
        connection.execute(sql.SQL("drop owned by {}").format(login))
        connection.execute(sql.SQL("drop role {}").format(login))


def as_login(url: str, login: str) -> str:
    """The same database, with the recognizable password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{login}:{PASSWORD}@{rest.partition('@')[2]}"


def marked_settings(database_url: str, sandbox: SandboxClient, login: str) -> dict[str, str]:
    """The settings of a deployment whose secrets are all marked."""
    return {
        "DATABASE_URL": as_login(database_url, login),
        "SONGSTATS_API_KEY": SONGSTATS_KEY,
        "SONGSTATS_BASE_URL": sandbox.songstats_url,
        "SONGSTATS_REQUESTS_PER_SECOND": "0",
        "STRIPE_SECRET_KEY": STRIPE_KEY,
        "STRIPE_API_BASE": sandbox.stripe_url,
        # The webhook refuses every message, and the report of that failure might contain its URL.
        "ALERT_WEBHOOK_URL": f"{sandbox.stripe_url}/services/{WEBHOOK}",
        "BACKFILL_ACCOUNT_ID": str(OPERATORS),
        "APIFY_TOKEN": APIFY_TOKEN,
        "APIFY_BASE_URL": sandbox.apify_url,
        "SPOTIFY_CLIENT_ID": sandbox.spotify_client_id,
        "SPOTIFY_CLIENT_SECRET": SPOTIFY_SECRET,
        "SPOTIFY_API_BASE": sandbox.spotify_url,
        "SPOTIFY_ACCOUNTS_BASE": sandbox.spotify_url,
    }


def failed(operator: Operator) -> set[str]:
    result = operator.query("{ runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { jobName } } } }")
    return {run["jobName"] for run in result["runsOrError"]["results"]}


@contextmanager
def dagster(environment: dict[str, str], home: Path) -> Iterator[tuple[Operator, psutil.Process]]:
    shutil.copy(INSTANCE_FILE, home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-p", str(port)]
    with (home / "dagster.log").open("w") as log:
        started = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: started.poll() is None and answers(url), "the webserver", log_of=home)
            yield Operator(url), psutil.Process(started.pid)
        finally:
            os.killpg(started.pid, signal.SIGTERM)
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


@contextmanager
def watched(process: psutil.Process, everything: WrittenTexts) -> Iterator[None]:
    """Record all command lines of the process's family until the block ends, which `ps` shows to any user."""
    is_finished = threading.Event()

    def watch() -> None:
        while not is_finished.wait(0.1):
            with suppress(psutil.Error):
                for one in [process, *process.children(recursive=True)]:
                    with suppress(psutil.Error):
                        everything.add("ps", " ".join(one.cmdline()).encode())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_finished.set()
        thread.join()


def secrets_are_repeated(sandbox: SandboxClient, songs: list[str]) -> None:
    """Make each vendor repeat the secrets it received in its responses.

    Stripe does so to the first request. Songstats does so in a history's body and headers, in a refusal, in a body that is not
    JSON, in a redirect, while busy, and when it refuses the key, which opens the breaker. Apify does so while busy, and Spotify
    when it refuses to respond.
    """
    error = {"message": f"Invalid API Key provided: {STRIPE_KEY}", "type": "invalid_request_error"}
    sandbox.faults("/v1", status=401, body=json.dumps({"error": error}), count=1)
    url = f"https://elsewhere.test/?apikey={SONGSTATS_KEY}"
    echo = {"x-api-key": SONGSTATS_KEY, "x-request": f"apikey={SONGSTATS_KEY}", "location": url}
    odd = json.dumps({"result": "success", "apikey": SONGSTATS_KEY, "stats": []})
    refusal = json.dumps({"result": "error", "message": f"Invalid Api Key {SONGSTATS_KEY}"})
    sandbox.faults(HISTORY, isrc=songs[0], body=odd, headers=echo)
    sandbox.faults(HISTORY, isrc=songs[1], status=400, body=refusal, headers=echo)
    sandbox.faults(HISTORY, isrc=songs[2], body=f"<html>{url}</html>")
    sandbox.faults(HISTORY, isrc=songs[3], status=302, headers=echo)
    sandbox.faults(HISTORY, isrc=songs[4], status=503, body=refusal, count=1)
    sandbox.faults(HISTORY, isrc=songs[5], status=401, body=refusal, delay=1)  # after the others
    sandbox.faults("/enterprise/v1/status", status=401, body=refusal)
    busy = json.dumps({"error": {"type": "busy", "message": f"no room for {APIFY_TOKEN}"}})
    sandbox.faults("/v2/actor-runs/", status=503, body=busy, headers=echo, count=1)
    refused = json.dumps(
        {"error": {"status": 403, "message": f"Not for Bearer {SPOTIFY_TOKEN}-1, nor {SPOTIFY_SECRET}"}}
    )
    sandbox.faults("/v1/tracks", status=403, body=refused)


def know_album(sandbox: SandboxClient, album: str) -> str:
    """Release `album` with seven recordings; its id."""
    sandbox.know({song: KnownRecording(play_count=5, artist="Choir", album=album) for song in isrcs(7)})
    return album_id("Choir", album)


def refuse_the_apify_token(sandbox: SandboxClient) -> None:
    refused = json.dumps({"error": {"type": "token", "message": f"User was not found by {APIFY_TOKEN}"}})
    sandbox.faults("/v2/", status=401, body=refused, headers={"www-authenticate": APIFY_TOKEN})


# In either form, the search saw what it had to see.
STORED = (
    ("AA6Q72000006", "measurements, table song_measurements"),
    ("[api key]", "measurements, table songstats_responses"),
    ("Not for Bearer", "measurements, table apify_runs"),
    ("User was not found by", "measurements, table vendor_state"),
    ("AA6Q72000006", "Dagster's storage, table event_logs"),
    ("permission denied for table run_heartbeats", "Dagster's storage, table event_logs"),
)


def test_no_text_that_failing_runs_and_sensors_write_contains_a_secret(
    server: Server,
    database_url: str,
    marked_sandbox: SandboxClient,
    pipeline_login: tuple[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    """The short form, in one process. The long form also searches the UI, the processes' logs and `ps`."""
    sandbox, songs, everything = marked_sandbox, isrcs(7), WrittenTexts()
    login, storage = pipeline_login
    services = create_services(Settings.read(marked_settings(database_url, sandbox, login)))
    with open_instance(pooled(as_login(server.url(storage), login)), tmp_path) as instance:
        stage = Stage(instance, definitions(services), services, create_workbench(database_url, sandbox))
        failures = Sensor(stage)
        failures.tick()
        sandbox.card(str(stage.bench.account))
        secrets_are_repeated(sandbox, songs)
        stage.bench.sql("revoke delete on run_heartbeats from measurement_pipeline")
        failed_runs = [stage.reclaim()]
        first = stage.submit_request({"isrcs": songs}, account=uuid4())
        stage.intake()
        assert stage.bench.sql("select error from measurement_jobs where id = %s", first)[0]["error"] is not None
        stage.submit_request({"isrcs": songs})
        assert stage.intake().success
        stage.register(songs)
        failed_runs.append(stage.backfill(songs))
        assert stage.breaker() == "open"
        for album in ("One", "Two"):
            job = stage.submit_request({"album_ids": [know_album(sandbox, album)]}, source="current")
            assert stage.intake().success
            captured = capture(stage, capture_of(stage, job))
            refuse_the_apify_token(sandbox)
        failed_runs.append(captured)
        assert [run.success for run in failed_runs] == [False, False, False]
        reactions = failures.catch_up()
        assert sandbox.requests("/services")
        everything.add("the failed alerts", "\n".join(str(reaction.error) for reaction in reactions).encode())
    written = capfd.readouterr()
    everything.add("the log", f"{written.out}\n{written.err}".encode())
    everything.add_database("measurements", database_url)
    everything.add_database("Dagster's storage", server.url(storage))
    everything.add_files(tmp_path)
    for known, where in (
        *STORED,
        ("songstats_backfill", "the log"),
        ("ALERT_WEBHOOK_URL answered", "the failed alerts"),
    ):
        assert where in everything.hold(known), f"{known} is not in {where}"
    assert {secret: everything.hold(secret) for secret in MARKED} == {secret: [] for secret in MARKED}


@pytest.mark.long
@pytest.mark.dagster
def test_no_text_that_a_failing_backfill_writes_contains_a_secret(
    server: Server, database_url: str, marked_sandbox: SandboxClient, pipeline_login: tuple[str, str], tmp_path: Path
):
    sandbox, songs = marked_sandbox, isrcs(7)
    first, second = str(uuid4()), str(uuid4())
    login, storage = pipeline_login
    environment = {
        **marked_settings(database_url, sandbox, login),
        "DAGSTER_POSTGRES_URL": as_login(server.url(storage), login),
        "DAGSTER_HOME": str(tmp_path),
    }
    everything = WrittenTexts()

    def rows(statement: str, *parameters: object) -> list[dict[str, Any]]:
        with connect(database_url) as connection:
            result = connection.execute(statement, parameters)  # type: ignore[call-overload]
            return list(result) if result.description else []

    def insert_request(account: str, wanted: list[str]) -> None:
        scope = json.dumps({"isrcs": wanted})
        rows("insert into measurement_jobs (account, source, scope) values (%s, 'historical', %s)", account, scope)

    def request_counts(album: str) -> None:
        scope = json.dumps({"album_ids": [know_album(sandbox, album)]})
        rows("insert into measurement_jobs (account, source, scope) values (%s, 'current', %s)", second, scope)

    def query_ui(query: str, what: str) -> None:
        wait_for(lambda: rows(query), what, log_of=tmp_path)

    sandbox.card(second)
    secrets_are_repeated(sandbox, songs)
    # An unexpected failure: the database refuses the reclaim's work.
    rows("revoke delete on run_heartbeats from measurement_pipeline")
    with dagster(environment, tmp_path) as (operator, process), watched(process, everything):
        launched = operator.query(LAUNCH, selector={**SELECTOR, "pipelineName": "backfill_reclaim"})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        insert_request(first, songs)
        query_ui("select 1 from measurement_jobs where error is not null", "Stripe's error")
        insert_request(second, songs)
        request_counts("One")
        query_ui("select 1 from vendor_state where breaker = 'open'", "the refused key")
        query_ui(
            "select 1 from songstats_quota_ledger where settled_at is not null having count(*) = 7", "the settled hits"
        )
        query_ui("select 1 from playcount_snapshots where state = 'done' and unmapped = 7", "the capture")
        refuse_the_apify_token(sandbox)
        request_counts("Two")
        query_ui("select 1 from vendor_state where vendor = 'apify' and paused_until > now()", "the refused token")
        expected = {"backfill_reclaim", "songstats_backfill", "play_count_capture"}
        wait_for(lambda: failed(operator) >= expected, "failed runs", log_of=tmp_path)
        wait_for(lambda: sandbox.requests("/services"), "a post to the webhook", log_of=tmp_path)
        everything.add("the UI", json.dumps(operator.query(UI, selector=SELECTOR)).encode())
    everything.add_database("measurements", database_url)
    everything.add_database("Dagster's storage", server.url(storage))
    everything.add_files(tmp_path)

    # The search covered the expected places …
    for known, where in (
        *STORED,
        ("User was not found by", "the UI"),
        ("check_payment_method", "Dagster's storage, table snapshots"),
        ("permission denied for table run_heartbeats", "the UI"),
        ("permission denied for table run_heartbeats", "dagster.log"),
        ("dagster dev", "ps"),
    ):
        assert where in everything.hold(known), f"{known} is not in {where}"
    # … and no secret.
    assert {secret: everything.hold(secret) for secret in MARKED} == {secret: [] for secret in MARKED}
