"""The analysts' views, on series with known answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.errors import InvalidTableDefinition

from measurement_pipeline.postgres import analytics, migrate, views
from measurement_pipeline.postgres.database import Connection, connect
from measurement_pipeline.postgres.migrate import SchemaOutOfDateError
from measurement_pipeline.sandbox import PLAIN, KnownRecording
from measurement_pipeline.sandbox.series import history
from measurement_pipeline_tests.workbench import Workbench, isrcs

FIRST = date(2025, 1, 1)
SONGSTATS, CAPTURE, IMPORT = "songstats", "apify_spotify_playcount", "import"
SONG, OTHER, THIRD = isrcs(3)


@dataclass
class Archive:
    """Recordings and their counts in the order of storage."""

    connection: Connection
    learnt: int = field(default=0)

    def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        rows = self.connection.execute(statement, parameters)  # type: ignore[call-overload]
        return list(rows) if rows.description else []

    def hold(
        self,
        counts: Sequence[int | None],
        *,
        song: str = SONG,
        source: str = SONGSTATS,
        first: date = FIRST,
        at: timedelta = timedelta(),
    ) -> datetime:
        """Store one count per day from `first` (None: no count); return when they were stored."""
        self.sql("insert into songs (isrc, name) values (%s, 'A title') on conflict do nothing", song)
        # Each batch was stored an hour after the one before.
        self.learnt += 1
        learnt_at = datetime(2026, 6, 1, tzinfo=UTC) + timedelta(hours=self.learnt)
        midnight = datetime.combine(first, datetime.min.time(), UTC)
        days = [midnight + timedelta(days=place) + at for place in range(len(counts))]
        self.sql(
            "insert into song_measurements (song, platform, metric, captured_at, data_source, learnt_at, value)"
            " select %s, 'spotify', 'platform_displayed_play_count', captured_at, %s, %s, value"
            " from unnest(%s::timestamptz[], %s::bigint[]) as point (captured_at, value) where value is not null",
            song, source, learnt_at, days, list(counts),
        )  # fmt: skip
        return learnt_at

    def catalog(self, songs: Sequence[str], name: str = "a catalogue") -> UUID:
        (account,) = self.sql("insert into accounts (name) values ('a label') returning id")
        (created,) = self.sql("insert into catalogs (account, name) values (%s, %s) returning id", account["id"], name)
        self.sql("insert into songs (isrc) select unnest(%s::text[]) on conflict do nothing", list(songs))
        self.sql("insert into catalog_songs select %s, unnest(%s::text[])", created["id"], list(songs))
        return UUID(str(created["id"]))

    def days(self, *columns: str, song: str = SONG) -> list[tuple[Any, ...]]:
        rows = self.sql("select * from analytics.daily_play_counts where song = %s order by day", song)
        return [tuple(row[column] for column in columns) for row in rows]

    def rate(self, window: int, song: str = SONG) -> dict[str, Any]:
        (row,) = self.sql("select * from analytics.run_rates where song = %s and window_days = %s", song, window)
        return row

    def latest(self, song: str = SONG) -> dict[str, Any]:
        (row,) = self.sql("select * from analytics.latest_play_counts where song = %s", song)
        return row


@pytest.fixture
def archive(connection: Connection) -> Archive:
    return Archive(connection)


def day(place: int) -> date:
    return FIRST + timedelta(days=place)


# --- the latest count


def test_the_latest_count_is_the_last_restatement_of_the_newest_day(archive: Archive):
    archive.hold([10, 20, 30])
    archive.hold([29], first=day(2))
    latest = archive.latest()
    assert (latest["play_count"], latest["day"], latest["data_source"]) == (29, day(2), SONGSTATS)


@pytest.mark.parametrize("at", [timedelta(), timedelta(hours=15)])
def test_the_displayed_count_of_a_day_is_the_latest(archive: Archive, at: timedelta):
    archive.hold([10, 20])
    archive.hold([24], source=CAPTURE, first=day(1), at=at)
    latest = archive.latest()
    assert (latest["play_count"], latest["data_source"]) == (24, CAPTURE)


def test_an_imported_count_is_the_latest_only_without_a_measurement(archive: Archive):
    archive.hold([10])
    archive.hold([5000], source=IMPORT, first=day(9))
    archive.hold([400, 500], source=IMPORT, song=OTHER)
    assert archive.latest()["data_source"] == SONGSTATS
    assert (archive.latest(OTHER)["play_count"], archive.latest(OTHER)["data_source"]) == (500, IMPORT)


# --- imported and measured counts


def differences(archive: Archive) -> list[tuple[Any, ...]]:
    rows = archive.sql("select * from analytics.import_differences order by song")
    return [
        (row["song"], row["imported_play_count"], row["measured_play_count"], row["measured_day"], row["difference"])
        for row in rows
    ]


def test_an_imported_count_is_listed_if_it_differs_from_the_measured_one_by_more_than_a_tenth(archive: Archive):
    archive.hold([291_000_000, 291_202_335], song=SONG)
    archive.hold([1_564_979_439], source=IMPORT, song=SONG, first=day(9))
    archive.hold([1_000], song=OTHER)
    archive.hold([1_100], source=IMPORT, song=OTHER)
    archive.hold([1_000], song=THIRD)
    archive.hold([899], source=IMPORT, song=THIRD)
    assert differences(archive) == [
        (SONG, 1_564_979_439, 291_202_335, day(1), 1_273_777_104),
        (THIRD, 899, 1_000, day(0), -101),
    ]


def test_an_imported_count_is_compared_with_the_measured_one_of_its_day(archive: Archive):
    archive.hold(growing(300, first=1_000, by=1_000))
    archive.hold([11_000], source=IMPORT, first=day(10))
    # Older than any measured count: it is compared with the first one after it if that is near.
    archive.hold([50], source=IMPORT, song=OTHER, first=day(-30))
    archive.hold([1_000, 2_000], song=OTHER)
    assert differences(archive) == [(OTHER, 50, 1_000, day(0), -950)]


@pytest.mark.parametrize(
    ("place", "imported", "is_contradiction"),
    [(-90, 50, False), (-90, 1_500, True), (90, 5_000, False), (90, 50, True), (-35, 50, True), (-36, 50, False)],
)
def test_counts_of_distant_days_differ_only_beyond_possible_growth(
    archive: Archive, place: int, imported: int, is_contradiction: bool
):
    archive.hold([imported], source=IMPORT, first=day(place))
    archive.hold([1_000])
    assert bool(differences(archive)) is is_contradiction


def test_a_recording_with_one_kind_of_count_has_no_difference(archive: Archive):
    archive.hold([5], source=IMPORT)
    archive.hold([5], song=OTHER)
    assert differences(archive) == []


# --- the daily series


def test_plays_of_a_day_are_the_difference_from_the_day_before(archive: Archive):
    archive.hold([100, 110, 125])
    assert archive.days("day", "play_count", "plays", "plays_filled") == [
        (day(0), 100, None, None),
        (day(1), 110, 10, 10),
        (day(2), 125, 15, 15),
    ]


def test_a_gap_is_filled_in_a_separate_column_with_the_same_sum(archive: Archive):
    archive.hold([100, None, None, 110, 111])
    assert archive.days("day", "play_count", "plays", "plays_filled", "is_gap_filled", "gap_days") == [
        (day(0), 100, None, None, False, 0),
        (day(1), None, None, 3, True, 2),
        (day(2), None, None, 3, True, 2),
        (day(3), 110, None, 4, False, 2),
        (day(4), 111, 1, 1, False, 0),
    ]


def test_a_fall_over_a_gap_keeps_its_sum(archive: Archive):
    archive.hold([100, None, None, 93])
    assert [filled for (filled,) in archive.days("plays_filled")][1:] == [-2, -2, -3]
    assert [result for (result,) in archive.days("is_negative")] == [False, True, True, True]


def test_a_fall_is_flagged_and_never_clamped(archive: Archive):
    archive.hold([100, 90, 95])
    assert archive.days("play_count", "plays", "is_negative") == [(100, None, False), (90, -10, True), (95, 5, False)]


def flagged(archive: Archive, flag: str) -> list[int]:
    """The positions of the days with the flag."""
    return [place for place, (is_flagged,) in enumerate(archive.days(flag)) if is_flagged]


def growing(days: int, *, first: int = 1_000, by: int = 100) -> list[int]:
    return [first + by * place for place in range(days)]


def test_a_jump_above_the_recordings_own_trend_is_flagged_and_never_clamped(archive: Archive):
    steady = growing(40)
    archive.hold([*steady, steady[-1] + 50_000, steady[-1] + 50_100])
    assert flagged(archive, "is_jump") == [40]
    assert archive.days("plays", "is_jump")[40] == (50_000, True)


def test_growth_after_a_release_is_not_a_jump(archive: Archive):
    """Two days of 0, a first day, and ten times as many plays on each of the next two."""
    plays = [0, 0, 3_069, 30_000, 300_000, *[400_000 - 5_000 * place for place in range(40)]]
    archive.hold(list(accumulate(plays)))
    assert flagged(archive, "is_jump") == []


def test_growth_after_a_release_is_not_a_jump_with_days_before_the_release(archive: Archive):
    archive.hold(list(accumulate([*[0] * 40, 3_069, 30_000, 300_000, *[400_000] * 20])))
    assert flagged(archive, "is_jump") == []


def test_lasting_growth_is_not_a_jump(archive: Archive):
    """Plays double every three days for a month: two hundred times the plays of a month before."""
    archive.hold(list(accumulate([1_000] * 30 + [int(1_000 * 2 ** (place / 3)) for place in range(30)])))
    assert flagged(archive, "is_jump") == []


def test_plays_counted_together_after_a_standstill_are_not_a_jump(archive: Archive):
    plays = [10_000] * 60
    plays[40:49], plays[49] = [0] * 9, 100_000
    # One day is counted within another standstill.
    plays[20:32], plays[26], plays[32] = [0] * 12, 10_000, 120_000
    archive.hold(list(accumulate(plays)))
    assert flagged(archive, "is_jump") == []


def test_a_jump_after_monthly_captures_is_flagged(archive: Archive):
    for month in range(6):
        count = 1_000_000 + 300_000 * month + (5_000_000 if month == 5 else 0)
        archive.hold([count], source=CAPTURE, first=day(30 * month))
    assert flagged(archive, "is_jump") == list(range(121, 151))


def test_a_few_plays_of_a_small_recording_are_not_a_jump(archive: Archive):
    archive.hold([*[5] * 40, 900])
    assert flagged(archive, "is_jump") == []


def test_a_lasting_new_level_is_a_jump_only_on_its_first_day(archive: Archive):
    archive.hold(list(accumulate([1_000] * 40 + [20_000] * 30)))
    assert flagged(archive, "is_jump") == [40]


def test_clean_series_are_not_flagged_and_planted_jumps_are(archive: Archive):
    """The sandbox's series without falls have standstills, decline and noise."""
    songs = isrcs(60)
    planted = {}
    for place, song in enumerate(songs):
        released = PLAIN.counted_on - timedelta(days=200)
        first, counts = history(
            song, KnownRecording(play_count=10**6 * (place + 1), release_date=released), PLAIN, PLAIN.counted_on
        )
        if place % 2:
            planted[song] = 60 + place
            jump = 12 * max(1_000, (counts[59 + place] - counts[31 + place]) // 28)
            counts = [count + jump * (at >= 60 + place) for at, count in enumerate(counts)]
        archive.hold(counts, song=song, first=first)
    result = {song: flagged_of(archive, song, "is_jump") for song in songs}
    assert sum(bool(result[song]) for song in songs if song not in planted) <= 1
    assert sum(planted[song] in result[song] for song in planted) >= 28


def flagged_of(archive: Archive, song: str, flag: str) -> list[int]:
    return [place for place, (is_flagged,) in enumerate(archive.days(flag, song=song)) if is_flagged]


def test_a_restated_day_shows_its_last_count_and_flags_both_its_steps(archive: Archive):
    archive.hold([100, 110, 120, 130])
    archive.hold([105], first=day(1))
    assert archive.days("play_count", "is_restated") == [(100, False), (105, True), (120, True), (130, False)]


def test_excluding_restated_days_excludes_the_false_spike_after_one(archive: Archive):
    """A day is restated far below its neighbours, which causes a fall and a spike."""
    steady = growing(60, first=10**6, by=10_000)
    archive.hold(steady)
    archive.hold([steady[40] - 520_000], first=day(40))
    plays = archive.days("plays", "is_restated")
    assert {played for played, is_restated in plays if not is_restated} == {None, 10_000}
    assert [played for played, is_restated in plays if is_restated] == [-510_000, 530_000]


def test_each_day_of_a_gap_before_a_restated_day_is_flagged_as_restated(archive: Archive):
    archive.hold([100, None, None, 110, 120])
    archive.hold([105], first=day(3))
    assert [result for (result,) in archive.days("is_restated")] == [False, True, True, True, True]


def test_the_return_after_a_fall_is_flagged_as_a_return_and_not_as_a_jump(archive: Archive):
    steady = growing(60, first=10**6, by=10_000)
    steady[40:43] = [count - 520_000 for count in steady[40:43]]
    archive.hold(steady)
    assert (flagged(archive, "is_negative"), flagged(archive, "is_rebound")) == ([40], [43])
    assert flagged(archive, "is_jump") == []
    assert archive.days("plays")[43] == (530_000,)


def test_days_after_a_lasting_fall_are_not_a_return(archive: Archive):
    steady = growing(60, first=10**6, by=10_000)
    archive.hold([*steady[:40], *(count - 35_000 for count in steady[40:])])
    assert flagged(archive, "is_negative") == [40]
    assert flagged(archive, "is_rebound") == []


def test_plays_of_a_standstill_after_a_fall_are_not_a_return(archive: Archive):
    steady = growing(80, first=10**6, by=10_000)
    fallen = [*steady[:40], *(count - 500_000 for count in steady[40:])]
    fallen[50:58] = [fallen[50]] * 8
    archive.hold(fallen)
    assert flagged(archive, "is_rebound") == []


def test_only_the_return_after_two_days_of_falls_is_flagged(archive: Archive):
    steady = growing(80, first=10**6, by=10_000)
    steady[40] -= 300_000
    steady[41] -= 500_000
    steady[42] -= 500_000
    steady[46:] = [count + 200_000 for count in steady[46:]]
    archive.hold(steady)
    assert (flagged(archive, "is_negative"), flagged(archive, "is_rebound")) == ([40, 41], [43])
    assert flagged(archive, "is_jump") == [46]


def test_a_step_between_two_sources_is_flagged_on_each_day_of_its_gap(archive: Archive):
    archive.hold([100, 110])
    archive.hold([160], source=CAPTURE, first=day(4))
    assert [result for (result,) in archive.days("is_source_changed")] == [False, False, True, True, True]


def test_the_displayed_count_outranks_another_source_of_the_day(archive: Archive):
    archive.hold([100, 110, 120])
    archive.hold([112], source=CAPTURE, first=day(1), at=timedelta(hours=9))
    archive.hold([114], source=CAPTURE, first=day(1), at=timedelta(hours=21))
    assert archive.days("play_count", "data_source", "also_from", "is_source_changed") == [
        (100, SONGSTATS, None, False),
        (114, CAPTURE, SONGSTATS, True),
        (120, SONGSTATS, None, True),
    ]


def test_a_series_excludes_imports(archive: Archive):
    archive.hold([100, 110])
    archive.hold([9_000_000], source=IMPORT, first=day(1))
    assert archive.days("play_count") == [(100,), (110,)]


def test_days_are_in_utc_in_any_session_time_zone(archive: Archive):
    archive.hold([100])
    archive.hold([104], source=CAPTURE, at=timedelta(hours=23, minutes=30))
    archive.sql("set timezone to 'Pacific/Auckland'")
    assert archive.days("day", "play_count") == [(FIRST, 104)]


# --- point in time


def test_counts_as_of_a_moment_exclude_later_restatements(archive: Archive):
    first = archive.hold([100, 110])
    second = archive.hold([105], first=day(1))

    def known(moment: datetime) -> list[int]:
        rows = archive.sql("select play_count from analytics.play_counts_as_of(%s) order by captured_at", moment)
        return [row["play_count"] for row in rows]

    assert known(first - timedelta(seconds=1)) == []
    assert known(first) == [100, 110]
    assert known(second - timedelta(seconds=1)) == [100, 110]
    assert known(second) == [100, 105]


def test_a_restatement_and_the_earlier_count_are_both_stored(archive: Archive):
    first = archive.hold([100])
    second = archive.hold([101])
    rows = archive.sql(
        "select play_count, learnt_at, superseded_at from analytics.play_count_points order by learnt_at"
    )
    assert [tuple(row.values()) for row in rows] == [(100, first, second), (101, second, None)]


# --- run rates


def test_a_covered_window_has_a_rate(archive: Archive):
    archive.hold([1000 + 10 * place for place in range(100)])
    rate = archive.rate(90)
    assert (rate["plays"], rate["days_covered"], rate["plays_a_year"], rate["why_none"]) == (900, 90, 3650, None)
    assert (rate["window_begins"], rate["window_ends"]) == (day(9), day(99))


def test_an_uncovered_window_has_a_reason_instead_of_a_rate(archive: Archive):
    archive.hold([1000 + 10 * place for place in range(100)])
    rate = archive.rate(365)
    assert (rate["plays"], rate["plays_a_year"], rate["days_covered"]) == (None, None, 99)
    assert rate["why_none"] == "the history begins on 2025-01-01"


def test_missing_days_within_a_window_do_not_change_its_rate(archive: Archive):
    archive.hold([1000, *[None] * 27, 1280])
    assert (archive.rate(28)["plays"], archive.rate(28)["days_covered"]) == (280, 28)


def test_a_first_day_between_two_counts_at_most_35_days_apart_is_interpolated(archive: Archive):
    archive.hold([1000, *[None] * 34, 1350])
    archive.hold([1000, *[None] * 35, 1350], song=OTHER)
    near, far = archive.rate(28), archive.rate(28, OTHER)
    assert (near["plays"], near["days_covered"], near["plays_a_year"]) == (280, 28, 3650)
    assert (near["is_interpolated"], near["interpolated_from"], near["interpolated_to"]) == (True, day(0), day(35))
    assert near["window_begins"] == day(7)
    assert (far["plays"], far["days_covered"], far["is_interpolated"]) == (None, 0, False)
    assert far["why_none"] == "no figure between 2025-01-01 and 2025-02-06"


def test_a_first_day_with_a_count_is_not_interpolated(archive: Archive):
    archive.hold([1000, 1001, *[None] * 27, 1350])
    rate = archive.rate(28)
    assert (rate["plays"], rate["is_interpolated"], rate["interpolated_from"]) == (349, False, None)


def test_windows_stay_covered_by_captures_after_a_bought_history(archive: Archive):
    a_day = 100
    archive.hold([a_day * place for place in range(400)])
    catalog = archive.catalog([SONG])
    for capture in range(1, 7):
        at = 399 + 30 * capture
        archive.hold([a_day * at], source=CAPTURE, first=day(at), at=timedelta(hours=14))
        rates = {window: archive.rate(window) for window in (28, 90, 365)}
        assert {window: rate["plays"] for window, rate in rates.items()} == {
            window: a_day * window for window in rates
        }, capture
        # A window that begins in the bought history compares two ways of counting.
        begins_in_history = {window: at - window < 399 + 30 for window in rates}
        assert {window: rate["is_source_changed"] for window, rate in rates.items()} == begins_in_history, capture
        (total,) = archive.sql("select * from analytics.catalog_totals where catalog = %s", catalog)
        assert (total["cohort_windows"], total["cohort_recordings"]) == ([365, 90, 28], 1), capture


def test_one_late_capture_uncovers_only_the_short_window_with_a_reason(archive: Archive):
    archive.hold([100 * place for place in range(400)])
    archive.hold([100 * 469], source=CAPTURE, first=day(469), at=timedelta(hours=14))
    assert [archive.rate(window)["plays"] for window in (28, 90, 365)] == [None, 9_000, 36_500]
    assert archive.rate(28)["why_none"] == f"no figure between {day(399)} and {day(469)}"


def test_a_negative_rate_is_shown_and_flagged(archive: Archive):
    archive.hold([1000 - place for place in range(29)])
    assert (archive.rate(28)["plays"], archive.rate(28)["is_negative"]) == (-28, True)


def test_a_rate_names_the_sources_of_both_its_ends(archive: Archive):
    archive.hold(list(range(0, 290, 10)))
    archive.hold([300], source=CAPTURE, first=day(28), at=timedelta(hours=12))
    rate = archive.rate(28)
    assert (rate["begins_data_source"], rate["data_source"], rate["is_source_changed"]) == (SONGSTATS, CAPTURE, True)


# --- catalogues


def test_a_recording_without_a_count_has_a_row_and_is_counted_as_excluded(archive: Archive):
    archive.hold([100 + place for place in range(29)])
    archive.hold([7000], song=OTHER, source=IMPORT)
    catalog = archive.catalog([SONG, OTHER, THIRD])
    archive.sql("insert into songstats_backfill_queue (song, status, outcome) values (%s, 'done', 'no_history')", THIRD)
    rows = archive.sql("select * from analytics.catalog_play_counts where catalog = %s order by song", catalog)
    assert [(row["play_count"], row["is_measured"], row["status"]) for row in rows] == [
        (128, True, "measured"),
        (7000, False, "never asked for"),
        (None, False, "no history"),
    ]
    (total,) = archive.sql("select * from analytics.catalog_totals where catalog = %s", catalog)
    assert (total["recordings"], total["recordings_measured"], total["recordings_not_measured"]) == (3, 1, 2)
    assert (total["play_count"], total["imported_play_count"]) == (128, 7000)
    assert (total["plays_28_days"], total["recordings_28_days"]) == (28, 1)
    assert (total["plays_365_days"], total["plays_a_year_365_days"], total["recordings_365_days"]) == (None, None, 0)


def test_each_figure_of_a_total_is_correct(archive: Archive):
    archive.hold([100 + 10 * place for place in range(400)])
    archive.hold([100 + place for place in range(120)], song=OTHER, first=day(200))
    archive.hold([5 + 2 * place for place in range(40)], song=THIRD, first=day(350))
    catalog = archive.catalog([SONG, OTHER, THIRD])
    (total,) = archive.sql("select * from analytics.catalog_totals where catalog = %s", catalog)
    assert total["play_count"] == 4090 + 219 + 83
    assert (total["oldest_day"], total["newest_day"]) == (day(319), day(399))
    assert (total["plays_28_days"], total["plays_a_year_28_days"], total["recordings_28_days"]) == (364, 4745, 3)
    assert (total["plays_90_days"], total["plays_a_year_90_days"], total["recordings_90_days"]) == (990, 4015, 2)
    assert (total["plays_365_days"], total["plays_a_year_365_days"], total["recordings_365_days"]) == (3650, 3650, 1)
    assert total["account"] == archive.sql("select account from catalogs where id = %s", catalog)[0]["account"]
    # Relative to today, so it varies with the day of the test.
    ended = sum(last < datetime.now(UTC).date() - timedelta(days=35) for last in (day(399), day(319), day(389)))
    assert total["recordings_ended"] == ended


def members(archive: Archive, catalog: UUID) -> dict[str, str | None]:
    """Why each recording is not in the catalogue's cohort, or None."""
    rows = archive.sql("select * from analytics.catalog_run_rates where catalog = %s", catalog)
    assert {row["is_in_cohort"] for row in rows if row["why_not_in_cohort"] is None} <= {True}
    return {row["song"]: row["why_not_in_cohort"] for row in rows}


def total_of(archive: Archive, catalog: UUID) -> dict[str, Any]:
    (total,) = archive.sql("select * from analytics.catalog_totals where catalog = %s", catalog)
    return total


WINDOWS = (28, 90, 365)


def test_all_windows_are_compared_on_the_same_recordings(archive: Archive):
    # Fades: 300 plays a day, in the last 28 days 100. Two younger recordings make the short windows look like growth.
    fading = [300 * place for place in range(372)]
    archive.hold([*fading, *(fading[-1] + 100 * place for place in range(1, 29))])
    archive.hold([1_000 * place for place in range(100)], song=OTHER, first=day(300))
    archive.hold([2_000 * place for place in range(40)], song=THIRD, first=day(360))
    catalog = archive.catalog([SONG, OTHER, THIRD, "AA6Q72000099"])
    total = total_of(archive, catalog)
    assert [total[f"recordings_{days}_days"] for days in WINDOWS] == [3, 2, 1]
    by_all = [total[f"plays_a_year_{days}_days"] for days in WINDOWS]
    assert by_all == sorted(by_all, reverse=True), "of different recordings: it looks like growth"
    of_cohort = [total[f"cohort_plays_a_year_{days}_days"] for days in WINDOWS]
    assert of_cohort == [36_500, round((28 * 100 + 62 * 300) * 365 / 90), 28 * 100 + 337 * 300]
    assert (total["cohort_windows"], total["cohort_recordings"]) == ([365, 90, 28], 1)
    assert total["cohort_play_count"] == 300 * 371 + 2_800
    assert members(archive, catalog) == {
        SONG: None,
        OTHER: "does not cover 365 days",
        THIRD: "does not cover 90, 365 days",
        "AA6Q72000099": "not measured",
    }


def test_a_recording_without_recent_counts_is_not_in_the_cohort(archive: Archive):
    archive.hold([10 * place for place in range(400)])
    archive.hold([10 * place for place in range(365)], song=OTHER, first=day(0))
    archive.hold([10 * place for place in range(366)], song=THIRD, first=day(-2))
    catalog = archive.catalog([SONG, OTHER, THIRD])
    assert (
        members(archive, catalog)[THIRD]
        == f"the last figure, of {day(363)}, is more than 35 days older than the newest"
    )
    total = total_of(archive, catalog)
    assert (total["recordings_not_current"], total["cohort_recordings"]) == (1, 1)
    assert (total["recordings_28_days"], total["cohort_plays_28_days"]) == (3, 280)
    assert members(archive, catalog)[OTHER] == "does not cover 365 days"
    assert total["cohort_oldest_day"] == day(399)


@pytest.mark.parametrize(
    ("gap", "count", "windows"),
    [
        # One capture, long after the bought history.
        (69, 400, [365, 90]),
        (1, 200, [90, 28]),
        (1, 50, [28]),
        (1, 10, None),
    ],
)
def test_without_full_coverage_the_cohort_names_its_windows(
    archive: Archive, gap: int, count: int, windows: list[int] | None
):
    for song in (SONG, OTHER):
        archive.hold([10 * place for place in range(count)], song=song)
        at = count - 1 + gap
        archive.hold([10 * at], song=song, source=CAPTURE, first=day(at), at=timedelta(hours=9))
    catalog = archive.catalog([SONG, OTHER])
    total = total_of(archive, catalog)
    covered = windows or []
    assert (total["cohort_windows"], total["cohort_recordings"]) == (windows, 2 if windows else 0)
    assert {days: total[f"cohort_plays_{days}_days"] for days in WINDOWS} == {
        days: 20 * days if days in covered else None for days in WINDOWS
    }
    if windows is None:
        assert set(members(archive, catalog).values()) == {"does not cover 28, 90, 365 days"}


def test_the_cohort_prefers_recordings_with_longer_windows(archive: Archive):
    archive.hold([10 * place for place in range(100)], first=day(300))
    archive.hold([*(10 * place for place in range(320)), *[None] * 79, 3_990], song=OTHER)
    catalog = archive.catalog([SONG, OTHER])
    total = total_of(archive, catalog)
    assert members(archive, catalog) == {SONG: "does not cover 365 days", OTHER: None}
    assert (total["cohort_windows"], total["cohort_recordings"]) == ([365, 90], 1)
    assert [total[f"cohort_plays_{days}_days"] for days in WINDOWS] == [None, 900, 3_650]
    assert [total[f"recordings_{days}_days"] for days in WINDOWS] == [1, 2, 1]


def test_a_future_count_does_not_change_the_cohort_of_the_others(archive: Archive):
    third = "AA6Q72099999"
    for song in (SONG, OTHER, third):
        archive.hold([10 * place for place in range(400)], song=song)
    catalog = archive.catalog([SONG, OTHER, third])
    before = total_of(archive, catalog)
    ahead = archive.sql("select ((now() at time zone 'UTC')::date + 40) as day")[0]["day"]
    archive.hold([10_000], song=third, source=CAPTURE, first=ahead)
    after = total_of(archive, catalog)
    assert (before["cohort_recordings"], after["cohort_recordings"]) == (3, 2)
    assert after["cohort_windows"] == [365, 90, 28]
    assert after["cohort_plays_a_year_365_days"] == 7_300
    assert members(archive, catalog) == {
        SONG: None, OTHER: None, third: f"the last figure, of {ahead}, is of a day to come",
    }  # fmt: skip


def test_a_cohort_counts_its_interpolated_and_two_source_recordings(archive: Archive):
    for song in (SONG, OTHER):
        archive.hold([10 * place for place in range(400)], song=song)
    archive.hold([10 * 429], song=OTHER, source=CAPTURE, first=day(429))
    archive.hold([10 * 429], song=SONG, first=day(429))
    total = total_of(archive, archive.catalog([SONG, OTHER]))
    assert (total["cohort_recordings"], total["cohort_interpolated"], total["cohort_source_changed"]) == (2, 2, 1)


def test_the_cohort_line_is_straight_if_recordings_are_captured_on_different_days(archive: Archive):
    # Each has 100 plays a day: a bought history, then one capture each, on different days.
    for song, captured_on in ((SONG, 405), (OTHER, 430)):
        archive.hold([100 * place for place in range(400)], song=song)
        archive.hold([100 * captured_on], song=song, source=CAPTURE, first=day(captured_on))
    catalog = archive.catalog([SONG, OTHER])
    line = {row["day"]: row for row in analytics.over_time(archive.connection, catalog, steps=15, step_days=28)}
    paths = {at: row["cohort_play_count"] for at, row in line.items() if row["cohort_play_count"] is not None}
    # 430 is after the last count of one of the two, 402 is between two counts of each.
    assert paths == {day(place): 200 * place for place in range(10, 403, 28)}
    assert line[day(430)]["play_count"] == 100 * (405 + 430)


def test_one_absurd_count_does_not_hide_the_other_recordings(archive: Archive):
    most = 2**63 - 1
    archive.hold([0, None, None, most], song=OTHER)
    archive.hold([0, *[None] * 27, most], song=THIRD)
    archive.hold([most], source=IMPORT, song="AA6Q72000099")
    archive.hold([most], source=IMPORT, song="AA6Q72000098")
    archive.hold([10 * place for place in range(40)])
    absurd = archive.catalog([OTHER, THIRD, "AA6Q72000099", "AA6Q72000098"], "absurd")
    sound = archive.catalog([SONG], "sound")
    totals = {row["catalog"]: row for row in archive.sql("select * from analytics.catalog_totals")}
    assert (totals[absurd]["play_count"], totals[absurd]["imported_play_count"]) == (None, None)
    assert (totals[sound]["play_count"], totals[sound]["plays_28_days"]) == (390, 280)
    rates = {
        (row["song"], row["window_days"]): row["plays_a_year"]
        for row in archive.sql("select * from analytics.run_rates")
    }
    assert (rates[THIRD, 28], rates[SONG, 28]) == (None, 3650)
    filled = archive.sql("select sum(plays_filled) as sum from analytics.daily_play_counts where song = %s", OTHER)
    assert filled[0]["sum"] == most
    assert "absurd" in "".join(analytics.list_total_mismatches(archive.connection).values())
    assert list(analytics.list_total_mismatches(archive.connection)) == [absurd]


@pytest.mark.parametrize(
    ("queued", "status"),
    [
        (("pending", None), "to be bought"),
        (("failed", "malformed"), "failed: malformed"),
        (("done", "rejected"), "rejected by the vendor"),
    ],
)
def test_a_recording_without_a_count_has_a_reason(archive: Archive, queued: tuple[str, str | None], status: str):
    archive.catalog([SONG])
    archive.sql("insert into songstats_backfill_queue (song, status, outcome) values (%s, %s, %s)", SONG, *queued)
    assert archive.sql("select status from analytics.catalog_play_counts") == [{"status": status}]


def test_a_catalogue_without_measurements_has_an_empty_total(archive: Archive):
    catalog = archive.catalog([SONG])
    (total,) = archive.sql("select * from analytics.catalog_totals where catalog = %s", catalog)
    assert (total["play_count"], total["recordings_not_measured"], total["newest_day"]) == (0, 1, None)


# --- coverage, progress, spend


def test_coverage_counts_present_and_expected_days(archive: Archive):
    archive.hold([100, None, 110])
    archive.hold([111], first=day(2))
    archive.hold([113], source=CAPTURE, first=day(2), at=timedelta(hours=9))
    archive.catalog([OTHER])
    (known,) = archive.sql("select * from analytics.measurement_coverage where song = %s", SONG)
    assert (known["first_day"], known["last_day"]) == (day(0), day(2))
    assert (known["days_expected"], known["days_present"], known["days_missing"]) == (3, 2, 1)
    assert (known["restatements"], known["captures"], known["outcome"]) == (1, 1, "never asked for")
    (unknown,) = archive.sql("select * from analytics.measurement_coverage where song = %s", OTHER)
    assert (unknown["first_day"], unknown["days_expected"], unknown["days_missing"]) == (None, 0, 0)


def test_progress_and_spend_sum_up_a_backfill(bench: Workbench):
    requested = isrcs(4)
    bench.sandbox.faults("/enterprise/v1/tracks/historic_stats", isrc=requested[1], status=404)
    bench.submit_request(requested[:3])
    bench.run_backfill(requested[:2])
    with connect(bench.database_url) as connection:
        catalog = Archive(connection).catalog(requested)
    parts = ("stored", "no_history", "rejected", "failed", "still_open", "never_queued")
    progress = {row["kind"]: row for row in bench.sql("select * from analytics.backfill_progress")}
    assert [progress["job"][part] for part in parts] == [1, 1, 0, 0, 1, 0]
    assert [progress["catalog"][part] for part in parts] == [1, 1, 0, 0, 1, 1]
    assert progress["catalog"]["id"] == catalog
    for row in progress.values():
        assert row["recordings"] == sum(row[part] for part in parts)
    spent = bench.sql("select cause, account, calls, hits from analytics.spend order by cause")
    assert [tuple(row.values()) for row in spent] == [
        ("no history", bench.account, 1, 1),
        ("stored", bench.account, 1, 1),
    ]
    (bought,) = bench.sql("select * from analytics.measurement_coverage where song = %s", requested[0])
    assert (bought["hits"], bought["outcome"], bought["last_status_code"]) == (1, "stored", 200)
    assert bought["last_lookup_at"] is not None


def test_spend_includes_captures(archive: Archive):
    (account,) = archive.sql("insert into accounts (name) values ('a label') returning id")
    (capture,) = archive.sql(
        "insert into playcount_snapshots (account, album_ids, albums_digest, platforms, schedule, album_count,"
        " estimated_cost_usd) values (%s, '{a}', '\\x00', '{spotify}', 'once', 1, 0.003) returning id",
        account["id"],
    )
    archive.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, status)"
        " values (%s, 0, '{a}', 0.003, 'run-1', 'SUCCEEDED')",
        capture["id"],
    )
    archive.sql(
        "insert into apify_runs (snapshot, chunk, album_ids, cost_usd, run_id, status)"
        " values (%s, 1, '{a}', 0.003, 'run-1', 'NOT-STARTED')",
        capture["id"],
    )
    spent = archive.sql("select vendor, cause, calls, hits, cost_usd::float from analytics.spend order by cause")
    assert [tuple(row.values()) for row in spent] == [
        ("apify", "not-started", 1, 0, 0.0),
        ("apify", "succeeded", 1, 0, 0.003),
    ]


