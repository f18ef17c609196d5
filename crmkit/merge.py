"""Merge: several records that turned out to be one become one, in one commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crmkit.codec import REMOVED, RecordCodec
from crmkit.commits import Commit, Committer, conflict
from crmkit.drafts import Draft, Drafter
from crmkit.errors import Conflict, Invalid, NotFound
from crmkit.fields import Secret
from crmkit.links import redirected, referring
from crmkit.query import ALL, Find, In
from crmkit.records import Record, id_of
from crmkit.schema import FieldSpec, RecordInfo, info

if TYPE_CHECKING:
    from crmkit.store.base import Store

MERGED = "_merged_into"  # in the document of a removed record: the id of the one that it became part of
CONTACTS = "contacts"  # the field that takes what a type has further mails and phones for
LABEL = "from the merged record"
Doc = Mapping[str, Any]


class Merger:
    """Merges records of one store.

    Args:
        store: Where they are.
        codec: Makes records, and opens what has to be sealed for somebody else.
        committer: Writes the result.
    """

    def __init__(self, store: Store, codec: RecordCodec, committer: Committer) -> None:
        self._store = store
        self._codec = codec
        self._committer = committer

    def merge(
        self, drafter: Drafter, winner: Record | str, losers: Iterable[Record | str], reason: str | None
    ) -> Commit:
        """Merge records of one type; see `Collection.merge`."""
        kept = self._doc(drafter, winner)
        given = tuple(losers) if isinstance(losers, Iterable) and not isinstance(losers, Record | str) else (losers,)
        lost = list({doc["id"]: doc for doc in (self._doc(drafter, loser) for loser in given)}.values())
        if not lost or any(doc["id"] == kept["id"] for doc in lost):
            raise Invalid({"losers": "must be one or more other records than the winner"}, drafter.info.type)
        to = {doc["id"]: kept["id"] for doc in lost}
        full = _with_contacts(drafter.info, kept, lost)
        drafts = [self._winner(drafter, kept, full, to), *(self._loser(drafter, doc, to) for doc in lost)]
        drafts += self._others(drafter, to)

        def check() -> Conflict | None:
            """Return the conflict where somebody came to refer to a loser after the drafts were made."""
            drafted = {draft.doc["id"] for draft in drafts}
            late = ((other, doc["id"]) for other, _, doc in self._referring(drafter, to) if doc["id"] not in drafted)
            return next((Conflict(other, id) for other, id in late), None)

        meta = {"into": kept["id"], "merged": " ".join(to)}  # for the history
        return self._committer.write_alone(drafts, "merge", reason, check, **meta)

    # ------------------------------------------------------------------ parts

    def _doc(self, drafter: Drafter, given: Record | str) -> Doc:
        """Return the stored document of a record that is given, or of an id.

        Raises:
            NotFound: It is not there, or was removed or merged.
            Invalid: It is of another type.
            Conflict: Somebody saved it since it was read.
        """
        known = drafter.info
        if isinstance(given, Record) and info(type(given)).type != known.type:
            raise Invalid({"record": f"must be a {known.type}; records of two types cannot be merged"}, known.type)
        doc = self._store.get(known.plural, id_of(given))
        if doc is None:
            raise NotFound(f"there is no such {known.type} to merge; one that was removed has to be restored first")
        if isinstance(given, Record) and given.rev != doc["rev"]:
            raise conflict(given, self._codec.record(type(given), known.plural, doc), {})
        return doc

    def _winner(self, drafter: Drafter, kept: Doc, lost: Sequence[Doc], to: Mapping[str, str]) -> Draft:
        """Draft the winner with what it lacks; it is written even where it lacks nothing, so that nobody changes it."""
        draft = drafter.update(kept, self._gained(drafter, kept, lost, to))
        return draft or drafter.touch(kept)

    def _gained(self, drafter: Drafter, kept: Doc, lost: Sequence[Doc], to: Mapping[str, str]) -> dict[str, Any]:
        """Return the winner's fields that change: empty ones are filled, lists united, references to itself dropped."""
        gained: dict[str, Any] = {}
        for spec in drafter.info.fields.values():
            values = [_redirected(spec, doc.get(spec.name), to, kept["id"]) for doc in (kept, *lost)]
            values[1:] = [self._existing(spec, value) for value in values[1:]]
            value = _united(values)
            if (value or None) == (kept.get(spec.name) or None):
                continue
            if spec.klass == "sensitive":  # it was sealed for the loser, and has to be for the winner
                holder = lost[values.index(value) - 1]
                gained[spec.name] = Secret("", self._codec.opened(drafter.info.plural, holder, spec.name))
            else:
                gained[spec.name] = value and drafter.value(spec.name, value)
        return gained

    def _existing(self, spec: FieldSpec, value: Any) -> Any:
        """Return the value of a field of a loser without references to records that were removed."""
        target = self._committer.drafters.get(spec.target or "")
        if target is None or not value:
            return value
        if isinstance(value, list):
            return [each for each in value if self._store.get(target.info.plural, each)]
        return value if self._store.get(target.info.plural, value) else None

    def _loser(self, drafter: Drafter, doc: Doc, to: Mapping[str, str]) -> Draft:
        """Draft the way of a loser to the removed records, where it says what it was merged into."""
        draft = drafter.redirect(doc, to, is_removed=False)
        merged = {**draft.doc, MERGED: to[doc["id"]]}
        return Draft(draft.record_type, "remove", merged, draft.expect, doc, changed=draft.changed)

    def _others(self, drafter: Drafter, to: Mapping[str, str]) -> list[Draft]:
        """Draft everything else that leads to a loser, so that it leads to the winner."""
        known = drafter.info
        involved = {*to, *to.values()}
        drafts = {
            doc["id"]: self._committer.drafters[other].redirect(doc, to, is_removed=collection.endswith(REMOVED))
            for other, collection, doc in self._referring(drafter, to)
            if doc["id"] not in involved
        }
        earlier = self._store.find(Find(known.plural + REMOVED, In(MERGED, tuple(to)), (), ALL))
        for doc in earlier:  # what was merged into a loser before
            draft = drafts.get(doc["id"]) or drafter.redirect(doc, to, is_removed=True)
            draft.doc[MERGED] = to[doc[MERGED]]
            drafts[doc["id"]] = draft
        return list(drafts.values())

    def _referring(self, drafter: Drafter, to: Mapping[str, str]) -> Iterable[tuple[str, str, Doc]]:
        known = [each.info for each in self._committer.drafters.values()]
        for other, collection, doc in referring(self._store, known, drafter.info.type, tuple(to)):
            yield other.type, collection, doc


