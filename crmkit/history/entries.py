"""History: what happened to a record, and what was done together, told from the log of the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from crmkit.codec import REMOVED, SEALED, RecordCodec
from crmkit.errors import Damaged, Erased, Invalid, NotFound
from crmkit.fields import MASK, Secret
from crmkit.history.versions import Key, Version, about, backwards, current, key
from crmkit.query import Page, check_limit
from crmkit.records import Record
from crmkit.schema import adapter, info

if TYPE_CHECKING:
    from crmkit.store.base import Doc, Logged, Step, Store

NOT_TOLD = ("id", "rev", "created_at", "updated_at")  # what every write changes, or none


@dataclass(frozen=True)
class HistoryEntry:
    """What one commit did to one record. Its text shows no value.

    Attributes:
        commit: The number of the commit.
        at: When (UTC).
        actor: Who.
        reason: Why, or empty.
        cause: The id of the edit, transaction, import, merge or undo that it was part of.
        action: add, update, remove, restore, merge or undo.
        fields: The names of the fields that changed.
        before: Their values before, as the record shows them: sensitive ones masked. What was empty is left out.
        after: Their values afterwards.
        merged_into: Of a merge that took this record away, the id of the one that stayed; else None.
        merged_from: Of a merge in which this record stayed, the ids of the others; else empty.
    """

    commit: int
    at: datetime
    actor: str
    reason: str = field(repr=False)
    cause: str
    action: str
    fields: tuple[str, ...]
    before: Mapping[str, Any] = field(repr=False)
    after: Mapping[str, Any] = field(repr=False)
    merged_into: str | None = None
    merged_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What was done together, under one cause; `CRM.undo` takes it back.

    Attributes:
        id: Names the cause.
        at: When its newest commit was made (UTC).
        actor: Who.
        reason: Why, or empty.
        kind: edit, transaction, import, merge, undo, erase, or table: written through a table of the store.
        count: How many records it touched.
        types: How many of each record type.
        undone: Whether it was undone, and that undo was not.
    """

    id: str
    at: datetime
    actor: str
    reason: str = field(repr=False)
    kind: str
    count: int
    types: Mapping[str, int]
    undone: bool


