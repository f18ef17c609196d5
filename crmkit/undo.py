"""Undo: what was done under one cause is taken back in one commit, which has a history itself and can be undone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crmkit.codec import REMOVED, RecordCodec
from crmkit.commits import Commit, Committer
from crmkit.drafts import Draft, Drafter
from crmkit.errors import ChangedSince, Invalid, NotFound, Refused
from crmkit.history import Batch, HistoryEntry, Undone, made_before, unwound
from crmkit.links import references, referring

if TYPE_CHECKING:
    from crmkit.store.base import Step, Store

Key = tuple[str, str]
"""A collection and an id."""


@dataclass(frozen=True)
class Done:
    """What is to be undone: its steps by record id, newest first, and whether that was done before."""

    steps: Mapping[str, list[Step]]
    is_undone: bool


class Undo:
    """Takes back what was done in one store.

    Args:
        store: Where records and their log are.
        codec: Opens before-images.
        committer: Writes the result.
    """

    def __init__(self, store: Store, codec: RecordCodec, committer: Committer) -> None:
        self._store = store
        self._codec = codec
        self._committer = committer

    def undo(self, what: Commit | Batch | HistoryEntry | str, *, skip_changed: bool) -> Commit:
        """Take back what was done under one cause; see `CRM.undo`."""
        cause = _cause(what)
        done = self._done(cause)
        drafts, changed = self._drafts(done.steps)
        if changed and not skip_changed:
            if done.is_undone and not drafts:
                raise Refused("it is undone already; undo that undo to bring it back")
            raise ChangedSince(changed, f"{_counted(changed)} changed since")
        while skip_changed and (needed := {key for key, _ in self._missed(drafts)}):
            drafts = {key: draft for key, draft in drafts.items() if key not in needed}
        if not drafts:
            raise Refused("nothing is left to undo: all of it was changed since, or is referred to")
        return self._committer.write_alone(
            list(drafts.values()), "undo", None, lambda: self._refuse_missed(drafts), undoes=cause
        )

    # ------------------------------------------------------------------ parts

    def _done(self, cause: str) -> Done:
        """Read what was done under a cause."""
        steps: dict[str, list[Step]] = {}
        undone = Undone()
        for logged in self._store.commits(newest_first=True):
            undone.note(logged)
            if logged.meta.get("cause") == cause:
                for step in reversed(logged.steps):
                    steps.setdefault(step.id, []).append(step)
            elif made_before(logged, cause):
                break
        if not steps:
            raise NotFound("nothing was done under the id that was given; crm.batches() lists what can be undone")
        return Done(steps, cause in undone)

    def _drafts(self, done: Mapping[str, list[Step]]) -> tuple[dict[Key, Draft], list[Key]]:
        """Return the drafts that undo some steps, and what cannot be because it was changed since."""
        drafters = {drafter.info.plural: drafter for drafter in self._committer.drafters.values()}
        drafts: dict[Key, Draft] = {}
        changed: list[Key] = []
        for id, steps in done.items():
            drafter = _drafter(drafters, steps)
            doc = self._store.get(steps[0].to, id)
            was = None if doc is None else self._before(steps, dict(doc))
            if doc is None or was is None:
                changed.append((drafter.info.type, id))
            elif was[1] is not None or not steps[0].to.endswith(REMOVED):  # else it was added, and is removed already
                draft = _draft(drafter, steps[0].to, dict(doc), *was)
                drafts[draft.key] = draft
        return drafts, changed

    def _before(self, steps: Iterable[Step], doc: dict[str, Any]) -> tuple[str, dict[str, Any] | None] | None:
        """Return where a document was before some steps, and how: empty place and None for one that was added.

        None where something else was done to the document after the first of them.
        """
        place = ""
        now: dict[str, Any] | None = doc
        for number, step in enumerate(steps):
            before = step.before or {}
            if now is None or now["rev"] != before.get("rev", 0) + 1 or (number and place != step.to):
                return None
            was = unwound(self._codec, step, now)
            place, now = was or ("", None)
        return place, now

    def _refuse_missed(self, drafts: Mapping[Key, Draft]) -> None:
        missed = list(self._missed(drafts))
        if missed:
            records = list(dict.fromkeys(by for _, by in missed))
            raise ChangedSince(records, f"{_counted(records)} came to refer to what would be taken away")

    def _missed(self, drafts: Mapping[Key, Draft]) -> Iterator[tuple[Key, Key]]:
        """Yield (collection and id, type and id that refers to it) for what others would miss."""
        known = {drafter.info.type: drafter.info for drafter in self._committer.drafters.values()}
        going: dict[str, set[str]] = {}
        for (plural, id), draft in drafts.items():
            if draft.action == "remove":
                going.setdefault(plural, set()).add(id)
        for each in known.values():
            ids = going.get(each.plural, set())
            for by, collection, doc in referring(self._store, known.values(), each.type, ids) if ids else ():
                draft_of_it = drafts.get((by.plural, doc["id"]))
                if collection.endswith(REMOVED) or (draft_of_it is not None and draft_of_it.action == "remove"):
                    continue
                later = doc if draft_of_it is None else draft_of_it.doc
                for spec in by.fields.values():
                    for _, _, id in references(spec, later.get(spec.name)):
                        if id in ids:
                            yield (each.plural, id), (by.type, doc["id"])


def _draft(drafter: Drafter, place: str, doc: dict[str, Any], where: str, was: dict[str, Any] | None) -> Draft:
    """Return the draft that brings a document back to where and how it was."""
    if was is None:
        return drafter.move("remove", doc)
    return drafter.revert(doc, was, removed=place.endswith(REMOVED), to_removed=where.endswith(REMOVED))


def _drafter(drafters: Mapping[str, Drafter], steps: list[Step]) -> Drafter:
    """Return who drafts the record of some steps.

    Raises:
        Refused: Its type is not known here, or what it was is not.
    """
    collection = steps[0].collection.removesuffix(REMOVED)
    if collection not in drafters:
        raise Refused(f"{collection} cannot be undone: the plugin of their type is not here")
    for step in steps:
        if step.before is None:
            raise Refused("this was saved by a version of crmkit that kept no history; it cannot be undone")
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
    return "1 record was" if len(records) == 1 else f"{len(records):,} records were"
