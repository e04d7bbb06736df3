"""A request becomes queue rows or an error: every state, every receipt, and no request that delays the others."""

import threading
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from measurement_pipeline.domain.measurement_job import NOTHING_RESOLVED, UNKNOWN_CATALOG, UNPAID_TOO_LONG, State
from measurement_pipeline.domain.payment import Decision, PaymentVerdict
from measurement_pipeline.intake.process import MAX_INTAKE_ATTEMPTS, check_payments, load_batch, process_batch
from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import DatabaseError, DatabaseUnavailable, connect
from measurement_pipeline.postgres.measurement_jobs import JobReceipt
from measurement_pipeline_tests.intake.conftest import CHECKOUT, IntakeBench, isrcs, unknown, unpaid

Check = Callable[[UUID], Decision]


# --- accepted -----------------------------------------------------------------------------------------------------------


def test_a_request_for_new_recordings_is_accepted_and_queued(intake_bench: IntakeBench, paid: Check):
    songs = isrcs(3)
    job = intake_bench.submit({"isrcs": songs})
    (result,) = intake_bench.process(paid)
    assert (result.id, result.state, result.status_code, result.receipt) == (
        job,
        State.ACCEPTED,
        202,
        JobReceipt(3, 3, 0),
    )
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"], row["error"], row["checkout_url"]) == ("accepted", 202, None, None)
    assert (row["attempts"], row["not_before"], row["run_id"]) == (0, None, "intake-1")
    assert intake_bench.receipt(job) == (3, 3, 0, 0)
    assert intake_bench.queue() == dict.fromkeys(songs, "pending")


def test_a_receipt_counts_enqueued_skipped_and_already_queued_recordings(intake_bench: IntakeBench, paid: Check):
    songs = isrcs(9)
    intake_bench.submit({"isrcs": songs[:7]})
    intake_bench.process(paid)
    for song, outcome in zip(
        songs, ("stored", "no_history", "rejected", "malformed", "exhausted", "transient"), strict=False
    ):
        intake_bench.settle_row(song, outcome)
    intake_bench.sql("insert into songs (isrc) values (%s) on conflict do nothing", songs[7])
    intake_bench.measured(songs[7], 10, source="songstats")
    job = intake_bench.submit({"isrcs": songs})
    intake_bench.process(paid)
    # Skipped: stored, no history, rejected, malformed, and the owned one. Already queued: transient, pending.
    assert intake_bench.receipt(job) == (9, 2, 5, 2)
    assert intake_bench.queue() == dict(
        zip(
            songs,
            ("stored", "no_history", "rejected", "malformed", "pending", "transient", "pending", "stored", "pending"),
            strict=True,
        )
    )


def test_an_exhausted_row_is_requeued_at_the_end_of_its_rank(intake_bench: IntakeBench, paid: Check):
    (song,) = isrcs(1)
    intake_bench.submit({"isrcs": [song]})
    intake_bench.process(paid)
    intake_bench.settle_row(song, "exhausted")
    intake_bench.sql(
        "update songstats_backfill_queue set suspect = true, attempt_run = 'x', not_before = now() + interval '1 day'"
    )
    intake_bench.submit({"isrcs": [song]})
    intake_bench.process(paid)
    (row,) = intake_bench.sql("select * from songstats_backfill_queue")
    assert (row["status"], row["outcome"], row["attempts"], row["attempt_run"]) == ("pending", None, 0, None)
    assert (row["not_before"], row["suspect"]) == (None, False)
    assert row["requeued_at"] > row["created_at"]


def test_the_same_recordings_are_queued_once_for_two_requests(intake_bench: IntakeBench, paid: Check):
    first, second = intake_bench.submit({"isrcs": isrcs(4)}), intake_bench.submit({"isrcs": isrcs(4)})
    assert len(intake_bench.process(paid)) == 2
    assert intake_bench.receipt(first) == (4, 4, 0, 0)
    assert intake_bench.receipt(second) == (4, 0, 0, 4)
    assert len(intake_bench.queue()) == 4
    assert len(intake_bench.sql("select * from measurement_job_songs")) == 8


def test_a_request_is_processed_once(intake_bench: IntakeBench, paid: Check):
    job = intake_bench.submit({"isrcs": isrcs(2)})
    intake_bench.process(paid)
    before = intake_bench.job(job)
    assert intake_bench.process(paid) == []
    assert intake_bench.job(job) == before


