"""A catalogue as a page and as files."""

import csv
import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pyarrow import parquet

from measurement_pipeline.postgres import analytics
from measurement_pipeline_tests.cli.conftest import Run
from measurement_pipeline_tests.workbench import Workbench, isrcs

SONGS = isrcs(3)


@pytest.fixture
def owned(bench: Workbench) -> Workbench:
    """A catalogue of three recordings, two of them bought."""
    bench.submit_request(SONGS[:2])
    bench.run_backfill(SONGS[:2])
    bench.sql("insert into songs (isrc) select unnest(%s::text[]) on conflict do nothing", SONGS)
    bench.sql("update songs set name = '<script>alert(1)</script>' where isrc = %s", SONGS[0])
    bench.sql("insert into accounts (id) values (%s) on conflict do nothing", bench.account)
    bench.sql("insert into catalogs (account, name) values (%s, 'The back catalogue')", bench.account)
    bench.sql("insert into catalog_songs select id, unnest(%s::text[]) from catalogs", SONGS)
    return bench


class Links(HTMLParser):
    """Collects the URLs that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "xlink:href", "srcset"}]


def test_a_report_is_complete_and_self_contained(owned: Workbench, run: Run, tmp_path: Path):
    path = tmp_path / "page.html"
    result = run("report", "--catalog", "The back catalogue", "--out", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("2 of 3 recordings measured\n")
    page = path.read_text(encoding="utf-8")
    (total,) = owned.sql("select * from analytics.catalog_totals")
    assert f"{total['play_count']:,}" in page
    assert "do not include 1 recording that was not measured" in page
    assert "never asked for" in page
    assert "Every figure on this page is invented" in page or "every figure on this page is invented" in page
    assert f"{2 * 0.0833:.2f}" in page
    for heading in ("Over time", "Run rates", "Recordings", "Coverage", "Spend", "Data quality"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg") == 3
    assert "prefers-color-scheme: dark" in page
    links = Links()
    links.feed(page)
    assert links.found == []
    assert not {"script", "link", "img", "iframe"} & links.tags
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"url\(|@import", page)


def play_counts(bench: Workbench, song: str, counts: Sequence[int], *, ends: date) -> None:
    """One measured count a day, the last of them on `ends`."""
    bench.sql("insert into songs (isrc) values (%s)", song)
    bench.sql(
        "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
        " select %s, 'spotify', 'platform_displayed_play_count', (%s::date - %s::int + place::int)::timestamp at time zone 'UTC',"
        " 'songstats', counted from unnest(%s::bigint[]) with ordinality as listed (counted, place)",
        song, ends, len(counts), list(counts),
    )  # fmt: skip


def listed_in(bench: Workbench, songs: Sequence[str], name: str) -> None:
    bench.sql("insert into accounts (id) values (%s)", bench.account)
    bench.sql("insert into catalogs (account, name) values (%s, %s)", bench.account, name)
    bench.sql("insert into catalog_songs select id, unnest(%s::text[]) from catalogs", songs)


def text_of(path: Path) -> str:
    """A page's text without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", path.read_text(encoding="utf-8")))


def test_a_report_compares_windows_over_the_same_recordings(bench: Workbench, run: Run, tmp_path: Path):
    today = datetime.now(UTC).date()
    fades = [1_000 * place for place in range(373)]
    play_counts(bench, SONGS[0], [*fades, *(fades[-1] + 100 * place for place in range(1, 29))], ends=today)
    play_counts(bench, SONGS[1], [5_000 * place for place in range(40)], ends=today)
    play_counts(bench, SONGS[2], [10 * place for place in range(400)], ends=today - timedelta(days=36))
    listed_in(bench, SONGS, "fading")
    path = tmp_path / "page.html"
    assert run("report", "--catalog", "fading", "--out", path).exit_code == 0
    page = text_of(path)
    cohort = "1 recording of 3 measured with counts for the last 28, 90 and 365 days."
    assert cohort in page
    assert f"28 days 2,800 {2_800 * 365 // 28:,} {(2_800 + 28 * 5_000 + 280) * 365 // 28:,} 3" in page
    assert f"365 days {339_800:,} {339_800:,} {339_800 + 3_650:,} 2" in page
    assert "The last count of 1 recording is more than 35 days older than the newest" in page
    assert "the same 1 recording on every day (cohort)" in page
    assert "1 on the first, 3 on the last" in page


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (
            100,
            "This cohort covers 28 and 90 days",
        ),
        (20, "There is no cohort"),
    ],
)
def test_a_report_states_that_no_recording_covers_all_windows(
    bench: Workbench, run: Run, tmp_path: Path, count: int, text: str
):
    play_counts(bench, SONGS[0], [10 * place for place in range(count)], ends=datetime.now(UTC).date())
    listed_in(bench, SONGS[:1], "young")
    path = tmp_path / "page.html"
    assert run("report", "--catalog", "young", "--out", path).exit_code == 0
    assert text in text_of(path)


def test_a_report_without_measurements_states_that(bench: Workbench, run: Run, tmp_path: Path):
    bench.sql("insert into songs (isrc) select unnest(%s::text[])", SONGS)
    bench.sql("insert into accounts (id) values (%s)", bench.account)
    bench.sql("insert into catalogs (account, name) values (%s, 'new')", bench.account)
    bench.sql("insert into catalog_songs select id, unnest(%s::text[]) from catalogs", SONGS)
    path = tmp_path / "page.html"
    assert run("report", "--catalog", "new", "--out", path).exit_code == 0
    page = path.read_text(encoding="utf-8")
    assert "There is no count yet." in page
    assert "too few days for a line" in page


