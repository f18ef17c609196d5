"""The documents of one collection in memory, with the indexes that were asked for so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from crmkit.store.base import Doc
from crmkit.store.indexes import HashIndex, Index, ItemIndex, SortedIndex, TextIndex

AnyIndex = TypeVar("AnyIndex", bound=Index)


def _no_text(doc: Doc) -> str:  # noqa: ARG001  # the signature of a text function
    return ""


class Documents:
    """One collection: documents by id, and indexes built on first use and kept up to date from then on.

    A document is never changed in place, only replaced, so whoever got one keeps a consistent picture.

    Attributes:
        by_id: The documents.
        is_registered: Whether the documents are in their memory form.
        unique: Paths whose values no two documents may share.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, Doc] = {}
        self.is_registered = False
        self.unique: tuple[str, ...] = ()
        self._text: Callable[[Doc], str] = _no_text
        self._indexes: dict[tuple[str, ...], Index] = {}

    def settle(self, documents: dict[str, Doc], unique: Sequence[str], text: Callable[[Doc], str] | None) -> None:
        """Take documents in their memory form, and the settings of a registration."""
        self.drop_indexes()
        self.unique = tuple(unique)
        self._text = text or _no_text
        self.by_id, self.is_registered = documents, True

    def put(self, doc: Doc) -> None:
        """Take in a new or changed document."""
        old = self.by_id.get(doc["id"])
        for index in self._indexes.values():
            index.replace(old, doc)
        self.by_id[doc["id"]] = doc

    def remove(self, id: str) -> None:
        """Take a document out."""
        old = self.by_id.get(id)
        for index in self._indexes.values():
            index.replace(old, None)
        self.by_id.pop(id, None)

    def drop_indexes(self) -> None:
        """Forget the indexes; each is built again when it is needed."""
        self._indexes.clear()

    def by_value(self, path: str) -> HashIndex:
        """Return the index of the values at a path."""
        return self._index(("value", path), lambda: HashIndex(path, self.by_id.values()))

    def by_item(self, path: str) -> ItemIndex:
        """Return the index of what the lists at a path hold."""
        return self._index(("item", path), lambda: ItemIndex(path, self.by_id.values()))

    def sorted_by(self, paths: tuple[str, ...]) -> SortedIndex:
        """Return the index in the order of these paths."""
        return self._index(("sorted", *paths), lambda: SortedIndex(paths, self.by_id.values()))

    def by_text(self) -> TextIndex:
        """Return the index of the derived texts."""
        return self._index(("text",), lambda: TextIndex(self._text, self.by_id.values()))

    def _index(self, name: tuple[str, ...], build: Callable[[], AnyIndex]) -> AnyIndex:
        index = self._indexes.get(name)
        if index is None:
            index = self._indexes[name] = build()
        return index  # type: ignore[return-value]  # the first word of the name says which class it is
