"""A file that was read and checked and is not written yet: what it would make, what is wrong with it, and `apply`."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crmkit.errors import ImportProblem, Refused
from crmkit.payment import moves
from crmkit.records import Record
from crmkit.tables.formulas import guarded
from crmkit.transfer.drafts import FOLLOWS, BadRow, PaymentCell

if TYPE_CHECKING:
    from crmkit.collection import Collection
    from crmkit.commits import Commit
    from crmkit.crm import CRM

Progress = Callable[[str, float], None]
"""Told a step (``"reading"``, ``"writing"``) and how much of it is done, 0 to 1."""

HEADINGS = ("line", "field", "reason", "group")
SHOWN = 10  # bad rows in the summary; all of them are in the error file


@dataclass
class ImportPlan:
    """What an import would do; `apply` does it.

    Attributes:
        name: The file.
        type: The record type that is imported.
        mapping: The field of each mapped column, as a path.
        unmapped: The columns that go nowhere.
        rows: How many rows the file has, without the header.
        records: What the good rows make.
        made: Records of other types that are missing and that good rows refer to, by type.
        bad: What is wrong, row by row, in the order of the file.
        source: Where the file is; None for a frame.
        masked: The fields of which an export holds masks; they stay empty.
        payment: Texts of good rows that hold a card number or an IBAN; `move_sensitive` moves what can be moved.
    """

    _crm: CRM = field(repr=False)
    name: str
    type: str
    mapping: Mapping[str, str]
    unmapped: tuple[str, ...]
    rows: int = 0
    records: list[Record] = field(default_factory=list, repr=False)
    made: dict[str, list[Record]] = field(default_factory=dict, repr=False)
    bad: list[BadRow] = field(default_factory=list, repr=False)
    source: Path | None = None
    masked: tuple[str, ...] = ()
    payment: list[PaymentCell] = field(default_factory=list)
    applied: bool = False

    @property
    def bad_rows(self) -> int:
        """How many rows are left out."""
        return len({row.line for row in self.bad})

    def apply(
        self, *, keep_good: bool = False, all_or_nothing: bool = False, progress: Progress | None = None
    ) -> Commit:
        """Write the records.

        Args:
            keep_good: Write what is good where some rows are bad; without it, bad rows stop the import.
            all_or_nothing: Write everything as one commit; without it, in batches, each of which stays.
            progress: Told how far it is.

        Returns:
            The commit, with the count of records of the imported type.

        Raises:
            ImportProblem: Rows are bad, or no row is good.
            Refused: The plan was applied before, or a plugin says no.
        """
        if self.applied:
            raise Refused(f"the import of {self.name} was applied already; plan it again")
        errors = self.write_errors()
        if self.bad and not keep_good:
            where = f" (see {errors})" if errors else ""
            raise ImportProblem(
                f"{self.name}: nothing was written: {self.bad_rows:,} of {self.rows:,} rows are bad{where};"
                " apply(keep_good=True) writes the good ones"
            )
        if not self.records:
            raise ImportProblem(f"{self.name}: nothing was written: no row of {self.rows:,} can be imported")
        if len(self.records) + sum(map(len, self.made.values())) > 1:
            self._crm._guard("bulk")
        self.applied = True
        return self._write(all_or_nothing, progress)

    def move_sensitive(self) -> int:
        """Move card numbers and IBANs out of texts, into the sensitive fields that are for them and are empty.

        Returns:
            How many texts they were moved out of; those that are left are in `payment`.

        Raises:
            Refused: The plan was applied before.
        """
        if self.applied:
            raise Refused(f"the import of {self.name} was applied already; crm.security.move moves what is stored")
        collection, left = self._collection(self.type), []
        places = {record.id: place for place, record in enumerate(self.records)} if self.payment else {}
        for cell in self.payment:
            record = self.records[places[cell.record]]
            fields = {name: getattr(record, name) for name in ("id", "created_at", *collection.info.fields)}
            changes = moves(collection.info, fields, cell.field) if cell.field in fields else {}
            if changes and (changes[cell.field] or not collection.info.fields[cell.field].required):
                self.records[places[cell.record]] = collection.validate(**fields | changes)
            else:
                left.append(cell)
        moved, self.payment = len(self.payment) - len(left), left
        return moved

    def _write(self, atomic: bool, progress: Progress | None) -> Commit:
        reason, total = f"import of {self.name}", len(self.records)
        with self._crm.transaction(reason) if atomic else nullcontext():
            made: Commit | None = None
            for type, records in self.made.items():
                made = self._collection(type).add_many(records, reason=reason, part_of=made)
            return self._collection(self.type).add_many(
                self.records,
                reason=reason,
                part_of=made,
                progress=(lambda done: progress("writing", done / total)) if progress else None,
            )

    def write_errors(self) -> Path | None:
        """Write the bad rows to a CSV file beside the source, or beside the workspace where that is not possible.

        One of an earlier import of the same file is replaced, and removed where no row is bad any more.

        Returns:
            Its path; None where no row is bad or the source is no file.
        """
        if self.source is None:
            return None
        name = f"{self.source.name}.errors.csv"
        first = self.source.with_name(name)
        if not self.bad:
            _remove_own(first)
            return None
        try:
            return _write_rows(first, self.bad, self.source)
        except OSError:
            return _write_rows(self._crm.workspace.folder.parent / name, self.bad, self.source)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {
            "file": self.name,
            "type": self.type,
            "rows": self.rows,
            "records": len(self.records),
            "made": {type: len(records) for type, records in self.made.items()},
            "mapping": dict(self.mapping),
            "unmapped": list(self.unmapped),
            "masked": list(self.masked),
            "payment": [cell._asdict() for cell in self.payment[:SHOWN]],
            "payment_texts": len(self.payment),
            "bad_rows": self.bad_rows,
            "bad": [row._asdict() for row in self.bad[:SHOWN]],
        }

    def counted(self) -> str:
        """Return what is made, for a person: ``"27,724 purchases and 1 new product"``."""
        made = (self._collection(type).info.counted(len(rows)).split(" ", 1) for type, rows in self.made.items())
        new = "".join(f" and {count} new {word}" for count, word in made)
        return self._collection(self.type).info.counted(len(self.records)) + new

    def summary(self) -> str:
        """Return the plan in lines for a person."""
        lines = [
            f"{self.name}: {self.rows:,} {'row makes' if self.rows == 1 else 'rows make'} {self.counted()}",
            "  columns: " + ", ".join(f"{column} → {path}" for column, path in self.mapping.items()),
        ]
        if self.unmapped:
            lines.append(f'  left out: {", ".join(self.unmapped)} (no field; map a column with "Column=field")')
        if self.masked:
            lines.append(f"  left empty: {', '.join(self.masked)} (masked in the export)")
        if self.payment:
            hold = "text holds" if len(self.payment) == 1 else "texts hold"
            lines.append(
                f"  mind: {len(self.payment):,} {hold} a card number or an IBAN, seen by whoever sees the record"
            )
            lines += [f"    line {cell.line}: {cell.field}: {cell.what}" for cell in self.payment[:SHOWN]]
            lines += [f"    ... and {len(self.payment) - SHOWN:,} more"] if len(self.payment) > SHOWN else []
        if self.bad:
            wrong = [row for row in self.bad if not row.reason.startswith(FOLLOWS)]
            follow = f", {len(self.bad) - len(wrong):,} of them for their group" if len(wrong) < len(self.bad) else ""
            lines.append(f"  bad rows: {self.bad_rows:,}{follow}")
            lines += [f"    {bad_row_text(row)}" for row in wrong[:SHOWN]]
            lines += [f"    ... and {len(wrong) - SHOWN:,} more"] if len(wrong) > SHOWN else []
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()

    def _collection(self, type: str) -> Collection[Any]:
        return self._crm.collection(type)


def bad_row_text(row: BadRow) -> str:
    """Return a bad row in one line for a person."""
    group = f" ({row.group})" if row.group else ""
    where = f"{row.field}: " if row.field else ""
    return f"line {row.line}{group}: {where}{row.reason}"


def _write_rows(path: Path, rows: Sequence[BadRow], source: Path) -> Path:
    """Write the file whole or not at all, as readable as its source; a file of somebody else is left alone."""
    if os.path.lexists(path) and not _is_own(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    fd, temporary = tempfile.mkstemp(prefix=".", suffix=".errors", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADINGS)
            writer.writerows((row.line, row.field, guarded(row.reason), guarded(row.group)) for row in rows)
        shutil.copymode(source, temporary)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _is_own(path: Path) -> bool:
    """Return whether a file, which is no link, begins as an error file does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, 100).splitlines()[:1] == [",".join(HEADINGS).encode()]
    except OSError:  # a folder
        return False
    finally:
        os.close(fd)


def _remove_own(path: Path) -> None:
    if _is_own(path):
        with contextlib.suppress(OSError):
            path.unlink()