@pytest.mark.fails_without("intake skips owned recordings")
def test_a_request_for_owned_recordings_is_done_at_once(intake_bench: IntakeBench, paid: Check):
    songs = isrcs(2)
    intake_bench.sql("insert into songs (isrc) select unnest(%s::text[])", songs)
    for song in songs:
        intake_bench.measured(song, 10, source="songstats")
    job = intake_bench.submit({"isrcs": songs})
    intake_bench.process(paid)
    assert intake_bench.job(job)["state"] == "done"
    assert intake_bench.receipt(job) == (2, 0, 2, 0)
    assert intake_bench.queue() == dict.fromkeys(songs, "stored")


def test_rows_are_ranked_by_their_latest_count(intake_bench: IntakeBench, paid: Check):
    a, b, c = songs = isrcs(3)
    intake_bench.sql("insert into songs (isrc) select unnest(%s::text[])", songs)
    intake_bench.measured(a, 900, day="2025-01-01")
    intake_bench.measured(a, 50, day="2026-01-01")
    intake_bench.measured(b, 70, day="2026-01-01", source="apify_spotify_playcount")
    # A newer import never outranks a measurement.
    intake_bench.measured(b, 5, day="2026-06-01", source="import")
    intake_bench.submit({"isrcs": songs})
    intake_bench.process(paid)
    ranks = intake_bench.sql("select song, rank_score from songstats_backfill_queue order by rank_score desc")
    assert [(row["song"], row["rank_score"]) for row in ranks] == [(b, 70), (a, 50), (c, 0)]


# --- scopes -------------------------------------------------------------------------------------------------------------


def test_isrcs_are_normalised_and_enqueued_once(intake_bench: IntakeBench, paid: Check):
    job = intake_bench.submit({"isrcs": ["aa-6q7-20-00047", "ISRC AA6Q72000047", "AA6Q72000047"]})
    intake_bench.process(paid)
    assert intake_bench.receipt(job) == (1, 1, 0, 0)
    assert intake_bench.queue() == {"AA6Q72000047": "pending"}


def test_an_album_resolves_to_every_recording_on_it(intake_bench: IntakeBench, paid: Check):
    songs = isrcs(4)
    intake_bench.sql("insert into songs (isrc) select unnest(%s::text[])", songs)
    on = [("album-1", songs[0]), ("album-1", songs[1]), ("album-2", songs[1]), ("album-2", songs[2])]
    for album, song in on:
        intake_bench.sql("insert into song_identifiers values (%s, 'spotify', 'album_id', %s)", song, album)
    intake_bench.sql("insert into song_identifiers values (%s, 'deezer', 'album_id', 'album-1')", songs[3])
    intake_bench.sql("insert into song_identifiers values (%s, 'spotify', 'track_id', 'album-1')", songs[3])
    job = intake_bench.submit({"album_ids": ["album-1", "album-2", "no such album"]})
    intake_bench.process(paid)
    assert intake_bench.receipt(job) == (3, 3, 0, 0)
    assert set(intake_bench.queue()) == set(songs[:3])


def test_a_catalogue_resolves_to_every_recording_in_it(intake_bench: IntakeBench, paid: Check):
    account = uuid4()
    job = intake_bench.submit({"catalog_id": str(intake_bench.catalogue(isrcs(5), account=account))}, account=account)
    intake_bench.process(paid)
    assert intake_bench.receipt(job) == (5, 5, 0, 0)


def test_another_accounts_catalogue_gets_the_answer_of_an_unknown_one(intake_bench: IntakeBench, paid: Check):
    account = uuid4()
    theirs = intake_bench.submit(
        {"catalog_id": str(intake_bench.catalogue(isrcs(2), account=uuid4()))}, account=account
    )
    unknown_one = intake_bench.submit({"catalog_id": str(uuid4())}, account=account)
    intake_bench.process(paid)
    different = {"id", "created_at", "updated_at"}
    first, second = (
        {k: v for k, v in intake_bench.job(job).items() if k not in different} for job in (theirs, unknown_one)
    )
    assert first == second
    assert (first["state"], first["status_code"], first["error"]) == ("rejected", 400, UNKNOWN_CATALOG)
    assert intake_bench.queue() == {}


