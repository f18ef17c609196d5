"""Tables from files: CSV (also gzipped), XLSX and pandas frames as columns and rows of text, in one pass.

The reader knows nothing of records: what a value means is decided where it is validated. All that is wrong with a
file as a whole is an `ImportProblem`; what is wrong with one row is said in that `Row`, and reading goes on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from crmkit.errors import ImportProblem
from crmkit.tables.limits import MAX_COLUMNS
from crmkit.tables.text import text_rows
from crmkit.tables.workbook import OLE, ZIP, cell_text, workbook_rows


class Row(NamedTuple):
    """One row: where it starts in the file, a value for each column, and what is wrong with its shape."""

    line: int
    values: list[str]
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """A file that was opened as a table.

    Attributes:
        name: What messages call it.
        columns: The names in the header.
        rows: The rows, once.
        fraction: How much of the file has been read, 0 to 1.
    """

    name: str
    columns: tuple[str, ...]
    rows: Iterator[Row]
    fraction: Callable[[], float] = lambda: 1.0


def read_table(
    path: str | Path, *, encoding: str | None = None, delimiter: str | None = None, sheet: str | None = None
) -> Table:
    """Open a CSV, gzipped CSV or XLSX file; what it is is seen from its first bytes, not from its name.

    Args:
        path: The file.
        encoding: The encoding of a text that is not UTF-8 and has no byte order mark.
        delimiter: The sign between two fields; seen from the header when not given.
        sheet: The sheet of a workbook; the first one when not given.

    Raises:
        ImportProblem: The file cannot be read as a table.
    """
    path = Path(path)
    try:
        file = path.open("rb")
        size = path.stat().st_size
        start = file.read(4)
        file.seek(0)
    except (OSError, ValueError) as error:
        raise ImportProblem(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        if start == OLE:
            raise ImportProblem(f"{path.name}: an old .xls file or a workbook with a password; save it as plain .xlsx")
        if start == ZIP:
            rows = workbook_rows(file, path.name, sheet)
        elif delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n '):
            raise ImportProblem(f"{path.name}: the delimiter is one sign such as , ; | or a tab")
        else:
            rows = text_rows(file, path.name, encoding, delimiter)
        return _table(path.name, rows, lambda: _fraction(file, size))
    except BaseException:
        file.close()
        raise


def read_frame(frame: Any) -> Table:
    """Return a pandas frame as a table; missing values are empty, the first row counts as line 2 as in a file."""
    known = frame.astype(object).where(frame.notna(), None)
    rows = ((line, [cell_text(cell) for cell in row]) for line, row in enumerate(known.itertuples(index=False), 2))
    return _table("the frame", chain([(1, [str(column) for column in frame.columns])], rows))


def _table(name: str, rows: Iterator[tuple[int, list[str]]], fraction: Callable[[], float] = lambda: 1.0) -> Table:
    """Take the header off `rows`."""
    line, header = next(rows, (0, []))
    columns = _columns(name, line, header)
    return Table(name, columns, _shaped(rows, len(columns)), fraction)


def _columns(name: str, line: int, header: list[str]) -> tuple[str, ...]:
    columns = [column.strip() for column in header]
    while columns and not columns[-1]:
        columns.pop()
    if not columns:
        raise ImportProblem(f"{name}: the file is empty; the first line must hold the names of the columns")
    if re.match(r"[<{\[]|%PDF|\x89PNG", columns[0]):
        raise ImportProblem(f"{name}: this is not a table; give a CSV, CSV.GZ or XLSX file")
    if len(columns) > MAX_COLUMNS:
        raise ImportProblem(f"{name}: {len(columns):,} columns; a table may have {MAX_COLUMNS:,}")
    if "" in columns:
        raise ImportProblem(f"{name}: line {line}: column {columns.index('') + 1} has no name")
    if _is_data(columns):
        raise ImportProblem(f"{name}: line {line} looks like data; the first line must hold the names of the columns")
    if twice := [column for column, count in Counter(columns).items() if count > 1]:
        raise ImportProblem(f"{name}: line {line}: two columns are called '{twice[0]}'; names must differ")
    return tuple(columns)


def _is_data(columns: list[str]) -> bool:
    """Say whether a header holds what only data holds: an e-mail address, or mostly numbers and dates."""
    figures = sum(bool(re.fullmatch(r"[-+]?\d[\d.,:/ T-]*", column)) for column in columns)
    return figures * 2 > len(columns) or any(re.search(r"\w@\w", column) for column in columns)


def _shaped(rows: Iterator[tuple[int, list[str]]], width: int) -> Iterator[Row]:
    """Give every row a value for each column, or a problem where it has too many or too few."""
    for line, values in rows:
        if len(values) == width:
            yield Row(line, values)
            continue
        while len(values) > width and not values[-1].strip():
            values.pop()
        problem = f"{len(values)} fields where the header has {width}" if len(values) != width else ""
        yield Row(line, (values + [""] * width)[:width], problem)


def _fraction(file: BinaryIO, size: int) -> float:
    return 1.0 if file.closed or not size else min(1.0, file.tell() / size)
