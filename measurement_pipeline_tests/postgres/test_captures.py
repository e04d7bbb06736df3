"""Requested captures: their albums, the month's cap under concurrency, one payment for the same albums, and series."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.capture.config import CaptureConfig
from measurement_pipeline.capture.series import start_due_captures
from measurement_pipeline.domain.capture import CaptureSpec, CaptureTicket, OverCap, Schedule
from measurement_pipeline.domain.measurement_job import ScopeByAlbum, ScopeByCatalog, ScopeByIsrc
from measurement_pipeline.postgres import capture_series, captures
from measurement_pipeline.postgres.database import connect
from measurement_pipeline_tests.capture_limits import capture_limits
from measurement_pipeline_tests.database import execute
from measurement_pipeline_tests.faults.waiting import wait_until


def albums(count: int, *, start: int = 0) -> tuple[str, ...]:
    return tuple(f"album{number:04d}" for number in range(start, start + count))


@dataclass
class Counter:
    """Opens captures in one database."""

    database_url: str
    account: UUID

    def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        return execute(self.database_url, statement, parameters)

    def open_capture(
        self,
        album_ids: Sequence[str],
        *,
        cap: str = "25",
        account: UUID | None = None,
        schedule: Schedule = Schedule.ONCE,
    ) -> CaptureTicket | OverCap:
        with connect(self.database_url) as connection, connection.transaction():
            spec = CaptureSpec(account or self.account, tuple(sorted(album_ids)), schedule=schedule)
            return captures.open_capture(connection, spec, limits=capture_limits(cap))

    def open_concurrently(self, requests: Sequence[dict[str, Any]]) -> list[CaptureTicket | OverCap]:
        """Open all of these captures concurrently, each in its own thread."""
        barrier = threading.Barrier(len(requests))
        answers: list[CaptureTicket | OverCap] = []

        def open_one(options: dict[str, Any]) -> None:
            barrier.wait()
            answers.append(self.open_capture(**options))

        threads = [threading.Thread(target=open_one, args=(options,)) for options in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def start_due_captures(self, *, cap: str = "25"):
        return start_due_captures(
            CaptureConfig(self.database_url, capture_limits(cap), claim_timeout_seconds=5.0, max_attempts=5)
        )

    def age(self, interval: str, *, state: str = "done") -> None:
        """Let this time have passed since the captures were requested and done."""
        self.sql("update playcount_snapshots set created_at = created_at - %s::interval, state = %s", interval, state)


@pytest.fixture
def counter(database_url: str) -> Counter:
    return Counter(database_url, uuid4())


def test_a_scope_resolves_to_the_albums_of_its_recordings_each_once(counter: Counter):
    one, two, three = "AA6Q72000001", "AA6Q72000002", "AA6Q72000003"
    counter.sql("insert into songs (isrc) values (%s), (%s), (%s)", one, two, three)
    for song, kind, value in [
        (one, "album_id", "b"), (one, "album_id", "a"), (two, "album_id", "b"), (two, "track_id", "t"),
    ]:  # fmt: skip
        counter.sql("insert into song_identifiers values (%s, 'spotify', %s, %s)", song, kind, value)
    counter.sql("insert into song_identifiers values (%s, 'deezer', 'album_id', 'd')", one)
    counter.sql("insert into accounts (id) values (%s)", counter.account)
    (catalog,) = counter.sql("insert into catalogs (account, name) values (%s, 'c') returning id", counter.account)
    counter.sql("insert into catalog_songs values (%s, %s), (%s, %s)", catalog["id"], two, catalog["id"], three)
    with connect(counter.database_url) as connection:
        assert captures.resolve_albums(connection, ScopeByIsrc((one, two))) == ("a", "b")
        assert captures.resolve_albums(connection, ScopeByIsrc((three,))) == ()
        assert captures.resolve_albums(connection, ScopeByCatalog(catalog["id"])) == ("b",)
        assert captures.resolve_albums(connection, ScopeByAlbum(("z", "Y", "z"))) == ("Y", "z")


def test_a_capture_costs_three_tenths_of_a_cent_per_album(counter: Counter):
    opened = counter.open_capture(albums(12))
    assert isinstance(opened, CaptureTicket)
    assert (opened.albums, opened.cost_usd, opened.reused) == (12, Decimal("0.036"), False)
    (row,) = counter.sql("select * from playcount_snapshots")
    assert (row["album_count"], row["estimated_cost_usd"], row["state"]) == (12, Decimal("0.0360"), "queued")


def test_the_monthly_cap_is_exact_to_one_album(counter: Counter):
    assert isinstance(counter.open_capture(albums(90), cap="0.3"), CaptureTicket)
    assert isinstance(counter.open_capture(albums(10, start=90), cap="0.3"), CaptureTicket)
    refused = counter.open_capture(albums(1, start=200), cap="0.3")
    assert refused == OverCap(cap=Decimal("0.3"), spent=Decimal("0.3"), asked=Decimal("0.003"))
    assert isinstance(counter.open_capture(albums(1, start=200), cap="0.3", account=uuid4()), CaptureTicket), (
        "another account's month"
    )


def test_a_cap_of_zero_allows_no_capture(counter: Counter):
    assert isinstance(counter.open_capture(albums(1), cap="0"), OverCap)


def test_concurrent_requests_never_exceed_the_cap_together(counter: Counter):
    for round_ in range(5):
        account = uuid4()
        asks = [
            {"album_ids": albums(10, start=1000 * round_ + 10 * n), "cap": "0.1", "account": account} for n in range(8)
        ]
        answers = counter.open_concurrently(asks)
        assert sum(isinstance(answer, CaptureTicket) for answer in answers) == 3, "three of $0.03 are within $0.10"
        (spent,) = counter.sql(
            "select sum(estimated_cost_usd) usd from playcount_snapshots where account = %s", account
        )
        assert spent["usd"] == Decimal("0.09")


@pytest.mark.fails_without("captures: the account's lock")
def test_a_request_that_waited_for_the_lock_sees_that_the_cap_is_used(counter: Counter):
    """A sum from before the wait for the account, or no lock, would allow both."""
    counter.sql("insert into accounts (id) values (%s)", counter.account)
    locked = (
        "select 1 from pg_locks inner join pg_database on pg_locks.database = pg_database.oid"
        " where datname = current_database() and locktype = 'advisory' and not granted"
    )
    answers: list[CaptureTicket | OverCap] = []
    second = threading.Thread(target=lambda: answers.append(counter.open_capture(albums(10, start=50), cap="0.03")))
    with connect(counter.database_url) as connection, connection.transaction():
        first = captures.open_capture(
            connection, CaptureSpec(counter.account, albums(10)), limits=capture_limits("0.03")
        )
        second.start()
        wait_until(lambda: counter.sql(locked) or not second.is_alive())
    second.join()
    assert isinstance(first, CaptureTicket)
    assert answers == [OverCap(cap=Decimal("0.03"), spent=Decimal("0.03"), asked=Decimal("0.03"))]


def test_the_same_albums_within_the_hour_are_the_same_capture_and_cost_nothing(counter: Counter):
    first = counter.open_capture(albums(3))
    again = counter.open_capture(tuple(reversed(albums(3))), cap="0.009")
    assert isinstance(first, CaptureTicket)
    assert again == CaptureTicket(first.snapshot, 3, Decimal(0), reused=True), "even if the month allows no other"
    others = counter.open_capture(albums(3), account=uuid4())
    assert isinstance(others, CaptureTicket)
    assert not others.reused, "another account pays for its own"
    more = counter.open_capture(albums(4))
    assert isinstance(more, CaptureTicket)
    assert not more.reused


def test_two_equal_concurrent_requests_pay_once(counter: Counter):
    for round_ in range(5):
        answers = counter.open_concurrently([{"album_ids": albums(5, start=100 * round_)}] * 6)
        opened = [answer for answer in answers if isinstance(answer, CaptureTicket)]
        assert len(opened) == 6
        assert len({one.snapshot for one in opened}) == 1
        assert sum(one.cost_usd for one in opened) == Decimal("0.015")


@pytest.mark.parametrize(("age", "reused"), [("59 minutes", True), ("61 minutes", False)])
def test_an_older_capture_is_not_reused(counter: Counter, age: str, reused: bool):
    counter.open_capture(albums(3))
    counter.age(age)
    again = counter.open_capture(albums(3))
    assert isinstance(again, CaptureTicket)
    assert again.reused is reused


def test_a_failed_capture_is_not_reused_and_its_cost_counts(counter: Counter):
    opened = counter.open_capture(albums(200), cap="1")
    assert isinstance(opened, CaptureTicket)
    counter.sql("update playcount_snapshots set state = 'failed'")
    counter.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, actor_run, status)"
        " values (%s, 0, '{}', 0.3, 'r', 'a', 'FAILED'), (%s, 1, '{}', 0.3, 'r', null, 'NOT-STARTED')",
        opened.snapshot,
        opened.snapshot,
    )
    with connect(counter.database_url) as connection:
        assert captures.estimate(connection, CaptureSpec(counter.account, albums(200)), capture_limits()) == (
            Decimal("0.6"),
            Decimal("0.3"),
            None,
            False,
        )
    again = counter.open_capture(albums(200), cap="0.89")
    assert again == OverCap(cap=Decimal("0.89"), spent=Decimal("0.3"), asked=Decimal("0.6"))
    assert isinstance(counter.open_capture(albums(200), cap="0.9"), CaptureTicket)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "UTC", "Pacific/Pago_Pago"])
def test_the_month_begins_at_midnight_utc_in_any_server_time_zone(counter: Counter, zone: str):
    begins = "date_trunc('month', now() at time zone 'UTC') at time zone 'UTC'"
    (name,) = counter.sql("select current_database() as name")
    counter.sql(f"alter database \"{name['name']}\" set timezone to '{zone}'")
    assert isinstance(counter.open_capture(albums(10), cap="0.03"), CaptureTicket)
    counter.sql(f"update playcount_snapshots set created_at = {begins} - interval '1 microsecond', state = 'done'")
    assert isinstance(counter.open_capture(albums(10, start=50), cap="0.03"), CaptureTicket), "that was last month's"
    counter.sql(f"update playcount_snapshots set created_at = {begins} where created_at >= {begins}")
    assert isinstance(counter.open_capture(albums(1, start=90), cap="0.03"), OverCap), (
        "its first moment is this month's"
    )


def test_the_cost_of_an_open_capture_is_reserved_whichever_month_it_was_requested_in(counter: Counter):
    assert isinstance(counter.open_capture(albums(10), cap="0.03"), CaptureTicket)
    counter.sql("update playcount_snapshots set created_at = created_at - interval '40 days'")
    assert isinstance(counter.open_capture(albums(10, start=50), cap="0.03"), OverCap), (
        "it is still to be bought, this month"
    )


def test_the_cost_of_a_failed_part_stays_reserved_while_it_may_be_retried(counter: Counter):
    assert isinstance(counter.open_capture(albums(10), cap="0.06"), CaptureTicket)
    counter.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, status)"
        " select id, 0, album_ids, 0.03, 'run-1', 'FAILED' from playcount_snapshots"
    )
    assert isinstance(counter.open_capture(albums(1, start=50), cap="0.06"), OverCap)
    counter.sql("update playcount_snapshots set state = 'failed'")
    assert isinstance(counter.open_capture(albums(1, start=50), cap="0.06"), CaptureTicket)


def test_a_series_of_unknown_albums_is_not_paid_every_day(counter: Counter):
    counter.open_capture(albums(1), cap="1", schedule=Schedule.MONTHLY)
    counter.sql(
        "update playcount_snapshots set state = 'failed', status_code = 404, created_at = created_at - interval '2 days'"
    )
    assert counter.start_due_captures().due == 0
    counter.age("30 days", state="failed")
    assert counter.start_due_captures().started == 1


def test_an_estimate_gives_the_cost_of_a_request_and_requests_nothing(counter: Counter):
    spec = CaptureSpec(counter.account, albums(7))
    with connect(counter.database_url) as connection:
        assert captures.estimate(connection, spec, capture_limits()) == (Decimal("0.021"), Decimal(0), None, False)
    counter.open_capture(albums(7))
    with connect(counter.database_url) as connection:
        assert captures.estimate(connection, spec, capture_limits()) == (Decimal(0), Decimal("0.021"), None, True)
    assert len(counter.sql("select * from playcount_snapshots")) == 1


# --- series ------------------------------------------------------------------------------------------------------------------


def test_a_series_is_captured_once_when_its_last_capture_is_thirty_days_old(counter: Counter):
    counter.open_capture(albums(3), schedule=Schedule.MONTHLY)
    assert counter.start_due_captures().due == 0
    counter.age("29 days")
    assert counter.start_due_captures().started == 0
    counter.age("1 day")
    result = counter.start_due_captures()
    assert (result.due, result.started, result.refused) == (1, 1, ())
    rows = counter.sql("select schedule, album_ids, account from playcount_snapshots order by created_at")
    assert rows == [{"schedule": "monthly", "album_ids": list(albums(3)), "account": counter.account}] * 2
    assert counter.start_due_captures().due == 0, "it is still to come"


def test_a_series_with_a_failed_capture_is_captured_the_day_after(counter: Counter):
    counter.open_capture(albums(3), schedule=Schedule.MONTHLY)
    counter.age("0", state="failed")
    assert counter.start_due_captures().due == 0
    counter.age("1 day", state="failed")
    assert counter.start_due_captures().started == 1


def test_an_open_capture_is_reused_at_any_age(counter: Counter):
    first = counter.open_capture(albums(3))
    counter.age("3 hours", state="queued")
    again = counter.open_capture(albums(3))
    assert isinstance(first, CaptureTicket)
    assert isinstance(again, CaptureTicket)
    assert (again.snapshot, again.reused) == (first.snapshot, True)


def test_missed_months_are_captured_once(counter: Counter):
    counter.open_capture(albums(3), schedule=Schedule.MONTHLY)
    counter.age("200 days")
    assert counter.start_due_captures().started == 1
    assert counter.start_due_captures().started == 0


def test_two_concurrent_starts_of_due_series_start_each_once(counter: Counter):
    for number in range(4):
        counter.open_capture(albums(3, start=10 * number), schedule=Schedule.MONTHLY)
    counter.age("31 days")
    barrier = threading.Barrier(3)

    def start() -> None:
        barrier.wait()
        counter.start_due_captures()

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.sql("select count(*) n from playcount_snapshots") == [{"n": 8}]


def test_a_series_over_the_cap_is_reported_and_tried_again(counter: Counter):
    counter.open_capture(albums(10), schedule=Schedule.MONTHLY)
    counter.age("31 days")
    (refusal,) = counter.start_due_captures(cap="0.01").refused
    assert "monthly cap of captures is reached: $0.01 a calendar month (UTC), $0.000 of it spent" in refusal
    assert str(counter.account) in refusal
    assert counter.start_due_captures().started == 1


def test_a_series_requested_twice_is_one_series_and_restarts_after_a_stop(counter: Counter):
    counter.open_capture(albums(3), schedule=Schedule.MONTHLY)
    counter.open_capture(albums(3), schedule=Schedule.MONTHLY)
    with connect(counter.database_url) as connection:
        (series,) = capture_series.list_all(connection)
        assert (series["albums"], series["last_state"], series["stopped_at"]) == (3, "queued", None)
        assert capture_series.list_all(connection, account=uuid4()) == []
        assert capture_series.stop(connection, series["id"])
        assert not capture_series.stop(connection, series["id"])
    counter.age("31 days")
    assert counter.start_due_captures().due == 0
    counter.open_capture(albums(3), schedule=Schedule.MONTHLY)
    counter.age("31 days")
    assert counter.start_due_captures().started == 1


def test_another_capture_of_the_same_albums_counts_for_the_series(counter: Counter):
    counter.open_capture(albums(3), schedule=Schedule.MONTHLY)
    counter.age("31 days")
    counter.open_capture(albums(3))
    assert counter.start_due_captures().due == 0
