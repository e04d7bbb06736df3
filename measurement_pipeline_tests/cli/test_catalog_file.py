"""A catalogue file: good lines are read, bad ones are named, and none is lost to another's fault."""

import csv
import io
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement_pipeline.cli.catalog_file import LARGEST_COUNT, NotACatalogError, read
from measurement_pipeline.domain import isrc

HEADER = "isrc,title,artist,album,release_date,play_count\n"


def bad(text: str) -> dict[int, str]:
    return {line.number: line.problem for line in read(text).bad}


def test_a_line_is_read_whatever_the_order_of_the_columns():
    found = read("play_count,Title,ISRC,label\n12,Rain,us-abc-24-00001,X\n")
    line = found.lines["USABC2400001"]
    assert (line.title, line.play_count, line.artist, line.release_date) == ("Rain", 12, None, None)
    assert not found.bad


def test_an_empty_count_is_no_count_and_zero_is_a_count():
    found = read(HEADER + "USABC2400001,,,,2024-02-29,\nUSABC2400002,,,,,0\n")
    assert [line.play_count for line in found.lines.values()] == [None, 0]
    assert found.lines["USABC2400001"].release_date == date(2024, 2, 29)


@pytest.mark.parametrize(
    ("text", "albums"),
    [
        ("", ()),
        ("  ", ()),
        ("4aawyAB9vmqN3uQ7FjRGTy", ("4aawyAB9vmqN3uQ7FjRGTy",)),
        ("b;a", ("b", "a")),
        (" b ; a ;;b; ", ("b", "a")),
        ("b a", ("b", "a")),
    ],
)
def test_the_albums_of_a_recording_are_none_one_or_several_each_once(text, albums):
    found = read(f"isrc,spotify_album_id\nUSABC2400001,{text}\n")
    assert found.lines["USABC2400001"].album_ids == albums
    assert not found.bad


def test_an_album_that_no_database_can_hold_is_a_bad_line_and_no_other_is_lost_to_it():
    found = read("isrc,spotify_album_id\nUSABC2400001,a\0b\nUSABC2400002,c\n")
    assert [(one.number, one.problem) for one in found.bad] == [(2, "spotify_album_id: holds a NUL character")]
    assert list(found.lines) == ["USABC2400002"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("USABC240001,a,b,c,,1", "'USABC240001'"),
        (",a,b,c,,1", "isrc ''"),
        ("USABC2400001,a,b,c,,1.5", "play_count '1.5'"),
        ("USABC2400001,a,b,c,,-1", "play_count '-1'"),
        ("USABC2400001,a,b,c,,1e6", "play_count '1e6'"),
        ("USABC2400001,a,b,c,,٣", "play_count '٣'"),
        (f"USABC2400001,a,b,c,,{LARGEST_COUNT + 1}", "play_count"),
        ("USABC2400001,a,b,c,2024-02-30,1", "release_date '2024-02-30'"),
        ("USABC2400001,a,b,c,20240229,1", "release_date '20240229'"),
        ("USABC2400001,a,b,c,1", "5 columns: expected 6"),
        ("USABC2400001,a,b,c,,1,x", "7 columns: expected 6"),
        ('USABC2400001,"a"x,b,c,,1', "not CSV"),
        ("USABC2400001,a\0b,b,c,,1", "NUL"),
    ],
)
def test_a_bad_line_is_named_with_what_was_wrong_and_the_good_ones_are_read(line, named):
    found = read(f"{HEADER}USABC2400009,,,,,1\n{line}\nUSABC2400008,,,,,{LARGEST_COUNT}\n")
    assert list(found.lines) == ["USABC2400009", "USABC2400008"]
    assert [one.number for one in found.bad] == [3]
    assert named in found.bad[0].problem


def test_everything_that_is_wrong_with_a_line_is_told_at_once():
    problem = bad(HEADER + "X,a,b,c,soon,many\n")[2]
    assert "isrc" in problem
    assert "release_date" in problem
    assert "play_count" in problem


def test_a_recording_twice_is_bad_only_where_the_values_differ():
    found = read(HEADER + "USABC2400001,a,,,,1\nus-abc-24-00001,a,,,,1\nUSABC2400001,a,,,,2\n")
    assert found.repeated == 1
    assert [(one.number, "line 2" in one.problem) for one in found.bad] == [(4, True)]
    assert found.lines["USABC2400001"].play_count == 1


