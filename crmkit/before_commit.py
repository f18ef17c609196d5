"""`crm_before_commit`: plugins adjust, add to or refuse what is about to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crmkit.contributions import Action, Change
from crmkit.drafts import Draft, Drafter
from crmkit.errors import Invalid, NotFound, Refused

if TYPE_CHECKING:
    from crmkit.codec import RecordCodec
    from crmkit.registry import Registry

HOOK = "crm_before_commit"
Key = tuple[str, str]

_asking: ContextVar[object] = ContextVar("whose plugins are being asked what they say to a commit", default=None)


class BeforeCommit:
    """Asks the plugins of one CRM.

    Args:
        crm: What plugins are passed.
        registry: The plugins.
        codec: Makes the records that they are shown.
        drafters: The drafter of each record type.
        stored: Returns the stored document of a record type and id.
    """

    def __init__(
        self,
        crm: Any,
        registry: Registry,
        codec: RecordCodec,
        drafters: Mapping[str, Drafter],
        stored: Callable[[str, str], Mapping[str, Any] | None],
    ) -> None:
        self._crm = crm
        self._registry = registry
        self._codec = codec
        self._drafters = drafters
        self._stored = stored

    def refuse_saving_inside(self) -> None:
        """Raise `Refused` where a plugin saves something while it is being asked."""
        if _asking.get() is self:
            raise Refused(f"{HOOK} must not save; return the changes that should be saved too")

    def ask(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Return the drafts as the plugins want them, each checked again; removed records are not their matter."""
        if not self._registry.has(HOOK):
            return list(drafts)
        hidden = [draft for draft in drafts if draft.is_removed]
        drafts = [draft for draft in drafts if not draft.is_removed]
        shown = {(change.type, change.id): change for change in (draft.change(self._codec) for draft in drafts)}
        drafted = dict(zip(shown, drafts, strict=True))
        said: dict[Key, tuple[str, Change]] = {}
        for plugin, call in self._registry.chain(HOOK, crm=self._crm):
            for change in self._answers(plugin, call, tuple(shown.values())):
                key = change.type, change.id
                if shown.get(key) is change:  # returned as it was shown
                    continue
                shown[key], said[key] = change, (plugin, change)
        for key, (plugin, change) in said.items():
            adjusted = self._adjusted(plugin, drafted.get(key), change)
            if adjusted is None:
                drafted.pop(key, None)
            else:
                drafted[key] = adjusted
        return [*drafted.values(), *hidden]

    def _answers(self, plugin: str, call: Callable[..., Any], changes: tuple[Change, ...]) -> tuple[Change, ...]:
        token = _asking.set(self)
        try:
            answer = call(changes=changes)
            given = tuple(answer) if isinstance(answer, Iterable) else answer
        finally:
            _asking.reset(token)
        if given is None:
            return ()
        if not isinstance(given, tuple) or not all(isinstance(change, Change) for change in given):
            raise Invalid({HOOK: f"{plugin} must return changes, or None"})
        return given

    def _adjusted(self, plugin: str, draft: Draft | None, change: Change) -> Draft | None:
        """Return the draft that a plugin's answer makes; None where nothing is left to write."""
        if draft is None:
            return self._added(plugin, change)
        if draft.action != change.action or draft.record is None:
            raise Invalid({change.type: f"{plugin} cannot adjust a {draft.action}; add a change of another record"})
        before = draft.change(self._codec).fields
        differing = {name: value for name, value in change.fields.items() if before.get(name, draft) is not value}
        later = self._drafters[change.type].update(draft.doc, differing)
        return draft if later is None else joined(draft, later)

    def _added(self, plugin: str, change: Change) -> Draft | None:
        drafter = self._drafters.get(change.type)
        if drafter is None:
            raise Invalid({"type": f"{plugin} added a change of {change.type!r}, which is not a record type"})
        doc = self._stored(change.type, change.id)
        if change.action == "add":
            return drafter.add({**change.fields, "id": change.id})
        if doc is None:
            raise NotFound(f"{plugin} added a change of {change.type} {change.id}, which is not there")
        if change.action == "update":
            return drafter.update(doc, change.fields)
        if change.action == "remove":
            return drafter.move("remove", doc)
        raise Invalid({"action": f"{plugin} cannot {change.action} a record here"})


def joined(first: Draft, second: Draft) -> Draft | None:
    """Return two drafts of one record as one, against what is stored; None where they cancel each other.

    Raises:
        Invalid: The second adds a record that the first has already.
    """
    action: Action = second.action
    match first.action, second.action:
        case _, "add":
            raise Invalid({"id": "is taken by another record of this transaction"})
        case "add" | "restore", "remove":
            return None
        case "remove", "restore":
            return replace(first, action="update") if first.changed else None
        case "add" | "restore", "update":
            action = first.action
    changed = tuple(dict.fromkeys((*first.changed, *second.changed)))
    before = first.before
    if action == "update" and before is not None and all(second.doc.get(n) == before.get(n) for n in changed):
        return None
    doc = {**second.doc, "rev": first.doc["rev"]}
    return Draft(second.record_type, action, doc, first.expect, before, first.was, second.record, changed)
