"""The default store: TinyDB in memory over an append-only journal."""

from __future__ import annotations

import gc
import re
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from crmkit import durable
from crmkit.errors import Damaged, Refused, Unsupported
from crmkit.query import Condition, Find, Page
from crmkit.store.base import Change, Codec, Delete, Doc, Put, Requirement, Store
from crmkit.store.checks import Outcome
from crmkit.store.documents import Documents
from crmkit.store.journal import Frame, Journal, Operation, encode
from crmkit.store.lock import WorkspaceLock
from crmkit.store.plan import accepted_by, at_most, find_page
from crmkit.store.tables import CrmDB, JournalTable

FORMAT = 0
"""The number of the on-disk format; 0 until it is frozen."""

_CHANGES_KEPT = 50_000
_Entry = tuple[int, str, str, Literal["put", "delete"]]


class TinyStore(Store):
    """Documents in memory as TinyDB tables; every commit is one line of a journal, shared by many processes.

    Files of the folder: ``LOCK``, ``CURRENT`` (the generation of the journal) and ``wal.<generation>.jsonl``.

    Attributes:
        db: The same documents as a TinyDB database.
        workspace: The id of the workspace that the journal was made for.
    """

    def __init__(self, folder: Path, codec: Codec, *, timeout: float = 10.0) -> None:
        """Open a store and read all of it.

        Args:
            folder: The folder that `create` made.
            codec: Seals and opens fields.
            timeout: Seconds to wait for the lock.

        Raises:
            Damaged: A file is missing, or not what crmkit wrote.
            Refused: The system does not let this user read or write a file.
            Unsupported: The format is newer than this version, or the system is Windows.
        """
        _check_platform()
        self._codec = codec
        self._memory = threading.RLock()  # guards everything that a frame changes when it is taken in
        self._forget()
        with ExitStack() as on_failure:
            with _opening(folder):
                self._lock = WorkspaceLock(folder / "LOCK", timeout)
                on_failure.callback(self._lock.close)
                self._journal = Journal(folder / f"wal.{_generation(folder)}.jsonl")
                on_failure.callback(self._journal.close)
            self.workspace = _workspace_of(self._journal)
            self._load()
            on_failure.pop_all()
        self.db = CrmDB(self)

    @staticmethod
    def create(folder: Path, workspace_id: str) -> None:
        """Make the files of an empty store.

        Raises:
            Refused: There is a store in the folder already.
        """
        _check_platform()
        if (folder / "CURRENT").exists():
            raise Refused(f"{folder}: there is a store here already")
        durable.make_folder(folder)
        meta = {"format": FORMAT, "workspace": workspace_id}
        durable.replace_file(folder / "LOCK", b"")
        durable.replace_file(folder / "wal.1.jsonl", encode(0, [["m", meta]]))
        durable.replace_file(folder / "CURRENT", b"1\n")

    def register(
        self, collection: str, *, unique: Sequence[str] = (), text: Callable[[Doc], str] | None = None
    ) -> None:
        """Make a collection known; a second call reads its documents from disk again."""
        with self.reading(), _nothing_is_garbage():
            documents = self._collections[collection]
            on_disk = self._read_again(collection) if documents.is_registered else documents.by_id
            opened = {id: self._codec.open(collection, doc) for id, doc in on_disk.items()}
            documents.settle(opened, unique, text)

    def get(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return one document, or None."""
        collections = self._collections  # before the check: `close` puts others in their place
        self._refresh()
        documents = collections.get(collection)
        return documents.by_id.get(id) if documents else None

    def find(self, find: Find) -> Page[Mapping[str, Any]]:
        """Return one page of the documents that a condition accepts."""
        with self.reading():
            return find_page(self._documents(find.collection), find)

    def count(self, collection: str, where: Condition | None = None) -> int:
        """Return how many documents a condition accepts."""
        with self.reading():
            documents = self._documents(collection)
            return len(documents.by_id) if where is None else len(accepted_by(documents, where))

    def scan(self, collection: str) -> Iterator[Mapping[str, Any]]:
        """Return an iterator over every document as of the call."""
        with self.reading():
            return iter(list(self._documents(collection).by_id.values()))

    def match(self, collection: str, words: Sequence[str], limit: int) -> list[Mapping[str, Any]]:
        """Return the best documents whose derived text holds every word."""
        with self.reading():
            documents = self._documents(collection)
            most = at_most(limit, len(documents.by_id))
            return [documents.by_id[id] for id in documents.by_text().match(words, most)]

    def commit(
        self, writes: Sequence[Put | Delete], meta: Mapping[str, Any], requires: Sequence[Requirement] = ()
    ) -> int:
        """Write all or nothing, durably; see `Store.commit`."""
        with self.lock():
            outcome = Outcome(self._collections, writes)
            outcome.check_requirements(requires)
            outcome.check_unique()
            operations = [["m", dict(meta)], *self._seal(outcome.writes)] if writes else []
            with self._memory:
                if operations:
                    self._take_in(self._journal.append(operations))
                return self._journal.seq

    def seq(self) -> int:
        """Return the sequence number of the newest commit."""
        self._refresh()
        return self._journal.seq

    def changes(self, since: int) -> list[Change] | None:
        """Return what was changed after commit `since`; None where that is no longer in memory."""
        with self.reading():
            if since < self._feed_start:
                return None
            newer: list[Change] = []
            for entry in reversed(self._feed):
                if entry[0] <= since:
                    break
                newer.append(Change(*entry))
            return newer[::-1]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the write lock; everything that others committed has been taken in when the block starts."""
        self._journal.check_writable()
        with self._lock.hold() as was_taken_now:
            if was_taken_now and self._journal.has_grown():
                with self._memory:
                    self._catch_up()
                    self._journal.cut_tail()
            yield

    def verify(self) -> list[str]:
        """Read every frame on disk again and return the problems found."""
        self._journal.check_open()
        with self._lock.hold():
            return self._journal.verify()

    def close(self) -> None:
        """Close the files and forget every document; see `Store.close`."""
        with self._memory:
            self._journal.close()
            self._lock.close()
            self._forget()

    def table(self, name: str) -> JournalTable:
        """Return a collection as a TinyDB table; what it returns are copies."""
        table = self.db.table(name)
        assert isinstance(table, JournalTable)
        return table

    def tables(self) -> dict[str, dict[str, Doc]]:
        """Return the live documents by collection and id."""
        with self.reading():
            return {name: documents.by_id for name, documents in self._collections.items()}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep the documents as they are, up to date, while the block runs."""
        self._refresh()
        with self._memory:
            self._journal.check_open()
            yield

    def _forget(self) -> None:
        """Begin with nothing in memory."""
        self._collections: defaultdict[str, Documents] = defaultdict(Documents)
        self._feed: deque[_Entry] = deque()
        self._feed_start = 0

    def _documents(self, collection: str) -> Documents:
        return self._collections.get(collection) or Documents()

    def _refresh(self) -> None:
        """Take in what other processes committed."""
        if not self._journal.has_grown():
            return
        try:
            with self._memory:
                self._catch_up()
        except Damaged:
            with self.lock():  # a writer at work may look like damage; not so under the lock, which reads again
                pass

    def _catch_up(self) -> None:
        if self._journal.has_grown():
            for frame in self._journal.read():
                self._apply(frame)

    def _take_in(self, frame: Frame) -> None:
        self._apply(frame)
        self._journal.advance(frame)

    def _apply(self, frame: Frame) -> None:
        """Change the memory as a frame says; one that an interrupt cut short is simply applied again."""
        try:
            self._apply_all(frame)
        except BaseException:
            for documents in self._collections.values():
                documents.drop_indexes()  # they may hold half of it
            raise

    def _apply_all(self, frame: Frame) -> None:
        entries: list[_Entry] = []
        for operation in frame.operations:
            match operation:
                case ["p", collection, id, doc]:
                    entries.append(self._apply_put(frame.seq, collection, doc))
                case ["b", collection, docs]:
                    entries += [self._apply_put(frame.seq, collection, doc) for doc in docs]
                case ["d", collection, id]:
                    self._collections[collection].remove(id)
                    entries.append((frame.seq, collection, id, "delete"))
        self._feed.extend(entries)
        while len(self._feed) > _CHANGES_KEPT:
            self._feed_start = self._feed.popleft()[0]

    def _apply_put(self, seq: int, collection: str, doc: Doc) -> _Entry:
        documents = self._collections[collection]
        documents.put(self._codec.open(collection, doc) if documents.is_registered else doc)
        return seq, collection, doc["id"], "put"

    def _seal(self, writes: Sequence[Put | Delete]) -> list[Operation]:
        """Return the writes as operations; neighbouring puts into one collection share one."""
        self._codec.prepare([(write.collection, write.doc) for write in writes if isinstance(write, Put)])
        operations: list[Operation] = []
        for collection, run in groupby(writes, key=lambda write: isinstance(write, Put) and write.collection):
            if not collection:
                operations += [["d", write.collection, write.id] for write in run if isinstance(write, Delete)]
                continue
            docs = [self._codec.seal(collection, write.doc) for write in run if isinstance(write, Put)]
            operations.append(["b", collection, docs] if len(docs) > 1 else ["p", collection, docs[0]["id"], docs[0]])
        return operations

    def _load(self) -> None:
        with _nothing_is_garbage():
            self._refresh()

    def _read_again(self, collection: str) -> dict[str, Doc]:
        """Return the documents of a collection in the form on disk."""
        docs: dict[str, Doc] = {}
        for frame in self._journal.taken_in():
            for operation in frame.operations:
                match operation:
                    case ["p", name, id, doc] if name == collection:
                        docs[id] = doc
                    case ["b", name, many] if name == collection:
                        docs.update((doc["id"], doc) for doc in many)
                    case ["d", name, id] if name == collection:
                        docs.pop(id, None)
        return docs


@contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """Keep the collector from looking, again and again, through documents that have only just been read."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_platform() -> None:
    if sys.platform == "win32":
        raise Unsupported("crmkit cannot keep a workspace on Windows yet; use Linux, or WSL")


def _generation(folder: Path) -> int:
    text = (folder / "CURRENT").read_bytes()
    if not re.fullmatch(rb"[1-9][0-9]{0,17}\n?", text):
        raise Damaged(f"{folder / 'CURRENT'}, line 1: holds no number of a journal; restore this file from a backup")
    return int(text)


def _workspace_of(journal: Journal) -> str:
    """Return the id of the workspace, where this version can read its journal."""
    match journal.first().operations:
        case [["m", {"format": int(number), "workspace": str(workspace)}], *_]:
            if number > FORMAT:
                known = f"this version of crmkit reads up to {FORMAT}; install a newer one"
                raise Unsupported(f"{journal.path}: has format {number}, and {known}")
            return workspace
    raise Damaged(f"{journal.path}, line 1: does not say which workspace it belongs to")


@contextmanager
def _opening(folder: Path) -> Iterator[None]:
    """Turn what the system says about a file into an error of ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise Damaged(f"{error.filename}: is missing") from None
    except PermissionError as error:
        raise Refused(f"{error.filename}: this user may not read and write it ({error.strerror})") from None
    except OSError as error:
        raise Damaged(f"{error.filename or folder}: cannot be opened ({error.strerror})") from None
