"""Rows of a table to drafts of records: one row each, or all rows that share a value (an invoice and its lines)."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crmkit.detector import find_payment_data
from crmkit.errors import ImportProblem
from crmkit.fields import MASK
from crmkit.payment import TEXTS, WORDS
from crmkit.tables import Row, Table
from crmkit.tables.formulas import unguarded
from crmkit.transfer.mapping import Mapped, Target, is_export, nearest

_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:")
_REMEMBERED = 100_000  # different values of a column that are kept, so that equal texts are one object
FOLLOWS = "left out with its group"  # the reason of rows with which nothing is wrong but their group


class BadRow(NamedTuple):
    """Why a row was left out; holds no value of a personal or sensitive field.

    Attributes:
        line: Where the row starts in the file; the header is line 1.
        group: The value that the row was grouped by, where it is a plain one.
        field: The path of the field that is wrong, or empty where the row as a whole is.
        reason: What is wrong and what is allowed.
    """

    line: int
    group: str
    field: str
    reason: str


class PaymentCell(NamedTuple):
    """A text of the file that holds a card number or an IBAN.

    Attributes:
        line: Where the row, or the first one of its group, starts in the file.
        field: The path of the field that the text goes to.
        what: ``"a card number"``, ``"an IBAN"``, or both; never the number.
        record: The id of the record that the row makes.
    """

    line: int
    field: str
    what: str
    record: str


@dataclass(slots=True)
class Draft:
    """What the rows of one record say, before it is checked.

    Attributes:
        group: The value that the rows share; empty where each row is its own record.
        lines: Where its rows start in the file.
        head: The first value of each of the record's own columns, by path.
        parts: For each row the values of the columns of nested rows, in the order of `Columns.parts`.
        problems: What is wrong so far.
    """

    group: str
    lines: list[int] = field(default_factory=list)
    head: dict[str, str] = field(default_factory=dict)
    parts: list[tuple[str, ...]] = field(default_factory=list)
    problems: list[BadRow] = field(default_factory=list)

    def blame(self, line: int, path: str, reason: str) -> None:
        """Note a problem of one row."""
        self.problems.append(BadRow(line, self.group, path, reason))


class Column:
    """One mapped column: where it stands in a row, and what its values look like once they are tidy.

    Args:
        index: Where it stands.
        target: Where its values go.
        masks_are_empty: A mask is no value: an export hid it.
    """

    def __init__(self, index: int, target: Target, *, masks_are_empty: bool = False) -> None:
        self.index = index
        self.target = target
        self.has_masks = False
        self.payment: dict[str, str] = {}  # texts that hold a card number or an IBAN, and in words which
        self._masks_are_empty = masks_are_empty and target.spec.klass == "sensitive"
        self._is_text = target.spec.kind in TEXTS and target.spec.klass != "sensitive"
        self._known: dict[str, str] = {}

    def text(self, values: list[str]) -> str:
        """Return the value without blanks at its ends, an apostrophe against formulas, and the time in a date."""
        raw = values[self.index]
        known = self._known.get(raw)
        if known is None:
            known = unguarded(raw).strip()
            if self.target.spec.kind == "date" and _DATE_AND_TIME.match(known):
                known = known[:10]
            if self._masks_are_empty and MASK in known:
                known, self.has_masks = "", True
            if self._is_text and (found := find_payment_data(known)):
                self.payment[known] = " and ".join(dict.fromkeys(WORDS[each.kind] for each in found))
            if len(self._known) < _REMEMBERED:
                self._known[raw] = known
        return known


class Columns:
    """The mapped columns of a table, those of the record itself and those of its nested rows."""

    def __init__(self, names: tuple[str, ...], mapped: Mapped) -> None:
        own = is_export(names)
        columns = [Column(names.index(name), target, masks_are_empty=own) for name, target in mapped.items()]
        self.head = [column for column in columns if not column.target.part]
        self.parts = [column for column in columns if column.target.part]

    def payment(self, draft: Draft, record: str) -> Iterator[PaymentCell]:
        """Yield the texts of a record that hold a card number or an IBAN."""
        for column in self.head:
            if column.payment and (what := column.payment.get(draft.head.get(column.target.path, ""))):
                yield PaymentCell(draft.lines[0], column.target.path, what, record)
        for place, column in enumerate(self.parts):
            for line, texts in zip(draft.lines, draft.parts) if column.payment else ():
                if what := column.payment.get(texts[place]):
                    yield PaymentCell(line, column.target.path, what, record)

    def masked(self) -> tuple[str, ...]:
        """Return the paths of the columns in which masks were read as no value."""
        return tuple(column.target.path for column in (*self.head, *self.parts) if column.has_masks)


def drafts(
    table: Table, columns: Columns, group_by: str | None, progress: Callable[[float], None] | None
) -> Iterator[Draft]:
    """Yield a draft for each row, or for each value of the column `group_by` once all rows are read.

    Args:
        table: The rows.
        columns: Its mapped columns.
        group_by: The column whose value the rows of one record share; they need not follow each other.
        progress: Told the part of the file that has been read.

    Raises:
        ImportProblem: There is no such column, or the file turns out not to be a table.
    """
    if group_by is None:
        for row in _told(table, progress):
            draft = Draft("")
            _take(draft, row, columns)
            yield draft
        return
    if group_by not in table.columns:
        hint = nearest(group_by, table.columns)
        raise ImportProblem(f"there is no column '{group_by}' to group by{hint}; there are {', '.join(table.columns)}")
    grouped: dict[str, Draft] = {}
    index = table.columns.index(group_by)
    for row in _told(table, progress):
        key = row.values[index].strip()
        if not key:
            draft = grouped[f"\0{row.line}"] = Draft("")
            draft.blame(row.line, "", f"'{group_by}' is empty, so the row belongs to no group")
        elif (known := grouped.get(key)) is not None:
            draft = known
        else:
            draft = grouped[key] = Draft(key)
        _take(draft, row, columns)
    while grouped:
        yield grouped.pop(next(iter(grouped)))


def _told(table: Table, progress: Callable[[float], None] | None) -> Iterator[Row]:
    for count, row in enumerate(table.rows):
        if progress and count % 5_000 == 0:
            progress(table.fraction())
        yield row


def _take(draft: Draft, row: Row, columns: Columns) -> None:
    """Add one row to a draft; what belongs to the record as a whole must not differ from the rows before."""
    draft.lines.append(row.line)
    if row.problem:
        draft.blame(row.line, "", row.problem)
    for column in columns.head:
        value = column.text(row.values)
        path = column.target.path
        if value and draft.head.setdefault(path, value) != value:
            draft.blame(row.line, path, "differs from an earlier row of the same group")
    draft.parts.append(tuple([column.text(row.values) for column in columns.parts]))


def cell_value(text: str, target: Target) -> Any:
    """Return what a record takes for a cell: several words, split at commas and semicolons, where it takes a list.

    What an export wrote as JSON, nested rows and words with commas in them, is read as such.
    """
    if target.spec.kind in ("texts", "choices", "parts") and text.startswith(("[", "{")):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    if target.spec.kind in ("texts", "choices"):
        return [word.strip() for word in re.split("[,;]", text) if word.strip()]
    return text