@pytest.mark.parametrize("scope", ["empty catalogue", "unknown album"])
def test_a_scope_without_recordings_is_rejected(intake_bench: IntakeBench, paid: Check, scope: str):
    account = uuid4()
    requested = (
        {"catalog_id": str(intake_bench.catalogue([], account=account))}
        if scope == "empty catalogue"
        else {"album_ids": ["x"]}
    )
    job = intake_bench.submit(requested, account=account)
    intake_bench.process(paid)
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"], row["error"]) == ("rejected", 400, NOTHING_RESOLVED)
    assert intake_bench.sql("select * from measurement_job_songs") == []


def test_a_catalogue_of_a_hundred_thousand_recordings_is_one_request(intake_bench: IntakeBench, paid: Check):
    account = uuid4()
    intake_bench.sql("insert into accounts (id) values (%s)", account)
    catalog = intake_bench.sql("insert into catalogs (account, name) values (%s, 'all') returning id", account)[0]["id"]
    intake_bench.sql(
        "insert into songs (isrc) select 'AA6Q7' || lpad(n::text, 7, '0') from generate_series(1, 100000) as n"
    )
    intake_bench.sql("insert into catalog_songs select %s, isrc from songs", catalog)
    job = intake_bench.submit({"catalog_id": str(catalog)}, account=account)
    intake_bench.process(paid)
    assert intake_bench.receipt(job) == (100_000, 100_000, 0, 0)


# --- rejected -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "scope", "platforms", "error"),
    [
        ("monthly", {"isrcs": isrcs(1)}, "{spotify}", "source must be current or historical"),
        (None, {"isrcs": isrcs(1)}, "{spotify}", "source must be current or historical"),
        ("historical", {}, "{spotify}", "Provide exactly one of scope.catalog_id / album_ids / isrcs"),
        ("historical", None, "{spotify}", "Provide exactly one of scope.catalog_id / album_ids / isrcs"),
        ("historical", {"isrcs": ["nonsense"]}, "{spotify}", "Malformed in scope.isrcs: 'nonsense'"),
        ("historical", {"catalog_id": "mine"}, "{spotify}", "scope.catalog_id must be a UUID (got 'mine')"),
        ("historical", {"isrcs": isrcs(1)}, "{deezer}", "platforms may only be spotify (got \"['deezer']\")"),
        ("historical", {"isrcs": isrcs(1)}, "{{spotify,deezer}}", "platforms may only be spotify"),
        ("current", {}, "{spotify}", "Provide exactly one of scope.catalog_id / album_ids / isrcs"),
        ("current", {"isrcs": isrcs(1)}, "{deezer}", "platforms may only be spotify (got \"['deezer']\")"),
    ],
)
def test_a_malformed_request_is_rejected_without_a_request_to_stripe(
    intake_bench: IntakeBench, source: str | None, scope: object, platforms: str, error: str
):
    job = intake_bench.submit(scope, source=source, platforms=platforms)
    checked_accounts: list[UUID] = []

    def check(account: UUID) -> Decision:
        checked_accounts.append(account)
        return unknown(account)

    intake_bench.process(check)
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"]) == ("rejected", 400)
    assert row["error"].startswith(error)
    assert checked_accounts == []
    assert intake_bench.queue() == {}


