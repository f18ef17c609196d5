"""Reads a table into an `ImportPlan`: drafts of records, checked one by one, nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crmkit.errors import Invalid
from crmkit.records import Record
from crmkit.store.documents import nothing_is_garbage
from crmkit.tables import Row, Table, read_frame, read_table
from crmkit.transfer.drafts import FOLLOWS, BadRow, Columns, Draft, cell_value, drafts
from crmkit.transfer.importplan import ImportPlan, Progress
from crmkit.transfer.mapping import Mapped, Target, is_export, mapping
from crmkit.transfer.references import Finder

if TYPE_CHECKING:
    from crmkit.collection import Collection
    from crmkit.crm import CRM


def plan(
    crm: CRM,
    source: str | Path | Any,
    as_: str,
    map: Mapping[str, str] | None = None,
    group_by: str | None = None,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    progress: Progress | None = None,
) -> ImportPlan:
    """Read a file and check every row of it; write nothing.

    Args:
        crm: Where the records would go.
        source: A CSV, gzipped CSV or XLSX file, or a pandas frame.
        as_: The record type, ``"customer"``.
        map: The field of a column, as a path: ``{"Customer ID": "customer.number"}``. Columns that are not in it
            are guessed by their names; an empty path leaves a column out.
        group_by: The column whose value the rows of one record share.
        encoding: The encoding of a text that is not UTF-8.
        delimiter: The sign between two fields.
        sheet: The sheet of a workbook.
        progress: Told how far it is.

    Raises:
        ImportProblem: The file cannot be read as a table, or a column or field does not exist.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    table = read_table(path, encoding=encoding, delimiter=delimiter, sheet=sheet) if path else read_frame(source)
    if is_export(table.columns) and "removed" in table.columns:
        table = replace(table, rows=_without_removed(table))
    info = crm.collection(as_).info
    mapped = mapping(table.columns, info, lambda name: crm.collection(name).info, map or {})
    unmapped = tuple(column for column in table.columns if column not in mapped)
    paths = {column: target.path for column, target in mapped.items()}
    made = ImportPlan(crm, table.name, as_, paths, unmapped, source=path)
    with nothing_is_garbage():  # rows and records have no cycles
        _Check(crm, made, table, mapped).run(table, group_by, progress)
    return made


def _without_removed(table: Table) -> Iterator[Row]:
    """Yield the rows of an exported table; of those of removed records with that for their problem."""
    place = table.columns.index("removed")
    for row in table.rows:
        is_removed = row.values[place] == "true"
        yield row._replace(problem="had been removed when this was exported") if is_removed else row


@dataclass
class _Raw:
    """What is validated for one draft: the fields, and the lines that the nested rows come from."""

    fields: dict[str, Any]
    lines: dict[str, list[int]]


