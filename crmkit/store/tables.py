"""The collections as real TinyDB tables, through the extension points that TinyDB offers.

Reading methods of a table see the live memory of the store and return copies. Writing methods run against an
overlay, and what they changed becomes one commit. Nothing in crmkit itself works this way: the tables are there
for whoever asks ad-hoc questions in a notebook with the TinyDB that they know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from tinydb import Storage, TinyDB
from tinydb.table import Document, Table
from tinydb.utils import LRUCache

from crmkit.errors import Unsupported
from crmkit.records import new_id
from crmkit.store.base import NEW, Delete, Doc, Put

if TYPE_CHECKING:
    from crmkit.store.tiny import TinyStore


class JournalStorage(Storage):
    """Gives TinyDB the collections of a store; the tables write through the store and not through this."""

    def __init__(self, store: TinyStore) -> None:
        self.store = store

    def read(self) -> dict[str, Any]:
        """Return the live documents by collection and id."""
        return self.store.tables()

    def write(self, data: dict[str, dict[str, Any]]) -> None:  # noqa: ARG002  # the signature of a storage
        """Refuse: documents are written one commit at a time."""
        raise Unsupported("a whole database cannot be written at once; use the methods of its tables")


class NoCache(LRUCache[Any, Any]):
    """Keeps no query results: other processes change the documents."""

    def set(self, key: Any, value: Any) -> None:
        """Do nothing."""


class Overlay(MutableMapping[str, Doc]):
    """The documents of a table for somebody who changes them: copies are handed out, changes are collected."""

    def __init__(self, base: Mapping[str, Doc]) -> None:
        self._base = base
        self._touched: dict[str, Doc | None] = {}

    def __getitem__(self, id: str) -> Doc:
        if id not in self._touched:
            self._touched[id] = deepcopy(self._base[id])
        doc = self._touched[id]
        if doc is None:
            raise KeyError(id)
        return doc

    def __setitem__(self, id: str, doc: Doc) -> None:
        self._touched[id] = doc

    def __delitem__(self, id: str) -> None:
        if id not in self:
            raise KeyError(id)
        self._touched[id] = None

    def __contains__(self, id: object) -> bool:
        return self._touched[id] is not None if id in self._touched else id in self._base

    def __iter__(self) -> Iterator[str]:
        yield from (id for id in self._base if id in self)
        yield from (id for id, doc in self._touched.items() if doc is not None and id not in self._base)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Remove every document."""
        self._touched = dict.fromkeys(self._base)

    def writes(self, collection: str) -> list[Put | Delete]:
        """Return what was changed; a document keeps its "rev", so that one read too long ago is refused."""
        writes: list[Put | Delete] = []
        for id, doc in self._touched.items():
            old: Any = self._base.get(id)
            if doc is None and old is not None:
                writes.append(Delete(collection, id, old["rev"]))
            elif doc is not None and doc != old:
                expect = doc.get("rev", old["rev"]) if old is not None else NEW
                writes.append(Put(collection, {**doc, "id": id, "rev": expect or 1}, expect))
        return writes


class JournalTable(Table):
    """A TinyDB table whose ids are ULIDs and whose changes are commits of the journal."""

    document_id_class = str  # type: ignore[assignment]  # TinyDB annotates what its own tables use
    query_cache_class = NoCache

    def search(self, cond: Any) -> list[Document]:
        """Return copies of the documents that a query accepts."""
        with self._store.reading():
            return deepcopy(super().search(cond))

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return a copy of one document, or copies of several, as TinyDB does."""
        with self._store.reading():
            return deepcopy(super().get(*args, **kwargs))

    def __iter__(self) -> Iterator[Document]:
        with self._store.reading():
            documents = list(super().__iter__())
        yield from (deepcopy(document) for document in documents)

    @property
    def _store(self) -> TinyStore:
        storage = self._storage
        assert isinstance(storage, JournalStorage)
        return storage.store

    def _get_next_id(self) -> str:
        return new_id()

    def _read_table(self) -> Any:
        return self._store.tables().get(self.name, {})

    def _update_table(self, updater: Callable[[Any], None]) -> None:
        with self._store.lock():
            overlay = Overlay(self._read_table())
            updater(overlay)
            meta = {"actor": "table", "cause": new_id(), "kind": "table"}
            self._store.commit(overlay.writes(self.name), meta)


class CrmDB(TinyDB):
    """A TinyDB database over a store."""

    table_class = JournalTable
    default_storage_class = JournalStorage  # type: ignore[assignment]  # TinyDB annotates what it uses itself

    def drop_table(self, name: str) -> None:
        """Remove every document of a table."""
        self.table(name).truncate()

    def drop_tables(self) -> None:
        """Remove every document of every table."""
        for name in self.tables():
            self.drop_table(name)