def test_an_unbilled_hit_is_a_call_and_not_a_hit(bench: Workbench):
    (song,) = isrcs(1)
    bench.sandbox.faults("/enterprise/v1/tracks/historic_stats", isrc=song, status=429, count=1)
    bench.submit_request([song])
    bench.run_backfill([song])
    spent = bench.sql("select cause, calls, hits from analytics.spend")
    assert [(row["calls"], row["hits"]) for row in spent if row["cause"] == "throttled"] == [(1, 0)]
    (covered,) = bench.sql("select hits from analytics.measurement_coverage where song = %s", song)
    assert covered["hits"] == sum(row["hits"] for row in spent)


# --- inputs of the checks


def captured(archive: Archive, counts: dict[str, tuple[int, int]]) -> None:
    """Recordings with these two counts on one day, from history and capture."""
    (account,) = archive.sql("insert into accounts (name) values ('a label') returning id")
    (capture,) = archive.sql(
        "insert into playcount_snapshots (account, album_ids, albums_digest, platforms, schedule, album_count,"
        " estimated_cost_usd, state) values (%s, '{a}', '\\x00', '{spotify}', 'once', 1, 0.003, 'done') returning id",
        account["id"],
    )
    for song, (bought, displayed) in counts.items():
        archive.hold([bought], song=song)
        archive.hold([displayed], song=song, source=CAPTURE, at=timedelta(hours=9))
    archive.sql("update song_measurements set snapshot = %s where data_source = %s", capture["id"], CAPTURE)


