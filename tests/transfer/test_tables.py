"""The readers: what a good file gives, and one clear line for every bad one."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
import zipfile
from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crmkit.errors import ImportProblem
from crmkit.tables import Row, read_frame, read_table
from crmkit.tables.limits import MAX_COLUMNS, MAX_FIELD

SCALE = float(os.environ.get("CRMKIT_TEST_SCALE", "1"))


def write(folder: Path, data: bytes | str, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def values(path: Path, **how: str) -> list[list[str]]:
    return [row.values for row in read_table(path, **how).rows]


# --------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_seen_from_the_header(tmp_path: Path, delimiter: str) -> None:
    table = read_table(write(tmp_path, f"name{delimiter}city\nAda{delimiter}London\n"))
    assert table.columns == ("name", "city")
    assert list(table.rows) == [Row(2, ["Ada", "London"])]


def test_a_delimiter_inside_quotes_is_not_counted(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, '"a,b,c,d";x\n1;2\n')).columns == ("a,b,c,d", "x")


def test_a_delimiter_may_be_given(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "a;b,c\n1;2,3\n"), delimiter=",").columns == ("a;b", "c")


def test_the_line_that_excel_writes_for_itself_is_no_header(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "sep=;\nname;city\nAda;London\n"))
    assert (table.columns, list(table.rows)) == (("name", "city"), [Row(3, ["Ada", "London"])])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_unicode_encodings_are_known_by_their_mark(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    assert values(write(tmp_path, (mark + "name\nAdà Łovelace\n").encode(encoding))) == [["Adà Łovelace"]]


def test_another_encoding_is_taken_when_said(tmp_path: Path) -> None:
    assert values(write(tmp_path, "name\nRenée €\n".encode("cp1252")), encoding="cp1252") == [["Renée €"]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end(tmp_path: Path, end: str) -> None:
    assert values(write(tmp_path, end.join(["a,b", "1,2", "", "3,4"]))) == [["1", "2"], ["3", "4"]]


def test_a_row_is_named_by_the_line_it_starts_in(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, 'a,b\n\n1,"two\nlines"\n3,4\n')).rows
    assert [row.line for row in rows] == [3, 5]


def test_quotes_doubled_inside_quotes(tmp_path: Path) -> None:
    assert values(write(tmp_path, 'a\n"FRAME 7"" SIZE "\n')) == [['FRAME 7" SIZE ']]


def test_gzip_is_seen_from_its_bytes(tmp_path: Path) -> None:
    assert values(write(tmp_path, gzip.compress(b"a,b\n1,2\n"), "no_ending")) == [["1", "2"]]


def test_blank_columns_at_the_end_are_dropped(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a,b,,\n1,2,,\n"))
    assert (table.columns, list(table.rows)) == (("a", "b"), [Row(2, ["1", "2"])])


def test_a_ragged_row_says_so_and_reading_goes_on(tmp_path: Path) -> None:
    rows = list(read_table(write(tmp_path, "a,b\n1\n1,2,3\n1,2\n")).rows)
    assert [row.problem for row in rows] == ["1 fields where the header has 2", "3 fields where the header has 2", ""]
    assert [len(row.values) for row in rows] == [2, 2, 2]


def workbook(folder: Path, *rows: list[object], name: str = "book.xlsx", title: str = "Sheet") -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = title
    for row in rows:
        sheet.append(row)
    book.create_sheet("Second").append(["other"])
    book.save(folder / name)
    return folder / name


def test_a_workbook_gives_text_as_a_person_would_type_it(tmp_path: Path) -> None:
    cells = [13085, 2.5, 3.0, date(2009, 12, 1), datetime(2009, 12, 1, 7, 45), True, None, " x "]
    path = workbook(tmp_path, list("abcdefgh"), cells, [], ["1"])
    rows = list(read_table(path).rows)
    assert rows[0] == Row(2, ["13085", "2.5", "3", "2009-12-01", "2009-12-01 07:45:00", "true", "", " x "])
    assert (rows[1].line, rows[1].problem, len(rows)) == (4, "", 2)


def test_another_sheet_is_taken_when_said(tmp_path: Path) -> None:
    path = workbook(tmp_path, ["a"], ["1"])
    assert read_table(path, sheet="Second").columns == ("other",)
    with pytest.raises(ImportProblem, match="no sheet 'Third'; there are Sheet, Second"):
        read_table(path, sheet="Third")


def test_a_frame(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"id": [13085.0, None], "when": [pd.Timestamp("2009-12-01"), pd.NaT], "n": ["x", "y"]})
    table = read_frame(frame)
    assert table.columns == ("id", "when", "n")
    assert list(table.rows) == [Row(2, ["13085", "2009-12-01", "x"]), Row(3, ["", "", "y"])]


def test_the_part_that_is_read_grows_to_one(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a,b\n" + "1,2\n" * 100_000))
    parts = [table.fraction() for _ in table.rows]
    assert parts == sorted(parts)
    assert parts[0] < 0.5
    assert table.fraction() == 1.0


# --------------------------------------------------------------------------- what is refused, and the words

BAD = {
    "empty": (b"", "the file is empty"),
    "only blank lines": (b"\n\n , \n", "the file is empty"),
    "a column without a name": (b"a,,c\n1,2,3\n", "line 1: column 2 has no name"),
    "two columns of one name": (b"a,b,a\n1,2,3\n", "line 1: two columns are called 'a'"),
    "no header, numbers": (b"13085,2009-12-01,12\n13086,2009-12-02,1\n", "line 1 looks like data"),
    "no header, a mail": (b"Ada,ada@example.org\n", "line 1 looks like data"),
    "not UTF-8": (
        "name,city\nAda,London\nRenée,Paris\n".encode("cp1252"),
        "line 3 is not utf-8 text; .*--encoding cp1252",
    ),
    "UTF-16 without a mark": ("name\nAda\n".encode("utf-16-le"), "line 1 holds a NUL .*--encoding utf-16"),
    "NUL": (b"name\nA\0da\n", "line 2 holds a NUL"),
    "quote not closed": (b'a,b\n1,"2\n3,4\n', "line 2: a quote is opened and not closed"),
    "text after a quote": (b'a,b\n1,2\n"3"x,4\n', "line 3: a quoted field does not end"),
    "too long a field": (b"a,b\n1," + b"x" * (MAX_FIELD + 1) + b"\n", "line 2: a field has over 1,000,000 characters"),
    "an endless line": (b"a,b\n" + b"x," * 5_000_000, "line 2: the row goes on for over 8,000,000"),
    "an endless header": (b"x" * 9_000_000, "line 1: the row goes on for over 8,000,000"),
    "a row of endless lines": (b'a\n"' + b"x\n" * 5_000_000, "line 2: a field has over 1,000,000 characters"),
    "too many columns": (",".join(f"c{n}" for n in range(MAX_COLUMNS + 1)).encode(), "1,001 columns"),
    "JSON": (b'[{"name": "Ada"}]', "not a table"),
    "HTML": (b"<!doctype html>\n<table>", "not a table"),
    "PDF": (b"%PDF-1.7\n1 0 obj\n", "not a table"),
    "old Excel or a password": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "password"),
    "broken zip": (b"PK\x03\x04 and no more", "the workbook is damaged"),
    "cut gzip": (gzip.compress(b"a,b\n1,2\n" * 1000)[:-20], "gzip file is damaged or cut off"),
    "gzip of nothing": (b"\x1f\x8b", "gzip file is damaged or cut off"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, kind: str) -> None:
    data, words = BAD[kind]
    with pytest.raises(ImportProblem, match=words) as caught:
        values(write(tmp_path, data))
    assert str(caught.value).startswith("file.csv: ")
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(ImportProblem, match="cannot be read"):
            read_table(path)


def test_wrong_options(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,2\n")
    with pytest.raises(ImportProblem, match="no text encoding 'klingon'"):
        read_table(path, encoding="klingon")
    for delimiter in ("", ",,", '"', "\n"):
        with pytest.raises(ImportProblem, match="the delimiter is one sign"):
            read_table(path, delimiter=delimiter)


def test_an_archive_that_is_no_workbook(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "a,b")
    with pytest.raises(ImportProblem, match="an archive and no workbook"):
        read_table(tmp_path / "a.zip")


def test_a_workbook_whose_part_is_broken(tmp_path: Path) -> None:
    path = workbook(tmp_path, ["a"], ["1"])
    broken = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"<not xml" if name.endswith("sheet1.xml") else old.read(name))
    path.write_bytes(broken.getvalue())
    with pytest.raises(ImportProblem, match="the workbook is damaged"):
        values(path)


# --------------------------------------------------------------------------- bombs: memory stays bounded


def peak(read: object) -> int:
    """Return the most bytes of Python memory that a call held."""
    tracemalloc.start()
    try:
        read()  # type: ignore[operator]
    except ImportProblem:
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return most


def test_a_gzip_bomb_is_refused_and_a_naive_reader_swallows_it(tmp_path: Path) -> None:
    size = 60_000_000
    path = write(tmp_path, gzip.compress(b"a,b\n" + b"1,%s\n" % (b"x" * 9_996) * (size // 10_000)), "bomb.csv.gz")
    with pytest.raises(ImportProblem, match="over 100 times its size"):
        values(path)
    assert peak(lambda: values(path)) < size / 4
    assert peak(lambda: gzip.decompress(path.read_bytes())) > size  # the control: without the limit all of it is held


def test_an_endless_line_is_refused_and_a_naive_reader_holds_it(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\n" + b"x" * 50_000_000)
    assert peak(lambda: values(path)) < 40_000_000
    assert peak(lambda: path.read_text().splitlines()) > 50_000_000  # the control


def test_a_workbook_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b" " * 20_000_000)
    with pytest.raises(ImportProblem, match="over 100 times its size"):
        read_table(tmp_path / "bomb.xlsx")


def test_rows_are_read_one_by_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n" + "some text,more text\n" * 10_000)
    assert peak(lambda: sum(1 for _ in read_table(path).rows)) < 500_000
    assert peak(lambda: values(path)) > 1_500_000  # the control: keeping the rows costs this much


# --------------------------------------------------------------------------- any bytes at all


@settings(max_examples=int(300 * SCALE), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=400), st.text(alphabet='a1,;|\t"\n\r \0=é@', max_size=200).map(str.encode)))
@example(data=b'a,b\n"')
@example(data=b"\xff\xfea")
@example(data=b"sep=;")
@example(data=b"\xef\xbb\xbf")
def test_any_bytes_are_rows_or_one_import_problem(tmp_path: Path, data: bytes) -> None:
    check_reads(write(tmp_path, data))
    check_reads(write(tmp_path, gzip.compress(data), "file.csv.gz"))


@settings(max_examples=int(100 * SCALE), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), junk=st.binary(min_size=1, max_size=8))
def test_a_damaged_workbook_or_gzip_is_one_import_problem(tmp_path: Path, place: float, junk: bytes) -> None:
    packed = gzip.compress(b"a,b\n" + bytes(range(32, 120)) * 30)
    for good in (workbook(tmp_path, ["a", "b"], [1, "x"]).read_bytes(), packed):
        at = int(place * len(good))
        check_reads(write(tmp_path, good[:at] + junk + good[at + len(junk) :], "damaged"))


def check_reads(path: Path) -> None:
    try:
        table = read_table(path)
        for row in table.rows:
            assert len(row.values) == len(table.columns)
    except ImportProblem as problem:
        assert "\n" not in str(problem)  # noqa: PT017  # a file may as well be good


@settings(max_examples=int(100 * SCALE), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
            min_size=2,
            max_size=2,
        ),
        max_size=5,
    )
)
def test_what_the_csv_module_writes_is_read_back(tmp_path: Path, rows: list[list[str]]) -> None:
    import csv

    text = io.StringIO()
    csv.writer(text).writerows([["first", "second"], *rows])
    expected = [row for row in rows if any(value.strip() for value in row)]
    assert values(write(tmp_path, text.getvalue())) == expected
