"""XLSX worksheets as rows of text, streamed by openpyxl."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, BinaryIO

from crmkit.errors import ImportProblem
from crmkit.tables.limits import FREE_BYTES, MAX_FIELD, MAX_RATIO, MAX_ROWS_OF_A_SHEET, MAX_UNPACKED

ZIP = b"PK\x03\x04"
OLE = b"\xd0\xcf\x11\xe0"  # the container of old .xls files and of workbooks with a password


def workbook_rows(file: BinaryIO, name: str, sheet: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row of one sheet, the header included, blank rows left out.

    Args:
        file: The open file; it is closed at the end.
        name: What messages call the file.
        sheet: The name of the sheet; the first one when not given.

    Raises:
        ImportProblem: This is no readable workbook, or it exceeds a limit.
    """
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl warns of styles and extensions that say nothing about the cells
        try:
            _check_size(file, name)
            yield from _rows(file, name, sheet)
        except ImportProblem:
            raise
        except Exception as error:  # noqa: BLE001  # on a broken file openpyxl raises whatever its parts raise
            raise ImportProblem(f"{name}: the workbook is damaged ({type(error).__name__})") from None


def cell_text(value: Any) -> str:
    """Return a cell as the text that a person would have typed: no ``.0``, no midnight."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.timetz() == time.min else value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def _check_size(file: BinaryIO, name: str) -> None:
    """Refuse an archive that unpacks to more than a table would; zipfile holds it to what it declares."""
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
        packed = sum(part.compress_size for part in archive.infolist())
        if "xl/workbook.xml" not in archive.namelist():
            raise ImportProblem(f"{name}: this is an archive and no workbook; give a CSV, CSV.GZ or XLSX file")
    if unpacked > MAX_UNPACKED:
        raise ImportProblem(f"{name}: the workbook unpacks to over {MAX_UNPACKED // 1_000_000} MB; save it as CSV")
    if unpacked > max(FREE_BYTES, MAX_RATIO * packed):
        raise ImportProblem(f"{name}: unpacks to over {MAX_RATIO} times its size; that is not a table")


def _rows(file: BinaryIO, name: str, sheet: str | None) -> Iterator[tuple[int, list[str]]]:
    import openpyxl

    book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise ImportProblem(f"{name}: there is no sheet '{sheet}'; there are {', '.join(book.sheetnames)}")
        page = book[sheet or book.sheetnames[0]]
        if not hasattr(page, "reset_dimensions"):
            raise ImportProblem(f"{name}: sheet '{page.title}' holds a chart and no table")
        page.reset_dimensions()  # the size that a file declares is often wrong
        width = 0
        for number, cells in enumerate(page.iter_rows(values_only=True), 1):
            if number > MAX_ROWS_OF_A_SHEET:
                raise ImportProblem(f"{name}: the sheet has over {MAX_ROWS_OF_A_SHEET:,} rows")
            values = [cell_text(cell) for cell in cells]
            if any(len(value) > MAX_FIELD for value in values):
                raise ImportProblem(f"{name}: row {number} has a cell of over {MAX_FIELD:,} characters")
            if any(value.strip() for value in values):
                width = width or len(values)
                yield number, values + [""] * (width - len(values))  # a sheet does not store blank cells at the end
    finally:
        book.close()
