"""Recordings and catalogues: repeated imports, and counts with restatements."""

from datetime import date
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from measurement_pipeline.postgres import songs
from measurement_pipeline.postgres.database import Connection
from measurement_pipeline.postgres.songs import CatalogLine
from measurement_pipeline_tests.postgres.conftest import Tables, isrcs

DAY = date(2026, 3, 1)


def a_line(isrc: str, **known: Any) -> CatalogLine:
    nothing = {"title": None, "artist": None, "album": None, "release_date": None, "play_count": None}
    return CatalogLine(isrc, **{**nothing, **known})


def load(
    tables: Tables,
    connection: Connection,
    *lines: CatalogLine,
    name: str = "c",
    as_of: date = DAY,
    account: UUID | None = None,
) -> UUID:
    account = account or UUID(int=7)
    tables.sql("insert into accounts (id) values (%s) on conflict do nothing", account)
    return songs.import_catalog(connection, lines, account=account, name=name, as_of=as_of, raw_ref="file.csv")


def counts(tables: Tables) -> list[tuple[str, str, int]]:
    rows = tables.sql(
        "select song, captured_at at time zone 'UTC' as day, value from song_measurements order by song, learnt_at"
    )
    return [(row["song"], row["day"].isoformat(), row["value"]) for row in rows]


def test_an_imported_catalogue_has_its_recordings_and_their_counts(tables: Tables, connection: Connection):
    one, other = isrcs(2)
    catalog = load(
        tables, connection,
        a_line(one, title="T", artist="A", album="L", release_date=date(2020, 1, 2), play_count=0), a_line(other),
    )  # fmt: skip
    rows = tables.sql("select isrc, name, artist, album, release_date from songs order by isrc")
    assert [tuple(row.values()) for row in rows] == [
        (one, "T", "A", "L", date(2020, 1, 2)),
        (other, None, None, None, None),
    ]
    assert {row["song"] for row in tables.sql("select song from catalog_songs where catalog = %s", catalog)} == {
        one,
        other,
    }
    assert counts(tables) == [(one, "2026-03-01T00:00:00", 0)], "a missing count is no measurement; 0 is one"
    (stored,) = tables.sql("select * from song_measurements")
    assert (stored["platform"], stored["metric"]) == ("spotify", "platform_displayed_play_count")
    assert (stored["data_source"], stored["raw_ref"]) == ("import", "file.csv")


def test_the_same_file_twice_adds_nothing(tables: Tables, connection: Connection):
    lines = [a_line(song, title=song, play_count=5) for song in isrcs(3)]
    first = load(tables, connection, *lines)
    before = tables.sql("select * from songs order by isrc"), counts(tables)
    assert load(tables, connection, *lines) == first
    assert (tables.sql("select * from songs order by isrc"), counts(tables)) == before


def test_empty_fields_of_a_later_file_keep_the_stored_values(tables: Tables, connection: Connection):
    (song,) = isrcs(1)
    load(tables, connection, a_line(song, title="Old", artist="A"))
    load(tables, connection, a_line(song, title="New"))
    assert tables.sql("select name, artist from songs") == [{"name": "New", "artist": "A"}]


def test_a_corrected_count_is_stored_beside_the_earlier_one(tables: Tables, connection: Connection):
    (song,) = isrcs(1)
    for count in (5, 7, 7, 5):
        load(tables, connection, a_line(song, play_count=count))
    load(tables, connection, a_line(song, play_count=9), as_of=date(2026, 4, 1))
    assert [value for _, _, value in counts(tables)] == [5, 7, 5, 9]


def test_a_catalogue_is_identified_by_account_and_name(tables: Tables, connection: Connection):
    mine, other = uuid4(), uuid4()
    created = [
        load(tables, connection, name=n, account=a) for a, n in ((mine, "c"), (mine, "d"), (other, "c"), (mine, "c"))
    ]
    assert created[0] == created[3]
    assert len(set(created)) == 3


def test_an_import_ranks_queued_rows_unless_a_measurement_exists(tables: Tables, connection: Connection):
    waiting, bought, done = isrcs(3)
    tables.enqueue([waiting, bought, done], ranks=[1, 1, 1])
    tables.sql("update songstats_backfill_queue set status = 'done', outcome = 'stored' where song = %s", done)
    tables.sql(
        "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
        " values (%s, 'spotify', 'platform_displayed_play_count', '2020-01-01', 'songstats', 3)",
        bought,
    )
    load(tables, connection, *(a_line(song, play_count=50) for song in (waiting, bought, done)))
    assert [tables.row(song)["rank_score"] for song in (waiting, bought, done)] == [50, 3, 1]


@pytest.mark.parametrize("bad", [a_line("not an isrc"), a_line("AA6Q72000000", play_count=-1)])
def test_an_import_that_fails_leaves_nothing_behind(tables: Tables, connection: Connection, bad: CatalogLine):
    with pytest.raises(psycopg.Error):
        load(tables, connection, a_line("AA6Q72000001", play_count=5), bad)
    assert tables.sql("select * from songs") == []
    assert tables.sql("select * from catalogs") == []
    load(tables, connection, a_line("AA6Q72000001", play_count=5))
    assert len(counts(tables)) == 1


def test_recordings_are_stored_once(tables: Tables, connection: Connection):
    songs.ensure(connection, isrcs(3))
    songs.ensure(connection, isrcs(4))
    assert len(tables.sql("select 1 from songs")) == 4


def test_identifiers_are_recorded_once(tables: Tables, connection: Connection):
    one, other = isrcs(2)
    songs.ensure(connection, [one, other])
    for _ in range(2):
        songs.store_identifiers(
            connection, [(one, "a"), (other, "a"), (one, "b")], platform="spotify", identifier_type="album_id"
        )
    assert len(tables.sql("select 1 from song_identifiers")) == 3


def test_bought_histories_are_read_with_restatements_resolved(tables: Tables, connection: Connection):
    most, less, imported = isrcs(3)
    songs.ensure(connection, [most, less, imported])
    for song, day, source, learnt, value in (
        (most, "2026-01-01", "songstats", "2026-02-01", 10), (most, "2026-01-02", "songstats", "2026-02-01", 99),
        (most, "2026-01-02", "songstats", "2026-02-02", 20), (less, "2026-01-05", "songstats", "2026-02-01", 15),
        (imported, "2026-01-01", "import", "2026-02-01", 500),
    ):  # fmt: skip
        tables.sql(
            "insert into song_measurements (song, platform, metric, captured_at, data_source, learnt_at, value)"
            " values (%s, 'spotify', 'platform_displayed_play_count', %s::timestamp at time zone 'UTC', %s, %s, %s)",
            song, day, source, learnt, value,
        )  # fmt: skip
    result = songs.list_most_played(connection, limit=5)
    assert [(row["isrc"], row["play_count"], row["points"]) for row in result] == [(most, 20, 3), (less, 15, 1)]
    assert [row["isrc"] for row in songs.list_most_played(connection, limit=1)] == [most]
    assert songs.get_series(connection, most) == {date(2026, 1, 1): 10, date(2026, 1, 2): 20}
    assert songs.count_points(connection) == 4


def test_a_series_has_utc_days_in_any_session_time_zone(tables: Tables, connection: Connection):
    (song,) = isrcs(1)
    tables.sql(
        "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
        " values (%s, 'spotify', 'platform_displayed_play_count', '2026-01-01T00:00Z', 'songstats', 1)",
        song,
    )
    connection.execute("set timezone to 'America/Los_Angeles'")
    assert songs.get_series(connection, song) == {date(2026, 1, 1): 1}