def _with_contacts(known: RecordInfo, kept: Doc, lost: Sequence[Doc]) -> list[Doc]:
    """Return the losers with their mail and phone among the further ones too, where the winner has others."""
    spec = known.fields.get(CONTACTS)
    kinds = {kind for part in spec.parts if part.name == "kind" for kind in part.choices} if spec else set()
    ways = [name for name in ("email", "phone") if name in kinds and name in known.fields]
    held = {_united([doc.get(name) for doc in (kept, *lost)]) for name in ways}
    held |= {row["value"] for doc in (kept, *lost) for row in doc.get(CONTACTS) or ()}
    full = []
    for doc in lost:
        more = [
            {"kind": name, "value": doc[name], "label": LABEL} for name in ways if doc.get(name, "") not in held | {""}
        ]
        held |= {row["value"] for row in more}
        full.append({**doc, CONTACTS: [*(doc.get(CONTACTS) or ()), *more]} if more else doc)
    return full


def _redirected(spec: FieldSpec, value: Any, to: Mapping[str, str], own: str) -> Any:
    """Return the stored value of a field of the winner without references to itself."""
    value = redirected(spec, value, to)
    if spec.kind == "reference" and value == own:
        return None
    return [each for each in value if each != own] if spec.kind == "references" and value else value


def _united(values: Sequence[Any]) -> Any:
    """Return the first value that is one; of lists, everything that is in any of them, once."""
    if not any(isinstance(value, list) for value in values):
        return next((value for value in values if value not in (None, "")), None)
    united: list[Any] = []
    for value in values:
        united += [item for item in value or () if item not in united]
    return united
