"""The one read path: a store that shows what whoever acts may see, and nothing else.

A record is seen by everybody, by the team of its owner, or by its owner only, as its field `visible_to` says; what is
about a customer whom somebody does not see is not seen by that person either. How a record is visible now decides
about all of its past: what is hidden now is hidden in every version, and what is shown now is shown in every version.

It is cooperative: whoever holds the keys and writes Python is not stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crmkit.codec import REMOVED
from crmkit.query import And, Compare, Condition, Find, Has, In, Not, Or, Page
from crmkit.store.base import Change, Doc, Logged, Requirement, Step, Store, Write
from crmkit.store.evaluate import Predicate, predicate

if TYPE_CHECKING:
    from crmkit.schema import RecordInfo
    from crmkit.store.tiny import TinyStore

FIELD, OWNER = "visible_to", "owner"
TEAM, PRIVATE = "team", "private"
CUSTOMERS = "customers"  # the collection of those whom records are about
_UNKNOWN_TYPE = {"customer": "reference"}  # what a record of an absent plugin is most likely about


class Visible(Store):
    """Shows of a store what the actor of the moment may see; what is written goes through as it is.

    Which records are not for everybody is found out once and then kept up to date by the changes of the store, so that
    it costs next to nothing where there are none.

    Args:
        store: Where everything is.
        actor: Returns who acts.
        mates: Returns who shares a team with somebody, that person included.
        use: Told that somebody reads or writes; raises `Locked` where the workspace is.
    """

    def __init__(
        self,
        store: TinyStore,
        actor: Callable[[], str],
        mates: Callable[[str], frozenset[str]],
        use: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._use = use
        self._actor = actor
        self._mates = mates
        self._about: dict[str, dict[str, str]] = {}  # plural -> the fields that name its customers -> their kinds
        self._seq = -1
        self._limited: dict[str, dict[str, tuple[str, str | None]]] = {}  # collection -> id -> (visible to, owner)
        self._hidden: dict[tuple[str, str], tuple[Condition, Predicate] | None] = {}  # by collection and actor
        self._open: set[str] = set()  # collections of which nothing is hidden from anybody
        self._any: bool | None = None  # whether anything is not meant for everybody; None: to be found out
        self._version = 0

    def know(self, known: RecordInfo) -> None:
        """Learn of a record type."""
        named = (known.subject, *known.subjects) if known.subject else known.subjects
        self._about[known.plural] = {name: known.fields[name].kind for name in named}
        self._begin_anew()

    # ------------------------------------------------------------------ what is asked of it besides

    def view(self) -> object:
        """Return what changes whenever somebody else looks, or something else is hidden; None where all see all."""
        self._use()
        with self._store.reading():
            return (self._actor(), self._version) if self._is_limited() else None

    def shows(self, collection: str, doc: Mapping[str, Any]) -> bool:
        """Return whether a document, as it is given, may be seen."""
        self._use()
        with self._store.reading():
            hidden = self._hides(collection)
            return hidden is None or not hidden[1](doc)

    def hides(self, collection: str, id: str) -> bool:
        """Return whether there is such a document, removed or not, that may not be seen."""
        self._use()
        plural = collection.removesuffix(REMOVED)
        with self._store.reading():
            return any(self._is_hidden(place, id) for place in (plural, plural + REMOVED))

    def hides_any(self, id: str) -> bool:
        """Return whether a document with this id, whatever its collection, may not be seen."""
        self._use()
        with self._store.reading():
            return self._is_limited() and any(self._is_hidden(place, id) for place in self._store.tables())

    def _is_hidden(self, place: str, id: str) -> bool:
        hidden = self._hides(place)
        doc = None if hidden is None else self._store.get(place, id)
        return hidden is not None and doc is not None and hidden[1](doc)

    def count_hidden(self, collection: str) -> int:
        """Return how many documents may not be seen."""
        self._use()
        with self._store.reading():
            hidden = self._hides(collection)
            return 0 if hidden is None else self._store.count(collection, hidden[0])

    def whole(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return one document, whoever may see it: only for what the actor is just writing."""
        self._use()
        return self._store.get(collection, id)

    # ------------------------------------------------------------------ reading

    def get(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return one document, or None."""
        self._use()
        doc = self._store.get(collection, id)
        if doc is None:
            return None
        hidden = self._hides(collection)  # after the document was read: what is known is not older
        return doc if hidden is None or not hidden[1](doc) else None

    def find(self, find: Find) -> Page[Mapping[str, Any]]:
        """Return one page of the documents that a condition accepts."""
        self._use()
        with self._store.reading():
            return self._store.find(replace(find, where=self._shown(find.collection, find.where)))

    def count(self, collection: str, where: Condition | None = None) -> int:
        """Return how many documents a condition accepts."""
        self._use()
        with self._store.reading():
            if where is None:  # those that are hidden are looked up in indexes
                return self._store.count(collection) - self.count_hidden(collection)
            return self._store.count(collection, self._shown(collection, where))

    def scan(self, collection: str, fields: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Return an iterator over every document as of the call."""
        self._use()
        with self._store.reading():
            hidden = self._hides(collection)
            if hidden is None:
                return self._store.scan(collection, fields)
            more = (FIELD, OWNER, *self._named_in(collection))
            docs = self._store.scan(collection, None if fields is None else tuple(dict.fromkeys((*fields, *more))))
            return (doc for doc in docs if not hidden[1](doc))

    def having(self, collection: str, field: str) -> list[Mapping[str, Any]]:
        """Return the documents that have a plain field."""
        self._use()
        with self._store.reading():
            return [doc for doc in self._store.having(collection, field) if self.shows(collection, doc)]

    def match(
        self,
        collection: str,
        words: Sequence[str],
        limit: int,
        *,
        near: bool = False,
        where: Condition | None = None,
    ) -> list[Mapping[str, Any]]:
        """Return documents whose derived text holds every word; see `Store.match`."""
        self._use()
        with self._store.reading():
            return self._store.match(collection, words, limit, near=near, where=self._shown(collection, where))

    def seq(self) -> int:
        """Return the sequence number of the newest commit."""
        self._use()
        return self._store.seq()

    def changes(self, since: int) -> list[Change]:
        """Return what was changed after commit `since`, oldest first."""
        self._use()
        with self._store.reading():
            changes = self._store.changes(since)
            if not self._is_limited():
                return changes
            return [change for change in changes if not self.hides(change.collection, change.id)]

    def commits(
        self, since: int = 0, *, about: str | None = None, under: str | None = None, newest_first: bool = False
    ) -> Iterator[Logged]:
        """Return an iterator over the commits; a commit of which nothing may be seen is left out."""
        self._use()
        with self._store.reading():
            commits = self._store.commits(since, about=about, under=under, newest_first=newest_first)
            if not self._is_limited():
                return commits
            actor = self._actor()
            return (shown for logged in commits if (shown := self._told(logged, actor)) is not None)

    def reading(self) -> AbstractContextManager[None]:
        """Keep everything that this thread reads as of one commit, while the block runs."""
        self._use()
        return self._store.reading()

    def collections(self) -> list[str]:
        """Return the names of the collections."""
        self._use()
        return list(self._store.tables())

    # ------------------------------------------------------------------ what goes through

    def register(
        self,
        collection: str,
        *,
        unique: Sequence[str] = (),
        text: Callable[[Doc], str] | None = None,
        lazy: bool = False,
    ) -> None:
        """Make a collection known."""
        self._store.register(collection, unique=unique, text=text, lazy=lazy)

    def commit(self, writes: Sequence[Write], meta: Mapping[str, Any], requires: Sequence[Requirement] = ()) -> int:
        """Write all or nothing, durably."""
        self._use()
        return self._store.commit(writes, meta, requires)

    def compact(self) -> bool:
        """Write what is stored anew."""
        self._use()
        return self._store.compact()

    def lock(self) -> AbstractContextManager[None]:
        """Hold the write lock of the workspace."""
        self._use()
        return self._store.lock()

    def verify(self) -> list[str]:
        """Read everything on disk again and return the problems found."""
        self._use()
        return self._store.verify()

    def rewrite_history(self, change: Callable[[Step], Mapping[str, Any]]) -> int:
        """Replace before-images in all of the history."""
        self._use()
        return self._store.rewrite_history(change)

    def forget(self) -> None:
        """Drop every document from memory."""
        self._store.forget()

    def close(self) -> None:
        """Release files and forget every document."""
        self._store.close()

    # ------------------------------------------------------------------ what is hidden

    def _shown(self, collection: str, where: Condition | None) -> Condition | None:
        """Return a condition that only what may be seen meets."""
        hidden = self._hides(collection)
        if hidden is None:
            return where
        return Not(hidden[0]) if where is None else And((where, Not(hidden[0])))

    def _hides(self, collection: str, actor: str | None = None) -> tuple[Condition, Predicate] | None:
        """Return the condition that hidden documents of a collection meet, also as a predicate; None for none."""
        if self._store.taken_in != self._seq:
            self._catch_up()
        if collection in self._open:
            return None
        whose = collection, actor or self._actor()
        try:
            return self._hidden[whose]
        except KeyError:
            with self._store.reading():
                if not self._may_hide(collection):
                    self._open.add(collection)
                    return None
                condition = self._condition(*whose)
                found = None if condition is None else (condition, predicate(condition))
                self._hidden[whose] = found
                return found

    def _may_hide(self, collection: str) -> bool:
        """Return whether a document of a collection may be hidden from anybody; what crmkit keeps for itself is not."""
        about = (CUSTOMERS, CUSTOMERS + REMOVED) if self._named_in(collection) else ()
        return not collection.startswith(".") and any(map(self._limits, (collection, *about)))

    def _condition(self, collection: str, actor: str) -> Condition | None:
        parts: list[Condition] = []
        if self._limits(collection):
            shared = And((Compare(FIELD, "==", TEAM), In(OWNER, tuple(self._mates(actor)))))
            parts.append(And((In(FIELD, (TEAM, PRIVATE)), Not(Or((Compare(OWNER, "==", actor), shared))))))
        ids = self._hidden_customers(actor)
        for name, kind in self._named_in(collection).items() if ids else ():
            parts.append(In(name, ids) if kind == "reference" else Or(tuple(Has(name, id) for id in ids)))
        return parts[0] if len(parts) == 1 else Or(tuple(parts)) if parts else None

    def _named_in(self, collection: str) -> Mapping[str, str]:
        """Return the fields that name the customers of a collection's records, with their kinds."""
        return self._about.get(collection.partition(".")[0], _UNKNOWN_TYPE)

    def _hidden_customers(self, actor: str) -> tuple[str, ...]:
        """Return the ids of the customers, removed ones included, whom somebody does not see."""
        mates = self._mates(actor)
        return tuple(
            id
            for collection in (CUSTOMERS, CUSTOMERS + REMOVED)
            for id, (to, owner) in self._limits(collection).items()
            if owner != actor and not (to == TEAM and owner in mates)
        )

    def _limits(self, collection: str) -> dict[str, tuple[str, str | None]]:
        """Return to whom documents of a collection are visible, and who owns them, for those not meant for all."""
        if collection not in self._limited:
            docs = self._store.having(collection, FIELD)
            self._limited[collection] = {doc["id"]: (doc[FIELD], doc.get(OWNER)) for doc in docs}
        return self._limited[collection]

    def _is_limited(self) -> bool:
        """Return whether anything at all is not meant for everybody."""
        if self._store.taken_in != self._seq:
            self._catch_up()
        if self._any is None:
            places = (name for name in self._store.tables() if not name.startswith("."))
            self._any = any(self._limits(collection) for collection in places)
        return self._any

    def _catch_up(self) -> None:
        """Take in what was written since; what is hidden from whom is found out again only where that changed it."""
        with self._store.reading():
            self._any = None
            for change in self._store.changes(self._seq) if self._limited else ():
                limits = self._limited.get(change.collection)
                if limits is None:
                    continue
                doc = self._store.get(change.collection, change.id)
                limit = (doc[FIELD], doc.get(OWNER)) if doc is not None and FIELD in doc else None
                if limits.get(change.id) != limit:
                    limits.pop(change.id, None)
                    if limit is not None:
                        limits[change.id] = limit
                    self._begin_anew()
            self._seq = self._store.taken_in

    def _begin_anew(self) -> None:
        self._hidden.clear()
        self._open.clear()
        self._any = None
        self._version += 1

    def _told(self, logged: Logged, actor: str) -> Logged | None:
        """Return a commit without the steps about what is hidden; None where nothing is left of it."""
        steps = tuple(step for step in logged.steps if not self._is_about_hidden(step, actor))
        if len(steps) == len(logged.steps):
            return logged
        return replace(logged, steps=steps) if steps else None

    def _is_about_hidden(self, step: Step, actor: str) -> bool:
        plural = step.collection.removesuffix(REMOVED)
        for place in (plural, plural + REMOVED):
            doc = self._store.get(place, step.id)
            if doc is not None:
                break
        hidden = self._hides(plural + REMOVED if doc is None else place, actor)
        return hidden is not None and hidden[1](doc or step.before)  # of what is gone for good, as it was then
