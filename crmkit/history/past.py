"""The time machine: the records as they were at an instant, read-only."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from crmkit.binding import Binder
from crmkit.codec import RecordCodec
from crmkit.errors import Invalid, NotFound, Refused
from crmkit.history.versions import Key, Version, backwards, current, key
from crmkit.query import ALL, Condition, Find, check_limit, parse_order
from crmkit.records import Record, now
from crmkit.schema import info
from crmkit.search import search_text, search_words
from crmkit.store.documents import Documents
from crmkit.store.plan import find_page
from crmkit.values import instant_text

if TYPE_CHECKING:
    from crmkit.store.base import Doc, Logged, Step
    from crmkit.visibility import Visible

R = TypeVar("R", bound=Record)
Known = tuple[type[R], Binder]
"""A record type, and what binds conditions on it."""


class Past:
    """All records as they were at an instant; ``crm.at(instant).customers`` are the customers of then.

    Making one reads every commit since the instant, and keeps before-images in memory: it costs what happened since,
    whatever the size of the workspace. What is saved later does not change it.

    Args:
        store: Whose records.
        codec: Opens before-images.
        find_type: Returns a record type, given as class, name or plural, and its binder; raises `NotFound`.
        at: The instant.
        plurals: The names of the collections, for completion.

    Attributes:
        at: The instant.

    Raises:
        Invalid: The instant has no time zone, or is in the future.
    """

    def __init__(
        self,
        store: Visible,
        codec: RecordCodec,
        find_type: Callable[[Any], Known[Any]],
        at: datetime,
        plurals: Iterable[str] = (),
    ) -> None:
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise Invalid({"instant": "must be a time with a time zone: datetime(2026, 11, 16, tzinfo=crm.zone)"})
        if at > now():
            raise Invalid({"instant": "is in the future; what will be is not known"})
        self.at = at
        self._store = store
        self._codec = codec
        self._find_type = find_type
        self._plurals = tuple(plurals)
        self._seq, self._view = 0, store.view()
        self._steps: dict[Key, list[tuple[Logged, Step]]] = {}
        self._were: dict[Key, tuple[str, Doc] | None] = {}
        self._learn(self._since())

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._plurals]

    def __repr__(self) -> str:
        return f"<Past: the records as of {self.at.isoformat()}>"

    def __getitem__(self, which: type[R] | str) -> PastCollection[R]:
        """Return the records of one type, given as its class, name or plural.

        Raises:
            NotFound: No plugin contributes such a type.
        """
        return PastCollection(self, *self._find_type(which))

    def __getattr__(self, name: str) -> PastCollection[Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except NotFound as error:
            raise AttributeError(str(error)) from None

    def get(self, which: type[R] | str, id: str) -> R | None:
        """Return a record as it was, or None where there was none; `which` is its class, type or plural."""
        found: PastCollection[R] = self[which]
        return found.get(id)

    # ------------------------------------------------------------------ what the collections ask for

    def document(self, collection: str, id: str) -> Mapping[str, Any] | None:
        """Return a document as it was, or None."""
        doc = self._store.get(collection, id)  # before looking whether it is still as it was
        self._catch_up()
        if (collection, id) not in self._were:
            return doc
        was = self._were[collection, id]
        return was[1] if was is not None and was[0] == collection else None

    def documents(self, collection: str) -> Iterator[Mapping[str, Any]]:
        """Yield the documents of a collection as they were, in the order of their ids."""
        stored = list(self._store.scan(collection))
        self._catch_up()
        were = [was[1] for was in self._were.values() if was is not None and was[0] == collection]
        untouched = (doc for doc in stored if (collection, doc["id"]) not in self._were)
        yield from sorted((*untouched, *were), key=lambda doc: str(doc["id"]))

    def touched(self, collections: Container[str]) -> Iterator[tuple[Key, list[tuple[Logged, Step]]]]:
        """Yield which records of some collections were written since, in the order of their ids.

        With each comes every step about it, newest first.
        """
        self._catch_up()
        for place in sorted(self._steps, key=lambda place: (place[1], place[0])):
            if place[0] in collections:
                yield place, self._steps[place]

    def versions(self, steps: list[tuple[Logged, Step]]) -> Iterator[Version]:
        """Yield the versions of one of them, newest first."""
        return backwards(self._codec, current(self._store, steps[0][1]), steps)

    def record(self, record_type: type[R], doc: Mapping[str, Any]) -> R:
        """Return the record of a document."""
        record: R = self._codec.record(record_type, info(record_type).plural, doc)
        return record

    def opened(self, collection: str, doc: Mapping[str, Any], name: str) -> str:
        """Return the plain value of a sensitive field, for an exact match."""
        return str(self._codec.opened(collection, doc, name))

    # ------------------------------------------------------------------ parts

    def _since(self) -> list[Logged]:
        """Return the commits since the instant, newest first; remember the last one before."""
        text, since = instant_text(self.at), []
        for logged in self._store.commits(newest_first=True):
            if "at" in logged.meta and logged.meta["at"] <= text:
                self._seq = logged.seq
                break
            since.append(logged)
        return since

    def _catch_up(self) -> None:
        """Take in what was written since; begin anew where somebody else looks, or other things are hidden."""
        if self._view != (view := self._store.view()):
            self._view = view
            self._steps.clear()
            self._were.clear()
            self._learn(self._since())
        elif self._store.seq() != self._seq:
            self._learn([])

    def _learn(self, commits: list[Logged]) -> None:
        """Learn how everything was that some commits have written, newest first, and those made after them."""
        with self._store.reading():  # log and documents must be of one and the same time
            commits = [*self._store.commits(commits[0].seq if commits else self._seq, newest_first=True), *commits]
            new: dict[Key, list[tuple[Logged, Step]]] = {}
            for logged in commits:
                for step in reversed(logged.steps):
                    new.setdefault(key(step), []).append((logged, step))
            docs = {place: current(self._store, steps[0][1]) for place, steps in new.items()}
            seq = self._store.seq()
        for place, steps in new.items():
            if place not in self._were:
                *_, (_, _, _, self._were[place]) = backwards(self._codec, docs[place], steps)
            self._steps[place] = [*steps, *self._steps.get(place, ())]
        self._seq = seq


class PastCollection(Generic[R]):
    """The records of one type as they were at an instant.

    Args:
        past: The instant.
        record_type: The type.
        binder: Checks conditions.
    """

    def __init__(self, past: Past, record_type: type[R], binder: Binder) -> None:
        self._past = past
        self._type = record_type
        self._plural = info(record_type).plural
        self._binder = binder

    def __repr__(self) -> str:
        return f"<{self._plural} as of {self._past.at.isoformat()}>"

    def __len__(self) -> int:
        return sum(1 for _ in self._past.documents(self._plural))

    def __iter__(self) -> Iterator[R]:
        """Yield every record, in the order of their ids."""
        for doc in self._past.documents(self._plural):
            yield self._past.record(self._type, doc)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._past.document(self._plural, id) is not None

    def __getitem__(self, id: str) -> R:
        record = self.get(id)
        if record is None:
            raise NotFound(f"there was no such {info(self._type).type} then")
        return record

    def get(self, id: str) -> R | None:
        """Return the record with this id as it was, or None where there was none."""
        doc = self._past.document(self._plural, id)
        return None if doc is None else self._past.record(self._type, doc)

    def find(
        self, where: Condition | None = None, *, order: str | Sequence[str] | None = None, limit: int = ALL
    ) -> list[R]:
        """Return the records that met a condition; every record of then is looked at.

        Args:
            where: Made with `F`; None for all.
            order: A field name, or several; a minus sign in front means descending. The id always comes last.
            limit: The most records to return.

        Raises:
            Invalid: A field is unknown, a value does not fit it, or the limit is wrong.
        """
        check_limit(limit)
        bound, sealed = self._binder.condition(where)
        order_by, opened = self._binder.order(parse_order(order)), self._past.opened
        page = find_page(self._documents(), Find(self._plural, bound, order_by, ALL if sealed else limit))
        found = (doc for doc in page if all(opened(self._plural, doc, match.field) in match.values for match in sealed))
        return [self._past.record(self._type, doc) for doc in islice(found, limit)]

    def search(self, text: str, limit: int = 20) -> list[R]:
        """Return the records that matched what is being typed, as `Collection.search` does now.

        Raises:
            Invalid: The text is no text, or the limit is wrong.
        """
        check_limit(limit)
        words = search_words(text)
        if not words:
            return self.find(limit=limit)
        documents = self._documents()
        ids = documents.by_text().match(words, limit) or documents.by_word().near(words, limit)
        return [self._past.record(self._type, documents.by_id[id]) for id in ids]

    def _read_only(self, *_: object, **__: object) -> NoReturn:
        raise Refused(f"the past is read-only; change what is there now: crm.{self._plural}")

    add = add_many = update = remove = restore = merge = _read_only

    def _documents(self) -> Documents:
        """Return the documents of then in the form in which they are looked through."""
        documents = Documents()
        documents.text = search_text
        for doc in self._past.documents(self._plural):
            documents.put(dict(doc))
        return documents
