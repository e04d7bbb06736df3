"""No account delays another one, no request is too large to answer, and a hundred requests cost a hundred commits."""

import json
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
from psycopg.errors import CheckViolation

from measurement_pipeline.domain.measurement_job import MAX_LISTED, MAX_REQUEST_BYTES, TOO_LARGE, State
from measurement_pipeline.domain.payment import Decision
from measurement_pipeline.intake.process import MAX_INTAKE_ATTEMPTS, check_payments, load_batch, process_batch
from measurement_pipeline.postgres import measurement_jobs
from measurement_pipeline.postgres.database import DatabaseUnavailable, connect
from measurement_pipeline.postgres.sql import statements
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.intake.conftest import IntakeBench, isrcs

Check = Callable[[UUID], Decision]


def chosen(intake_bench: IntakeBench, **options: int) -> list[UUID]:
    return [request.id for request in load_batch(intake_bench.database_url, **options).requests]


@contextmanager
def remove_limit(intake_bench: IntakeBench) -> Iterator[None]:
    """Drop the limit, so that requests are inserted as by an older version."""
    intake_bench.sql("alter table measurement_jobs disable trigger measurement_jobs_request_size")
    yield
    intake_bench.sql("alter table measurement_jobs enable trigger measurement_jobs_request_size")


def scope_of_bytes(size: int) -> dict[str, list[str]]:
    """An album scope with exactly this many bytes of text in the table."""
    count = MAX_LISTED
    room = size - len(json.dumps({"album_ids": [""] * count}))
    each, more = divmod(room, count)
    return {"album_ids": ["a" * (each + (number < more)) for number in range(count)]}


# --- each account in turn -------------------------------------------------------------------------------------------------


def test_accounts_are_served_in_turn(intake_bench: IntakeBench):
    many, few, late = uuid4(), uuid4(), uuid4()
    of_many = [intake_bench.submit({"isrcs": isrcs(1)}, account=many) for _ in range(20)]
    of_few = [intake_bench.submit({"isrcs": isrcs(1)}, account=few) for _ in range(2)]
    of_last = [intake_bench.submit({"isrcs": isrcs(1)}, account=late, source="current")]
    expected = [of_many[0], of_few[0], of_last[0], of_many[1], of_few[1], of_many[2], of_many[3]]
    assert chosen(intake_bench, limit=7) == expected
    assert chosen(intake_bench, limit=2) == expected[:2]


def test_a_batch_checks_a_limited_number_of_accounts_and_includes_all_their_requests(
    intake_bench: IntakeBench, paid: Check
):
    first, second, third = uuid4(), uuid4(), uuid4()
    requested = [
        intake_bench.submit({"isrcs": isrcs(1)}, account=account) for account in (first, second, third, first, second)
    ]
    assert chosen(intake_bench, max_accounts=2) == [requested[0], requested[1], requested[3], requested[4]]
    opened = load_batch(intake_bench.database_url, max_accounts=2)
    assert opened.accounts == [first, second]
    process_batch(intake_bench.database_url, opened, check_payments(opened, paid), run="one")
    assert chosen(intake_bench, max_accounts=2) == [requested[2]]


def test_choosing_among_many_requests_reads_only_an_index(intake_bench: IntakeBench):
    intake_bench.sql(
        # Without triggers, for speed; committed, or a vacuum marks no page as visible to all.
        "set session_replication_role = replica; set synchronous_commit = on;"
        " insert into measurement_jobs (account, source, scope)"
        " select case when n <= 39000 then md5('many') else md5(n::text) end::uuid, 'historical', '{}'"
        " from generate_series(1, 40000) as n"
    )
    intake_bench.sql("vacuum analyze measurement_jobs")
    with connect(intake_bench.database_url) as connection:
        plan = connection.execute(
            "explain (analyze, buffers, format json) " + statements("measurement_jobs")["waiting"],
            {"state": "queued", "limit": 1_000},
        ).fetchone()
    assert plan is not None
    (root,) = plan["QUERY PLAN"]
    nodes = list(walk(root["Plan"]))
    scans = {(node["Node Type"], node.get("Index Name")) for node in nodes if "Relation Name" in node}
    assert scans == {("Index Only Scan", "measurement_jobs_waiting"), ("Index Scan", "measurement_jobs_pkey")}
    (reading,) = [node for node in nodes if node["Node Type"] == "Index Only Scan"]
    assert reading["Heap Fetches"] == 0
    # The chosen requests are looked up by their key: a few blocks each, for any queue length.
    assert root["Plan"]["Shared Hit Blocks"] + root["Plan"]["Shared Read Blocks"] < 1_000 * 4 + 2_000
    with connect(intake_bench.database_url) as connection:
        result = measurement_jobs.waiting(connection, state=State.QUEUED, limit=1_000)
    assert len({request.account for request in result}) == 1_000