UNREADABLE = {
    "nested deeper than Python reads": "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
    "a number of 5,000 digits": "('{\"isrcs\": [' || repeat('9', 5000) || ']}')::jsonb",
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_an_unreadable_request_is_rejected_and_delays_no_other(intake_bench: IntakeBench, paid: Check, what: str):
    (bad,) = intake_bench.sql(
        f"insert into measurement_jobs (account, source, scope) values (%s, 'historical', {UNREADABLE[what]}) returning id",
        uuid4(),
    )
    good = intake_bench.submit({"isrcs": isrcs(1)})
    intake_bench.process(paid)
    assert (intake_bench.job(bad["id"])["state"], intake_bench.job(bad["id"])["status_code"]) == ("rejected", 400)
    assert intake_bench.job(good)["state"] == "accepted"


def test_a_request_with_an_impossible_date_is_rejected_at_insert(intake_bench: IntakeBench):
    intake_bench.submit({"isrcs": isrcs(1)})
    with pytest.raises(DatabaseError, match="created_at"):
        intake_bench.sql("update measurement_jobs set created_at = 'infinity'")


# --- payment ------------------------------------------------------------------------------------------------------------


def test_without_a_card_no_row_is_queued_and_the_error_has_a_checkout_link(intake_bench: IntakeBench):
    job = intake_bench.submit({"isrcs": isrcs(2)})
    (result,) = intake_bench.process(unpaid)
    row = intake_bench.job(job)
    assert result.state is State.PAYMENT_REQUIRED
    assert (row["state"], row["status_code"], row["checkout_url"]) == ("payment_required", 402, CHECKOUT)
    assert "No card" in row["error"]
    assert (row["asked"], intake_bench.queue(), intake_bench.sql("select * from measurement_job_songs")) == (
        None,
        {},
        [],
    )


def test_rechecks_do_not_change_the_date_of_an_unpaid_request(intake_bench: IntakeBench, paid: Check):
    job = intake_bench.submit({"isrcs": isrcs(1)})
    intake_bench.process(unpaid)
    became_so = intake_bench.job(job)["updated_at"]
    for check in (unpaid, unknown, unpaid):
        intake_bench.process(check, unpaid=True)
        intake_bench.sql("update measurement_jobs set not_before = null")
        assert (intake_bench.job(job)["state"], intake_bench.job(job)["updated_at"]) == ("payment_required", became_so)
    intake_bench.process(paid, unpaid=True)
    assert intake_bench.job(job)["updated_at"] > became_so


def test_an_unpaid_request_continues_once_a_card_is_saved(intake_bench: IntakeBench, paid: Check):
    job = intake_bench.submit({"isrcs": isrcs(2)})
    intake_bench.process(unpaid)
    assert intake_bench.process(paid) == [], "the reclaim run processes it"
    intake_bench.process(unpaid, unpaid=True)
    assert intake_bench.job(job)["state"] == "payment_required"
    intake_bench.process(paid, unpaid=True)
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"], row["error"], row["checkout_url"]) == ("accepted", 202, None, None)
    assert intake_bench.receipt(job) == (2, 2, 0, 0)


def test_after_seven_days_without_a_card_a_request_is_rejected(intake_bench: IntakeBench, paid: Check):
    job = intake_bench.submit({"isrcs": isrcs(1)})
    intake_bench.process(unpaid)
    intake_bench.sql("update measurement_jobs set created_at = now() - interval '6 days 23 hours'")
    intake_bench.process(unpaid, unpaid=True)
    assert intake_bench.job(job)["state"] == "payment_required"
    intake_bench.sql("update measurement_jobs set created_at = now() - interval '7 days 1 minute'")
    intake_bench.process(unknown, unpaid=True)
    assert intake_bench.job(job)["state"] == "payment_required", "an unknown decision changes no state"
    intake_bench.sql("update measurement_jobs set not_before = null")
    intake_bench.process(unpaid, unpaid=True)
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"], row["error"]) == ("rejected", 402, UNPAID_TOO_LONG)
    assert row["checkout_url"] is None
    assert intake_bench.process(paid, unpaid=True) == []


def test_a_late_request_still_gets_a_checkout_link(intake_bench: IntakeBench):
    job = intake_bench.submit({"isrcs": isrcs(1)})
    intake_bench.sql("update measurement_jobs set created_at = now() - interval '8 days'")
    intake_bench.process(unpaid)
    assert (intake_bench.job(job)["state"], intake_bench.job(job)["checkout_url"]) == ("payment_required", CHECKOUT)


def test_an_unknown_decision_leaves_the_request_queued_without_an_attempt(intake_bench: IntakeBench, paid: Check):
    job = intake_bench.submit({"isrcs": isrcs(1)})
    for _ in range(MAX_INTAKE_ATTEMPTS + 2):
        (result,) = intake_bench.process(unknown)
        assert (result.state, "Stripe" in str(result.error)) == (None, True)
        assert intake_bench.process(paid) == [], "it waits"
        intake_bench.sql("update measurement_jobs set not_before = now() - interval '1 second'")
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"], row["attempts"], row["error"]) == (
        "queued",
        None,
        0,
        "Stripe could not be reached.",
    )
    intake_bench.process(paid)
    assert (intake_bench.job(job)["state"], intake_bench.job(job)["error"]) == ("accepted", None)


