"""From drafts to a commit: transactions, plugins' say, requirements, and the one call that writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crmkit.before_commit import BeforeCommit, joined
from crmkit.codec import REMOVED
from crmkit.drafts import Draft, Drafter
from crmkit.errors import Conflict, CrmError, Invalid, Refused
from crmkit.fields import MASK, Secret
from crmkit.forbidden import check_reason
from crmkit.links import references
from crmkit.records import Record, new_id
from crmkit.schema import RecordInfo, info
from crmkit.store.base import Requirement

if TYPE_CHECKING:
    from crmkit.codec import RecordCodec
    from crmkit.registry import Registry
    from crmkit.visibility import Visible


@dataclass(frozen=True)
class Commit:
    """What was saved together.

    Attributes:
        id: Names the cause: one edit, one transaction, one import.
        count: How many records it wrote.
        left_out: The (type, id) of what an undo left out, where that was asked for.
    """

    id: str
    count: int
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass
class Transaction:
    """Drafts that wait to be saved together, and documents as they were first read, by collection and id."""

    owner: Committer
    reason: str | None
    outer: Transaction | None
    drafts: dict[tuple[str, str], Draft] = field(default_factory=dict)
    reads: dict[tuple[str, str], Mapping[str, Any] | None] = field(default_factory=dict)
    cause: str = field(default_factory=new_id)
    kind: str = "transaction"
    is_over: bool = False

    def put(self, draft: Draft) -> None:
        """Take a draft; with an earlier one of the same record it becomes one."""
        first = self.drafts.get(draft.key)
        both = draft if first is None else joined(first, draft)
        if both is None:
            del self.drafts[draft.key]
        else:
            self.drafts[draft.key] = both


_open: ContextVar[Transaction | None] = ContextVar("the innermost open transaction", default=None)


def outside() -> Context:
    """Return the context of the caller without its transactions: what is done in it is saved by itself."""
    context = copy_context()
    context.run(_open.set, None)
    return context


class Committer:
    """Writes the drafts of one CRM, at once or when a transaction ends.

    Args:
        crm: What plugins are passed.
        store: Where drafts are written.
        codec: Makes records for plugins, and seals reasons.
        registry: The plugins.
        actor: Returns who writes.
        seal_reason: Seals why: the reason, the cause, and whom alone it is about, or empty.
        guard: Refuses what the actor may not do.
    """

    def __init__(
        self,
        crm: Any,
        store: Visible,
        codec: RecordCodec,
        registry: Registry,
        actor: Callable[[], str],
        seal_reason: Callable[[str, str, str], str],
        guard: Callable[[str], None],
    ) -> None:
        self._store = store
        self._guard = guard
        self._codec = codec
        self._actor = actor
        self._seal_reason = seal_reason
        self._drafters: dict[str, Drafter] = {}
        self._plurals: dict[str, str] = {}
        self._before_commit = BeforeCommit(crm, registry, codec, self._drafters, self._stored)

    def know(self, known: RecordInfo, drafter: Drafter) -> None:
        """Learn of a record type."""
        self._drafters[known.type] = drafter
        self._plurals[known.type] = known.plural

    @property
    def drafters(self) -> Mapping[str, Drafter]:
        """The drafter of each record type, by the type's name."""
        return self._drafters

    def _stored(self, type: str, id: str) -> Mapping[str, Any] | None:
        return self._store.get(self._plurals[type], id)

    # ------------------------------------------------------------------ transactions

    @contextlib.contextmanager
    def transaction(self, reason: str | None) -> Iterator[None]:
        """Buffer what is written inside, and write it in one commit at the end; inside another one, join it.

        A task that was made inside inherits it. What such a task writes after the end is saved by itself.
        """
        outer = _open.get()
        if self._current() is not None:
            yield
            return
        mine = Transaction(self, reason, outer)
        token = _open.set(mine)
        try:
            yield
            if mine.drafts:  # still inside, so that plugins which are asked see what will be saved
                self._commit(list(mine.drafts.values()), mine.cause, mine.reason, kind=mine.kind)
        finally:
            mine.is_over = True
            _open.reset(token)

    def _current(self) -> Transaction | None:
        transaction = _open.get()
        while transaction is not None and (transaction.owner is not self or transaction.is_over):
            transaction = transaction.outer
        return transaction

    def document(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return a document as it will be after the open transaction, or as it is stored.

        Inside a transaction a record is read once: what is then written expects that revision, also where
        only an id was given, so that what was computed from the record cannot overwrite what came between.
        """
        if self._current() is None:
            return self._store.get(collection, id)
        doc = self.written(collection, id)
        return doc if doc is not None and self._store.shows(collection, doc) else None

    def written(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return a document just written, as `document` does, also where its writer does not see it any more."""
        transaction = self._current()
        if transaction is None:
            return self._store.whole(collection, id)
        draft = transaction.drafts.get((collection, id))
        if draft is not None:
            return None if draft.action == "remove" else draft.doc
        if (collection, id) not in transaction.reads:
            transaction.reads[collection, id] = self._store.whole(collection, id)
        return transaction.reads[collection, id]

    def removed(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return the document of a removed record, one that the open transaction removes included."""
        transaction = self._current()
        draft = transaction.drafts.get((collection, id)) if transaction else None
        if draft is not None:
            is_removed = draft.action == "remove" and self._store.shows(collection, draft.doc)
            return draft.doc if is_removed else None
        return self._store.get(collection + REMOVED, id)

    # ------------------------------------------------------------------ writing

    def write(self, drafts: Sequence[Draft]) -> None:
        """Write drafts in one commit, or leave them to the open transaction."""
        self._before_commit.refuse_saving_inside()
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
        self._before_commit.refuse_saving_inside()
        if len(drafts) > 1:
            self._guard("bulk")
        _refuse_twins(drafts)
        transaction = self._current()
        if transaction is not None:
            cause = transaction.cause
            if not transaction.drafts:
                transaction.kind = "import"
            self.write(drafts)
        else:
            cause = part_of.id if part_of else new_id()
            for start in range(0, len(drafts), step):
                self._commit(drafts[start : start + step], cause, reason, kind="import")
                if progress:
                    progress(min(start + step, len(drafts)))
        return Commit(cause, len(drafts))

    def write_alone(
        self, drafts: Sequence[Draft], kind: str, reason: str | None, check: Callable[[], CrmError | None], **meta: str
    ) -> Commit:
        """Write drafts in a commit of their own.

        Args:
            drafts: What to write.
            kind: What kind of commit it is, for the history.
            reason: Why.
            check: Called under the lock, just before it is written; returns what keeps it from being written.
            meta: Kept beside the commit.

        Raises:
            Refused: A transaction is open; other things are written in its commit.
        """
        self.refuse_inside(kind)
        if len(drafts) > 1:
            self._guard("bulk")
        cause = new_id()
        self._commit(drafts, cause, reason, check, kind=kind, **meta)
        return Commit(cause, len(drafts))

    def refuse_inside(self, kind: str) -> None:
        """Refuse what makes a commit of its own while a transaction is open, or a plugin is asked about one.

        Raises:
            Refused: Such is the case.
        """
        self._before_commit.refuse_saving_inside()
        if self._current() is not None:
            raise Refused(f"finish the transaction first; {kind} makes a commit of its own")

    def _commit(
        self,
        drafts: Sequence[Draft],
        cause: str,
        reason: str | None,
        check: Callable[[], CrmError | None] | None = None,
        **more: str,
    ) -> None:
        drafts = self._before_commit.ask(drafts)
        writes = [write for draft in drafts for write in draft.writes()]
        requires = dict.fromkeys(needed for draft in drafts for needed in self._requirements(draft))
        self._refuse_hidden(requires)
        meta = {"actor": self._actor(), "cause": cause, **more}
        if reason:
            check_reason(reason)
            about = {self._codec.about(info(draft.record_type).plural, draft.doc) for draft in drafts}
            meta["about"] = about.pop() if len(about) == 1 else ""
            meta["reason"] = self._seal_reason(reason, cause, meta["about"])
        if not writes:  # plugins took everything back
            return
        try:
            with self._store.lock() if check else contextlib.nullcontext():
                problem = check() if check else None
                if problem is None:
                    self._store.commit(writes, meta, tuple(requires))
                    return
        except Conflict as conflict:
            place = conflict.type.removesuffix(REMOVED), conflict.id
            problem = self._conflict(next(draft for draft in drafts if draft.key == place))
        except Invalid as error:
            problem = self._without_hidden(error)
        raise problem

    def _refuse_hidden(self, requires: Collection[Requirement]) -> None:
        """Refuse references to what the actor does not see, in the words of the store for what is not there."""
        if not requires or self._store.view() is None:  # nothing is hidden from anybody
            return
        for needed in requires:
            if self._store.hides(needed.collection, needed.id):
                raise Invalid({needed.field: f"refers to a record that does not exist in {needed.collection}"})

    def _without_hidden(self, error: Invalid) -> Invalid:
        """Return what the store finds wrong, without the id of a hidden record that has a unique value already."""
        problems = {}
        for path, text in error.problems.items():
            said, _, id = text.rpartition(": ")
            problems[path] = said if said and self._store.hides_any(id) else text
        return error if problems == error.problems else Invalid(problems, error.subject)

    def _requirements(self, draft: Draft) -> Iterator[Requirement]:
        """Yield what must exist: what the draft refers to and did not before; what it did may have been removed."""
        fields = info(draft.record_type).fields
        for spec in (fields[name] for name in draft.changed):
            if not spec.target and not spec.parts:
                continue
            old = {id for _, _, id in references(spec, (draft.before or {}).get(spec.name))}
            for path, target, id in references(spec, draft.doc.get(spec.name)):
                if target in self._plurals and id not in old:  # the type of an absent plugin cannot be checked
                    yield Requirement(self._plurals[target], id, path)

    def _conflict(self, draft: Draft) -> CrmError:
        """Return what to raise where somebody else was faster."""
        known = info(draft.record_type)
        theirs = self._store.get(*draft.key)
        if draft.before is None:
            return Invalid({"id": "is taken by another record"}, known.type)
        if theirs is None or draft.record is None:
            return Conflict(known.type, draft.doc["id"])
        read = draft.was or self._codec.record(draft.record_type, known.plural, draft.before)
        stored = self._codec.record(draft.record_type, known.plural, theirs)
        return conflict(read, stored, {name: getattr(draft.record, name) for name in draft.changed})


def conflict(read: Record, theirs: Record, yours: Mapping[str, Any]) -> Conflict:
    """Return the conflict between what is stored now and what the caller wants to save.

    Args:
        read: The record that the caller had read.
        theirs: The record that is stored now.
        yours: The caller's values by field; sensitive ones are masked in the conflict.
    """
    known = info(type(read))
    fields = tuple(name for name in yours if getattr(theirs, name, None) != getattr(read, name, None))
    masked: dict[str, Any] = {name: Secret(MASK * 6) for name in fields if known.fields[name].klass == "sensitive"}
    stored = {name: getattr(theirs, name) for name in fields}
    return Conflict(known.type, read.id, fields, stored, {name: yours[name] for name in fields} | masked)


def _refuse_twins(drafts: Iterable[Draft]) -> None:
    """Refuse two drafts with the same unique value before the first batch is written."""
    seen: dict[tuple[str, str, Any], int] = {}
    for number, draft in enumerate(drafts, 1):
        known = info(draft.record_type)
        for name in ("id", *(spec.name for spec in known.fields.values() if spec.unique)):
            if name in draft.doc:
                first = seen.setdefault((known.plural, name, draft.doc[name]), number)
                if first != number:
                    raise Invalid({name: f"is the same in records {first} and {number}"}, known.type)
