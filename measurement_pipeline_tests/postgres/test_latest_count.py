"""Which count of a recording is its latest: every statement and view that uses the rule gives the same answer."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from measurement_pipeline.postgres import analytics, measurement_jobs, reads, songs
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline_tests.postgres.test_views import CAPTURE, FIRST, IMPORT, SONG, SONGSTATS, Archive, day

# (source, day, hour, count), in the order in which the counts were stored; and the latest count with its day and source.
CASES: dict[str, tuple[list[tuple[str, int, int, int]], tuple[int, int, str] | None]] = {
    "one count": ([(SONGSTATS, 0, 0, 10)], (10, 0, SONGSTATS)),
    "the newest day": ([(SONGSTATS, 0, 0, 10), (SONGSTATS, 9, 0, 20), (SONGSTATS, 5, 0, 30)], (20, 9, SONGSTATS)),
    "a day with a lower count": ([(SONGSTATS, 0, 0, 10), (SONGSTATS, 1, 0, 5)], (5, 1, SONGSTATS)),
    "the newest restatement": ([(SONGSTATS, 3, 0, 30), (SONGSTATS, 3, 0, 29)], (29, 3, SONGSTATS)),
    "a restatement of an older day": ([(SONGSTATS, 3, 0, 30), (SONGSTATS, 2, 0, 99)], (30, 3, SONGSTATS)),
    "a capture of the same moment": ([(CAPTURE, 3, 0, 24), (SONGSTATS, 3, 0, 30)], (24, 3, CAPTURE)),
    "a capture later on the day": ([(CAPTURE, 3, 15, 24), (SONGSTATS, 3, 0, 30)], (24, 3, CAPTURE)),
    "a history after a capture": ([(CAPTURE, 3, 15, 24), (SONGSTATS, 4, 0, 30)], (30, 4, SONGSTATS)),
    "two captures on a day": ([(CAPTURE, 3, 15, 24), (CAPTURE, 3, 9, 23)], (24, 3, CAPTURE)),
    "a newer import": ([(SONGSTATS, 0, 0, 10), (IMPORT, 9, 0, 5_000)], (10, 0, SONGSTATS)),
    "an import of the same moment": ([(SONGSTATS, 0, 0, 10), (IMPORT, 0, 0, 5_000)], (10, 0, SONGSTATS)),
    "imports only": ([(IMPORT, 3, 0, 500), (IMPORT, 2, 0, 900), (IMPORT, 3, 0, 501)], (501, 3, IMPORT)),
    "no count": ([], None),
}


@pytest.fixture
def archive(connection: Connection) -> Archive:
    return Archive(connection)


def answers(archive: Archive, catalog: UUID, account: UUID) -> dict[str, tuple[Any, Any, Any] | None]:
    """(count, day, source) of the recording from each user of the rule."""

    def row_of(statement: str, *parameters: object) -> tuple[Any, Any, Any] | None:
        rows = archive.sql(statement, *parameters)
        if not rows or next(iter(rows[0].values())) is None:
            return None
        count, at, source = rows[0].values()
        return count, at, source

    by_song = "where song = %s"
    (in_catalog,) = reads.latest_of_catalog(archive.connection, account=account, catalog=catalog, after=None, limit=10)
    (in_album,) = reads.latest_of_album(archive.connection, account=account, album="album")
    return {
        "latest_counts": row_of(
            f"select play_count, (captured_at at time zone 'UTC')::date, data_source from latest_counts {by_song}", SONG
        ),
        "latest_play_counts": row_of(
            f"select play_count, day, data_source from analytics.latest_play_counts {by_song}", SONG
        ),
        "catalog_play_counts": row_of(
            f"select play_count, day, data_source from analytics.catalog_play_counts {by_song}", SONG
        ),
        **{
            name: None
            if row["value"] is None
            else (row["value"], row["captured_at"].astimezone(None).date(), row["data_source"])
            for name, row in (("latest_of_catalog", in_catalog), ("latest_of_album", in_album))
        },
    }


def measured_answers(archive: Archive, catalog: UUID, account: UUID) -> dict[str, Any]:
    """The measured count from each user that excludes imports, or None."""
    connection = archive.connection
    (totals,) = archive.sql("select * from analytics.catalog_totals where catalog = %s", catalog)
    api_totals = reads.totals_of_catalog(connection, account=account, catalog=catalog)
    rates = archive.sql("select * from analytics.run_rates where song = %s", SONG)
    rated = reads.run_rate(connection, account=account, isrc=SONG, window_days=50)
    assert rated is not None
    _, rate = rated
    over_time = analytics.over_time(connection, catalog, steps=0, step_days=28)
    # An import far above every count: it is compared with the latest count before it.
    archive.hold([10**9], source=IMPORT, first=day(30))
    differences = archive.sql("select * from analytics.import_differences where song = %s", SONG)
    return {
        "catalog_totals": totals["play_count"] if totals["recordings_measured"] else None,
        "totals_of_catalog": int(api_totals["plays"]) if api_totals["measured"] else None,
        "over_time": over_time[0]["play_count"] if over_time else None,
        "run_rate of the API": rate and rate["last"] and rate["last"]["value"],
        "run_rates, day and source": {(row["window_ends"], row["data_source"]) for row in rates},
        "import_differences": differences[0]["measured_play_count"] if differences else None,
    }


@pytest.mark.parametrize("case", CASES)
def test_every_user_of_the_latest_count_gives_the_same_answer(archive: Archive, case: str):
    counts, expected = CASES[case]
    catalog = archive.catalog([SONG])
    (account,) = (row["account"] for row in archive.sql("select account from catalogs"))
    archive.sql("insert into song_identifiers values (%s, 'spotify', 'album_id', 'album')", SONG)
    for source, place, hour, count in counts:
        archive.hold([count], source=source, first=day(place), at=timedelta(hours=hour))
    latest = None if expected is None else (expected[0], FIRST + timedelta(days=expected[1]), expected[2])
    result = answers(archive, catalog, account)
    assert result == dict.fromkeys(result, latest)
    # Ranks: of a new row, and of a row that waits.
    rank = 0 if expected is None else expected[0]
    (job,) = archive.sql(
        "insert into measurement_jobs (account, source, scope, state) values (%s, 'historical', '{}', 'queued')"
        " returning id",
        account,
    )
    archive.sql("insert into measurement_job_songs (job, song) values (%s, %s)", job["id"], SONG)
    measurement_jobs.enqueue(archive.connection, job["id"])
    assert archive.sql("select rank_score from songstats_backfill_queue") == [{"rank_score": rank}]
    archive.sql("update songstats_backfill_queue set rank_score = 7, status = 'pending', outcome = null")
    archive.connection.execute(songs._SQL["refresh_ranks"], {"songs": [SONG]})  # noqa: SLF001 - the statement itself
    assert archive.sql("select rank_score from songstats_backfill_queue") == [{"rank_score": rank if counts else 7}]
    assert analytics.list_total_mismatches(archive.connection) == {}
    measured = None if expected is None or expected[2] == IMPORT else expected[0]
    result = measured_answers(archive, catalog, account)
    ends = result.pop("run_rates, day and source")
    assert ends == (set() if measured is None or latest is None else {latest[1:]})
    assert result == dict.fromkeys(result, measured)