def test_an_unknown_decision_waits_for_stripes_retry_after_or_a_minute(intake_bench: IntakeBench):
    intake_bench.submit({"isrcs": isrcs(1)})
    intake_bench.process(unknown)
    waits = intake_bench.sql("select extract(epoch from not_before - now())::float as seconds from measurement_jobs")
    assert 590 < waits[0]["seconds"] <= 600
    intake_bench.sql("update measurement_jobs set not_before = null")
    intake_bench.process(lambda _account: Decision(PaymentVerdict.UNKNOWN, "odd", retry_after_seconds=0.5))
    waits = intake_bench.sql("select extract(epoch from not_before - now())::float as seconds from measurement_jobs")
    assert 50 < waits[0]["seconds"] <= 60


def test_stripe_is_asked_once_per_account_before_any_row_changes(intake_bench: IntakeBench, paid: Check):
    one, other = uuid4(), uuid4()
    for account in (one, other, one):
        intake_bench.submit({"isrcs": isrcs(1)}, account=account)
    checked_accounts: list[UUID] = []

    def check(account: UUID) -> Decision:
        checked_accounts.append(account)
        assert {row["state"] for row in intake_bench.sql("select state from measurement_jobs")} == {"queued"}
        return paid(account)

    intake_bench.process(check)
    assert checked_accounts == [one, other]


def test_a_request_of_an_unchecked_account_waits(intake_bench: IntakeBench):
    job = intake_bench.submit({"isrcs": isrcs(1)})
    opened = load_batch(intake_bench.database_url)
    process_batch(intake_bench.database_url, opened, {}, run="r")
    row = intake_bench.job(job)
    assert (row["state"], "payment" in row["error"], row["attempts"]) == ("queued", True, 0)
    assert row["not_before"] is not None
    assert intake_bench.queue() == {}


@pytest.mark.fails_without("unknown is not allowed: intake accepts a request", parameters="unknown")
@pytest.mark.parametrize("check", [unpaid, unknown])
def test_nothing_is_enqueued_without_an_allowed_decision(intake_bench: IntakeBench, check: Check):
    account = uuid4()
    intake_bench.submit({"isrcs": isrcs(1)}, account=account)
    intake_bench.submit({"catalog_id": str(intake_bench.catalogue(isrcs(2), account=account))}, account=account)
    intake_bench.process(check)
    intake_bench.process(check, unpaid=True)
    assert intake_bench.queue() == {}
    assert intake_bench.sql("select * from measurement_job_songs") == []


# --- one bad request, two intakes, crashes ------------------------------------------------------------------------------


def break_for(intake_bench: IntakeBench, song: str, *, sqlstate: str = "22000") -> None:
    """Make PostgreSQL raise when a request enqueues `song`."""
    intake_bench.sql(
        "create or replace function refuse() returns trigger language plpgsql as $$ begin"
        f" if new.song = '{song}' then raise exception 'no %%', new.song using errcode = '{sqlstate}'; end if;"
        " return new; end $$"
    )
    intake_bench.sql(
        "create or replace trigger refuse before insert on measurement_job_songs for each row execute function refuse()"
    )


@pytest.mark.parametrize("sqlstate", ["22000", "54000", "57014", "40P01"])
def test_a_request_that_causes_a_database_error_delays_no_other(intake_bench: IntakeBench, paid: Check, sqlstate: str):
    """Data, a limit, a cancelled statement, a deadlock: psycopg reports some of these as operational errors."""
    first, bad, last = (intake_bench.submit({"isrcs": [song]}) for song in isrcs(3))
    break_for(intake_bench, isrcs(3)[1], sqlstate=sqlstate)
    intake_bench.process(paid)
    assert [intake_bench.job(job)["state"] for job in (first, bad, last)] == ["accepted", "queued", "accepted"]
    row = intake_bench.job(bad)
    assert (row["attempts"], row["error"]) == (1, "no AA6Q72000001")
    assert row["not_before"] is not None
    assert isrcs(3)[1] not in intake_bench.queue()


