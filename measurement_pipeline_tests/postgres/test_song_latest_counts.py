"""The stored latest counts are those that the measurements give, after any statement and in any order."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.domain.backfill_queue import Claim, SettledRow, Settlement, Status
from measurement_pipeline.domain.capture import CaptureCounts, CaptureSpec, CaptureTicket
from measurement_pipeline.domain.outcome import DailyCount, Outcome
from measurement_pipeline.postgres import apify_runs, backfill_queue, captures, songs
from measurement_pipeline.postgres.audit import audit
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.postgres.songs import CatalogLine
from measurement_pipeline_tests.capture_limits import USD_PER_ALBUM, capture_limits
from measurement_pipeline_tests.faults.waiting import wait_until
from measurement_pipeline_tests.postgres.conftest import Tables, isrcs

SONGS = isrcs(4)
CAPTURE, IMPORT, SONGSTATS = "apify_spotify_playcount", "import", "songstats"
FIRST = date(2025, 1, 1)
START = datetime(2025, 1, 1, tzinfo=UTC)

Point = tuple[str, int, int, str, int]
"""Song, number of its metric, day, source, and hour in which it was stored."""

points = st.tuples(
    st.sampled_from(SONGS[:2]),
    st.integers(0, 1),
    st.integers(0, 3),
    st.sampled_from([CAPTURE, IMPORT, SONGSTATS]),
    st.integers(0, 2),
)
steps = st.tuples(st.sampled_from(["insert", "insert", "insert", "update", "delete"]), st.lists(points, max_size=4))


def latest(stored: dict[Point, int]) -> dict[str, tuple[int, datetime, str, datetime]]:
    """The rule in Python: measured before imported, the later moment, the displayed count, the later statement."""
    found = {}
    for song in SONGS:
        ranked = sorted(
            ((source != IMPORT, day, source == CAPTURE, hour), value, source)
            for (of, metric, day, source, hour), value in stored.items()
            if of == song and metric == 0
        )
        if ranked:
            (_, day, _, hour), value, source = ranked[-1]
            found[song] = (value, START + timedelta(days=day), source, START + timedelta(hours=hour))
    return found


def rows_of(changes: dict[Point, int]) -> tuple[list[Any], ...]:
    at = [(s, ("platform_displayed_play_count", "popularity")[m], d, source, h) for s, m, d, source, h in changes]
    return (
        [song for song, *_ in at],
        [metric for _, metric, *_ in at],
        [START + timedelta(days=day) for _, _, day, _, _ in at],
        [source for *_, source, _ in at],
        [START + timedelta(hours=hour) for *_, hour in at],
        list(changes.values()),
    )


_ROWS = "unnest(%s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::timestamptz[], %s::bigint[])"
_POINT = "song, metric, captured_at, data_source, learnt_at"
STATEMENTS = {
    "insert": f"insert into song_measurements (platform, {_POINT}, value) select 'spotify', * from {_ROWS}",
    "update": (
        f"update song_measurements as m set value = t.value from {_ROWS} as t ({_POINT}, value)"
        " where (m.song, m.metric, m.captured_at, m.data_source, m.learnt_at)"
        " = (t.song, t.metric, t.captured_at, t.data_source, t.learnt_at)"
    ),
    "delete": (
        f"delete from song_measurements as m using {_ROWS} as t ({_POINT}, value)"
        " where (m.song, m.metric, m.captured_at, m.data_source, m.learnt_at)"
        " = (t.song, t.metric, t.captured_at, t.data_source, t.learnt_at)"
    ),
}


def test_the_stored_latest_counts_follow_every_statement(connection: Connection):
    connection.execute("insert into songs (isrc) select unnest(%s::text[])", [SONGS])

    @given(st.lists(steps, max_size=8))
    def follow(script: list[tuple[str, list[Point]]]) -> None:
        connection.execute("truncate song_measurements")
        stored: dict[Point, int] = {}
        for number, (act, at) in enumerate(script):
            known = {point for point in at if point in stored}
            changes = {
                point: 100 * number + place for place, point in enumerate(at) if (point in known) == (act != "insert")
            }
            if act == "delete":
                stored = {point: value for point, value in stored.items() if point not in changes}
            else:
                stored |= changes
            connection.execute(STATEMENTS[act], rows_of(changes))  # type: ignore[arg-type]
            found = connection.execute("select * from song_latest_counts").fetchall()
            assert {
                r["song"]: (r["play_count"], r["captured_at"], r["data_source"], r["learnt_at"]) for r in found
            } == latest(stored)

    follow()


def test_a_count_that_waited_for_a_later_one_does_not_replace_it(connection: Connection, database_url: str):
    """Its statement began before the later count was committed, so it did not see that one."""
    earlier: Point = (SONGS[0], 0, 1, SONGSTATS, 0)
    later: Point = (SONGS[0], 0, 2, SONGSTATS, 0)

    def store_earlier() -> None:
        with connect(database_url) as other:
            other.execute(STATEMENTS["insert"], rows_of({earlier: 10}))  # type: ignore[arg-type]

    def is_waiting() -> bool:
        return bool(connection.execute("select from pg_locks where not granted").fetchall())

    with ThreadPoolExecutor(1) as thread:
        with connection.transaction():
            connection.execute(STATEMENTS["insert"], rows_of({later: 20}))  # type: ignore[arg-type]
            stored = thread.submit(store_earlier)
            wait_until(is_waiting, what="the earlier count to wait for the later one")
        stored.result()
    assert connection.execute("select play_count from song_latest_counts").fetchall() == [{"play_count": 20}]


def settle(tables: Tables, random: Random) -> None:
    """As a run settles: each thread has its own run, so that a row is settled by the run that claimed it last."""
    run = str(uuid4())
    chosen = random.sample(SONGS, 2)
    tables.sql(
        "with held as (select song from songstats_backfill_queue where song = any(%s) order by song for update)"
        " update songstats_backfill_queue as queue set status = 'in_progress', lease = lease + 1, claimed_by = %s,"
        " outcome = null, claimed_at = now(), heartbeat_at = now() from held where queue.song = held.song",
        chosen,
        run,
    )
    leases = {row["song"]: row["lease"] for row in tables.sql("select song, lease from songstats_backfill_queue")}
    rows = [
        SettledRow(
            Claim(song, leases[song], 0, None, has_history=False),
            Settlement(Status.DONE, Outcome.STORED),
            response_id=1,
            play_counts=tuple(
                DailyCount(FIRST + timedelta(n), random.randrange(99)) for n in range(random.randrange(9))
            ),
        )
        for song in chosen
    ]
    tables.in_loop(lambda connection: backfill_queue.settle(connection, rows, run=run, parser_version=1))


def import_file(tables: Tables, random: Random) -> None:
    lines = [CatalogLine(song, None, None, None, None, random.randrange(99)) for song in random.sample(SONGS, 3)]
    with connect(tables.database_url) as connection:
        account = connection.execute("insert into accounts (name) values ('a label') returning id").fetchone()
        assert account is not None
        songs.import_catalog(
            connection,
            lines,
            account=account["id"],
            name="a catalogue",
            as_of=FIRST + timedelta(random.randrange(20)),
            raw_ref="a file",
        )


def capture(tables: Tables, random: Random) -> None:
    moment = START + timedelta(hours=random.randrange(300))
    counts = {song: random.randrange(99) for song in random.sample(SONGS, 3)}
    with connect(tables.database_url) as connection:
        with connection.transaction():
            opened = captures.open_capture(connection, CaptureSpec(uuid4(), ("a",)), limits=capture_limits("1"))
        assert isinstance(opened, CaptureTicket)
        run = str(opened.snapshot)
        captures.claim(connection, opened.snapshot, run=run, operator=False, claim_timeout_seconds=600)
        row = apify_runs.record_intent(connection, opened.snapshot, 0, ["a"], cost_usd=USD_PER_ALBUM, run=run)
        apify_runs.record_start(connection, row, actor_run=run, status="SUCCEEDED")
        apify_runs.store_result(connection, row, b"[]")
        connection.execute("update apify_runs set kept_at = %s where id = %s", [moment, row])
        connection.execute("update playcount_snapshots set captured_at = %s where id = %s", [moment, opened.snapshot])
        counted = CaptureCounts(1, len(counts), counts, frozenset(), (), 0)
        apify_runs.store_measurements(connection, row, counted, snapshot=opened.snapshot, run=run)


WRITERS: list[Callable[[Tables, Random], None]] = [settle, import_file, capture]


def test_concurrent_writers_of_the_same_recordings_do_not_deadlock(tables: Tables):
    """A deadlock would raise. What they leave is I20."""
    tables.enqueue(SONGS)

    def write(number: int) -> None:
        random = Random(number)
        for place in range(12):
            WRITERS[(number + place) % len(WRITERS)](tables, random)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    with connect(tables.database_url) as connection:
        found = {one.invariant: one.breaches for one in audit(connection, max_attempts=99, at_rest=False)}
    assert found["I20"] == ()
    assert {row["song"] for row in tables.sql("select song from song_latest_counts")} == set(SONGS)
