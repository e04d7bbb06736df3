"""Which failures are one incident, and that each causes one alert even if the webhook fails."""

import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from measurement_pipeline.domain.backfill_queue import BREAKER_OPENED
from measurement_pipeline.health import incidents, messages
from measurement_pipeline.health.result import HealthResult
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.incidents import list_open, record
from measurement_pipeline.vendors.errors import UnavailableError
from measurement_pipeline.vendors.webhook import Webhook
from measurement_pipeline_tests.health.receiver import Receiver

BROKEN = HealthResult(False, "3 recordings wait: the breaker is open", should_alert=True, reason="breaker open")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 recordings failed (3 malformed)", "12 recordings failed (12 malformed)"),
        ("1 recording failed (1 malformed)", "2 recordings failed (2 malformed)"),
        ("GBUM72501895: no payer", "AA6Q72000001: no payer"),
        ("AA6Q72000000, AA6Q72000001: no payer", "AA6Q72000000, AA6Q72000001, AA6Q72000002 …: no payer"),
        ("silent since 2026-09-22 05:00 UTC", "silent since 2026-09-22T06:11:12.123+00:00"),
        ("run 0f0f0f0f-0000-4000-8000-000000000001 is gone", "run 1a2b3c4d-0000-4000-8000-00000000000f is gone"),
        ("no such keys: ['AA6Q72000000']", "no such keys: ['AA6Q72000000', 'AA6Q72000001']"),
        ("connection to 127.0.0.1:5432 refused", "connection to 127.0.0.1:6543 refused"),
    ],
)
def test_failures_that_differ_only_in_numbers_ids_isrcs_and_times_are_one_incident(one: str, other: str):
    assert messages.incident_key("songstats_backfill", one) == messages.incident_key("songstats_backfill", other)


def test_another_job_or_another_reason_is_another_incident():
    keys = {
        messages.incident_key(job, line)
        for job in ("songstats_backfill", "backfill_reclaim")
        for line in ("the breaker opened: rejected", "the breaker opened: refused key", "the database is full")
    }
    assert len(keys) == 6


def test_an_error_summary_is_the_first_paragraph_limited_in_length_and_without_a_login():
    dagster_error = """dagster._core.errors.DagsterInvalidInvocationError: Partition range AA6Q72000001 to AA6Q72000002 is
                not a valid range. Nonexistent partition keys:
                ['AA6Q72000001']

Stack Trace:
  File "x.py" """
    assert messages.summarize_error(dagster_error) == (
        "DagsterInvalidInvocationError: Partition range AA6Q72000001 to AA6Q72000002 is not a valid range. "
        "Nonexistent partition keys: ['AA6Q72000001']"
    )
    postgresql_error = 'relation "x" does not exist\nLINE 1: delete from x\n                    ^\nHINT: none'
    assert messages.summarize_error(postgresql_error) == 'relation "x" does not exist LINE 1: delete from x'
    text = "\n could not reach postgresql://me:pass@db/x\nTraceback (most recent call last):\n ..."
    assert messages.summarize_error(text) == "could not reach postgresql://db/x"
    assert messages.summarize_error("psycopg.errors.UndefinedTable: no such table") == "UndefinedTable: no such table"
    assert len(messages.summarize_error("x " * 1000)) == 500
    assert messages.summarize_error(" \n ") == messages.summarize_error("") == "no reason was given"


def test_an_alert_states_the_failure_the_run_and_the_time(database_url: str, receiver: Receiver):
    for _ in range(3):
        incidents.record_failure(database_url, "songstats_backfill", "2 recordings failed", run="0f0f0f0f-1234")
    assert incidents.send_alerts(database_url, Webhook(receiver.url).post) == 1
    (text,) = receiver.texts
    first, second = text.split("\n")
    assert first == "songstats_backfill failed: 2 recordings failed"
    assert second.startswith("See run 0f0f0f0f in Dagster (Runs). Since 20")
    assert second.endswith(" UTC, 3 times so far.")
    assert incidents.send_alerts(database_url, Webhook(receiver.url).post) == 0


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_unavailable_webhook_gets_each_alert_later_exactly_once(database_url: str, receiver: Receiver, status: int):
    webhook = Webhook(receiver.url)
    receiver.status, receiver.location = status, receiver.url
    for number in range(2):
        incidents.record_failure(database_url, f"job {number}", "it broke", run="run")
        with pytest.raises(UnavailableError, match=f"ALERT_WEBHOOK_URL answered {status}"):
            incidents.send_alerts(database_url, webhook.post)
    assert receiver.texts == []
    receiver.status = 200
    assert incidents.send_alerts(database_url, webhook.post) == 2
    assert [text.split(" failed")[0] for text in receiver.texts] == ["job 0", "job 1"]
    assert incidents.send_alerts(database_url, webhook.post) == 0


