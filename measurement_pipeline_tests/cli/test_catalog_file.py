"""Catalogue files: valid lines are loaded and invalid ones reported, independently of each other."""

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


def test_columns_may_have_any_order():
    result = read("play_count,Title,ISRC,label\n12,Rain,us-abc-24-00001,X\n")
    line = result.lines["USABC2400001"]
    assert (line.title, line.play_count, line.artist, line.release_date) == ("Rain", 12, None, None)
    assert not result.bad


def test_an_empty_count_is_none_and_zero_is_zero():
    result = read(HEADER + "USABC2400001,,,,2024-02-29,\nUSABC2400002,,,,,0\n")
    assert [line.play_count for line in result.lines.values()] == [None, 0]
    assert result.lines["USABC2400001"].release_date == date(2024, 2, 29)


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
def test_a_recording_has_any_number_of_distinct_albums(text, albums):
    result = read(f"isrc,spotify_album_id\nUSABC2400001,{text}\n")
    assert result.lines["USABC2400001"].album_ids == albums
    assert not result.bad


def test_an_album_with_a_nul_character_is_one_invalid_line():
    result = read("isrc,spotify_album_id\nUSABC2400001,a\0b\nUSABC2400002,c\n")
    assert [(one.number, one.problem) for one in result.bad] == [(2, "spotify_album_id: contains a NUL character")]
    assert list(result.lines) == ["USABC2400002"]


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
def test_an_invalid_line_is_reported_with_its_problem_and_the_others_are_loaded(line, named):
    result = read(f"{HEADER}USABC2400009,,,,,1\n{line}\nUSABC2400008,,,,,{LARGEST_COUNT}\n")
    assert list(result.lines) == ["USABC2400009", "USABC2400008"]
    assert [one.number for one in result.bad] == [3]
    assert named in result.bad[0].problem


def test_all_problems_of_a_line_are_reported_together():
    problem = bad(HEADER + "X,a,b,c,soon,many\n")[2]
    assert "isrc" in problem
    assert "release_date" in problem
    assert "play_count" in problem


def test_a_repeated_recording_is_invalid_only_if_its_values_differ():
    result = read(HEADER + "USABC2400001,a,,,,1\nus-abc-24-00001,a,,,,1\nUSABC2400001,a,,,,2\n")
    assert result.repeated == 1
    assert [(one.number, "line 2" in one.problem) for one in result.bad] == [(4, True)]
    assert result.lines["USABC2400001"].play_count == 1


def test_a_title_may_contain_commas_quotes_and_line_breaks():
    result = read(HEADER + 'USABC2400001,"a, ""b""\nc\u2028d",,,,1\nX,,,,,\n')
    assert result.lines["USABC2400001"].title == 'a, "b"\nc\u2028d'
    assert bad(HEADER + 'USABC2400001,"a\nb",,,,1\nX,,,,,\n').keys() == {4}


def test_an_unclosed_quote_invalidates_one_line():
    result = read(HEADER + 'USABC2400001,"a,,,,1\nUSABC2400002,b,,,,2\nUSABC2400003,"c,,,,3\nUSABC2400004,d,,,,4\n')
    assert list(result.lines) == ["USABC2400002", "USABC2400004"]
    assert [one.number for one in result.bad] == [2, 4]


@pytest.mark.parametrize("text", ["", "\n", "title,artist\na,b\n", "isrc,isrc\nUSABC2400001,USABC2400001\n"])
def test_a_file_without_a_usable_header_is_rejected(text):
    with pytest.raises(NotACatalogError):
        read(text)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_the_header_determines_the_separator(separator, ends):
    rows = [
        ["isrc", "title", "spotify_album_id"],
        ["USABC2400001", f"a{separator}b", "x y"],
        ["USABC2400002", "c,d;e", ""],
    ]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=separator, lineterminator=ends).writerows(rows)
    result = read(written.getvalue())
    assert [line.title for line in result.lines.values()] == [f"a{separator}b", "c,d;e"]
    assert result.lines["USABC2400001"].album_ids == ("x", "y")
    assert not result.bad


def test_a_quoted_header_is_split_too():
    assert list(read('"isrc";"title, artist"\r\n"USABC2400001";"a"\r\n').lines) == ["USABC2400001"]


def test_the_error_for_a_header_without_isrc_lists_the_separators():
    with pytest.raises(NotACatalogError, match="separated by commas, semicolons, tabs"):
        read("isrc|title\nUSABC2400001|a\n")


@pytest.mark.parametrize("text", ["2024", "2024-03", "2024-03-00", "2024-00-00"])
def test_a_release_date_without_a_day_keeps_the_recording_and_warns(text):
    result = read(f"{HEADER}USABC2400001,a,b,c,{text},7\n")
    assert (result.lines["USABC2400001"].play_count, result.lines["USABC2400001"].release_date) == (7, None)
    assert [(one.number, one.isrc) for one in result.warnings] == [(2, "USABC2400001")]
    assert result.warnings[0].problem == f"release_date '{text}' has no day: no release date is stored"


@pytest.mark.parametrize("text", ["24", "2024-13", "2024-3", "20240", "2024-02-30"])
def test_an_invalid_date_is_an_invalid_line(text):
    assert "release_date" in bad(f"{HEADER}USABC2400001,a,b,c,{text},7\n")[2]


@pytest.mark.parametrize("title", ["Caf\ufffd", "Caf\u00ef\u00bf\u00bd", "\u00fd\u00fd\u00fd\u00fd \u00fd"])
def test_a_garbled_title_causes_a_warning_and_its_recording_is_loaded(title):
    result = read(f"{HEADER}USABC2400001,{title},b,c,,7\nUSABC2400002,Café ¿qué?,\u00ef,c,,7\n")
    assert len(result.lines) == 2
    (warned,) = result.warnings
    assert (warned.number, warned.isrc) == (2, "USABC2400001")
    assert warned.problem.startswith(f"title '{title}' is garbled")


CELLS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=8))
def test_every_record_of_any_csv_is_loaded_repeated_or_reported(rows):
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["isrc", "title"], *rows])
    result = read(written.getvalue())
    filled = sum(any(cell.strip() for cell in row) for row in rows)
    assert len(result.lines) + len(result.bad) + result.repeated == filled
    assert all(isrc.normalise_isrc(song) == song for song in result.lines)


@given(st.text(max_size=200))
def test_any_text_can_be_parsed(text):
    result = read("isrc,title\n" + text)
    assert len(result.bad) <= text.count("\n") + 1