def walk(node: dict) -> Iterator[dict]:
    yield node
    for below in node.get("Plans", []):
        yield from walk(below)


def test_a_hundred_requests_cost_one_commit_each_and_few_connections(intake_bench: IntakeBench, paid: Check):
    accounts = [uuid4() for _ in range(10)]
    for number in range(100):
        intake_bench.submit({"isrcs": isrcs(1, start=number)}, account=accounts[number % 10])
    opened = load_batch(intake_bench.database_url)
    decisions = check_payments(opened, paid)
    looks = 0

    def look(statement: str) -> int:
        nonlocal looks
        looks += 1
        return int(intake_bench.sql(statement)[0]["n"])

    def commits() -> int:
        # The statistics of a session are added when it ends.
        wait_until(lambda: look("select count(*) as n from pg_stat_activity where datname = current_database()") == 1)
        look("select 1 as n from pg_stat_force_next_flush()")
        return look("select xact_commit as n from pg_stat_database where datname = current_database()")

    before, looks = commits(), 0
    results = process_batch(intake_bench.database_url, opened, decisions, run="one")
    wait_until(lambda: commits() >= before + 100)
    after = commits()
    assert {one.state for one in results} == {State.ACCEPTED}
    assert after - before - looks < 150


# --- large requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        "(account, scope) values (gen_random_uuid(), to_jsonb(repeat('x', 1048575)))",
        "(account, source) values (gen_random_uuid(), repeat('x', 1048577))",
        "(account, schedule) values (gen_random_uuid(), repeat('x', 1048577))",
        "(account, platforms) values (gen_random_uuid(), array[repeat('x', 1048577)])",
        "(account, scope) values (gen_random_uuid(), (select jsonb_agg(n) from generate_series(1, 3000000) as n))",
    ],
    ids=["scope", "source", "schedule", "platforms", "a very large scope"],
)
def test_a_request_that_is_too_large_is_rejected_at_insert_with_the_limit(intake_bench: IntakeBench, columns: str):
    with pytest.raises(CheckViolation, match=r"is too large: at most 1048576 bytes") as refused:
        intake_bench.sql(f"insert into measurement_jobs {columns}")
    assert refused.value.diag.constraint_name == "measurement_jobs_request_size"
    assert "catalog_id" in (refused.value.diag.message_hint or "")


def test_a_clients_search_path_does_not_bypass_the_limit(intake_bench: IntakeBench):
    intake_bench.sql("create schema evil")
    intake_bench.sql("create function evil.octet_length(text) returns int language sql as 'select 1'")
    with pytest.raises(CheckViolation):
        intake_bench.sql(
            "set search_path = evil, public, pg_catalog;"
            " insert into measurement_jobs (account, source) values (gen_random_uuid(), repeat('x', 1048577))"
        )


def test_the_table_and_the_domain_have_the_same_limit(intake_bench: IntakeBench):
    room = MAX_REQUEST_BYTES - len("historical") - len("once") - len("{spotify}")
    job = intake_bench.submit(scope_of_bytes(room))
    (row,) = intake_bench.sql(
        "select measurement_job_bytes(source, scope, platforms, schedule) as size from measurement_jobs where id = %s",
        job,
    )
    assert row["size"] == MAX_REQUEST_BYTES
    with pytest.raises(CheckViolation):
        intake_bench.submit(scope_of_bytes(room + 1))


def test_the_largest_requests_and_larger_old_ones_delay_no_other(intake_bench: IntakeBench, paid: Check):
    greedy = uuid4()
    largest = [intake_bench.submit(scope_of_bytes(MAX_REQUEST_BYTES - 100), account=greedy) for _ in range(40)]
    with remove_limit(intake_bench):
        larger = [
            intake_bench.submit({"album_ids": ["x" * 1000] * 4_000}, account=greedy),
            intake_bench.submit({"isrcs": ["AA6Q72000047"] * 200_000}, account=greedy, source="current"),
            intake_bench.submit({"isrcs": isrcs(1)}, account=greedy, source="x" * 3_000_000),
        ]
    small = intake_bench.submit({"isrcs": isrcs(1)})
    tracemalloc.start()
    opened = load_batch(intake_bench.database_url)
    results = process_batch(intake_bench.database_url, opened, check_payments(opened, paid), run="one")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [one.id for one in results].index(small) == 1, "the other account is served in turn"
    assert intake_bench.job(small)["state"] == "accepted"
    assert {intake_bench.job(job)["error"] for job in larger} == {TOO_LARGE}
    assert {intake_bench.job(job)["status_code"] for job in [*largest, *larger]} == {400}
    assert peak < 16 * MAX_REQUEST_BYTES, "one request is in memory at a time"
    assert len(pickle.dumps(opened)) < 20_000, "between ops a batch is a file"
    assert {row["attempts"] for row in intake_bench.sql("select attempts from measurement_jobs")} == {0}


