"""How far an erasure reaches: into the history where that lies in the clear, and what it leaves to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crmkit.codec import REMOVED, FormerSubjects, RecordCodec
from crmkit.privacy.plan import Part
from crmkit.store.base import Step, Store

Forgotten = dict[str, dict[str, list[str]]]
"""What the history must not tell, by plural: the ids of records, and the names of fields."""


def forgotten(parts: Iterable[Part]) -> Forgotten:
    """Return what the history must not tell; it is kept, for whoever finishes may not know the type."""
    found: Forgotten = {}
    for part in parts:
        if part.fate != "unlinked" or part.is_rekeyed:
            of_type = found.setdefault(part.collection.removesuffix(REMOVED), {"ids": [], "fields": part.known.sealed})
            of_type["ids"].append(part.doc["id"])
    return found


class Redaction:
    """Takes out of a history, newest step first, what it must not tell.

    Args:
        store: Whose history.
        codec: Knows whose a document was.
        gone: The subjects who were erased: what was theirs goes, also where it became somebody else's later.
        told: The records that the history must not tell of, by plural.
    """

    def __init__(self, store: Store, codec: RecordCodec, gone: Iterable[str], told: Forgotten) -> None:
        self._codec = codec
        self._subjects = FormerSubjects(store, codec)
        self._gone = frozenset(gone)
        self._ids = frozenset(id for of_type in told.values() for id in of_type["ids"])
        self._fields = {plural: of_type["fields"] for plural, of_type in told.items()}

    def redacted(self, step: Step) -> Mapping[str, Any]:
        """Return what may stay of a before-image."""
        names: Iterable[str] = ()
        if step.id in self._ids:
            names = self._fields.get(step.collection.removesuffix(REMOVED), ())
        if step.collection in self._codec.collections and self._subjects.before(step) in self._gone:
            names = self._codec.sealed_fields(step.collection)
        if step.before.keys().isdisjoint(names):
            return step.before
        return {name: None if name in names else value for name, value in step.before.items()}


def notes(
    parts: Iterable[Part], audit: Iterable[Mapping[str, Any]], absent: Iterable[str], *, may_be_plain: bool
) -> Iterator[str]:
    """Yield what an erasure does not reach, as far as that is known.

    Args:
        parts: What it changes.
        audit: The audit log.
        absent: Collections whose type is not known here.
        may_be_plain: Whether personal values may lie in the clear.
    """
    done = Counter(entry["action"] for entry in audit)
    saved = done["backup"] - done["backup_failed"]
    if saved > 0:
        yield "make a new backup: the file of keys of the last one still opens what was saved before"
    if saved > 0 and may_be_plain:
        yield "older backups hold personal values in the clear, for every member: delete them"
    if done["export"]:
        yield "files were exported in the clear before now: crmkit audit --action export lists them"
    if unknown := ", ".join(sorted(absent)):
        yield f"records of plugins that are not here were not looked through: {unknown}"
    if any(part.is_rekeyed for part in parts):
        yield "what people wrote into records about several people stays; look through those yourself"
    yield "copies of the whole folder hold the keys of their day; notes of other records are not searched"