def test_one_large_difference_is_found_among_a_hundred_small_recordings(archive: Archive):
    tiny = dict.fromkeys([f"AA6Q721{place:05}" for place in range(110)], (100, 300))
    captured(archive, {**tiny, SONG: (10_000_000, 5_000_000)})
    looked_at, apart = analytics.compare_sources(archive.connection, share=0.1, plays=1_000)
    assert (looked_at, [one.song for one in apart]) == (111, [SONG])


def test_weeks_between_captures_are_not_a_gap_and_weeks_in_a_history_are(archive: Archive):
    captured(archive, {SONG: (100, 110), OTHER: (100, 110)})
    archive.hold([200], source=CAPTURE, first=day(30), at=timedelta(hours=9))
    archive.hold([200], song=OTHER, first=day(30))
    result = {series.song: series.days_missing for series in analytics.list_recent_series(archive.connection)}
    assert result == {SONG: 0, OTHER: 29}


# --- contract


def test_every_view_column_documents_meaning_unit_and_source(connection: Connection):
    rows = connection.execute("select * from analytics.data_dictionary").fetchall()
    functions = {"play_counts_as_of(moment timestamp with time zone)"} | {
        f"{name}(recording text, moment timestamp with time zone)"
        for name in ("latest_count_before", "first_count_since")
    }
    assert {row["view_name"] for row in rows} == {*views.VIEWS, "measured_counts", *functions}
    for row in rows:
        assert all(row.values()), row
        assert "|" not in row["meaning"] + row["unit"] + row["source"], row


