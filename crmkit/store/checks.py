"""What must be true of a commit before it is written: revisions, references, unique values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crmkit.errors import Conflict, Invalid, NotFound
from crmkit.store.base import ANY, NEW, Delete, Doc, Put, Requirement
from crmkit.store.documents import Documents

Place = tuple[str, str]
"""A collection and an id."""


class Outcome:
    """What the collections would look like after some writes.

    Attributes:
        writes: The writes, each document with its new revision.
    """

    def __init__(self, collections: Mapping[str, Documents], writes: Sequence[Put | Delete]) -> None:
        self._collections = collections
        self._after: dict[Place, Doc | None] = {}
        self.writes = [self._put(write) if isinstance(write, Put) else self._delete(write) for write in writes]

    def check_requirements(self, requires: Sequence[Requirement]) -> None:
        """Raise `Invalid` where a required document does not exist."""
        for required in requires:
            if self._get(required.collection, required.id) is None:
                raise Invalid({required.field: f"refers to a record that does not exist in {required.collection}"})

    def check_unique(self) -> None:
        """Raise `Invalid` where two documents would share a unique value."""
        taken: dict[tuple[str, str, Any], str] = {}
        for (collection, id), doc in self._after.items():
            if doc is None:
                continue
            documents, problems = self._collections[collection], {}
            for path in documents.unique:
                index = documents.by_value(path)
                for key in index.keys(doc):
                    first = taken.setdefault((collection, path, key), id)
                    if first != id or self._has_others(collection, index.holders(key)):
                        problems[path] = f"already taken by another record of {collection}"
            if problems:
                raise Invalid(problems, f"{collection} {id}")

    def _has_others(self, collection: str, holders: set[str]) -> bool:
        """Return whether one of the holders of a value is a document that these writes do not touch."""
        return any((collection, holder) not in self._after for holder in holders)

    def _get(self, collection: str, id: str) -> Doc | None:
        if (collection, id) in self._after:
            return self._after[collection, id]
        known = self._collections.get(collection)
        return known.by_id.get(id) if known else None

    def _put(self, write: Put) -> Put:
        id = write.doc.get("id")
        if not isinstance(write.collection, str) or not isinstance(id, str):
            raise Invalid({"id": "must be text, and so must the name of the collection"})
        current = self._get(write.collection, id)
        _check_revision(write.collection, id, write.expect, current)
        rev = current["rev"] + 1 if current else write.doc.get("rev", 1)
        if type(rev) is not int or rev < 1:
            raise Invalid({"rev": "must be a whole number from 1"}, f"{write.collection} {id}")
        doc = {**write.doc, "rev": rev}
        self._after[write.collection, id] = doc
        return Put(write.collection, doc, write.expect)

    def _delete(self, write: Delete) -> Delete:
        current = self._get(write.collection, write.id)
        if current is None:
            raise NotFound(f"{write.collection} {write.id} does not exist")
        _check_revision(write.collection, write.id, write.expect, current)
        self._after[write.collection, write.id] = None
        return write


def _check_revision(collection: str, id: str, expect: int, current: Doc | None) -> None:
    stored = NEW if current is None else current["rev"]
    is_expected = stored != NEW if expect == ANY else stored == expect
    if not is_expected:
        raise Conflict(collection, id)
