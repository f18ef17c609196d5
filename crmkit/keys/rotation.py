"""Sealing anew what is stored, under new keys, while others go on working.

Documents go in batches, each of them one commit; then the history, newest step first, because whose key sealed a former
value is known from what came later. What is cut short goes on where it was when it is started again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crmkit.codec import SEALED, TAGS, FormerSubjects
from crmkit.errors import NAMED, Damaged, Erased, NotFound
from crmkit.keys.deeds import Deeds
from crmkit.records import new_id
from crmkit.store.base import ANY, NEW, Put, Reseal, Step
from crmkit.vault.blind_index import planned_bits

BATCH = 500  # documents
PASSES = 5  # at most: somebody else may put back what was sealed before
STATE = ".rotation"  # the collection that says how far a rotation is; a leading dot keeps it out of the feed

Progress = Callable[[str, float], None]
"""Told a step and how much of it is done, 0 to 1."""


@dataclass(frozen=True)
class Rotated:
    """What a rotation did.

    Attributes:
        scope: ``wrap``, ``data`` or ``index``; or ``seal``.
        documents: How many documents were sealed anew.
        steps: How many former values, each of one change, were sealed anew.
        left: How many values could not be, by collection: the plugin that knows them is not there, or they do not open.
    """

    scope: str
    documents: int = 0
    steps: int = 0
    left: Mapping[str, int] = field(default_factory=dict)


class Rotation:
    """Seals anew what a workspace holds.

    Args:
        deeds: What it is done with.
        progress: Told how far it is.
    """

    def __init__(self, deeds: Deeds, progress: Progress | None = None) -> None:
        self._deeds = deeds
        self._store, self._codec, self._vault = deeds.store, deeds.codec, deeds.vault
        self._progress = progress

    def data(self) -> Rotated:
        """Seal every value under a new data key of its subject."""
        with self._deeds.deed("rotate", "data"):
            state = self._store.get(STATE, "data")
            going_on = state is not None and not state["done"]
            generation = state["generation"] if state and going_on else self._vault.new_generation()
            after = tuple(state["after"]) if state and going_on else ("", "")
            self._vault.secret_settings.reseal()
        places = [place for place in self._places() if place > after]
        documents = self._reseal(places, {"generation": generation})
        past = self.past()
        for _ in range(PASSES):
            again = [place for place in self._places() if self._is_old(*place)]
            if not again:
                break
            documents += self._reseal(again, {"generation": generation})
        self._note({"generation": generation, "after": ["", ""], "done": True})
        unopened = Counter(collection for collection, id in self._places() for _ in self._unopened(collection, id))
        return Rotated("data", documents, past.steps, self._left(past.left + unopened))

    def index(self) -> Rotated:
        """Make a new tag for each value that exact search looks for, and destroy the key of the old tags.

        How long the new tags are is planned for the number of records that there are now.
        """
        with self._deeds.deed("rotate", "index"):
            if len([key for key in self._vault.keys if key.purpose == "bidx" and key.secret]) < 2:
                counts = Counter(collection for collection, _ in self._places())
                self._vault.rotate_index(planned_bits(max(counts.values(), default=0)))  # else one was cut short
        documents = 0
        for _ in range(PASSES):
            old = [place for place in self._places() if self._has_old_tag(*place)]
            if not old:
                break
            documents += self._reseal(old, {})
        with self._deeds.deed("retire", "the old key for exact search"):
            self._vault.retire_index()
        return Rotated("index", documents)

    def level(self, level: str) -> Rotated:
        """Bring everything to another seal level: personal values in documents, and where it rises in the history."""
        with self._deeds.deed("seal", level):
            self._vault.set_seal_level(level)
        documents = self._reseal(self._places(), None)
        if level == "sensitive":
            return Rotated("seal", documents)
        past = Past(self._deeds)
        steps = self._store.rewrite_history(past.sealed)
        left = [name for name in self._store.tables() if name not in self._codec.collections and name[0] != "."]
        if not left:  # which values of an absent plugin are personal, nobody knows
            with self._deeds.deed("seal", "all of it is sealed"):
                self._vault.all_is_sealed()
        return Rotated("seal", documents, steps, dict.fromkeys(left, 0))

    def past(self) -> Past:
        """Seal the former values anew that the history keeps, as long as there are old ones."""
        total = 0
        for _ in range(PASSES):
            past = Past(self._deeds)
            changed = self._store.rewrite_history(past.resealed)
            total += changed
            if not changed:
                break
        past.steps = total
        return past

    def not_done(self) -> str:
        """Return what is sealed under old keys still; empty where nothing is."""
        past = self.past()
        if left := self._left(past.left):
            return "of " + ", ".join(f"{name} {count:,}" for name, count in left.items())
        state = self._store.get(STATE, "data")
        if state is None or not state["done"]:
            return "no rotation of the data has come to its end"
        return self.put_back()

    def put_back(self) -> str:
        """Return which documents are sealed under old keys; empty where none is. It takes a second for many."""
        old = [f"{collection} {id}" for collection, id in self._places() if self._is_old(collection, id)]
        more = f" and {len(old) - NAMED:,} more" if len(old) > NAMED else ""
        return ", ".join(old[:NAMED]) + more

    # ------------------------------------------------------------------ parts

    def _places(self) -> list[tuple[str, str]]:
        """Return where every document is whose type is known, in order."""
        return sorted((name, str(doc["id"])) for name in self._codec.collections for doc in self._store.scan(name))

    def _reseal(self, places: list[tuple[str, str]], state: Mapping[str, Any] | None) -> int:
        done = 0
        for start in range(0, len(places), BATCH):
            batch = places[start : start + BATCH]
            with self._store.lock():
                self._vault.refresh()
                there = [Reseal(*place) for place in batch if self._stays(*place)]
                marks = [] if state is None else [self._state({**state, "after": list(batch[-1]), "done": False})]
                self._commit([*there, *marks] if there else [])
            done += len(there)
            if self._progress:
                self._progress("sealing anew", (start + len(batch)) / len(places))
        return done

    def _note(self, state: Mapping[str, Any]) -> None:
        with self._store.lock():
            self._commit([self._state(state)])

    def _state(self, state: Mapping[str, Any]) -> Put:
        name = "data" if "generation" in state else "index"
        expect = ANY if self._store.get(STATE, name) else NEW
        return Put(STATE, {"id": name, **state}, expect)

    def _commit(self, writes: list[Any]) -> None:
        self._store.commit(writes, {"actor": self._deeds.actor(), "cause": new_id(), "kind": "rotation"})

    def _stays(self, collection: str, id: str) -> bool:
        """Return whether a document is there, and of nobody whose erasure is not finished: that will be gone."""
        doc = self._store.get(collection, id)
        return doc is not None and not self._vault.erasures.at(self._codec.subject(collection, doc))

    def _is_old(self, collection: str, id: str) -> bool:
        """Return whether a document shows an envelope of an older generation; an undo may have put one back."""
        doc = self._store.get(collection, id)
        if doc is None:
            return False
        subject = self._codec.subject(collection, doc)
        return any(self._is_older(subject, text) for text in self._codec.envelopes(collection, doc).values())

    def _is_older(self, subject: str, sealed: str) -> bool:
        try:
            return self._vault.is_old(subject, sealed)
        except Damaged:  # what is no envelope needs no key
            return False

    def _unopened(self, collection: str, id: str) -> list[str]:
        doc = self._store.get(collection, id)
        return [] if doc is None else self._codec.unopened(collection, doc)

    def _has_old_tag(self, collection: str, id: str) -> bool:
        doc = self._store.get(collection, id)
        return doc is not None and any(not self._vault.is_current_tag(tag) for tag in doc.get(TAGS, {}).values())

    def _left(self, past: Mapping[str, int]) -> Mapping[str, int]:
        """Return what nobody here can open, by collection."""
        left = Counter(past)
        for name, documents in self._store.tables().items():
            if name not in self._codec.collections and not name.startswith("."):
                left[name] += sum(any(map(_is_sealed, doc.values())) for doc in documents.values())
        return {name: count for name, count in left.items() if count}


class Past:
    """Seals the former values of a history anew, from the newest step back.

    Args:
        deeds: What it is done with.

    Attributes:
        steps: How many steps got other values.
        left: How many could not be sealed anew, by collection.
    """

    def __init__(self, deeds: Deeds) -> None:
        self._store, self._codec, self._vault = deeds.store, deeds.codec, deeds.vault
        self._subjects = FormerSubjects(deeds.store, deeds.codec)
        self.steps = 0
        self.left: Counter[str] = Counter()

    def resealed(self, step: Step) -> Mapping[str, Any]:
        """Return what a step keeps of the document before it, under the newest keys."""
        if step.collection.startswith("."):
            return step.before
        if step.collection not in self._codec.collections:
            self.left[step.collection] += any(_is_sealed(value) for value in step.before.values())
            return step.before
        subject = self._subjects.before(step)
        fresh = {}
        for name, text in self._codec.envelopes(step.collection, step.before).items():
            try:
                if self._vault.is_old(subject, text):
                    fresh[name] = self._codec.resealed(step.collection, name, step.id, subject, text)
            except (Erased, NotFound):  # meanwhile
                continue
            except Damaged:
                self.left[step.collection] += 1
        return {**step.before, **fresh} if fresh else step.before

    def sealed(self, step: Step) -> Mapping[str, Any]:
        """Return what a step keeps of the document before it, with everything sealed that was in the clear."""
        if step.collection not in self._codec.collections:
            return step.before
        subject = self._subjects.before(step)
        try:
            fresh = self._codec.sealed_past(step.collection, step.before, step.id, subject)
        except (Erased, NotFound):
            return step.before
        return {**step.before, **fresh} if fresh else step.before


def _is_sealed(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(SEALED)