def test_every_file_of_a_view_is_applied():
    files = {path.stem for path in (Path(str(views.__file__)).parent / "views").glob("*.sql")}
    assert files == set(views.NAMES)


def test_a_view_never_loses_a_column_silently(connection: Connection):
    with pytest.raises(InvalidTableDefinition, match="cannot drop columns from view"):
        connection.execute("create or replace view analytics.spend as select day, account from analytics.spend")


def test_views_of_another_version_are_rejected_and_replaced(database_url: str, connection: Connection):
    connection.execute("comment on view analytics.data_dictionary is 'Views of version 000000000000'")
    with pytest.raises(SchemaOutOfDateError, match=r"the analysts' views .* run `measurement-pipeline db upgrade`"):
        migrate.require_current(database_url, kind="sandbox")
    migrate.upgrade(database_url, kind="sandbox")
    migrate.require_current(database_url, kind="sandbox")
    assert views.stamped(connection) == views.version()


def test_the_next_upgrade_restores_a_missing_view(database_url: str, connection: Connection):
    connection.execute("drop view analytics.spend")
    assert views.stamped(connection) is None
    with pytest.raises(SchemaOutOfDateError, match="run `measurement-pipeline db upgrade`"):
        migrate.require_current(database_url, kind="sandbox")
    migrate.upgrade(database_url, kind="sandbox")
    migrate.require_current(database_url, kind="sandbox")
    assert connection.execute("select * from analytics.spend").fetchall() == []