def test_an_unknown_catalogue_is_an_error_with_its_name(run: Run, tmp_path: Path):
    for command in ("report", "export"):
        result = run(command, "--catalog", "unknown", "--out", tmp_path / "x")
        assert result.exit_code == 1
        assert "no catalogue 'unknown'" in result.stderr
    assert list(tmp_path.glob("x*")) == []


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_export_equals_the_views_and_includes_a_dictionary(owned: Workbench, run: Run, tmp_path: Path, form: str):
    result = run("export", "--catalog", "The back catalogue", "--format", form, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    rows = {Path(path).name: count for path, count in json.loads(result.stdout).items()}
    series = owned.sql("select * from analytics.daily_play_counts order by song, day")
    assert rows[f"daily_play_counts.{form}"] == len(series)
    assert rows[f"catalog_play_counts.{form}"] == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(rows)
    if form == "parquet":
        table = parquet.read_table(tmp_path / "out" / "daily_play_counts.parquet")
        actual = table.to_pylist()
        assert actual == series
        assert table.schema.field("plays").metadata[b"unit"] == b"plays"
    else:
        with (tmp_path / "out" / "daily_play_counts.csv").open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        assert [(line["song"], line["day"], line["play_count"], line["captured_at"]) for line in lines] == [
            (row["song"], str(row["day"]), str(row["play_count"]), f"{row['day']}T00:00:00Z") for row in series
        ]
    with (tmp_path / "out" / "data_dictionary.csv").open(encoding="utf-8", newline="") as file:
        described = {(line["view_name"], line["column_name"]) for line in csv.DictReader(file)}
    assert {column for view, column in described if view == "daily_play_counts"} == set(series[0])


def test_a_large_export_is_written_in_batches(
    owned: Workbench, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(analytics, "ROWS_AT_ONCE", 100)
    assert run("export", "--catalog", "The back catalogue", "--out", tmp_path).exit_code == 0
    file = parquet.ParquetFile(tmp_path / "daily_play_counts.parquet")
    (rows,) = owned.sql("select count(*) as n from analytics.daily_play_counts")
    assert file.metadata.num_rows == rows["n"]
    assert file.metadata.num_row_groups == -(-rows["n"] // 100)


def test_parquet_without_pyarrow_is_an_error_with_the_next_step(
    owned: Workbench, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("export", "--catalog", "The back catalogue", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "or --format csv" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_the_error_for_an_unwritable_path_names_it(owned: Workbench, run: Run, tmp_path: Path):
    (tmp_path / "file").touch()
    paths = {"report": tmp_path / "nowhere" / "page.html", "export": tmp_path / "file" / "below"}
    for command, path in paths.items():
        result = run(command, "--catalog", "The back catalogue", "--out", path)
        assert (result.exit_code, str(path) in result.stderr) == (1, True)


def test_every_measured_recording_has_a_report_row(bench: Workbench, run: Run, tmp_path: Path):
    songs = isrcs(27)
    bench.sql("insert into songs (isrc) select unnest(%s::text[])", songs)
    bench.sql("insert into accounts (id) values (%s)", bench.account)
    bench.sql("insert into catalogs (account, name) values (%s, 'big')", bench.account)
    bench.sql("insert into catalog_songs select id, unnest(%s::text[]) from catalogs", songs)
    bench.sql(
        "insert into song_measurements (song, platform, metric, captured_at, data_source, value)"
        " select song, 'spotify', 'platform_displayed_play_count', '2026-01-01', 'songstats', 1000 + place"
        " from unnest(%s::text[]) with ordinality as listed (song, place)",
        songs,
    )
    path = tmp_path / "page.html"
    assert run("report", "--catalog", "big", "--out", path).exit_code == 0
    page = path.read_text(encoding="utf-8")
    assert "2 more, by number of plays" in page
    assert re.findall(r'<tr id="(\w+)"', page) == songs[::-1]


def test_a_formula_as_title_is_text_in_a_csv_export(owned: Workbench, run: Run, tmp_path: Path):
    owned.sql("update songs set name = '=1+1', artist = '-Yo', album = '-12' where isrc = %s", SONGS[0])
    assert run("export", "--catalog", "The back catalogue", "--format", "csv", "--out", tmp_path).exit_code == 0
    with (tmp_path / "catalog_play_counts.csv").open(encoding="utf-8", newline="") as file:
        (line,) = (line for line in csv.DictReader(file) if line["song"] == SONGS[0])
    assert (line["title"], line["artist"], line["album"]) == ("'=1+1", "'-Yo", "-12")


def test_the_report_shows_an_imported_count_that_differs_from_the_measured_one(
    owned: Workbench, run: Run, tmp_path: Path
):
    (measured,) = owned.sql("select play_count from analytics.latest_play_counts where song = %s", SONGS[0])
    for song, share in ((SONGS[0], 2), (SONGS[1], 1)):
        owned.sql(
            "insert into song_measurements (song, platform, metric, captured_at, data_source, value, raw_ref)"
            " select song, platform, metric, captured_at, 'import', value * %s, 'file.csv' from song_measurements"
            " where song = %s order by captured_at desc limit 1",
            share,
            song,
        )
    path = tmp_path / "page.html"
    assert run("report", "--catalog", "The back catalogue", "--out", path).exit_code == 0
    page = path.read_text(encoding="utf-8")
    assert "count of 1 recording differs by more than 10 % from the measured one" in page
    differences = page.split("differs by more than 10 %")[1]
    assert f"{2 * measured['play_count']:,}" in differences
    assert f"{measured['play_count']:,}" in differences
