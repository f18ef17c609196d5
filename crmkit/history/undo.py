"""Undo: what was done under one cause is taken back in one commit, which has a history itself and can be undone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crmkit.codec import REMOVED, RecordCodec
from crmkit.commits import Commit, Committer
from crmkit.drafts import Draft, Drafter
from crmkit.errors import ChangedSince, Invalid, NotFound, Refused
from crmkit.history.entries import Batch, HistoryEntry
from crmkit.history.versions import Key, key, unwound
from crmkit.links import references, referring

if TYPE_CHECKING:
    from crmkit.store.base import Step, Store


@dataclass(frozen=True)
class Done:
    """What was done under one cause.

    Attributes:
        cause: Its id.
        steps: The steps by record, newest first.
        since: The number of the commit before the first one.
        reason: Why, or empty.
    """

    cause: str
    steps: Mapping[Key, list[Step]]
    since: int
    reason: str


class Undo:
    """Takes back what was done in one store.

    Args:
        store: Where records and their log are.
        codec: Opens before-images.
        committer: Writes the result.
        reason: Returns why a commit was made, from what is kept beside it.
    """

    def __init__(
        self, store: Store, codec: RecordCodec, committer: Committer, reason: Callable[[Mapping[str, Any]], str]
    ) -> None:
        self._store = store
        self._codec = codec
        self._committer = committer
        self._reason = reason

    def undo(self, what: Commit | Batch | HistoryEntry | str, *, skip_changed: bool) -> Commit:
        """Take back what was done under one cause; see `CRM.undo`."""
        done = self._done(_cause(what))
        drafts, changed = self._drafts(done.steps, {})
        if changed:  # perhaps only there and back, by an undo that was undone
            later = self._all_steps(done, changed)
            more, changed = self._drafts({key: done.steps[key] for key in later}, later)
            drafts |= more
        if changed and not skip_changed:
            if not drafts and self._is_undone(done.cause):
                raise Refused("it is undone already; undo that undo to bring it back")
            raise ChangedSince(self._named(changed), f"{_counted(changed)} changed since")
        seq = self._store.seq()
        since = self._changed(done.since)
        left_out = list(changed)
        while skip_changed and (needed := {key for key, _ in self._missed(drafts, since)}):
            drafts = {key: draft for key, draft in drafts.items() if key not in needed}
            left_out += sorted(needed)
        if not drafts:
            raise Refused("nothing is left to undo: all of it was changed since, or is referred to")

        def check() -> ChangedSince | None:
            return self._obstacle(drafts, since | self._changed(seq))

        reason = f"undo of: {done.reason}" if done.reason else None
        made = self._committer.write_alone(list(drafts.values()), "undo", reason, check, undoes=done.cause)
        return replace(made, left_out=self._named(left_out))

    # ------------------------------------------------------------------ parts

    def _named(self, records: Iterable[Key]) -> tuple[tuple[str, str], ...]:
        """Return the types and ids of records."""
        types = {drafter.info.plural: name for name, drafter in self._committer.drafters.items()}
        return tuple((types[plural], id) for plural, id in records)

    def _done(self, cause: str) -> Done:
        """Read what was done under a cause."""
        steps: dict[Key, list[Step]] = {}
        since, reason = 0, ""
        for logged in self._store.commits(under=cause, newest_first=True):
            if logged.meta.get("cause") == cause:
                if logged.meta.get("kind") == "erase":
                    raise Refused("an erasure cannot be undone")
                since, reason = logged.seq - 1, self._reason(logged.meta)
                for step in reversed(logged.steps):
                    steps.setdefault(key(step), []).append(step)
        if not steps:
            raise NotFound("nothing was done under the id that was given; crm.batches() lists what can be undone")
        return Done(cause, steps, since, reason)

    def _is_undone(self, cause: str) -> bool:
        """Return whether what was done under a cause was undone, and that undo was not."""
        metas = [logged.meta for logged in self._store.commits(under=cause)]
        undos = {meta["cause"] for meta in metas if meta.get("undoes") == cause}
        return any(not self._is_undone(each) for each in undos)

    def _changed(self, since: int) -> set[Key]:
        """Return the collections and ids of what was written after a commit."""
        return {(change.collection, change.id) for change in self._store.changes(since)}

    def _all_steps(self, done: Done, records: Iterable[Key]) -> dict[Key, list[tuple[bool, Step]]]:
        """Return every step of some records since something was done, newest first, and whether it was part of that."""
        steps: dict[Key, list[tuple[bool, Step]]] = {each: [] for each in records}
        for logged in self._store.commits(done.since, newest_first=True):
            for step in reversed(logged.steps):
                if key(step) in steps:
                    steps[key(step)].append((logged.meta.get("cause") == done.cause, step))
        for each in steps.values():
            while not each[-1][0]:  # done before, by somebody else
                each.pop()
        return steps

    def _drafts(
        self, done: Mapping[Key, list[Step]], all_steps: Mapping[Key, list[tuple[bool, Step]]]
    ) -> tuple[dict[Key, Draft], list[Key]]:
        """Return the drafts that undo some steps, and what cannot be because it was changed since."""
        drafters = {drafter.info.plural: drafter for drafter in self._committer.drafters.values()}
        drafts: dict[Key, Draft] = {}
        changed: list[Key] = []
        for record, own in done.items():
            drafter = _drafter(drafters, own)
            steps = all_steps.get(record) or [(True, step) for step in own]
            place = steps[0][1].to
            doc = self._store.get(place, record[1])
            was = None if doc is None else self._before(steps, dict(doc))
            if doc is None or was is None or (was[1] and self._codec.is_erased(was[0], was[1])):
                changed.append(record)
            elif was[1] is not None or not place.endswith(REMOVED):  # else it was added, and is removed already
                draft = _draft(drafter, place, dict(doc), *was)
                drafts[draft.key] = draft
        return drafts, changed

    def _before(
        self, steps: Sequence[tuple[bool, Step]], doc: dict[str, Any]
    ) -> tuple[str, dict[str, Any] | None] | None:
        """Return where a document was before the oldest of the steps to undo, and how; None and no place for nowhere.

        Args:
            steps: Its steps, newest first; those that are not to be undone may lead there and back only.
            doc: The document as it is.

        Returns:
            None where something else was changed after the oldest of the steps.
        """
        now: tuple[str, dict[str, Any] | None] = steps[0][1].to, doc
        there: tuple[str, dict[str, Any] | None] | None = None
        for is_own, step in steps:
            if now[1] is None or now[0] != step.to:
                return None
            if now[1]["rev"] != step.before.get("rev", 0) + 1:
                return None
            if not is_own:
                there = there or now
            elif there and _content(there) != _content(now):
                return None
            else:
                there = None
            now = unwound(self._codec, step, now[1]) or ("", None)
        return now

    def _obstacle(self, drafts: Mapping[Key, Draft], since: Collection[Key]) -> ChangedSince | None:
        """Return what to raise where others would miss something."""
        records = list(dict.fromkeys(by for _, by in self._missed(drafts, since)))
        return (
            ChangedSince(records, f"{_counted(records)} came to refer to what would be taken away") if records else None
        )

    def _missed(self, drafts: Mapping[Key, Draft], since: Collection[Key]) -> Iterator[tuple[Key, Key]]:
        """Yield (collection and id, type and id of what refers to it) for what others would miss.

        Args:
            drafts: The drafts, some of which take records away.
            since: What was written since; what referred to a record before may do so again.
        """
        known = {drafter.info.type: drafter.info for drafter in self._committer.drafters.values()}
        going: dict[str, set[str]] = {}
        for (plural, id), draft in drafts.items():
            if draft.action == "remove":
                going.setdefault(plural, set()).add(id)
        for each in known.values():
            ids = going.get(each.plural, set())
            for by, collection, doc in referring(self._store, known.values(), each.type, ids) if ids else ():
                place = by.plural, doc["id"]
                if collection.endswith(REMOVED) or place in drafts or place not in since:
                    continue
                for spec in by.fields.values():
                    for _, _, id in references(spec, doc.get(spec.name)):
                        if id in ids:
                            yield (each.plural, id), (by.type, doc["id"])


def _content(where: tuple[str, dict[str, Any] | None]) -> tuple[str, dict[str, Any]]:
    """Return where a document is, and all of it but what every write changes."""
    place, doc = where
    return place, {name: value for name, value in (doc or {}).items() if name not in ("rev", "updated_at")}


def _draft(drafter: Drafter, place: str, doc: dict[str, Any], where: str, was: dict[str, Any] | None) -> Draft:
    """Return the draft that brings a document back to where and how it was."""
    if was is None:
        return drafter.move("remove", doc)
    return drafter.revert(doc, was, removed=place.endswith(REMOVED), to_removed=where.endswith(REMOVED))


def _drafter(drafters: Mapping[str, Drafter], steps: list[Step]) -> Drafter:
    """Return who drafts the record of some steps.

    Raises:
        Refused: Its type is not known here, or it was deleted for good.
    """
    collection = steps[0].collection.removesuffix(REMOVED)
    if collection not in drafters:
        raise Refused(f"{collection} cannot be undone: the plugin of their type is not here")
    for step in steps:
        if step.action == "delete":
            raise Refused(f"{drafters[collection].info.type} {step.id} was deleted for good; that cannot be undone")
    return drafters[collection]


def _cause(what: object) -> str:
    """Return the cause that is named by a commit, a batch, an entry of a history, or its id."""
    match what:
        case Commit(id=str(cause)) | Batch(id=str(cause)) | HistoryEntry(cause=str(cause)) | str(cause):
            return cause
    raise Invalid({"what": "must be a commit, a batch, an entry of a record's history, or the id of one"})


def _counted(records: list[Key]) -> str:
    return "1 record" if len(records) == 1 else f"{len(records):,} records"