@pytest.mark.parametrize(
    "question",
    [
        "select * from analytics.daily_play_counts where song = 'AA6Q72000001'",
        "select * from analytics.latest_play_counts where song = 'AA6Q72000001'",
        "select * from analytics.run_rates where song = 'AA6Q72000001'",
        "select * from analytics.play_counts_as_of(now()) where song = 'AA6Q72000001'",
        "select * from analytics.catalog_totals where catalog = '00000000-0000-4000-8000-000000000000'",
        "select d.* from analytics.daily_play_counts as d inner join catalog_songs as c using (song)",
    ],
)
def test_a_query_about_few_recordings_reads_only_their_rows(archive: Archive, question: str):
    archive.sql("insert into songs (isrc) select 'AA6Q72' || lpad(i::text, 6, '0') from generate_series(1, 5000) as i")
    archive.sql(
        "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
        " select isrc, 'spotify', 'platform_displayed_play_count', '2026-01-01Z'::timestamptz + make_interval(days => i),"
        " 'songstats', i from songs, generate_series(1, 10) as i"
    )
    archive.sql("analyze songs, song_measurements, catalog_songs, catalogs")
    plan = "\n".join(row["QUERY PLAN"] for row in archive.sql("explain " + question))
    assert "Seq Scan on song_measurements" not in plan
    assert "Seq Scan on songs" not in plan
    assert "Index" in plan


def test_an_unknown_recording_has_no_count(archive: Archive):
    assert archive.sql("select * from analytics.latest_play_counts where song = %s", str(uuid4())) == []


def test_a_series_is_streamed_by_a_server_side_cursor(archive: Archive):
    archive.hold([100, 110, 120])
    catalog = archive.catalog([SONG])
    with analytics.single_snapshot(archive.connection):
        for batch in analytics.stream(archive.connection, "daily_play_counts", catalog):
            assert len(batch) == 3
            assert len(archive.sql("select name from pg_cursors where name like 'export_%%'")) == 1