class History:
    """Tells what happened to the records of one store.

    Args:
        store: Whose log is read.
        codec: Opens what is sealed.
        type_of: Returns the record type of a collection, or None where its plugin is absent.
        open_reason: Opens the sealed reason of a cause, given whom alone it is about, or empty.
    """

    def __init__(
        self,
        store: Store,
        codec: RecordCodec,
        type_of: Callable[[str], type[Record] | None],
        open_reason: Callable[[str, str, str], str],
    ) -> None:
        self._store = store
        self._codec = codec
        self._type_of = type_of
        self._open_reason = open_reason

    def entries(self, id: str, type: str | None, limit: int, after: str | None) -> Page[HistoryEntry]:
        """Return one page of what happened to a record, newest first.

        Args:
            id: Its id.
            type: The plural of its type; None for the one with this id that was written last.
            limit: The most entries.
            after: `Page.next` of the page before.

        Raises:
            NotFound: There never was a record with this id.
            Invalid: The limit or the cursor is wrong.
        """
        check_limit(limit)
        below = _place(after)
        entries: list[HistoryEntry] = []
        nothing = True
        for logged, step, doc, was in self._versions(id, type):
            nothing = False
            if below is None or logged.seq < below:
                if len(entries) == limit:
                    return Page(entries, str(entries[-1].commit))
                entries.append(self._entry(logged, step, doc, was))
        if nothing:
            raise NotFound("no record has, or had, the id that was given")
        return Page(entries)

    def batches(self, limit: int) -> list[Batch]:
        """Return what was done together, newest first."""
        check_limit(limit)
        found: dict[str, _Gathered] = {}
        undone: set[str] = set()
        for logged in self._store.commits(newest_first=True):
            if "undoes" in logged.meta and logged.meta["cause"] not in undone:  # an undo that was undone does not count
                undone.add(logged.meta["undoes"])
            steps = [step for step in logged.steps if not step.collection.startswith(".")]
            cause = str(logged.meta.get("cause", ""))
            if not steps or not cause:
                continue
            if cause in found or len(found) < limit:
                found.setdefault(cause, _Gathered(logged)).records.update(map(key, steps))
            elif all(_made_before(logged, each) for each in found):
                break
        return [self._batch(cause, each, cause in undone) for cause, each in found.items()]

    def reason(self, meta: Mapping[str, Any]) -> str:
        """Return why a commit was made, opened for display; empty where nobody said."""
        if not meta.get("reason") or not meta.get("cause"):
            return ""
        return self._open_reason(meta["reason"], meta["cause"], meta.get("about", ""))

    def shown(self, collection: str, doc: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        """Return fields of a document as its record shows them; those that it has not are left out."""
        return {name: self._shown(collection, doc, name) for name in names if doc.get(name) is not None}

    def differ(self, one: tuple[str, Mapping[str, Any]], other: tuple[str, Mapping[str, Any]], name: str) -> bool:
        """Return whether two documents, each given with its collection, differ in the value of a field.

        What is equal may be sealed in different ways, where a record changed hands or an early version wrote it.
        """
        values = one[1].get(name), other[1].get(name)
        if values[0] == values[1]:
            return False
        if not all(isinstance(value, str) and value.startswith(SEALED) for value in values):
            return True
        try:
            first, second = (self._codec.opened(collection, doc, name) for collection, doc in (one, other))
        except (Damaged, Erased, KeyError):  # its key is gone, or its plugin is
            return True
        return bool(first != second)

    # ------------------------------------------------------------------ parts

    def _versions(self, id: str, type: str | None) -> Iterator[Version]:
        """Yield every version of a record, newest first."""
        with self._store.reading():  # log and document must be of one and the same time
            steps = about(id, type, self._store.commits(about=id, newest_first=True))
            newest = next(steps, None)
            doc = current(self._store, newest[1]) if newest else None
        if newest:
            yield from backwards(self._codec, doc, chain([newest], steps))

    def _entry(self, logged: Logged, step: Step, doc: Doc | None, was: tuple[str, Doc] | None) -> HistoryEntry:
        meta, changed = logged.meta, tuple(doc or ()) if step.action == "add" else step.changed
        names = tuple(name for name in changed if name not in NOT_TOLD and not name.startswith("_"))
        if doc and was:
            names = tuple(name for name in names if self.differ(was, (step.to, doc), name))
        into, merged = meta.get("into"), tuple(meta.get("merged", "").split())
        return HistoryEntry(
            commit=logged.seq,
            at=instant(meta),
            actor=str(meta.get("actor", "")),
            reason=self.reason(meta),
            cause=str(meta.get("cause", "")),
            action=_action(meta, step),
            fields=names,
            before=self.shown(was[0], was[1], names) if was else {},
            after=self.shown(step.to, doc, names) if doc else {},
            merged_into=into if step.id in merged else None,
            merged_from=merged if step.id == into else (),
        )

    def _shown(self, collection: str, doc: Mapping[str, Any], name: str) -> Any:
        record_type, value = self._type_of(collection), doc[name]
        if record_type is None or name not in record_type.model_fields:
            return Secret(MASK * 6) if isinstance(value, str) and value.startswith(SEALED) else value
        try:
            if info(record_type).fields[name].klass == "sensitive":
                return self._codec.secret(collection, doc, name)
            return adapter(record_type, name).validate_python(value, context={"trusted": True})
        except (Damaged, Erased, ValidationError):  # its key is gone, or the type has changed since
            return Secret(MASK * 6)

    def _batch(self, cause: str, gathered: _Gathered, undone: bool) -> Batch:
        meta = gathered.newest.meta
        return Batch(
            id=cause,
            at=instant(meta),
            actor=str(meta.get("actor", "")),
            reason=self.reason(meta),
            kind=str(meta.get("kind", "edit")),
            count=len(gathered.records),
            types=dict(Counter(self._type_name(collection) for collection, _ in gathered.records)),
            undone=undone,
        )

    def _type_name(self, collection: str) -> str:
        record_type = self._type_of(collection)
        return info(record_type).type if record_type else collection


@dataclass
class _Gathered:
    """The newest commit of a cause, and the records that the cause touched."""

    newest: Logged
    records: set[Key] = field(default_factory=set)


def instant(meta: Mapping[str, Any]) -> datetime:
    """Return when a commit was made (UTC); the beginning of 1970 where an early version did not say."""
    return datetime.fromisoformat(meta["at"]) if "at" in meta else datetime.fromtimestamp(0, UTC)


def _made_before(logged: Logged, cause: str) -> bool:
    """Return whether a commit was made before the first one of a cause, whose id tells its time."""
    from ulid import ULID  # imports package metadata, which `import crmkit` can do without

    try:
        started = ULID.from_str(cause).datetime.astimezone(UTC)
    except ValueError:  # not one of ours
        return False
    return "at" in logged.meta and instant(logged.meta) < started


def _action(meta: Mapping[str, Any], step: Step) -> str:
    if meta.get("kind") in ("merge", "undo"):
        return str(meta["kind"])
    if step.action == "move":
        return "remove" if step.to.endswith(REMOVED) else "restore"
    return {"add": "add", "change": "update", "delete": "remove"}[step.action]


def _place(after: str | None) -> int | None:
    """Return the commit below which a page begins."""
    if after is None:
        return None
    if not isinstance(after, str) or not after.isdecimal():
        raise Invalid({"after": "must be Page.next of the page before"})
    return int(after)
