"""Everything that a store holds in memory: the collections, as the frames that were read made them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from crmkit.store.base import Change, Codec, Doc
from crmkit.store.documents import Documents, settled
from crmkit.store.frames import Frame


class Contents:
    """The collections of a store.

    Args:
        codec: Opens what is sealed.
        lazy: The collections that are packed from the beginning.

    Attributes:
        collections: The documents by collection.
        newest_at: When the newest commit was made, as its meta says; empty where no commit was taken in that says so.
    """

    def __init__(self, codec: Codec, lazy: frozenset[str]) -> None:
        self._codec = codec
        self._lazy = lazy
        self._settings: dict[str, dict[str, Any]] = {}
        self.collections: defaultdict[str, Documents] = defaultdict(Documents)
        self.newest_at = ""
        for name in lazy:
            self.collections[name] = Documents(lazy=True)

    def documents(self, collection: str) -> Documents:
        """Return the documents of a collection, none where it is unknown."""
        return self.collections.get(collection) or Documents()

    def register(self, collection: str, settings: dict[str, Any], read_again: Callable[[], Contents]) -> None:
        """Bring a collection into its memory form; `read_again` returns what is on disk, where that is needed."""
        old, on_disk = self.collections[collection], None
        if old.is_registered:
            on_disk = read_again().collections[collection].by_id
        self.collections[collection] = settled(old, settings, partial(self._codec.open, collection), on_disk)
        self._settings[collection] = settings

    def fresh(self) -> Contents:
        """Return contents with nothing in them, for reading everything again."""
        return Contents(self._codec, self._lazy)

    def forgotten(self) -> Contents:
        """Return contents with nothing in them that know the same registrations."""
        empty = self.fresh()
        empty._settings, empty.newest_at = self._settings, self.newest_at
        return empty

    def take_over(self, other: Contents) -> None:
        """Hold what was read again, in the form in which each collection was registered."""
        for name, settings in self._settings.items():
            other.register(name, settings, other.fresh)
        self.collections = other.collections
        self.newest_at = other.newest_at

    def apply(self, frame: Frame) -> list[Change]:
        """Change the memory as a frame says; one that an interrupt cut short is simply applied again."""
        try:
            return [change for operation in frame.operations for change in self._apply(frame.seq, operation)]
        except BaseException:
            for documents in self.collections.values():
                documents.drop_indexes()  # they may hold half of it
            raise

    def _apply(self, seq: int, operation: Sequence[Any]) -> list[Change]:
        match operation:
            case ["m", {"at": str(at)}]:
                self.newest_at = at
            case ["b", collection, docs]:
                return [self._take(seq, collection, doc) for doc in docs]
            case ["p", collection, _, doc]:
                return [self._take(seq, collection, doc)]
            case ["u", collection, id, after, before]:
                self.collections[collection].patch(id, after, before)
                return [Change(seq, collection, id, "put")]
            case ["s", collection, id, fields]:
                self.collections[collection].patch(id, fields, ())
            case ["v", collection, to, id, after, before]:
                return self._move(seq, collection, to, id, after, before)
            case ["d", collection, id, _]:
                self.collections[collection].remove(id)
                return [Change(seq, collection, id, "delete")]
        return []

    def _take(self, seq: int, collection: str, doc: Doc) -> Change:
        self.collections[collection].put(doc)
        return Change(seq, collection, doc["id"], "put")

    def _move(self, seq: int, collection: str, to: str, id: str, after: Doc, before: Doc) -> list[Change]:
        target = self.collections[to]
        self.collections[collection].move(id, target, partial(self._codec.seal, collection))
        target.patch(id, after, before)
        return [Change(seq, collection, id, "delete"), Change(seq, to, id, "put")]
