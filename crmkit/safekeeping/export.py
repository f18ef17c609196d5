"""Export: everything that is stored in open formats, JSON lines and CSV, readable without crmkit.

What is written is as of one commit, while others go on writing; it is read again and counted before the folder gets
its name. Sensitive fields are masked unless somebody says why not, which the audit log keeps.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from crmkit.codec import REMOVED, RecordCodec
from crmkit.durable import make_folder
from crmkit.errors import Damaged, Erased, Invalid
from crmkit.forbidden import check_reason
from crmkit.safekeeping.folders import failed, new_folder
from crmkit.schema import KEPT_BY_CRMKIT, RecordInfo
from crmkit.store.salvage import APART
from crmkit.tables.formulas import guarded
from crmkit.values import Money

if TYPE_CHECKING:
    from crmkit.history import History
    from crmkit.store.base import Doc, Logged, Step
    from crmkit.vault import Vault
    from crmkit.visibility import Visible
    from crmkit.workspace import Workspace

Progress = Callable[[str, float], None]
"""Told a step (``"exporting"``) and how much of it is done, 0 to 1."""

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600  # people's names in the clear are nobody else's
NEVER_OPENED = ("card",)  # kinds of fields that stay masked in every file
OTHER = "other"  # the column of fields that the record type does not know
_TOLD_EVERY = 500
_PARTS_WORDS = re.compile(r"[,;]|^\W|\s$")

README = """This folder holds everything that was stored in a CRM, as of one moment.

records/<type>.jsonl   every record as one line of JSON, exactly as it is; removed ones have "removed": true
                       Names that end in .parts, .unsure or .sealed hold what was saved of a damaged workspace: records
                       of which only some fields are left, that stood in a damaged line, and whose keys are lost.
records/<type>.csv     the same as a table (UTF-8, one row a record). Amounts are "12.30 EUR", words of a list "a; b",
                       nested rows JSON. A text that a spreadsheet would take for a formula has an apostrophe in front.
history.jsonl          every commit, newest first: who, when, why, and what the changed fields were before
audit.jsonl            the audit log, with its reasons in the clear; the seals of its lines are those of the original
                       Records that were not visible to the one who exported are in none of these; export.json counts
                       them as left out.
files, notebooks, plugins, crmkit.toml     copies
export.json            what was written, and how many of each

