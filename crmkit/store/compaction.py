"""Compaction: a generation is finished and the next one begins with a snapshot of what is stored.

The long part runs beside other writers: everything up to one commit is written to temporary files, which nobody
looks at. The lock is only needed for the commits that came meanwhile, and for the switch. Sealed fields are
copied as they are; nothing is opened here.

Whatever a crash leaves, ``CURRENT`` names a generation whose files are whole: it is replaced after the files of
the new generation, and their names, are on disk.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crmkit import durable
from crmkit.store.base import Doc
from crmkit.store.documents import nothing_is_garbage, patched
from crmkit.store.files import FIRST, Files
from crmkit.store.frames import FORMAT, Frame, Operation, copied, read_finished

SMALLEST = 4_000_000
"""Bytes that a journal must have before compaction is worth while."""

DOCUMENTS = 128  # in one line of a snapshot, so that their common names are read once
_BUFFER = 1 << 20

Place = tuple[str, str]
"""A collection and an id."""


def is_due(files: Files, generation: int, journal: int) -> bool:
    """Return whether a journal of so many bytes has grown enough for compaction."""
    if journal <= SMALLEST:
        return False
    return generation == FIRST or journal > files.snapshot(generation).stat().st_size / 2


class Compaction:
    """The files of the next generation while they are made.

    Args:
        files: The files of the store.
        generation: The generation that comes to its end.
        head: The first operation of its journal, which says what the store is.
        seq: The last commit that the snapshot is to hold.
    """

    def __init__(self, files: Files, generation: int, head: dict[str, Any], seq: int) -> None:
        self._files = files
        self._old, self._new = generation, generation + 1
        self._head = head
        self._seq = seq
        self._made: list[tuple[Path, Path]] = []

    @nothing_is_garbage()  # a quarter of the time; what is read here goes away by itself
    def write(self, commits: Iterable[Frame], again: Iterable[Frame]) -> None:
        """Write the snapshot and the log; no lock is needed.

        Args:
            commits: The commits of the old generation up to `seq`.
            again: The same once more; they are too many to be kept.
        """
        fates = Fates()
        first = self._seq
        with LineWriter(self._temporary(self._files.log(self._old))) as log:
            for frame in commits:
                if not log.lines:
                    first = frame.seq - 1
                    log.write(copied(first, [["m", self._meta(self._old)]]))
                fates.take(frame)
                log.write(copied(frame.seq, condensed(frame.operations)))
            if not log.lines:
                log.write(copied(first, [["m", self._meta(self._old)]]))
            log.end(self._seq)
        with LineWriter(self._temporary(self._files.snapshot(self._new))) as snapshot:
            snapshot.write(copied(self._seq, [["m", self._meta(self._new)]]))
            for collection, docs in self._batches(fates, again):
                snapshot.write(copied(self._seq, [["b", collection, docs]]))
            snapshot.end(self._seq)

    def switch(self, newer: Iterable[Frame]) -> None:
        """Begin the next generation; the caller holds the lock and has taken in every commit.

        Args:
            newer: The commits after those that `write` was given.
        """
        with LineWriter(self._temporary(self._files.wal(self._new))) as journal:
            journal.write(copied(self._seq, [["m", self._meta(self._new)]]))
            for frame in newer:
                journal.write(copied(frame.seq, frame.operations))
        for temporary, path in self._made:
            temporary.replace(path)
        self._made.clear()
        durable.sync_folder(self._files.folder)
        self._files.switch(self._new)
        self._files.clean(self._new)

    def give_up(self) -> None:
        """Remove what was made and is not in use."""
        for temporary, _ in self._made:
            temporary.unlink(missing_ok=True)

    def _temporary(self, path: Path) -> Path:
        temporary = path.with_name(durable.temporary_name(path.name))
        self._made.append((temporary, path))
        return temporary

    def _meta(self, generation: int) -> dict[str, Any]:
        return {**self._head, "format": FORMAT, "generation": generation}

    def _batches(self, fates: Fates, again: Iterable[Frame]) -> Iterator[tuple[str, list[Doc]]]:
        """Yield the documents by collection, as many as go into one line."""
        waiting: defaultdict[str, list[Doc]] = defaultdict(list)
        for collection, doc in self._documents(fates, again):
            docs = waiting[collection]
            docs.append(doc)
            if len(docs) == DOCUMENTS:
                yield collection, docs
                waiting[collection] = []
        yield from ((collection, docs) for collection, docs in waiting.items() if docs)

    def _documents(self, fates: Fates, again: Iterable[Frame]) -> Iterator[tuple[str, Doc]]:
        """Yield every document that there is after the last commit, with its collection."""
        number = 0
        for frame in self._former():
            for operation in frame.operations:
                for collection, doc in born(operation):
                    yield from fates.of(number, collection, doc)
        for frame in again:
            for operation in frame.operations:
                number += 1
                for collection, doc in born(operation):
                    yield from fates.of(number, collection, doc)

    def _former(self) -> Iterator[Frame]:
        """Yield the lines of the snapshot that the old generation began with."""
        return iter(()) if self._old == FIRST else read_finished(self._files.snapshot(self._old))


class Fates:
    """What became of documents after they were first written: the operations on each, in their order."""

    def __init__(self) -> None:
        self._number = 0
        self._operations: defaultdict[Place, list[tuple[int, Operation]]] = defaultdict(list)

    def take(self, frame: Frame) -> None:
        """Take in the operations of one commit."""
        for operation in frame.operations:
            self._number += 1
            match operation:
                case (
                    ["u", collection, id, _, _]
                    | ["d", collection, id, _]
                    | ["s", collection, id, _]
                    | ["v", collection, _, id, _, _]
                ):
                    self._operations[collection, id].append((self._number, operation))

    def of(self, number: int, collection: str, doc: Doc) -> Iterator[tuple[str, Doc]]:
        """Yield what a document, written by the operation of this number, is at the end, if it still is."""
        for later, operation in self._operations.get((collection, doc["id"]), ()):
            if later <= number:
                continue
            match operation:
                case ["d", *_]:
                    return
                case ["u", _, _, after, before]:
                    doc = patched(doc, after, before)
                case ["s", _, _, fields]:
                    doc = patched(doc, fields, ())
                case ["v", _, to, _, after, before]:
                    yield from self.of(later, to, patched(doc, after, before))
                    return
        yield collection, doc


def born(operation: Operation) -> Iterator[tuple[str, Doc]]:
    """Yield the documents that an operation wrote whole, with their collection."""
    match operation:
        case ["b", collection, docs]:
            yield from ((collection, doc) for doc in docs)
        case ["p", collection, _, doc]:
            yield collection, doc


def condensed(operations: Iterable[Operation]) -> list[Operation]:
    """Return operations without what is in the snapshot anyway."""
    return [_condensed(operation) for operation in operations if operation[0] != "s"]


def _condensed(operation: Operation) -> Operation:
    match operation:
        case ["p", collection, id, _]:
            return ["a", collection, [id]]
        case ["b", collection, docs]:
            return ["a", collection, [doc["id"] for doc in docs]]
        case ["u", collection, id, after, before]:
            return ["u", collection, id, list(after), before]
        case ["v", collection, to, id, after, before]:
            return ["v", collection, to, id, list(after), before]
    return operation


class LineWriter:
    """A new file that is on disk when the block ends; lines are gathered, so that few calls write them."""

    def __init__(self, path: Path) -> None:
        self.lines = 0
        self._path = path
        self._waiting: list[bytes] = []
        self._size = 0
        self._written = 0

    def __enter__(self) -> LineWriter:
        self._fd = durable.open_file(self._path, os.O_RDWR | os.O_TRUNC)
        return self

    def write(self, line: bytes) -> None:
        """Add a line."""
        self.lines += 1
        self._waiting.append(line)
        self._size += len(line)
        if self._size > _BUFFER:
            self._flush()

    def end(self, seq: int) -> None:
        """Add the line that says how many there are."""
        self.write(copied(seq, [["e", self.lines]]))

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._flush()
                os.fsync(self._fd)
        finally:
            os.close(self._fd)

    def _flush(self) -> None:
        self._written += durable.write_all(self._fd, b"".join(self._waiting), self._written)
        self._waiting, self._size = [], 0
