"""Delimited text (CSV and its cousins), plain or gzipped, as rows, in one pass with bounded memory.

What is not certain is not guessed: an encoding is taken from a byte order mark or from the caller, else it is
UTF-8; quotes are strict, because a lost quote would silently join rows.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from crmkit.errors import ImportProblem
from crmkit.tables.limits import FREE_BYTES, MAX_FIELD, MAX_RATIO, MAX_RECORD

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DELIMITERS = ",;\t|"
_GZIP = b"\x1f\x8b"
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def text_rows(
    file: BinaryIO, name: str, encoding: str | None = None, delimiter: str | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the fields of each row, the header included, blank lines left out.

    Args:
        file: The open file; it is closed at the end.
        name: What messages call the file.
        encoding: The encoding, where the file is not UTF-8 and has no byte order mark.
        delimiter: The sign between two fields; seen from the header when not given.

    Raises:
        ImportProblem: The file is not readable text, or it exceeds a limit; the line is named.
    """
    with ExitStack() as stack:
        stack.enter_context(file)
        lines = _Lines(stack.enter_context(_decoded(stack.enter_context(_unpacked(file, name)), name, encoding)), name)
        first = next((line for line in lines if line.strip()), "")
        if declared := re.fullmatch(r"sep=([,;\t|])\s*", first):  # a line that Excel writes for itself
            delimiter, first = delimiter or declared[1], next(lines, "")
        skipped = lines.number - 1
        csv.field_size_limit(MAX_FIELD)  # the limit is one for the process; the default would refuse long notes
        reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter or _sniff(first), strict=True)
        while True:
            start = skipped + reader.line_num + 1
            lines.size = 0
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ImportProblem(f"{name}: line {start}: {_explain(error)}") from None
            if any(field.strip() for field in fields):
                yield start, fields


class _Lines:
    """The lines of a text, each checked; `size` counts what the row being read has taken so far."""

    def __init__(self, text: io.TextIOWrapper, name: str) -> None:
        self._text = text
        self._name = name
        self.number = 0
        self.size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.number += 1
        try:
            line = self._text.readline(MAX_RECORD + 1)
            if not line.isascii():
                line.encode("utf-8")  # fails on what could not be decoded
        except UnicodeError:
            raise ImportProblem(
                f"{self._name}: line {self.number} is not {self._text.encoding} text; say which encoding the file has,"
                " for example --encoding cp1252 (in Python: encoding='cp1252')"
            ) from None
        if not line:
            raise StopIteration
        self.size += len(line)
        if self.size > MAX_RECORD:
            raise ImportProblem(f"{self._name}: line {self.number}: the row goes on for over {MAX_RECORD:,} characters")
        if "\0" in line:
            raise ImportProblem(
                f"{self._name}: line {self.number} holds a NUL character: this is no text file,"
                " or it is UTF-16 without its mark (then give --encoding utf-16)"
            )
        return line


class _Gunzip(io.RawIOBase):
    """The unpacked bytes of a gzip file; stops at a bomb."""

    def __init__(self, packed: BinaryIO, name: str) -> None:
        super().__init__()
        self._packed = packed
        self._gzip = gzip.GzipFile(fileobj=packed)
        self._name = name
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        try:
            count = self._gzip.readinto(buffer)
        except (OSError, EOFError, zlib.error):
            raise ImportProblem(f"{self._name}: the gzip file is damaged or cut off") from None
        self._count += count
        if self._count > max(FREE_BYTES, MAX_RATIO * self._packed.tell()):
            raise ImportProblem(f"{self._name}: unpacks to over {MAX_RATIO} times its size; that is not a table")
        return count


def _unpacked(file: BinaryIO, name: str) -> io.BufferedReader:
    """Return the bytes of the text; closing them leaves `file` to its owner."""
    packed = file.read(2) == _GZIP
    file.seek(0)
    return io.BufferedReader(_Gunzip(file, name) if packed else _Unowned(file), 1 << 16)


class _Unowned(io.RawIOBase):
    """A file that stays open when its reader is closed, so that both kinds of file are closed in one place."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]  # every file opened "rb" has it


def _decoded(file: io.BufferedReader, name: str, encoding: str | None) -> io.TextIOWrapper:
    """Return the text of `file`; what cannot be decoded becomes lone surrogates, so that its line can be named."""
    start = file.peek(4)[:4]
    mark = next((found for mark, found in _MARKS.items() if start.startswith(mark)), None)
    if mark == "utf-8-sig" or not encoding:
        encoding = mark or "utf-8"
    try:
        return io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
    except LookupError:
        raise ImportProblem(f"{name}: there is no text encoding '{encoding}'; try utf-8, cp1252 or utf-16") from None


def _sniff(header: str) -> str:
    """Return the delimiter that the header has most of, outside of quotes; a comma where it has none."""
    bare = re.sub(r'"[^"]*"?', "", header)
    return max(DELIMITERS, key=bare.count)


def _explain(error: csv.Error) -> str:
    """Say in our words what the csv module found."""
    text = str(error)
    if "field limit" in text:
        return f"a field has over {MAX_FIELD:,} characters (is a closing quote missing?)"
    if "unexpected end" in text:
        return "a quote is opened and not closed before the end of the file"
    return "a quoted field does not end where its quote does; a quote inside a field is written twice"
