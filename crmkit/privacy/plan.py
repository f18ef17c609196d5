"""What becomes of each document when somebody is erased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from crmkit.codec import ERASED, REMOVED, TAGS, RecordCodec
from crmkit.errors import Damaged
from crmkit.fields import Secret
from crmkit.links import references, referring
from crmkit.merge import MERGED
from crmkit.query import ALL, Compare, Find
from crmkit.records import Record, now
from crmkit.schema import FieldSpec, RecordInfo, info
from crmkit.store.base import ANY, Delete, Doc, Put, Write
from crmkit.values import instant_text

if TYPE_CHECKING:
    from crmkit.store.base import Store

Fate = Literal["deleted", "redacted", "unlinked"]


@dataclass(frozen=True)
class Part:
    """What becomes of one document.

    Attributes:
        known: Its record type.
        collection: Where it is.
        doc: The document as it is.
        fate: Whether it goes, stays without what is personal, or only stops to refer to the person.
        new: The document as it will be; None where it goes.
        is_rekeyed: Whether it is about several people, so that it needs a new key: the old one opens the person's part.
    """

    known: RecordInfo
    collection: str
    doc: Mapping[str, Any]
    fate: Fate
    new: Doc | None
    is_rekeyed: bool = False

    def write(self) -> Write:
        """Return what the store has to write; nothing of what was stays in the history."""
        if self.new is None:
            return Delete(self.collection, self.doc["id"], ANY, forget=True)
        return Put(self.collection, self.new, self.doc["rev"], forget=True)


class Planner:
    """Finds everything that is to be changed.

    Args:
        store: Where documents are.
        codec: Opens what has to be sealed under another key.
        types: The record types.
    """

    def __init__(self, store: Store, codec: RecordCodec, types: Iterable[type[Record]]) -> None:
        self._store = store
        self._codec = codec
        self._types = {info(each).type: each for each in types}
        self._known = [info(each) for each in types]

    def subjects(self, plural: str, id: str) -> list[str]:
        """Return a record and everything that was merged into it, in turn."""
        found = [id]
        for each in found:
            merged = self._store.find(Find(plural + REMOVED, Compare(MERGED, "==", each), (), ALL))
            found += [doc["id"] for doc in merged if doc["id"] not in found]
        return found

    def documents(self, ids: Iterable[str]) -> Iterator[tuple[RecordInfo, str, Mapping[str, Any]]]:
        """Yield (record type, collection, document) for the documents with these ids, removed or not."""
        for id in ids:
            for known in self._known:
                for collection in (known.plural, known.plural + REMOVED):
                    doc = self._store.get(collection, id)
                    if doc is not None:
                        yield known, collection, doc

    def touched_by(self, gone: Collection[str]) -> Iterator[tuple[RecordInfo, str, Mapping[str, Any]]]:
        """Yield records about several people that were about one of these before, by what the history tells.

        The whole history is read, where there are such types.
        """
        several = {known.plural: known for known in self._known if known.subjects}
        found: dict[tuple[str, str], None] = {}
        for logged in self._store.commits() if several else ():
            for step in logged.steps:
                known = several.get(step.collection.removesuffix(REMOVED))
                if known and not frozenset(gone).isdisjoint(_named(known, step.before)):
                    found[known.plural, step.id] = None
        for plural, id in found:
            for collection in (plural, plural + REMOVED):
                doc = self._store.get(collection, id)
                if doc is not None:
                    yield several[plural], collection, doc

    def parts(self, gone: Collection[str], dark: Collection[str] = (), type: str | None = None) -> list[Part]:
        """Return what becomes of everything that is theirs or refers to them.

        Args:
            gone: The ids of those who are erased.
            dark: The ids of records whose key is gone for another reason: they keep what is plain.
            type: The record type of those who are erased; None for any.
        """
        own = [
            Part(known, collection, doc, "deleted", None)
            for known, collection, doc in self.documents(gone)
            if (type or known.type) == known.type
        ]
        types = {"customer", *(part.known.type for part in own)}
        own += [self._redacted(known, collection, doc) for known, collection, doc in self.documents(dark)]
        parts = {(part.collection, part.doc["id"]): part for part in own}
        for each in sorted(types):
            for known, collection, doc in referring(self._store, self._known, each, gone):
                part = self._other(known, collection, doc, frozenset(gone))
                if part is not None:
                    parts.setdefault((collection, doc["id"]), part)
        for known, collection, doc in self.touched_by(gone):
            part = Part(known, collection, doc, "unlinked", _renewed(self._unsealed(known, doc), doc), is_rekeyed=True)
            parts.setdefault((collection, doc["id"]), part)
        return list(parts.values())

    def _other(self, known: RecordInfo, collection: str, doc: Mapping[str, Any], gone: frozenset[str]) -> Part | None:
        if known.subject and doc.get(known.subject) in gone:
            return self._redacted(known, collection, doc)
        several = _named(known, doc)
        new = _unlinked_row(tuple(known.fields.values()), doc, gone)
        if several and several <= gone:  # nobody else is left whose record it could be
            return self._redacted(known, collection, {**new, "rev": doc["rev"]}, is_rekeyed=True)
        if gone.isdisjoint(several):
            return None if new == doc else Part(known, collection, doc, "unlinked", _renewed(new, doc))
        unsealed = self._unsealed(known, doc)
        new = {name: unsealed[name] if isinstance(unsealed.get(name), Secret) else value for name, value in new.items()}
        new = {name: value for name, value in new.items() if name in unsealed}
        return Part(known, collection, doc, "unlinked", _renewed(new, doc), is_rekeyed=True)

    def _unsealed(self, known: RecordInfo, doc: Mapping[str, Any]) -> Doc:
        """Return a document with its secrets open, to be sealed under the new key, which the old history is not.

        In a restored backup the key of a secret may have gone with an earlier erasure; then so does the secret.
        """
        gone = self._codec.gone(known.plural, doc)
        left = {name: value for name, value in doc.items() if name not in gone}
        secret = [spec.name for spec in known.fields.values() if spec.klass == "sensitive" and spec.name in left]
        return {**left, **{name: Secret("", self._codec.opened(known.plural, doc, name)) for name in secret}}

    def _redacted(
        self, known: RecordInfo, collection: str, doc: Mapping[str, Any], *, is_rekeyed: bool = False
    ) -> Part:
        """Return a document without what was sealed in it, if it is a record still; else it goes."""
        sealed = known.sealed
        new = {name: value for name, value in doc.items() if name not in sealed and name != TAGS}
        new |= {spec.name: ERASED for spec in known.fields.values() if spec.name in sealed and spec.required}
        try:
            self._codec.record(self._types[known.type], known.plural, new)
        except Damaged:  # what is required is no text
            return Part(known, collection, doc, "deleted", None)
        return Part(known, collection, doc, "redacted", _renewed(new, doc), is_rekeyed)


def counted(parts: Iterable[Part], fate: Fate) -> dict[str, int]:
    """Return how many documents of each type share a fate."""
    return dict(Counter(part.known.type for part in parts if part.fate == fate))


def _named(known: RecordInfo, fields: Mapping[str, Any]) -> set[str]:
    """Return all whom a record of several people is about, by some of its fields."""
    return {id for name in known.subjects for _, _, id in references(known.fields[name], fields.get(name))}


def _renewed(new: Doc, doc: Mapping[str, Any]) -> Doc:
    return {**new, "rev": doc["rev"] + 1, "updated_at": instant_text(now())}


def _unlinked(spec: FieldSpec, value: Any, gone: frozenset[str]) -> Any:
    """Return the stored value of a field without references to some ids, None where nothing is left of it.

    What cannot do without its reference keeps it: an id says nothing of anybody once their data is gone.
    """
    if spec.kind == "reference":
        return value if spec.required or value not in gone else None
    if spec.kind == "references":
        return [id for id in value if id not in gone]
    if not spec.parts or not value:
        return value
    rows = [value] if isinstance(value, Mapping) else value
    left = [_unlinked_row(spec.parts, row, gone) for row in rows if not _is_about(spec.parts, row, gone)]
    return (left[0] if left else None) if isinstance(value, Mapping) else left


def _is_about(parts: tuple[FieldSpec, ...], row: Mapping[str, Any], gone: frozenset[str]) -> bool:
    """Return whether a nested row is nothing without a reference to one of some ids."""
    return any(part.required and part.kind == "reference" and row.get(part.name) in gone for part in parts)


def _unlinked_row(parts: tuple[FieldSpec, ...], row: Mapping[str, Any], gone: frozenset[str]) -> Doc:
    known = {part.name: part for part in parts}
    left = {name: _unlinked(known[name], value, gone) if name in known else value for name, value in row.items()}
    return {name: value for name, value in left.items() if value is not None}