Sensitive fields are masked, unless export.json says that they were revealed; card numbers always are. A value that
begins with "c1." is sealed: its key is gone, or no plugin knows its type.
"""


@dataclass(frozen=True)
class Exported:
    """What was written, and read again to count it; only what the one who exports may see.

    Attributes:
        path: The folder or file.
        seq: The newest commit in it.
        records: How many records of each collection, removed ones included.
        removed: How many of those are removed ones.
        commits: How many commits of the history; those that changed nothing, such as a closing, are left out.
        files: How many files beside ``crmkit.toml``: files, notebooks and plugins.
        revealed: Whether sensitive fields are open.
        left_out: How many records were left out, because they are private or another team's.
    """

    path: Path
    seq: int
    records: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    commits: int = 0
    files: int = 0
    revealed: bool = False
    left_out: int = 0


class Exporter:
    """Writes what one CRM holds.

    Args:
        workspace: Where it is.
        store: Its store.
        codec: Opens what is sealed.
        vault: Keeps the audit log.
        types: What is known of each record type.
        history: Opens the reasons of commits.
        actor: Who exports.
    """

    def __init__(
        self,
        workspace: Workspace,
        store: Visible,
        codec: RecordCodec,
        vault: Vault,
        types: Iterable[RecordInfo],
        history: History,
        actor: str,
    ) -> None:
        self._workspace = workspace
        self._store = store
        self._codec = codec
        self._vault = vault
        self._types = {known.plural: known for known in types}
        self._history = history
        self._actor = actor

    def everything(self, folder: Path, reveal: str | None = None, progress: Progress | None = None) -> Exported:
        """Write everything into a new folder, which only this user can read.

        Args:
            folder: The folder to make; it must not exist, or be empty.
            reveal: Why sensitive fields are to be open; masked when left out. Kept in the audit log.
            progress: Told how far it is.

        Raises:
            Invalid: Something is where the folder is to be made, or the reason is blank.
            Damaged: What was written is not what is stored.
            CrmError: The system cannot write; nothing is left behind.
        """
        folder = folder.expanduser().resolve()
        with new_folder(folder, PRIVATE_FOLDER) as unfinished:
            tables, commits, seq = self._as_of_now(reveal)
            records = unfinished / "records"
            records.mkdir(PRIVATE_FOLDER)
            told = _told(progress, sum(table.count for table in tables) + seq)
            for table in tables:
                with (
                    _new_file(records / f"{table.name}.jsonl") as lines,
                    _new_file(records / f"{table.name}.csv", "-sig") as rows,
                ):
                    self._write(table, _Lines(lines), _Rows(rows, table.known), told, reveal)
            with _new_file(unfinished / "history.jsonl") as lines:
                written = self._write_history(commits, _Lines(lines), told, reveal)
            with _new_file(unfinished / "audit.jsonl") as lines:
                self._write_audit_log(lines)
            copied = _copy_files(self._workspace, unfinished)
            _write_text(unfinished / "README.txt", README)
            counts = {table.name: table.count for table in tables}
            removed = {table.name: table.removed for table in tables if table.removed}
            left_out = sum(table.left_out for table in tables)
            made = Exported(folder, seq, counts, removed, written, copied, reveal is not None, left_out)
            about = {**asdict(made), "path": folder.name}
            _write_text(unfinished / "export.json", json.dumps(about, indent=1))
            _check(unfinished, made)
        return made

    def one_type(
        self, plural: str, path: Path, reveal: str | None = None, progress: Progress | None = None
    ) -> Exported:
        """Write the records of one type, without removed ones, into a new file, CSV or JSON lines by its name.

        Raises:
            Invalid: The name ends otherwise, or there is such a file.
            CrmError: The system cannot write; nothing is left behind.
        """
        path = path.expanduser().resolve()
        if path.suffix not in (".csv", ".jsonl"):
            raise Invalid({"path": f"{path.name}: the name of the file must end in .csv or .jsonl"})
        if path.exists():
            raise Invalid({"path": f"{path} exists already; nothing is ever written over an old file"})
        tables, _, seq = self._as_of_now(reveal, plural)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        is_csv = path.suffix == ".csv"
        [table] = tables
        try:
            with _new_file(temporary, "-sig" if is_csv else "") as file:
                kind = _Rows(file, table.known) if is_csv else _Lines(file)
                self._write(table, kind, None, _told(progress, table.count), reveal)
            temporary.replace(path)
        except OSError as error:
            raise failed(error, path, temporary) from error
        finally:
            temporary.unlink(missing_ok=True)
        return Exported(path, seq, {plural: table.count}, revealed=reveal is not None, left_out=table.left_out)

    # ------------------------------------------------------------------ records

    def _as_of_now(self, reveal: str | None, only: str | None = None) -> tuple[list[_Table], Iterator[Logged], int]:
        """Return what is stored as of one commit, after a line in the audit log for each type."""
        if reveal is not None:
            check_reason(reveal, "reveal")
        with self._store.lock():
            names = [only] if only else self._names()
            tables = [self._table(name, with_removed=only is None) for name in names]
            for table in tables:
                self._audit(table, reveal)
            return tables, self._store.commits(newest_first=True), self._store.seq()

    def _names(self) -> list[str]:
        """Return the collections, removed records not counted as one, by name."""
        stored = {name for name in self._store.collections() if not name.startswith(".")}
        return sorted({*self._types, *(name.removesuffix(REMOVED) for name in stored)})

    def _table(self, name: str, *, with_removed: bool) -> _Table:
        places = (name, name + REMOVED) if with_removed else (name,)
        parts = tuple((place, self._store.scan(place)) for place in places)
        counts = [self._store.count(place) for place in places]
        left_out = sum(map(self._store.count_hidden, places))
        return _Table(name, self._types.get(_type_of(name)), parts, sum(counts), sum(counts[1:]), left_out)

    def _audit(self, table: _Table, reveal: str | None) -> None:
        """Note that the records of a type were exported; which ones follows from the time."""
        if table.known is None:
            return
        fields = _opened_fields(table.known) if reveal else ()
        self._vault.note(self._actor, "export", reveal, entity=table.known.type, fields=fields)

    def _write(
        self, table: _Table, first: _Kind, second: _Kind | None, told: Callable[[], None], reveal: str | None
    ) -> None:
        for place, docs in table.parts:
            for doc in docs:
                row = self._plain(place, doc, doc, reveal)
                for kind in (first, second):
                    if kind:
                        kind.write(row, removed=place != table.name)
                told()

    def _plain(self, place: str, fields: Mapping[str, Any], doc: Mapping[str, Any], reveal: str | None) -> Doc:
        """Return fields of a document for people: sensitive ones masked or open, without what is for search only."""
        known = self._types.get(_type_of(place))
        out = {name: value for name, value in fields.items() if not name.startswith("_")}
        if known is None:
            return out
        if place.endswith(APART):
            self._open_what_opens(known.plural, out)
        opened = _opened_fields(known) if reveal else ()
        for name, spec in known.fields.items():
            if spec.klass == "sensitive" and out.get(name) is not None:
                whole = {**doc, name: out[name]}
                with contextlib.suppress(Damaged, Erased):  # its key is gone: it stays sealed
                    secret = self._codec.opened if name in opened else self._codec.secret
                    out[name] = _json(secret(known.plural, whole, name))
        return out

    def _open_what_opens(self, plural: str, doc: Doc) -> None:
        """Open the personal fields of a record that a salvage kept apart, which the store does not; each by itself."""
        for name in tuple(doc):
            with contextlib.suppress(Damaged, Invalid):  # its id may be damaged too
                doc.update(self._codec.open(plural, {name: doc[name]}, doc))

    # ------------------------------------------------------------------ history

    def _write_audit_log(self, file: IO[str]) -> None:
        """Write who did what to sealed fields, with the reasons in the clear."""
        lines = _Lines(file)
        for entry in self._vault.audit.entries():
            if self._store.hides_any(entry["record"]):
                continue
            if entry["reason"]:
                with contextlib.suppress(Damaged, Erased):  # its key is gone: it stays sealed
                    place = entry["record"], entry["subject"]
                    entry["reason"] = self._vault.open("audit", "reason", *place, entry["reason"])
            lines.write(entry)

    def _write_history(
        self, commits: Iterator[Logged], lines: _Lines, told: Callable[[], None], reveal: str | None
    ) -> int:
        count, subjects = 0, dict[str, Any]()
        for commit in commits:
            meta = {name: value for name, value in commit.meta.items() if name != "reason"}
            with contextlib.suppress(Damaged):
                meta["reason"] = self._history.reason(commit.meta) or None
            steps = [self._told_step(step, subjects, reveal) for step in reversed(commit.steps)]
            lines.write({"commit": commit.seq, **meta, "steps": steps[::-1]})
            count += 1
            told()
        return count

    def _told_step(self, step: Step, subjects: dict[str, Any], reveal: str | None) -> Doc:
        """Return a step with the fields as they were before it; going back in time, so that each has its subject."""
        names = [name for name in step.changed if not name.startswith("_")]
        told: Doc = {"action": step.action, "collection": step.collection, "id": step.id, "fields": names}
        if step.to not in ("", step.collection):
            told["to"] = step.to
        told["before"] = self._before(step, subjects, reveal)
        return told

    def _before(self, step: Step, subjects: dict[str, Any], reveal: str | None) -> Doc:
        known, before = self._types.get(step.collection.removesuffix(REMOVED)), dict(step.before)
        doc: Doc = {"id": step.id, **before}
        if known and known.subject:
            if known.subject in step.changed:
                subjects[step.id] = before.get(known.subject)
            doc[known.subject] = subjects[step.id] if step.id in subjects else self._now(step).get(known.subject)
        with contextlib.suppress(Damaged):
            before = self._codec.open_past(step.collection, before, doc)
        return self._plain(step.collection, before, doc, reveal)

    def _now(self, step: Step) -> Mapping[str, Any]:
        name = step.collection.removesuffix(REMOVED)
        return self._store.get(name, step.id) or self._store.get(name + REMOVED, step.id) or {}


def _type_of(collection: str) -> str:
    """Return the plural of the type whose records a collection holds, removed ones or what was salvaged of them."""
    for ending in (*APART, REMOVED):
        collection = collection.removesuffix(ending)
    return collection


@dataclass(frozen=True)
class _Table:
    """The records of one type, as of one moment."""

    name: str
    known: RecordInfo | None
    parts: tuple[tuple[str, Iterator[Mapping[str, Any]]], ...]
    count: int
    removed: int
    left_out: int


# --------------------------------------------------------------------------- forms


class _Lines:
    """JSON lines."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: Mapping[str, Any], *, removed: bool = False) -> None:
        """Write one line."""
        whole = {**row, "removed": True} if removed else row
        self._file.write(json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n")


class _Rows:
    """A CSV table: a column for each field of the type, then what it does not know."""

    def __init__(self, file: IO[str], known: RecordInfo | None) -> None:
        self._known = known
        self._columns = [*KEPT_BY_CRMKIT, *(known.fields if known else ())]
        self._writer = csv.writer(file)
        self._writer.writerow(["removed", *self._columns, OTHER])

    def write(self, row: Mapping[str, Any], *, removed: bool = False) -> None:
        """Write one row."""
        other = {name: value for name, value in row.items() if name not in self._columns}
        cells = [self._cell(name, row.get(name)) for name in self._columns]
        self._writer.writerow(["true" if removed else "", *cells, _text(other) if other else ""])

    def _cell(self, name: str, value: Any) -> str:
        spec = self._known.fields.get(name) if self._known else None
        if spec and spec.kind == "money" and isinstance(value, dict):
            money = Money(value["minor"], value["currency"])
            return f"{money.amount} {money.currency}"
        return _text(value)


_Kind = _Lines | _Rows


def _json(value: Any) -> Any:
    """Return a value as JSON has it; a secret as its mask."""
    return value if value is None or isinstance(value, bool | int | float | str | list | dict) else str(value)


def _text(value: Any) -> str:
    """Return a value as the text of a cell; words that can be told apart again without JSON are."""
    if value is None or value == []:
        return ""
    if isinstance(value, str):
        return guarded(value)
    if isinstance(value, list) and all(isinstance(word, str) and not _PARTS_WORDS.search(word) for word in value):
        return guarded("; ".join(value))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _opened_fields(known: RecordInfo) -> tuple[str, ...]:
    """Return the sensitive fields that may be open in an export."""
    sensitive = (spec for spec in known.fields.values() if spec.klass == "sensitive")
    return tuple(spec.name for spec in sensitive if spec.kind not in NEVER_OPENED)


# --------------------------------------------------------------------------- files


@contextlib.contextmanager
def _new_file(path: Path, mark: str = "") -> Iterator[IO[str]]:
    """Open a new text file that only this user can read; it is on disk when the block ends."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(fd, "w", encoding=f"utf-8{mark}", newline="") as file:
        yield file
        file.flush()
        os.fsync(fd)


def _write_text(path: Path, text: str) -> None:
    with _new_file(path) as file:
        file.write(text)


def _copy_files(workspace: Workspace, folder: Path) -> int:
    """Copy what is in open formats anyway; links are left out, as they are in a backup.

    Returns:
        How many files there are beside the settings.
    """
    paths, _ = workspace.plain_files()
    for path in paths:
        name = path.relative_to(workspace.folder)
        for parent in reversed(name.parents):
            make_folder(folder / parent, PRIVATE_FOLDER)
        target = folder / name
        shutil.copyfile(path, target)
        target.chmod(PRIVATE_FILE)
    return len(paths) - 1


def _check(folder: Path, made: Exported) -> None:
    """Read again what was written, and compare the counts with those of the store."""
    for name, count in made.records.items():
        for path in (folder / "records" / f"{name}.jsonl", folder / "records" / f"{name}.csv"):
            _expect(path, _rows_in(path), count)
    _expect(folder / "history.jsonl", _rows_in(folder / "history.jsonl"), made.commits)


def _rows_in(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            return sum(1 for line in file if json.loads(line))
        csv.field_size_limit(2**31 - 1)
        return sum(1 for _ in islice(csv.reader(file), 1, None))


def _expect(path: Path, found: int, count: int) -> None:
    if found != count:
        raise Damaged(f"{path.name}: {found:,} were written and {count:,} are stored; nothing was made")


def _told(progress: Progress | None, total: int) -> Callable[[], None]:
    """Return what is called for each record or commit that was written."""
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress and (done % _TOLD_EVERY == 0 or done == total):
            progress("exporting", min(1.0, done / max(total, 1)))

    return tell
