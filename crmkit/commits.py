"""From drafts to a commit: transactions, plugins' say, requirements, and the one call that writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crmkit.contributions import Change
from crmkit.drafts import Draft, Drafter, references
from crmkit.errors import Conflict, Invalid
from crmkit.records import new_id, now
from crmkit.schema import info
from crmkit.store.base import Requirement
from crmkit.values import instant_text

if TYPE_CHECKING:
    from crmkit.codec import RecordCodec
    from crmkit.registry import Registry
    from crmkit.store.base import Store


@dataclass(frozen=True)
class Commit:
    """What was saved together.

    Attributes:
        id: Names the cause: one edit, one transaction, one import.
        count: How many records it wrote.
    """

    id: str
    count: int


@dataclass
class Transaction:
    """Drafts that wait to be saved together, and documents as they were first read, by collection and id."""

    owner: Committer
    reason: str | None
    outer: Transaction | None
    drafts: dict[tuple[str, str], Draft] = field(default_factory=dict)
    reads: dict[tuple[str, str], Mapping[str, Any] | None] = field(default_factory=dict)
    cause: str = field(default_factory=new_id)

    def put(self, draft: Draft) -> None:
        """Take a draft; a second one of the same record replaces the first and keeps what the first expects."""
        first = self.drafts.get(draft.key)
        if first is not None:
            draft = _joined(first, draft)
        if first is not None and first.action == "add" and draft.action == "remove":
            del self.drafts[draft.key]
        else:
            self.drafts[draft.key] = draft


_open: ContextVar[Transaction | None] = ContextVar("the innermost open transaction", default=None)


class Committer:
    """Writes the drafts of one CRM, at once or when a transaction ends.

    Args:
        crm: What plugins are passed.
        store: Where drafts are written.
        codec: Makes records for plugins, and seals reasons.
        registry: The plugins.
        actor: Returns who writes.
        seal_reason: Seals why, under the key of a subject.
    """

    def __init__(
        self,
        crm: Any,
        store: Store,
        codec: RecordCodec,
        registry: Registry,
        actor: Callable[[], str],
        seal_reason: Callable[[str, str], str],
    ) -> None:
        self._crm = crm
        self._store = store
        self._codec = codec
        self._registry = registry
        self._actor = actor
        self._seal_reason = seal_reason
        self.drafters: dict[str, Drafter] = {}  # by record type
        self.plurals: dict[str, str] = {}

    # ------------------------------------------------------------------ transactions

    @contextlib.contextmanager
    def transaction(self, reason: str | None) -> Iterator[None]:
        """Buffer what is written inside, and write it in one commit at the end; inside another one, join it."""
        outer = _open.get()
        if self._current() is not None:
            yield
            return
        mine = Transaction(self, reason, outer)
        token = _open.set(mine)
        try:
            yield
        finally:
            _open.reset(token)
        if mine.drafts:
            self._commit(list(mine.drafts.values()), mine.cause, mine.reason)

    def _current(self) -> Transaction | None:
        transaction = _open.get()
        while transaction is not None and transaction.owner is not self:
            transaction = transaction.outer
        return transaction

    def document(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return a document as it will be after the open transaction, or as it is stored.

        Inside a transaction a record is read once: what is then written expects that revision, also where
        only an id was given, so that what was computed from the record cannot overwrite what came between.
        """
        transaction = self._current()
        if transaction is None:
            return self._store.get(collection, id)
        draft = transaction.drafts.get((collection, id))
        if draft is not None:
            return None if draft.action == "remove" else draft.doc
        if (collection, id) not in transaction.reads:
            transaction.reads[collection, id] = self._store.get(collection, id)
        return transaction.reads[collection, id]

    # ------------------------------------------------------------------ writing

    def write(self, drafts: Sequence[Draft]) -> None:
        """Write drafts in one commit, or leave them to the open transaction."""
        transaction = self._current()
        if transaction is None:
            self._commit(drafts, new_id(), None)
            return
        for draft in drafts:
            transaction.put(draft)

    def write_many(
        self,
        drafts: Sequence[Draft],
        step: int,
        *,
        reason: str | None,
        progress: Callable[[int], None] | None,
        part_of: Commit | None = None,
    ) -> Commit:
        """Write drafts in batches of `step` under one cause; twins among them are refused before the first batch."""
        transaction = self._current()
        if transaction is not None:
            cause = transaction.cause
            self.write(drafts)
        else:
            cause = part_of.id if part_of else new_id()
            _refuse_twins(drafts)
            for start in range(0, len(drafts), step):
                self._commit(drafts[start : start + step], cause, reason)
                if progress:
                    progress(min(start + step, len(drafts)))
        return Commit(cause, len(drafts))

    def _commit(self, drafts: Sequence[Draft], cause: str, reason: str | None) -> None:
        drafts = self._asked(drafts)
        writes = [write for draft in drafts for write in draft.writes()]
        requires = dict.fromkeys(needed for draft in drafts for needed in self._requirements(draft))
        meta = {"at": instant_text(now()), "actor": self._actor(), "cause": cause}
        if reason:
            meta["reason"] = self._seal_reason(reason, cause)
        try:
            self._store.commit(writes, meta, tuple(requires))
        except Conflict as conflict:
            types = {plural: name for name, plural in self.plurals.items()}
            raise Conflict(types.get(conflict.type, conflict.type), conflict.id) from None

    def _requirements(self, draft: Draft) -> Iterator[Requirement]:
        for name in draft.changed:
            for path, target, id in references(info(draft.record_type).fields[name], draft.doc.get(name)):
                if target in self.plurals:  # the type of an absent plugin cannot be checked
                    yield Requirement(self.plurals[target], id, path)

    # ------------------------------------------------------------------ plugins

    def _asked(self, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """Let plugins adjust, add to or refuse what is about to be written."""
        if not self._registry.has("crm_before_commit"):
            return drafts
        changes = tuple(draft.change(self._codec) for draft in drafts)
        known = dict(zip(((change.type, change.id) for change in changes), drafts, strict=True))
        adjusted: dict[tuple[str, str], Change] = {}
        for _, call in self._registry.chain("crm_before_commit", crm=self._crm):
            for change in call(changes=changes) or ():
                adjusted[change.type, change.id] = change
            if adjusted:
                kept = tuple(adjusted.get((change.type, change.id), change) for change in changes)
                added = tuple(change for key, change in adjusted.items() if key not in known)
                changes = kept + added
        for key, change in adjusted.items():
            known[key] = self._redrafted(known.get(key), change)
        return list(known.values())

    def _redrafted(self, draft: Draft | None, change: Change) -> Draft:
        """Return the draft of a change that a plugin adjusted or added, checked again."""
        drafter = self.drafters.get(change.type)
        if drafter is None:
            raise Invalid({"type": f"{change.type!r} is not a record type"})
        if draft is None or draft.action in ("remove", "restore"):
            if draft is not None:
                return draft
            plural = self.plurals[change.type]
            doc = self._store.get(plural, change.id)
            if doc is None:
                return drafter.add({**change.fields, "id": change.id})
            return drafter.update(doc, change.fields) or drafter.move("update", doc)
        if draft.action == "add":
            record = draft.record
            given = {name: getattr(record, name) for name in ("id", "created_at")}
            return drafter.add({**given, **change.fields})
        return drafter.update(draft.before or {}, change.fields) or draft


def _joined(first: Draft, second: Draft) -> Draft:
    """Return two drafts of one record as one, against what is stored."""
    action = "add" if first.action == "add" and second.action == "update" else second.action
    doc = second.doc if second.action == "remove" else {**second.doc, "rev": first.doc["rev"]}
    changed = tuple(dict.fromkeys((*first.changed, *second.changed)))
    return Draft(second.record_type, action, doc, first.expect, first.before, first.was, second.record, changed)


def _refuse_twins(drafts: Iterable[Draft]) -> None:
    """Refuse two drafts with the same unique value before the first batch is written."""
    seen: dict[tuple[str, str, Any], int] = {}
    for number, draft in enumerate(drafts, 1):
        known = info(draft.record_type)
        for spec in known.fields.values():
            if spec.unique and spec.name in draft.doc:
                first = seen.setdefault((known.plural, spec.name, draft.doc[spec.name]), number)
                if first != number:
                    raise Invalid({spec.name: f"is the same in records {first} and {number}"}, known.type)