@pytest.mark.parametrize("sqlstate", ["25006", "57P01", "55P03", "58030"])
def test_an_outage_of_the_database_costs_a_request_no_attempt(intake_bench: IntakeBench, paid: Check, sqlstate: str):
    first, postponed, last = (intake_bench.submit({"isrcs": [song]}) for song in isrcs(3))
    break_for(intake_bench, isrcs(3)[1], sqlstate=sqlstate)
    intake_bench.process(paid)
    assert [intake_bench.job(job)["state"] for job in (first, postponed, last)] == ["accepted", "queued", "accepted"]
    row = intake_bench.job(postponed)
    assert (row["attempts"], row["error"]) == (0, "no AA6Q72000001")
    assert row["not_before"] is not None


def test_a_deadlock_is_retried_at_once(intake_bench: IntakeBench, paid: Check):
    job = intake_bench.submit({"isrcs": isrcs(1)})
    intake_bench.sql("create sequence tries")
    intake_bench.sql(
        "create function deadlock() returns trigger language plpgsql as $$ begin"
        " if nextval('tries') < 3 then raise exception 'deadlock' using errcode = '40P01'; end if; return new; end $$"
    )
    intake_bench.sql(
        "create trigger deadlock before insert on measurement_job_songs for each row execute function deadlock()"
    )
    intake_bench.process(paid)
    assert intake_bench.job(job)["state"] == "accepted"


def test_a_request_without_attempts_left_fails_with_the_reason(intake_bench: IntakeBench, paid: Check):
    (song,) = isrcs(1)
    job = intake_bench.submit({"isrcs": [song]})
    break_for(intake_bench, song)
    for attempt in range(1, MAX_INTAKE_ATTEMPTS + 1):
        assert intake_bench.job(job)["state"] == "queued"
        intake_bench.process(paid, run=f"run-{attempt}")
        intake_bench.sql("update measurement_jobs set not_before = null")
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"]) == ("failed", 500)
    assert row["error"] == f"failed after 5 attempts: no {song}"
    assert intake_bench.process(paid) == []


def test_waits_between_attempts_double(intake_bench: IntakeBench, paid: Check):
    (song,) = isrcs(1)
    intake_bench.submit({"isrcs": [song]})
    break_for(intake_bench, song)
    waits = []
    for _ in range(4):
        intake_bench.process(paid)
        (row,) = intake_bench.sql(
            "select extract(epoch from not_before - clock_timestamp())::int as wait from measurement_jobs"
        )
        waits.append(row["wait"])
        intake_bench.sql("update measurement_jobs set not_before = null")
    for wait, expected in zip(waits, (60, 120, 240, 480), strict=True):
        assert expected - 30 < wait <= expected


def test_a_request_that_kills_its_process_is_processed_last_and_finally_fails(intake_bench: IntakeBench, paid: Check):
    """A killed process leaves a counted attempt and no answer."""
    killer, other = intake_bench.submit({"isrcs": isrcs(1)}), intake_bench.submit({"isrcs": isrcs(1, start=1)})
    request = next(request for request in load_batch(intake_bench.database_url).requests if request.id == killer)
    with connect(intake_bench.database_url) as connection:
        for attempt in range(1, MAX_INTAKE_ATTEMPTS + 1):
            assert measurement_jobs.begin_attempts(connection, [request], run="killed") == {killer: attempt}
    assert [request.id for request in load_batch(intake_bench.database_url).requests] == [other, killer]
    intake_bench.process(paid)
    row = intake_bench.job(killer)
    assert (row["state"], "after 5 attempts" in row["error"]) == ("failed", True)
    assert intake_bench.job(other)["state"] == "accepted"


def test_a_database_outage_during_a_batch_costs_no_request_an_attempt(intake_bench: IntakeBench, paid: Check):
    """The connection is terminated during the second request: the batch fails, and its finished request stays."""
    first, second = (intake_bench.submit({"isrcs": [song]}) for song in isrcs(2))
    intake_bench.sql(
        "create function cut() returns trigger language plpgsql as $$ begin"
        " if new.song = 'AA6Q72000001' then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$"
    )
    intake_bench.sql("create trigger cut before insert on measurement_job_songs for each row execute function cut()")
    with pytest.raises(DatabaseUnavailable):
        intake_bench.process(paid)
    assert [intake_bench.job(job)["state"] for job in (first, second)] == ["accepted", "queued"]
    intake_bench.sql("drop trigger cut on measurement_job_songs")
    intake_bench.process(paid)
    assert intake_bench.job(second)["state"] == "accepted"