def test_a_title_may_hold_commas_quotes_and_line_breaks():
    found = read(HEADER + 'USABC2400001,"a, ""b""\nc\u2028d",,,,1\nX,,,,,\n')
    assert found.lines["USABC2400001"].title == 'a, "b"\nc\u2028d'
    assert bad(HEADER + 'USABC2400001,"a\nb",,,,1\nX,,,,,\n').keys() == {4}


def test_a_quote_that_is_never_closed_costs_one_line():
    found = read(HEADER + 'USABC2400001,"a,,,,1\nUSABC2400002,b,,,,2\nUSABC2400003,"c,,,,3\nUSABC2400004,d,,,,4\n')
    assert list(found.lines) == ["USABC2400002", "USABC2400004"]
    assert [one.number for one in found.bad] == [2, 4]


@pytest.mark.parametrize("text", ["", "\n", "title,artist\na,b\n", "isrc,isrc\nUSABC2400001,USABC2400001\n"])
def test_a_file_without_a_usable_header_is_no_catalogue(text):
    with pytest.raises(NotACatalogError):
        read(text)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_commas_semicolons_and_tabs_separate_columns_as_the_header_does(separator, ends):
    rows = [
        ["isrc", "title", "spotify_album_id"],
        ["USABC2400001", f"a{separator}b", "x y"],
        ["USABC2400002", "c,d;e", ""],
    ]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=separator, lineterminator=ends).writerows(rows)
    found = read(written.getvalue())
    assert [line.title for line in found.lines.values()] == [f"a{separator}b", "c,d;e"]
    assert found.lines["USABC2400001"].album_ids == ("x", "y")
    assert not found.bad


def test_a_quoted_header_is_separated_too():
    assert list(read('"isrc";"title, artist"\r\n"USABC2400001";"a"\r\n').lines) == ["USABC2400001"]


def test_a_header_without_isrc_is_refused_with_the_separators_that_are_read():
    with pytest.raises(NotACatalogError, match="separated by commas, semicolons, tabs"):
        read("isrc|title\nUSABC2400001|a\n")


@pytest.mark.parametrize("text", ["2024", "2024-03", "2024-03-00", "2024-00-00"])
def test_a_release_date_without_a_day_keeps_the_recording_and_warns(text):
    found = read(f"{HEADER}USABC2400001,a,b,c,{text},7\n")
    assert (found.lines["USABC2400001"].play_count, found.lines["USABC2400001"].release_date) == (7, None)
    assert [(one.number, one.isrc) for one in found.warnings] == [(2, "USABC2400001")]
    assert found.warnings[0].problem == f"release_date '{text}' has no day: no release date is stored"


@pytest.mark.parametrize("text", ["24", "2024-13", "2024-3", "20240", "2024-02-30"])
def test_what_is_no_date_at_all_is_a_bad_line(text):
    assert "release_date" in bad(f"{HEADER}USABC2400001,a,b,c,{text},7\n")[2]


@pytest.mark.parametrize("title", ["Caf\ufffd", "Caf\u00ef\u00bf\u00bd", "\u00fd\u00fd\u00fd\u00fd \u00fd"])
def test_a_garbled_title_is_named_and_its_recording_is_kept(title):
    found = read(f"{HEADER}USABC2400001,{title},b,c,,7\nUSABC2400002,Café ¿qué?,\u00ef,c,,7\n")
    assert len(found.lines) == 2
    (warned,) = found.warnings
    assert (warned.number, warned.isrc) == (2, "USABC2400001")
    assert warned.problem.startswith(f"title '{title}' is garbled")


CELLS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=8))
def test_every_record_of_any_csv_is_loaded_repeated_or_named(rows):
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["isrc", "title"], *rows])
    found = read(written.getvalue())
    filled = sum(any(cell.strip() for cell in row) for row in rows)
    assert len(found.lines) + len(found.bad) + found.repeated == filled
    assert all(isrc.normalise_isrc(song) == song for song in found.lines)


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text):
    found = read("isrc,title\n" + text)
    assert len(found.bad) <= text.count("\n") + 1
