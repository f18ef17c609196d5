"""What must be true of a commit before it is written: revisions, references, unique values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from crmkit.errors import Conflict, Invalid, NotFound
from crmkit.store.base import ANY, NEW, Delete, Doc, Move, Put, Requirement, Reseal, Write
from crmkit.store.documents import Documents

Place = tuple[str, str]
"""A collection and an id."""


class Turn(NamedTuple):
    """One write: the document as it was, where, and as it will be; None for no document."""

    write: Write
    collection: str
    to: str
    old: Doc | None
    new: Doc | None


class Outcome:
    """What the collections would look like after some writes.

    Attributes:
        turns: What each write does, each new document with its new revision.
    """

    def __init__(self, collections: Mapping[str, Documents], writes: Sequence[Write]) -> None:
        self._collections = collections
        self._after: dict[Place, Doc | None] = {}
        self.turns = [self._turn(write) for write in writes]

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
                    other = first if first != id else self._untouched(collection, index.holders(key))
                    if other:
                        problems[path] = f"already taken by another record: {other}"
            if problems:
                raise Invalid(problems, collection)

    def _untouched(self, collection: str, holders: set[str]) -> str | None:
        """Return the first of the holders of a value that is a document which these writes do not touch."""
        return min((holder for holder in holders if (collection, holder) not in self._after), default=None)

    def _get(self, collection: str, id: str) -> Doc | None:
        if (collection, id) in self._after:
            return self._after[collection, id]
        known = self._collections.get(collection)
        return known.by_id.get(id) if known else None

    def _turn(self, write: Write) -> Turn:
        match write:
            case Put(collection, doc, expect):
                return self._put(write, collection, doc, expect)
            case Move(collection, to, doc, expect):
                return self._put(write, to, doc, expect)
            case Delete(collection, id, expect):
                current = self._existing(collection, id, expect)
                self._after[collection, id] = None
                return Turn(write, collection, "", current, None)
            case Reseal(collection, id):
                current = self._existing(collection, id, ANY)
                return Turn(write, collection, collection, current, current)

    def _put(self, write: Put | Move, to: str, doc: Doc, expect: int) -> Turn:
        collection, id = write.collection, doc.get("id")
        if not isinstance(to, str) or not isinstance(id, str):
            raise Invalid({"id": "must be text, and so must the name of the collection"})
        if to == collection:
            current = self._get(collection, id)
            _check_revision(collection, id, expect, current)
        else:
            current = self._existing(collection, id, expect)
            _check_revision(to, id, NEW, self._get(to, id))
            self._after[collection, id] = None
        rev = current["rev"] + 1 if current else doc.get("rev", 1)
        if type(rev) is not int or rev < 1:
            raise Invalid({"rev": "must be a whole number from 1"}, f"{to} {id}")
        new = self._after[to, id] = {**doc, "rev": rev}
        return Turn(write, collection, to, current, new)

    def _existing(self, collection: str, id: str, expect: int) -> Doc:
        current = self._get(collection, id)
        if current is None:
            raise NotFound(f"{collection} {id} does not exist")
        _check_revision(collection, id, expect, current)
        return current


def _check_revision(collection: str, id: str, expect: int, current: Doc | None) -> None:
    stored = NEW if current is None else current["rev"]
    is_expected = stored != NEW if expect == ANY else stored == expect
    if not is_expected:
        raise Conflict(collection, id)