def test_a_list_over_the_http_limit_is_rejected_before_it_is_parsed(intake_bench: IntakeBench, paid: Check):
    job = intake_bench.submit({"isrcs": ["x"] * (MAX_LISTED + 1)})
    intake_bench.process(paid)
    row = intake_bench.job(job)
    assert (row["state"], row["status_code"]) == ("rejected", 400)
    assert row["error"].startswith("At most 10,000 in a request, got 10,001")


def test_the_reclaim_run_loads_one_unpaid_request_at_a_time_and_rejects_larger_ones(
    intake_bench: IntakeBench, paid: Check
):
    unpaid = [intake_bench.submit(scope_of_bytes(MAX_REQUEST_BYTES - 100)) for _ in range(10)]
    with remove_limit(intake_bench):
        larger = intake_bench.submit({"album_ids": ["x" * 1000] * 4_000})
    intake_bench.sql("update measurement_jobs set state = 'payment_required'")
    tracemalloc.start()
    intake_bench.process(paid, unpaid=True, limit=10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {intake_bench.job(job)["status_code"] for job in [*unpaid, larger]} == {400}
    assert intake_bench.job(larger)["error"] == TOO_LARGE
    assert peak < 16 * MAX_REQUEST_BYTES


# --- requests that end the process ----------------------------------------------------------------------------------------


def test_an_attempt_is_counted_before_a_request_is_read_and_given_back_after(intake_bench: IntakeBench):
    """PostgreSQL ends each session that reads this request, as if the process ran out of memory."""
    job, other = intake_bench.submit({"isrcs": isrcs(1)}), intake_bench.submit({"isrcs": isrcs(2)})
    load_batch(intake_bench.database_url)
    assert (intake_bench.job(job)["attempts"], intake_bench.job(other)["attempts"]) == (0, 0)
    reading_kills(intake_bench, job)
    with pytest.raises(DatabaseUnavailable):
        load_batch(intake_bench.database_url)
    assert (intake_bench.job(job)["attempts"], intake_bench.job(other)["attempts"]) == (1, 1), (
        "either may have caused it"
    )


def test_a_request_that_kills_its_reader_fails_after_its_attempts_and_delays_no_other(
    intake_bench: IntakeBench, paid: Check
):
    killer, *others = (intake_bench.submit({"isrcs": isrcs(1, start=number)}) for number in range(4))
    reading_kills(intake_bench, killer)
    deaths = 0
    for _ in range(MAX_INTAKE_ATTEMPTS + 1):
        try:
            intake_bench.process(paid)
        except DatabaseUnavailable:
            deaths += 1
        if deaths == 3:  # in a group, as the first suspect, and then behind all suspects
            assert {intake_bench.job(job)["state"] for job in others} == {"accepted"}
    row = intake_bench.job(killer)
    assert (row["state"], "after 5 attempts" in row["error"]) == ("failed", True)
    assert deaths == MAX_INTAKE_ATTEMPTS
    assert {intake_bench.job(job)["state"] for job in others} == {"accepted"}


def reading_kills(intake_bench: IntakeBench, job: UUID) -> None:
    """Let the database end any session that reads the request."""
    intake_bench.sql(
        "create or replace function measurement_job_bytes(source text, scope jsonb, platforms text[], schedule text)"
        " returns bigint language plpgsql as $$ begin"
        f" if scope = (select j.scope from measurement_jobs as j where j.id = '{job}') then"
        " perform pg_terminate_backend(pg_backend_pid()); end if; return 0; end $$"
    )


def test_a_request_that_postgresql_cannot_return_is_postponed_and_delays_no_other(
    intake_bench: IntakeBench, paid: Check
):
    bad, good = intake_bench.submit({"isrcs": isrcs(1)}), intake_bench.submit({"isrcs": isrcs(1, start=1)})
    intake_bench.sql(
        "create or replace function measurement_job_bytes(source text, scope jsonb, platforms text[], schedule text)"
        " returns bigint language plpgsql as $$ begin"
        f" if scope = (select j.scope from measurement_jobs as j where j.id = '{bad}') then"
        " raise exception 'out of memory' using errcode = '53200'; end if; return 0; end $$"
    )
    intake_bench.process(paid)
    assert intake_bench.job(good)["state"] == "accepted"
    row = intake_bench.job(bad)
    assert (row["state"], row["attempts"], row["error"]) == ("queued", 1, "out of memory")
