"""The documents of one collection in memory, with the indexes that were asked for so far."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import orjson

from crmkit.store.base import Doc
from crmkit.store.indexes import HashIndex, Index, ItemIndex, SortedIndex, TextIndex
from crmkit.store.words import WordIndex

AnyIndex = TypeVar("AnyIndex", bound=Index)
Opener = Callable[[Doc, Doc], Doc]
"""Opens some fields of a document, which comes second."""


def _no_text(doc: Doc) -> str:  # noqa: ARG001  # the signature of a text function
    return ""


def _as_it_is(fields: Doc, doc: Doc) -> Doc:  # noqa: ARG001  # the signature of an opener
    return fields


def patched(doc: Doc, after: Doc, before: Iterable[str]) -> Doc:
    """Return a document with the changed fields put in; those that it only had before are taken out."""
    gone = set(before).difference(after)
    kept = {name: value for name, value in doc.items() if name not in gone} if gone else doc
    return {**kept, **after}


@contextmanager
def nothing_is_garbage() -> Iterator[None]:
    """Keep the collector from looking, again and again, through documents that have only just been read."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class OpenDocs(dict[str, Doc]):
    """Documents by id, their sealed fields opened as they come in."""

    def __init__(self, open: Opener = _as_it_is) -> None:
        self.open = open

    def take(self, doc: Doc) -> None:
        """Take in a document in its form on disk."""
        self[doc["id"]] = self.open(doc, doc)

    def patch(self, id: str, after: Doc, before: Iterable[str]) -> None:
        """Take in changed fields in their form on disk."""
        plain = patched(self[id], after, before)
        opened = self.open(after, plain)
        self[id] = doc = {**plain, **opened}
        for name in after.keys() - opened.keys():  # what nobody can open any more
            del doc[name]

    def read(self, names: Sequence[str] | None) -> Iterator[Doc]:  # noqa: ARG002  # as `PackedDocs.read`
        """Return the documents; all of their fields are there anyway."""
        return iter(list(self.values()))

    def having(self, name: str) -> Iterator[Doc]:
        """Return the documents that have a plain field."""
        return (doc for doc in self.values() if name in doc)


class PackedDocs(Mapping[str, Doc]):
    """Documents by id, kept as the bytes of their form on disk; each is decoded and opened when it is read."""

    def __init__(self, open: Opener = _as_it_is) -> None:
        self.open = open
        self._packed: dict[str, bytes] = {}

    def __getitem__(self, id: str) -> Doc:
        doc = orjson.loads(self._packed[id])
        return self.open(doc, doc)

    def __contains__(self, id: object) -> bool:
        return id in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def take(self, doc: Doc) -> None:
        """Take in a document in its form on disk."""
        packed = orjson.dumps(doc)
        self._packed[doc["id"]] = bytes(memoryview(packed))  # a copy: behind what orjson returns lie 8 KB of its buffer

    def patch(self, id: str, after: Doc, before: Iterable[str]) -> None:
        """Take in changed fields in their form on disk."""
        self.take(patched(self.sealed(id), after, before))

    def pop(self, id: str, default: None = None) -> None:
        """Take a document out, if it is there."""
        self._packed.pop(id, default)

    def sealed(self, id: str) -> Doc:
        """Return a document in its form on disk."""
        doc: Doc = orjson.loads(self._packed[id])
        return doc

    def read(self, names: Sequence[str] | None) -> Iterator[Doc]:
        """Return the documents, only these fields of them where names are given."""
        return (self._part(packed, names) for packed in list(self._packed.values()))

    def having(self, name: str) -> Iterator[Doc]:
        """Return the documents that have a plain field; most are told by their bytes not to have it."""
        key = orjson.dumps(name)
        return (doc for packed in self._packed.values() if key in packed and name in (doc := self._part(packed, None)))

    def _part(self, packed: bytes, names: Sequence[str] | None) -> Doc:
        doc = orjson.loads(packed)
        return self.open(doc if names is None else {name: doc[name] for name in names if name in doc}, doc)