class _Check:
    """Turns drafts into records of the plan, or into bad rows."""

    def __init__(self, crm: CRM, plan: ImportPlan, table: Table, mapped: Mapped) -> None:
        self._plan = plan
        self._mapped = mapped
        self._columns = Columns(table.columns, mapped)
        self._collection: Collection[Any] = crm.collection(plan.type)
        self._finders = {
            (part, reference): Finder(crm.collection(targets[0].type), targets)
            for (part, reference), targets in _by_reference(mapped).items()
        }
        self._plain = {
            part: [target for target in mapped.values() if target.part == part and not target.reference]
            for part in _parts(mapped)
        }
        unique = [spec.name for spec in self._collection.info.fields.values() if spec.unique]
        self._stored: dict[str, Mapping[Any, str]] = {name: self._collection.keys(name) for name in unique}
        self._seen: dict[str, dict[Any, int]] = {name: {} for name in unique}

    def run(self, table: Table, group_by: str | None, progress: Progress | None) -> None:
        """Check every row; fill the plan."""
        shown = group_by is not None and group_by in self._mapped and self._mapped[group_by].spec.klass == "plain"
        told = (lambda part: progress("reading", part)) if progress else None
        for draft in drafts(table, self._columns, group_by, told):
            self._plan.rows += len(draft.lines)
            record = self._record(draft)
            for finder in self._finders.values():
                finder.settle(record is not None)
            if record is not None:
                self._plan.records.append(record)
                self._plan.payment += self._columns.payment(draft, record.id)
            else:
                self._plan.bad += _bad_rows(draft, draft.group if shown else "")
        self._plan.bad.sort(key=lambda row: row.line)
        self._plan.masked = self._columns.masked()
        for finder in self._finders.values():
            if made := finder.made():
                self._plan.made.setdefault(finder.collection.info.type, []).extend(made)

    def _record(self, draft: Draft) -> Record | None:
        """Return the record of a draft, or None where the draft knows what is wrong."""
        raw = self._raw(draft)
        if draft.problems:
            return None
        try:
            record: Record = self._collection.validate(**raw.fields)
        except Invalid as error:
            for path, problem in error.problems.items():
                line, name = _place(path, raw, draft)
                draft.blame(line, "" if name == self._plan.type else name, problem)
            return None
        return record if self._is_new(record, draft) else None

    def _raw(self, draft: Draft) -> _Raw:
        raw = _Raw(self._row("", draft.head, draft, draft.lines[0]), {})
        paths = [column.target.path for column in self._columns.parts]
        for part in self._plain:
            if part:
                rows = [(line, dict(zip(paths, texts))) for line, texts in zip(draft.lines, draft.parts)]
                found = [(line, self._row(part, texts, draft, line)) for line, texts in rows]
                raw.fields[part] = [fields for _, fields in found if fields]
                raw.lines[part] = [line for line, fields in found if fields]
        return raw

    def _row(self, part: str, texts: Mapping[str, str], draft: Draft, line: int) -> dict[str, Any]:
        """Return the fields of the record itself (`part` is empty) or of one of its nested rows."""
        fields = {
            target.spec.name: cell_value(text, target)
            for target in self._plain[part]
            if (text := texts.get(target.path))
        }
        for (owner, reference), finder in self._finders.items():
            if owner == part:
                try:
                    found = finder.find(texts, line)
                except LookupError as error:
                    draft.blame(line, finder.key.path, str(error))
                else:
                    fields |= {reference: found} if found else {}
        return fields

    def _is_new(self, record: Record, draft: Draft) -> bool:
        """Refuse a record whose number is stored already, or is in an earlier row of the file."""
        line = draft.lines[0]
        values = {name: value for name in self._seen if (value := getattr(record, name)) is not None}
        for name, value in values.items():
            if value in self._stored[name]:
                draft.blame(line, name, f"a {self._plan.type} with this {name} exists already")
            elif value in self._seen[name]:
                hint = (
                    "; to make one record of such rows, group by their column"
                    if draft.parts[0] and not draft.group
                    else ""
                )
                draft.blame(line, name, f"is in line {self._seen[name][value]} already{hint}")
        if draft.problems:
            return False
        for name, value in values.items():
            self._seen[name][value] = line
        return True


def _by_reference(mapped: Mapped) -> dict[tuple[str, str], list[Target]]:
    """Return the targets that find records, by list field and reference."""
    found: dict[tuple[str, str], list[Target]] = {}
    for target in mapped.values():
        if target.reference:
            found.setdefault((target.part, target.reference), []).append(target)
    return found


def _parts(mapped: Mapped) -> dict[str, None]:
    """Return the list fields that columns go to, and "" for the record itself, each once and in order."""
    return {"": None, **{target.part: None for target in mapped.values()}}


def _place(path: str, raw: _Raw, draft: Draft) -> tuple[int, str]:
    """Return the line and field of a problem of validation: ``lines.3.quantity`` is in the fourth row."""
    part, _, rest = path.partition(".")
    index, _, name = rest.partition(".")
    lines = raw.lines.get(part, [])
    if index.isdigit() and int(index) < len(lines):
        return lines[int(index)], f"{part}.{name}" if name else part
    return draft.lines[0], path


def _bad_rows(draft: Draft, group: str) -> list[BadRow]:
    """Return why each row of a draft is left out: for what is wrong with it, or because its group is."""
    wrong = {row.line for row in draft.problems}
    first = min(wrong)
    rows = [row._replace(group=group) for row in draft.problems]
    return rows + [
        BadRow(line, group, "", f"{FOLLOWS} because of line {first}") for line in draft.lines if line not in wrong
    ]