def test_an_alert_that_the_webhook_rejects_does_not_block_others(database_url: str):
    posted: list[str] = []

    def post(text: str) -> None:
        if "rejected" in text:
            raise UnavailableError("ALERT_WEBHOOK_URL answered 400")
        posted.append(text)

    for line in ("this text is rejected", "a lock timed out", "the disk is full"):
        incidents.record_failure(database_url, "job", line, run="12345678")
    with pytest.raises(UnavailableError, match="answered 400"):
        incidents.send_alerts(database_url, post)
    assert ["lock" in posted[0], "disk" in posted[1], len(posted)] == [True, True, 2]


def test_an_incident_that_ended_before_its_alert_is_reported_as_ended(database_url: str, receiver: Receiver):
    incidents.record_result(database_url, "backfill_is_progressing", BROKEN)
    incidents.record_result(database_url, "backfill_is_progressing", HealthResult(True, "fine"))
    incidents.send_alerts(database_url, Webhook(receiver.url).post)
    assert "; ended 20" in receiver.texts[0]


def test_concurrent_senders_send_each_alert_once(database_url: str, receiver: Receiver):
    for number in range(5):
        incidents.record_failure(database_url, f"job {'abcde'[number]}", "it broke", run="run")
    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(incidents.send_alerts, database_url, Webhook(receiver.url).post) for _ in range(4)]
        assert sum(sender.result() for sender in senders) == 5
    assert len(set(receiver.texts)) == len(receiver.texts) == 5


def test_an_incident_is_recorded_again_without_waiting_for_its_alert(database_url: str, connection: Connection):
    incidents.record_failure(database_url, "job", "it broke", run="run")
    times: list[int] = []

    def post(_text: str) -> None:
        connection.execute("set lock_timeout = '1s'")
        record(connection, key="job: it broke", what="it broke")
        (row,) = connection.execute("select times from incidents").fetchall()
        times.append(row["times"])

    assert incidents.send_alerts(database_url, post) == 1
    assert times == [2]


def test_without_a_webhook_an_incident_is_recorded_and_not_sent(database_url: str, connection: Connection):
    incidents.record_failure(database_url, "backfill_reclaim", "it broke", run="run")
    assert incidents.send_alerts(database_url, None) == 0
    (row,) = connection.execute("select * from incidents").fetchall()
    assert (row["key"], row["told_at"], row["ended_at"]) == ("backfill_reclaim: it broke", None, None)


@pytest.mark.parametrize("between", [replace(BROKEN, reason="sensor stopped"), replace(BROKEN, should_alert=False)])
def test_a_check_that_alternates_between_two_reasons_sends_each_once(
    database_url: str, receiver: Receiver, between: HealthResult
):
    for result in (BROKEN, between, BROKEN, between, BROKEN):
        incidents.record_result(database_url, "backfill_is_progressing", result)
        incidents.send_alerts(database_url, Webhook(receiver.url).post)
    assert len(receiver.texts) == (2 if between.should_alert else 1)


def test_one_call_sends_a_limited_number_of_alerts_and_the_next_continues(database_url: str):
    posted: list[str] = []
    for number in range(12):
        incidents.record_failure(database_url, f"job {'abcdefghijkl'[number]}", "it broke", run="run")
    assert incidents.send_alerts(database_url, posted.append) == 10
    assert incidents.send_alerts(database_url, posted.append) == 2
    assert len(set(posted)) == 12