class Documents:
    """One collection: documents by id, and indexes built on first use and kept up to date from then on.

    A document is never changed in place, only replaced, so whoever got one keeps a consistent picture.

    Attributes:
        by_id: The documents; until the collection is registered, in their form on disk.
        is_registered: Whether the documents are in their memory form.
        unique: Paths whose values no two documents may share.
    """

    def __init__(self, *, lazy: bool = False) -> None:
        self.by_id: OpenDocs | PackedDocs = PackedDocs() if lazy else OpenDocs()
        self.is_registered = False
        self.unique: tuple[str, ...] = ()
        self.text: Callable[[Doc], str] = _no_text
        self._indexes: dict[tuple[str, ...], Index] = {}

    def put(self, doc: Doc) -> None:
        """Take in a new document in its form on disk."""
        self._change(doc["id"], lambda: self.by_id.take(doc))

    def patch(self, id: str, after: Doc, before: Iterable[str]) -> None:
        """Take in changed fields of a document, in their form on disk."""
        self._change(id, lambda: self.by_id.patch(id, after, before))

    def remove(self, id: str) -> None:
        """Take a document out."""
        self._change(id, lambda: self.by_id.pop(id, None))

    def move(self, id: str, to: Documents, seal: Callable[[Doc], Doc]) -> None:
        """Hand a document over to another collection; where it went already, do nothing.

        Args:
            id: Its id.
            to: Where it goes.
            seal: Brings it into the form on disk, where it is open here and will not be there.
        """
        if id not in self.by_id:
            return
        if isinstance(self.by_id, PackedDocs):
            doc = self.by_id.sealed(id)
            to.put(doc)
        elif not self.is_registered:
            to.put(self.by_id[id])
        elif to.is_registered and isinstance(to.by_id, OpenDocs):
            doc, docs = self.by_id[id], to.by_id
            to._change(id, lambda: docs.__setitem__(id, doc))
        else:
            to.put(seal(self.by_id[id]))
        self.remove(id)

    def drop_indexes(self) -> None:
        """Forget the indexes; each is built again when it is needed."""
        self._indexes.clear()

    def by_value(self, path: str) -> HashIndex:
        """Return the index of the values at a path."""
        return self._index(("value", path), lambda: HashIndex(path, self.by_id.values()))

    def by_item(self, path: str) -> ItemIndex:
        """Return the index of what the lists at a path, or the rows of a list on the way, hold."""
        return self._index(("item", path), lambda: ItemIndex(path, self.by_id.values()))

    def sorted_by(self, paths: tuple[str, ...]) -> SortedIndex:
        """Return the index in the order of these paths."""
        return self._index(("sorted", *paths), lambda: SortedIndex(paths, self.by_id.values()))

    def by_text(self) -> TextIndex:
        """Return the index of the derived texts."""
        return self._index(("text",), lambda: TextIndex(self.text, self.by_id.values()))

    def by_word(self) -> WordIndex:
        """Return the index of the words of the derived texts."""
        return self._index(("word",), lambda: WordIndex(self.text, self.by_id))

    def _change(self, id: str, change: Callable[[], object]) -> None:
        """Change one document and everything that is derived from it."""
        if not self._indexes:
            change()
            return
        old = self.by_id.get(id)
        change()
        new = self.by_id.get(id)
        for index in self._indexes.values():
            index.replace(old, new)

    def _index(self, name: tuple[str, ...], build: Callable[[], AnyIndex]) -> AnyIndex:
        index = self._indexes.get(name)
        if index is None:
            with nothing_is_garbage():
                index = self._indexes[name] = build()
        return index  # type: ignore[return-value]  # the first word of the name says which class it is


def settled(old: Documents, settings: Mapping[str, Any], open: Opener, on_disk: Mapping[str, Doc] | None) -> Documents:
    """Return the documents of a collection in their memory form, under the settings of a registration.

    Args:
        old: The documents so far.
        settings: ``unique``, ``text`` and ``lazy`` of the registration.
        open: Opens sealed fields.
        on_disk: All documents in their form on disk; None where `old` holds them so.
    """
    new = Documents(lazy=settings["lazy"])
    new.unique, new.text, new.is_registered = tuple(settings["unique"]), settings["text"] or _no_text, True
    if on_disk is None and isinstance(old.by_id, PackedDocs) and isinstance(new.by_id, PackedDocs):
        new.by_id = old.by_id
        new.by_id.open = open
        return new
    new.by_id.open = open
    for doc in (old.by_id if on_disk is None else on_disk).values():
        new.by_id.take(doc)
    return new