def test_a_request_withdrawn_during_processing_stays_withdrawn(intake_bench: IntakeBench, paid: Check):
    job = intake_bench.submit({"isrcs": isrcs(1)})
    opened = load_batch(intake_bench.database_url)
    intake_bench.sql("update measurement_jobs set state = 'withdrawn'")
    assert process_batch(intake_bench.database_url, opened, check_payments(opened, paid), run="r") == []
    assert intake_bench.job(job)["state"] == "withdrawn"
    assert intake_bench.queue() == {}


def test_a_failure_does_not_overwrite_the_answer_of_another_session(intake_bench: IntakeBench):
    job = intake_bench.submit({"isrcs": isrcs(1)})
    (request,) = load_batch(intake_bench.database_url).requests
    intake_bench.sql("update measurement_jobs set state = 'accepted', status_code = 202")
    with connect(intake_bench.database_url) as connection:
        measurement_jobs.answer(connection, request, state=State.FAILED, status_code=500, error="late")
    assert (intake_bench.job(job)["state"], intake_bench.job(job)["status_code"]) == ("accepted", 202)


def test_two_concurrent_intakes_answer_each_request_once_and_enqueue_each_recording_once(
    intake_bench: IntakeBench, paid: Check
):
    """Both load the same requests before either answers; the requests overlap in recordings."""
    jobs = [intake_bench.submit({"isrcs": isrcs(20, start=start)}) for start in range(0, 60, 5)]
    opened = [load_batch(intake_bench.database_url), load_batch(intake_bench.database_url)]
    decisions = check_payments(opened[0], paid)
    barrier = threading.Barrier(2)
    answers: dict[int, list[UUID]] = {}

    def intake(number: int) -> None:
        barrier.wait()
        results = process_batch(intake_bench.database_url, opened[number], decisions, run=f"intake-{number}")
        answers[number] = [one.id for one in results if one.state is State.ACCEPTED]

    threads = [threading.Thread(target=intake, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers[0] + answers[1]) == sorted(jobs), "one of the two answered each"
    assert {intake_bench.job(job)["state"] for job in jobs} == {"accepted"}
    assert len(intake_bench.queue()) == 75
    assert sum(intake_bench.receipt(job)[1] for job in jobs) == 75, "one request enqueued each recording"


def test_concurrent_requests_requeue_the_same_exhausted_rows_once(intake_bench: IntakeBench, paid: Check):
    songs = isrcs(40)
    intake_bench.submit({"isrcs": songs})
    intake_bench.process(paid)
    for song in songs:
        intake_bench.settle_row(song, "exhausted")
    jobs = [intake_bench.submit({"isrcs": songs[::step]}) for step in (1, -1, 1, -1)]
    opened = load_batch(intake_bench.database_url)
    decisions = check_payments(opened, paid)
    rounds = [type(opened)([request], opened.accounts) for request in opened.requests]
    threads = [
        threading.Thread(
            target=process_batch, args=(intake_bench.database_url, one, decisions), kwargs={"run": f"r{n}"}
        )
        for n, one in enumerate(rounds)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {intake_bench.job(job)["state"] for job in jobs} == {"accepted"}
    assert sum(intake_bench.receipt(job)[1] for job in jobs) == 40
    assert sum(intake_bench.receipt(job)[3] for job in jobs) == 120


def test_a_batch_contains_the_oldest_requests_up_to_its_limit(intake_bench: IntakeBench, paid: Check):
    jobs = [intake_bench.submit({"isrcs": isrcs(1)}) for _ in range(3)]
    assert [one.id for one in intake_bench.process(paid, limit=2)] == jobs[:2]
    assert [one.id for one in intake_bench.process(paid, limit=2)] == jobs[2:]


def test_intake_renews_its_heartbeat(intake_bench: IntakeBench, paid: Check):
    intake_bench.submit({"isrcs": isrcs(1)})
    intake_bench.process(paid, run="alive")
    assert intake_bench.sql("select run_id from run_heartbeats") == [{"run_id": "alive"}]