def test_a_slow_webhook_does_not_use_up_the_tick(database_url: str):
    """One tick handles up to five failures one after the other, and has a minute."""
    seconds = 0.0

    def post(_text: str) -> None:
        nonlocal seconds
        seconds += 5.0
        raise UnavailableError("ALERT_WEBHOOK_URL cannot be reached (ReadTimeout)")

    for number in range(12):
        incidents.record_failure(database_url, f"job {'abcdefghijkl'[number]}", "it broke", run="run")
    for _ in range(5):
        with pytest.raises(UnavailableError):
            incidents.send_alerts(database_url, post, clock=lambda: seconds)
    assert seconds < 60


def test_a_failing_check_is_one_incident_until_it_passes_or_the_reason_changes(database_url: str, receiver: Receiver):
    post = Webhook(receiver.url).post
    other = HealthResult(False, "the sensor is off", should_alert=True, reason="sensor stopped")
    for result in (BROKEN, BROKEN, other, other, HealthResult(True, "fine"), other):
        incidents.record_result(database_url, "backfill_is_progressing", result)
        incidents.send_alerts(database_url, post)
    assert [text.split("\n")[0] for text in receiver.texts] == [BROKEN.message, other.message, other.message]


def test_a_successful_run_does_not_end_the_incident_of_an_open_breaker(database_url: str, connection: Connection):
    incidents.record_failure(database_url, "songstats_backfill", f"{BREAKER_OPENED}5 rejected in a row", run="one")
    incidents.record_failure(database_url, "songstats_backfill", "the store is full", run="two")
    connection.execute(
        "update vendor_state set breaker = 'open', breaker_kind = 'streak', reason = 'odd', opened_at = now()"
    )
    connection.execute("update incidents set last_at = clock_timestamp()")
    incidents.record_success(database_url, "songstats_backfill")
    assert [BREAKER_OPENED in one.key for one in list_open(connection)] == [True]
    connection.execute("update vendor_state set breaker = 'closed', streak_since = clock_timestamp()")
    incidents.record_success(database_url, "songstats_backfill")
    assert list_open(connection) == []


def test_a_warning_sends_no_alert(database_url: str, receiver: Receiver):
    incidents.record_result(database_url, "values_in_range", HealthResult(False, "odd", reason="out of range"))
    assert incidents.send_alerts(database_url, Webhook(receiver.url).post) == 0


def test_no_error_contains_the_address_of_the_webhook(receiver: Receiver, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG", logger="httpx")
    gone = Webhook("http://127.0.0.1:9/services/T0/B0/s3cret")
    receiver.status = 500
    for webhook in (gone, Webhook(receiver.url)):
        with pytest.raises(UnavailableError) as failed:
            webhook.post("x")
        assert "s3cret" not in "".join(traceback.format_exception(failed.value))
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(gone)


def test_a_redirect_is_not_followed(receiver: Receiver):
    receiver.status, receiver.location = 307, receiver.url
    with pytest.raises(UnavailableError, match="a redirect is not followed"):
        Webhook(receiver.url).post("x")
    assert receiver.posted == []


def test_a_receiver_that_does_not_answer_times_out(receiver: Receiver):
    receiver.may_answer.clear()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        Webhook(receiver.url, seconds=0.2).post("x")


def test_external_text_cannot_mention_people_in_slack():
    sent: list[bytes] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(200)

    Webhook("http://127.0.0.1/x", transport=httpx.MockTransport(take)).post("failed: <!channel> & more")
    assert sent == [b'{"text":"failed: &lt;!channel&gt; &amp; more"}']


def test_ending_a_pause_ends_its_incident(database_url: str, connection: Connection):
    paused = HealthResult(False, "7 recordings wait", should_alert=True, reason="vendor pause")
    sensor_off = HealthResult(False, "7 recordings wait", should_alert=True, reason="sensor stopped")
    for result in (paused, sensor_off):
        incidents.record_result(database_url, "backfill_is_progressing", result)
    incidents.end_songstats_incidents(connection)
    assert [one.key for one in list_open(connection)] == ["check backfill_is_progressing: sensor stopped"]
